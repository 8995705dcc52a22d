//! An outage of RabbitMQ from the operator's chair: ten minutes without it at 2,000 events a
//! second, in a tenth of the time or less; seen in `status` at each step as it is; fresh
//! events at once when it is back, the backlog beside them; and nothing missing at the end.

use crate::outages::connected;
use crate::support::cli::holdfast;
use crate::support::collector::Collector;
use crate::support::judge::{judge_clickhouse, judge_postgres, query_clickhouse};
use crate::support::load::{self, Acked, Progress};
use crate::support::servers::{Server, Stack};
use crate::support::shop::Expected;
use crate::support::{Scratch, eventually, seed};
use holdfast::event::proto::event::EventOf;
use holdfast::event::proto::{Event, Events, Header, TestEvent};
use serde_json::{Value as Json, json};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Events of the outage: a minute's worth, or what is asked for (a campaign asks for ten).
fn outage_events() -> usize {
    std::env::var("HOLDFAST_TEST_OUTAGE_EVENTS").map_or(2_000 * 60, |text| {
        text.parse()
            .expect("HOLDFAST_TEST_OUTAGE_EVENTS is a number")
    })
}

/// Looks at the status during the outage.
const STEPS: usize = 5;

/// How soon a fresh event is in ClickHouse after the broker is back.
const FRESH_MAX: Duration = Duration::from_secs(2);

const ARRIVAL: Duration = Duration::from_secs(1200);

fn ask(collector: &Collector, verb: &str) -> crate::support::cli::Said {
    holdfast(&format!(
        "{verb} --config {}",
        collector.dir.join("holdfast.toml").display()
    ))
}

fn way(status: &Json) -> &Json {
    &status["ledger"]["ways"][0]
}

fn part<'a>(status: &'a Json, kind: &str, name: &str) -> &'a Json {
    let parts = status["parts"].as_array().unwrap();
    let is_it = |part: &&Json| part["kind"] == kind && part["name"] == name;
    parts.iter().find(is_it).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_is_seen_paced_and_accounted_for() {
    let scratch = Scratch::new("outage");
    let mut stack = Stack::start(&scratch).await;
    // Rows of single fresh events shall not wait for others.
    let consumer = "[[consumer]]\nqueue = \"grpc_clickhouse_event_q\"\nbatch_age = \"100ms\"\n";
    // Small generations, so that most of the log is gone when it is reconciled.
    let generations = "[journal]\ngeneration_bytes = \"4MiB\"\n";
    let config = format!("{generations}{}{consumer}", stack.config());
    let mut collector = Collector::new(&scratch, &config);
    collector.start().await;
    connected(&collector).await;
    stack.rabbitmq.settle_queues();
    stack.rabbitmq.kill();

    let acked = outage(&collector).await;
    let waiting = acked.rows.len() as u64;
    stack.rabbitmq.start().await;
    let fresh = fresh_events(&collector, &stack.clickhouse, waiting).await;

    // In the middle of it the collector is killed: what went ahead is not forgotten.
    let before = ask(&collector, "status --json").json();
    assert!(
        way(&before)["pending_events"].as_u64() > Some(0),
        "nothing is in the middle"
    );
    collector.kill();
    let left = ask(&collector, "status --json");
    assert_eq!(left.code, 3, "{left:?}");
    let ahead = way(&left.json())["ahead_requests"].as_u64().unwrap();
    assert!(ahead > 0, "{left:?}");
    let found = ask(&collector, "journal find fresh-0 --json").json();
    eprintln!("{ahead} requests are known to be ahead after a kill; {found}");
    collector.start().await;

    collector.delivered("rabbitmq", ARRIVAL).await;
    let done = ask(&collector, "status --json").json();
    assert_eq!(way(&done)["pending_events"], 0);
    let accepted = done["ledger"]["accepted"].as_object().unwrap().values();
    let accepted: u64 = accepted.map(|count| count.as_u64().unwrap()).sum();
    assert_eq!(accepted, waiting + fresh.len() as u64);
    assert_eq!(way(&done)["adds_up"], true);
    assert_eq!(way(&done)["ahead_requests"], 0, "the backlog got there");
    let mut rows = acked.rows;
    rows.extend(fresh);
    judge_clickhouse(&stack.clickhouse, &rows, ARRIVAL)
        .await
        .assert_complete("ClickHouse");
    judge_postgres(&stack.postgres, &rows, ARRIVAL)
        .await
        .assert_complete("Postgres");
    nothing_is_missing_until_rows_are_deleted(&collector, &stack, rows.len()).await;
    assert!(collector.terminate().success());
}

