//! Reconciliation against an independent list: what was sent twice, refused, skipped, still
//! waits, was deleted by hand or added by hand.

use super::{ARRIVAL, Site, holdfast, request, test_event};
use crate::support::collector::Collector;
use crate::support::judge::query_clickhouse;
use crate::support::raw::dispatch;
use crate::support::servers::{Kind, Server};
use crate::support::{Scratch, eventually};
use holdfast::dead_letters::{DeadLetter, DeadLetters};
use holdfast::event::parcel::Destination;
use holdfast::telemetry::Metrics;
use prost::Message as _;
use serde_json::Value as Json;
use std::collections::BTreeSet;
use std::path::Path;
use tokio_util::sync::CancellationToken;

fn total(report: &Json, sink: usize, what: &str) -> u64 {
    report["sinks"][sink]["total"][what].as_u64().unwrap()
}

fn ids(report: &Json, sink: usize, what: &str) -> BTreeSet<String> {
    let items = report["sinks"][sink][what].as_array().unwrap().iter();
    items
        .map(|item| item["event_id"].as_str().unwrap().to_owned())
        .collect()
}

async fn send(collector: &Collector, ids: &[String], timestamp: &str) {
    let events = ids.iter().map(|id| test_event(id, timestamp, "x"));
    let batch = request(events.collect());
    dispatch(&collector.address(), batch.encode_to_vec())
        .await
        .unwrap();
}

fn named(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|at| format!("{prefix}-{at}")).collect()
}

async fn sql(database: &Path, statement: &str) {
    let url = format!("sqlite://{}", database.display());
    let pool = sqlx::SqlitePool::connect(&url).await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement.to_owned()))
        .execute(&pool)
        .await
        .unwrap();
    pool.close().await;
}

/// A letter of one way out explains nothing of another's, and one that is given up is known for
/// good; one that was sent again without a row to show for it is not. Takes the two events that
/// ClickHouse misses.
async fn letters_explain(site: &Site, report: &Json) {
    let missing = report["sinks"][0]["missing"].as_array().unwrap();
    let letters = DeadLetters::new(&site.data_dir());
    let set_aside = async |way_out: &str, item: &Json| {
        let letter = DeadLetter {
            way_out: way_out.to_owned(),
            event_name: "TestEvent".to_owned(),
            reason: "of the test".to_owned(),
            host: report["host"].as_str().unwrap().to_owned(),
            seq: item["seq"].as_u64().unwrap(),
            indexes: item["index"].to_string(),
            content_type: String::new(),
            body: b"x".to_vec(),
            destination: Destination::Nowhere,
        };
        let (metrics, stop) = (Metrics::new(), CancellationToken::new());
        assert!(letters.keep(&letter, &metrics, &stop).await);
    };
    let counts = || {
        let report = site.ask("reconcile --json").json();
        let of = |sink| {
            let total = |what| total(&report, sink, what);
            [total("missing"), total("set_aside"), total("purged")]
        };
        [of(0), of(1)]
    };
    assert_eq!(counts(), [[2, 2, 0], [4, 2, 0]]);
    for item in missing {
        set_aside("sqlite", item).await;
    }
    assert_eq!(counts(), [[2, 2, 0], [4, 2, 0]], "of another way out");
    for item in missing {
        set_aside("clickhouse", item).await;
    }
    assert_eq!(counts(), [[0, 4, 0], [4, 2, 0]]);
    letters.close().await;
    // The second is given up; the first is said to be sent again, and has no row.
    let second = &missing[1]["seq"];
    let purge = format!(
        "UPDATE dead_letters SET state = iif(ingest_seq = {second}, 'purged', 'replayed') WHERE way_out = 'clickhouse'"
    );
    sql(&site.data_dir().join("dead_letters.sqlite"), &purge).await;
    assert_eq!(counts(), [[1, 2, 1], [4, 2, 0]]);
    std::fs::remove_file(site.data_dir().join("dead_letters.sqlite")).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reconcile_names_exactly_what_is_missing_and_what_is_extra() {
    let scratch = Scratch::new("reconcile_server");
    let mut clickhouse = Server::new(Kind::ClickHouse, &scratch);
    clickhouse.start().await;
    let more = format!(
        "[journal]\ngeneration_age = \"1s\"\n{}[sqlite]\n",
        clickhouse.clickhouse_section()
    );
    let mut site = Site::with_ways("reconciles", &more).await;
    let collector = &site.collector;
    send(collector, &named("once", 30), "1700000000000").await;
    // The same events in another request: one row each, and nothing is missing.
    send(collector, &named("twice", 20), "1700000000001").await;
    send(collector, &named("twice", 20), "1700000000001").await;
    // Refused by the rules: rows of error_events.
    send(collector, &[String::new(), "bad-time".to_owned()], "soon").await;
    for number in 0..30 {
        send(
            collector,
            &named(&format!("more{number}"), 10),
            "1700000000002",
        )
        .await;
    }
    collector.delivered("clickhouse", ARRIVAL).await;
    collector.delivered("sqlite", ARRIVAL).await;
    let whole = site.ask("reconcile --json --wait 20s");
    assert_eq!(whole.code, 0, "{whole:?}");
    let report = whole.json();
    for sink in 0..2 {
        assert_eq!(total(&report, sink, "events"), 30 + 40 + 2 + 300);
        assert_eq!(total(&report, sink, "rows"), 30 + 20 + 300);
        assert_eq!(total(&report, sink, "replaced"), 20);
        assert_eq!(total(&report, sink, "set_aside"), 2);
    }
    site.ask("reconcile").fits();

    // By hand: some rows go, one comes, one changes its origin.
    let database = site.data_dir().join("events.sqlite");
    sql(
        &database,
        "DELETE FROM events WHERE event_id IN ('once-3', 'twice-5', 'more7-9')",
    )
    .await;
    let delete = "ALTER TABLE events DELETE WHERE event_id IN ('once-4', 'more29-0') SETTINGS mutations_sync = 1";
    query_clickhouse(&clickhouse, delete).await.unwrap();
    sql(
        &database,
        "INSERT INTO events (event_id, event_name, event_timestamp, ingest_host, ingest_seq, ingest_index) \
         SELECT 'stranger', event_name, event_timestamp, ingest_host, 2, 77 FROM events LIMIT 1",
    )
    .await;
    let said = site.ask("reconcile --json");
    assert_eq!(said.code, 1, "{said:?}");
    let report = said.json();
    let set = |ids: &[&str]| ids.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
    assert_eq!(
        ids(&report, 0, "missing"),
        set(&["once-4", "more29-0"]),
        "{report}"
    );
    assert_eq!(ids(&report, 0, "extra"), set(&[]));
    assert_eq!(
        ids(&report, 1, "missing"),
        set(&["once-3", "twice-5", "more7-9"])
    );
    // Both requests of an event that is gone miss it.
    assert_eq!(total(&report, 1, "missing"), 4);
    assert_eq!(ids(&report, 1, "extra"), set(&["stranger"]));
    site.ask("reconcile").fits();
    // A part of the log by itself is right.
    let later = site.ask("reconcile --from 5 --json --sink sqlite");
    assert_eq!(
        ids(&later.json(), 0, "missing"),
        set(&["more7-9"]),
        "{later:?}"
    );

    // The log lets go of it: the receipts say the same, also without the service.
    eventually("the first generations are deleted", ARRIVAL, || async {
        let status = site.ask("status --json").json();
        status["oldest_seq"].as_u64() > Some(34)
    })
    .await;
    let after = site.ask("reconcile --json").json();
    assert_eq!(after["sinks"], report["sinks"]);
    assert!(site.collector.terminate().success());
    let detached = site.ask("reconcile --json");
    assert_eq!(detached.json()["sinks"], report["sinks"], "{detached:?}");

    letters_explain(&site, &report).await;

    // A receipt that is damaged is told, and one that is gone.
    let receipts = site.data_dir().join("receipts");
    let mut files: Vec<_> = std::fs::read_dir(receipts)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    files.sort();
    let first = files.first().unwrap();
    let mut bytes = std::fs::read(first).unwrap();
    bytes[30] ^= 1;
    std::fs::write(first, &bytes).unwrap();
    let damaged = site.ask("reconcile");
    assert_eq!(damaged.code, 1);
    assert!(damaged.fits().contains("UNKNOWN"), "{damaged:?}");
    std::fs::remove_file(first).unwrap();
    let by_time = site.ask("reconcile");
    assert!(
        by_time.fits().contains("UNKNOWN"),
        "it may be of this day: {by_time:?}"
    );
    let gone = site.ask("reconcile --from 1");
    assert_eq!(gone.code, 1);
    assert!(gone.fits().contains("UNKNOWN"), "{gone:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_may_keep_whole_seconds() {
    let scratch = Scratch::new("reconcile_seconds_server");
    let mut clickhouse = Server::new(Kind::ClickHouse, &scratch);
    clickhouse.start().await;
    let table = "CREATE TABLE holdfast.events (event_name String, event_timestamp DateTime, event_id String) \
                 ENGINE = ReplacingMergeTree ORDER BY (event_name, event_timestamp, event_id)";
    query_clickhouse(&clickhouse, table).await.unwrap();
    let site = Site::with_ways("reconcile_seconds", &clickhouse.clickhouse_section()).await;
    let collector = &site.collector;
    send(collector, &named("once", 30), "1700000000123").await;
    send(collector, &named("twice", 20), "1700000000001").await;
    send(collector, &named("twice", 20), "1700000000001").await;
    collector.delivered("clickhouse", ARRIVAL).await;
    let said = site.ask("reconcile --json --sink clickhouse --wait 20s");
    assert_eq!(said.code, 0, "{said:?}");
    let report = said.json();
    let total = ["rows", "replaced", "missing", "extra"].map(|what| total(&report, 0, what));
    assert_eq!(total, [50, 20, 0, 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nothing_is_known_of_may_be_of_any_time() {
    let site = Site::with_ways("reconcile_gap", "[journal]\ngeneration_age = \"1s\"\n").await;
    let mut since = String::new();
    // Each request in a generation of its own, and the second one leaves no receipt.
    for (number, next) in [(1, 2), (2, 3), (3, 4)] {
        if number == 2 {
            since = humantime::format_rfc3339_millis(std::time::SystemTime::now()).to_string();
        }
        send(
            &site.collector,
            &named(&format!("g{number}"), 5),
            "1700000000000",
        )
        .await;
        eventually("its generation is deleted", ARRIVAL, || async {
            site.ask("status --json").json()["oldest_seq"] == next
        })
        .await;
    }
    assert_eq!(
        site.ask(&format!("reconcile --since {since} --wait 20s"))
            .code,
        0
    );
    let receipts = std::fs::read_dir(site.data_dir().join("receipts")).unwrap();
    let mut files: Vec<_> = receipts.map(|e| e.unwrap().path()).collect();
    files.sort();
    assert_eq!(files.len(), 3, "{files:?}");
    std::fs::remove_file(&files[1]).unwrap();
    let said = site.ask(&format!("reconcile --since {since} --json"));
    assert_eq!(said.code, 1, "{said:?}");
    let unknown = &said.json()["unknown"];
    assert_eq!(
        (&unknown[0]["first"], &unknown[0]["end"]),
        (&2.into(), &3.into()),
        "{unknown}"
    );
    // At the end of what is known it is the same.
    std::fs::remove_file(&files[2]).unwrap();
    let said = site.ask(&format!("reconcile --since {since} --json"));
    assert_eq!(said.code, 1, "{said:?}");
    assert_eq!(said.json()["unknown"][0]["end"], 4, "{said:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_just_acknowledged_is_looked_for() {
    let site = Site::start("reconcile_fresh").await;
    // ClickHouse is nowhere, so that nothing is deleted; the files tell within a second.
    for round in 1..=5 {
        send(
            &site.collector,
            &named(&format!("f{round}"), 3),
            "1700000000000",
        )
        .await;
        let said = site.ask("reconcile --sink sqlite --json --wait 10s");
        assert_eq!(said.code, 0, "{said:?}");
        assert_eq!(total(&said.json(), 0, "rows"), 3 * round, "{said:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_of_an_empty_log_leave_nothing_unknown() {
    let mut site = Site::with_ways("reconcile_restarts", "").await;
    // A start that finds nothing to deliver may number its generations anew.
    for round in 1..=4 {
        let ids = named(&format!("r{round}"), 5);
        send(&site.collector, &ids, "1700000000000").await;
        site.collector.delivered("sqlite", ARRIVAL).await;
        let said = site.ask("reconcile --json --wait 10s");
        assert_eq!(said.code, 0, "round {round}: {said:?}");
        assert_eq!(total(&said.json(), 0, "rows"), 5 * round, "{said:?}");
        assert!(site.collector.terminate().success());
        site.collector.start().await;
        let said = site.ask("reconcile --json");
        assert_eq!(said.code, 0, "after restart {round}: {said:?}");
        assert_eq!(total(&said.json(), 0, "rows"), 5 * round, "{said:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_is_pending_and_what_was_skipped_is_purged() {
    let mut site = Site::start("reconcile_pending").await;
    // ClickHouse is nowhere: only SQLite is asked.
    send(&site.collector, &named("a", 10), "1700000000000").await;
    site.collector.delivered("sqlite", ARRIVAL).await;
    assert_eq!(site.ask("reconcile --sink sqlite").code, 0);
    let away = site.ask("reconcile");
    assert_eq!(away.code, 1, "{away:?}");
    assert!(away.err.contains("clickhouse"), "{away:?}");

    // SQLite is locked by another: what comes now waits.
    let database = site.data_dir().join("events.sqlite");
    let url = format!("sqlite://{}", database.display());
    let pool = sqlx::SqlitePool::connect(&url).await.unwrap();
    let mut lock = pool.acquire().await.unwrap();
    sqlx::raw_sql("BEGIN IMMEDIATE")
        .execute(&mut *lock)
        .await
        .unwrap();
    send(&site.collector, &named("b", 10), "1700000000000").await;
    send(&site.collector, &named("c", 5), "1700000000000").await;
    // The files of a running service are up to a second behind it.
    eventually("both show", ARRIVAL, || async {
        let said = site.ask("reconcile --sink sqlite --json");
        total(&said.json(), 0, "pending") == 15
    })
    .await;
    let waiting = site.ask("reconcile --sink sqlite --json");
    assert_eq!(waiting.code, 1, "{waiting:?}");
    assert_eq!(total(&waiting.json(), 0, "pending"), 15);
    assert_eq!(total(&waiting.json(), 0, "missing"), 0);
    assert!(
        site.ask("reconcile --sink sqlite")
            .fits()
            .contains("15 pending")
    );

    // One request is skipped: its events are purged, and no one misses them.
    site.collector.kill();
    sqlx::raw_sql("ROLLBACK").execute(&mut *lock).await.unwrap();
    drop(lock);
    pool.close().await;
    let cursor = site.data_dir().join("cursors/sqlite");
    let before = std::fs::read(&cursor).unwrap();
    let skip = format!(
        "journal skip --way sqlite --to 3 --apply --config {}",
        site.config().display()
    );
    assert_eq!(holdfast(&skip).code, 0);
    site.collector.start().await;
    site.collector.delivered("sqlite", ARRIVAL).await;
    let done = site.ask("reconcile --sink sqlite --json --wait 10s");
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(total(&done.json(), 0, "rows"), 15);
    assert_eq!(total(&done.json(), 0, "purged"), 10);
    assert!(site.collector.terminate().success());

    // The cursor is put back to before the skip: what was passed over waits again.
    std::fs::write(&cursor, before).unwrap();
    let back = site.ask("reconcile --sink sqlite --json").json();
    assert_eq!(
        (total(&back, 0, "pending"), total(&back, 0, "purged")),
        (10, 0)
    );
}