/// `reconcile` says complete; fifty rows are deleted by hand, and it names exactly them.
async fn nothing_is_missing_until_rows_are_deleted(
    collector: &Collector,
    stack: &Stack,
    events: usize,
) {
    let whole = ask(collector, "reconcile --wait 60s");
    eprintln!("{}", whole.fits());
    assert_eq!(whole.code, 0, "{whole:?}");
    let report = ask(collector, "reconcile --json").json();
    for (at, sink) in ["clickhouse", "postgres"].iter().enumerate() {
        let found = &report["sinks"][at];
        assert_eq!(found["sink"], *sink);
        assert_eq!(found["total"]["events"], events as u64, "{found}");
        assert_eq!(found["total"]["rows"], events as u64, "{found}");
    }
    let receipts = std::fs::read_dir(collector.data_dir().join("receipts"));
    let receipts = receipts.unwrap().count();
    eprintln!("{receipts} receipts of deleted generations");
    assert!(receipts > 2, "the log was read, and no receipts");

    let chosen = "SELECT event_id, event_name, toUInt64(ingest_seq) AS seq, \
                  toUInt64(ingest_index) AS index FROM events FINAL \
                  ORDER BY cityHash64(event_id, 7) LIMIT 50";
    let chosen = query_clickhouse(&stack.clickhouse, chosen).await.unwrap();
    let ids = chosen
        .iter()
        .map(|row| format!("'{}'", row["event_id"].as_str().unwrap()));
    let ids: Vec<_> = ids.collect();
    let delete = format!(
        "ALTER TABLE events DELETE WHERE event_id IN ({}) SETTINGS mutations_sync = 1",
        ids.join(", ")
    );
    query_clickhouse(&stack.clickhouse, &delete).await.unwrap();
    let said = ask(collector, "reconcile --json");
    assert_eq!(said.code, 1, "{said:?}");
    let report = said.json();
    let of = |row: &Json, id: &str, name: &str| {
        (
            row["seq"].as_u64().unwrap(),
            row["index"].as_u64().unwrap(),
            row[id].as_str().unwrap().to_owned(),
            row[name].as_str().unwrap().to_owned(),
        )
    };
    let deleted: BTreeSet<_> = chosen
        .iter()
        .map(|row| of(row, "event_id", "event_name"))
        .collect();
    let missing = report["sinks"][0]["missing"].as_array().unwrap().iter();
    let missing: BTreeSet<_> = missing.map(|row| of(row, "event_id", "event")).collect();
    assert_eq!(deleted.len(), 50);
    assert_eq!(missing, deleted, "exactly them");
    assert_eq!(report["sinks"][0]["total"]["extra"], 0);
    assert_eq!(
        report["sinks"][1]["total"]["missing"], 0,
        "Postgres has them"
    );
    let text = ask(collector, "reconcile").fits();
    eprintln!("{text}");
    assert!(
        text.contains("NOT COMPLETE: 50 missing in clickhouse"),
        "{text}"
    );
    assert_eq!(ask(collector, "reconcile --sink postgres").code, 0);
}

/// What comes in while RabbitMQ is away; the status is compared with it at each step.
async fn outage(collector: &Collector) -> Acked {
    eventually("rates are known", Duration::from_secs(20), || async {
        !ask(collector, "status --json").json()["rates"].is_null()
    })
    .await;
    let began = Instant::now();
    let mut all = Acked {
        rows: HashMap::new(),
        longest_wait: Duration::ZERO,
        failed_calls: 0,
    };
    let seed = seed();
    let each = outage_events() / STEPS;
    for step in 0..STEPS {
        let clients = 16 * step..16 * (step + 1);
        let acked = load::run_as(collector, seed, each, clients, Progress::default()).await;
        assert_eq!(acked.failed_calls, 0, "clients notice nothing");
        all.rows.extend(acked.rows);
        // Rates are of looks, one a second.
        eventually("the rate shows", Duration::from_secs(5), || async {
            let status = ask(collector, "status --json").json();
            status["rates"]["full_in_seconds"].is_u64()
        })
        .await;
        let before = began.elapsed().as_secs();
        let status = ask(collector, "status --json").json();
        let after = began.elapsed().as_secs();
        eprintln!(
            "step {step} after {:?}: {} pending, oldest {} s, {} requests/s, {} used",
            began.elapsed(),
            way(&status)["pending_events"],
            way(&status)["oldest_pending_age_seconds"],
            status["rates"]["accepted_requests_per_second"],
            status["disk"]["used_bytes"],
        );
        assert_eq!(status["state"], "serving");
        assert_eq!(way(&status)["pending_events"], ((step + 1) * each) as u64);
        assert_eq!(way(&status)["adds_up"], true);
        let oldest = way(&status)["oldest_pending_age_seconds"].as_u64().unwrap();
        assert!(
            (before.saturating_sub(3)..=after + 1).contains(&oldest),
            "{oldest} of {before} to {after}"
        );
        assert!(
            status["rates"]["accepted_requests_per_second"]
                .as_f64()
                .unwrap()
                > 0.0
        );
        assert!(status["rates"]["full_in_seconds"].as_u64().is_some());
        assert_eq!(way(&status)["rate"]["requests_per_second"], 0.0);
        assert!(way(&status)["rate"]["empty_in_seconds"].is_null(), "never");
        let rabbitmq = part(&status, "way_out", "rabbitmq");
        assert_eq!(rabbitmq["connected"], false);
        assert!(rabbitmq["trouble"]["text"].is_string(), "{rabbitmq}");
        let queue = part(&status, "consumer", "grpc_clickhouse_event_q");
        assert_eq!(queue["connected"], false);
        assert!(part(&status, "sink", "clickhouse")["trouble"].is_null());
        let text = ask(collector, "status").fits();
        assert!(text.contains("TROUBLE for"), "{text}");
    }
    all
}

/// Sends one event after the other, from the moment at which the broker is back, until one
/// is in ClickHouse; what was sent, and that the backlog was still there then.
async fn fresh_events(
    collector: &Collector,
    clickhouse: &Server,
    waiting: u64,
) -> HashMap<String, Expected> {
    let back = Instant::now();
    let mut client = collector.client();
    let mut sent = 0;
    let is_there = || async {
        let sql = "SELECT toUInt64(count()) AS n FROM events WHERE startsWith(event_id, 'fresh-')";
        let rows = query_clickhouse(clickhouse, sql).await.unwrap_or_default();
        rows.first().and_then(|row| row["n"].as_u64()) > Some(0)
    };
    let mut rows = HashMap::new();
    loop {
        let id = format!("fresh-{sent}");
        sent += 1;
        let request = request(&id);
        client.dispatch(request.0).await.unwrap();
        rows.insert(id, request.1);
        if is_there().await {
            break;
        }
        assert!(back.elapsed() < ARRIVAL, "nothing fresh came");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let took = back.elapsed();
    let status = ask(collector, "status --json").json();
    let pending = way(&status)["pending_events"].as_u64().unwrap();
    eprintln!("a fresh event was in ClickHouse after {took:?}; {pending} of {waiting} pending");
    assert!(pending > 0, "there is no backlog to go ahead of");
    assert!(took <= FRESH_MAX, "{took:?}");
    // And on, while the backlog is delivered beside them.
    let mut slowest = Duration::ZERO;
    let mut looks = 0;
    while looks < 10 {
        let id = format!("fresh-{sent}");
        sent += 1;
        let request = request(&id);
        let began = Instant::now();
        client.dispatch(request.0).await.unwrap();
        rows.insert(id.clone(), request.1);
        eventually("a fresh event is in ClickHouse", ARRIVAL, || async {
            let sql = format!("SELECT 1 FROM events WHERE event_id = '{id}'");
            let rows = query_clickhouse(clickhouse, &sql).await.unwrap_or_default();
            !rows.is_empty()
        })
        .await;
        let status = ask(collector, "status --json").json();
        let pending = way(&status)["pending_events"].as_u64().unwrap();
        if pending == 0 {
            break;
        }
        looks += 1;
        slowest = slowest.max(began.elapsed());
        if looks == 1 {
            let text = ask(collector, "status").fits();
            assert!(text.contains("went ahead of the backlog"), "{text}");
            assert!(text.contains("confirms take"), "{text}");
            eprintln!("{text}");
        }
    }
    eprintln!("{looks} more fresh events beside the backlog, the slowest after {slowest:?}");
    assert!(looks > 0, "the backlog was gone at once");
    rows
}

fn request(id: &str) -> (Events, Expected) {
    let timestamp_ms = holdfast::clock::now_ms();
    let event = Event {
        id: id.to_owned(),
        timestamp: timestamp_ms.to_string(),
        event_of: Some(EventOf::TestEvent(TestEvent {
            test_param1: "fresh".to_owned(),
            ..TestEvent::default()
        })),
        ..Event::default()
    };
    let header = Header {
        device_id: "fresh".to_owned(),
        ..Header::default()
    };
    let expected = Expected {
        name: "TestEvent".to_owned(),
        timestamp_ms,
        current_url: String::new(),
        header: Arc::new(json!({ "device_id": "fresh" }).as_object().unwrap().clone()),
        params: json!({ "testParam1": "fresh" }),
    };
    let request = Events {
        header: Some(header),
        events: vec![event],
    };
    (request, expected)
}
