//! `holdfast load` against a real collector and real databases, judged by queries of the
//! test's own; and what its judge says after rows were changed by hand.

use crate::support::Scratch;
use crate::support::cli::{Said, holdfast};
use crate::support::collector::Collector;
use crate::support::free_port;
use crate::support::judge::{postgres, query_clickhouse};
use crate::support::servers::{Kind, Server};
use serde_json::{Value as Json, json};

/// Events of the run: 20 calls of each of 3 connections at least, 5 events each.
const EVENTS: u64 = 60 * 5;

fn load(collector: &Collector, options: &str) -> Said {
    let config = collector.dir.join("holdfast.toml");
    holdfast(&format!(
        "load --to {} --config {} {options}",
        collector.address(),
        config.display()
    ))
}

async fn sql(server: &Server, statements: &str) {
    let pool = postgres(server).await;
    sqlx::raw_sql(sqlx::AssertSqlSafe(statements.to_owned()))
        .execute(&pool)
        .await
        .unwrap();
    pool.close().await;
}

fn table<'a>(said: &'a Json, sink: &str) -> &'a Json {
    let mut tables = said["check"]["tables"].as_array().unwrap().iter();
    tables.find(|table| table["sink"] == sink).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_says_exactly_what_is_missing_and_what_is_there_twice() {
    let scratch = Scratch::new("load");
    let mut clickhouse = Server::new(Kind::ClickHouse, &scratch);
    let mut database = Server::new(Kind::Postgres, &scratch);
    clickhouse.launch();
    database.launch();
    clickhouse.ready().await;
    database.ready().await;
    let more = format!(
        "{}\
         [postgres]\nurl = \"{}\"\n",
        clickhouse.clickhouse_section(),
        database.postgres_url(),
    );
    let mut collector = Collector::new(&scratch, &more);
    collector.start().await;

    let record = scratch.0.join("run.json");
    let run = format!(
        "--calls 60 --connections 3 --in-flight 6 --batch-events 5 --seed 7 --check --json --save {}",
        record.display()
    );
    let said = load(&collector, &run);
    assert_eq!(said.code, 0, "{said:?}");
    let document = said.json();
    assert_eq!(document["acked_events"], EVENTS, "{document}");
    assert_eq!(document["seed"], 7);
    assert!(document["latency_p50_us"].as_u64().unwrap() > 0);
    for sink in ["clickhouse", "postgres"] {
        let table = table(&document, sink);
        assert_eq!(table["rows"], EVENTS);
        assert!(table["visible_after_ms"].is_u64(), "{table}");
    }
    let count = "SELECT toUInt64(count()) AS n FROM events FINAL";
    let rows = query_clickhouse(&clickhouse, count).await.unwrap();
    assert_eq!(rows[0]["n"], EVENTS);

    // By hand: some rows go, and some are there once more.
    let id = |connection: usize, number: usize| {
        let run = document["run"].as_str().unwrap();
        json!(format!("{run}-{connection:04}-{number:010}"))
    };
    let text = |id: &Json| id.as_str().unwrap().to_owned();
    sql(
        &database,
        &format!(
            "DELETE FROM events WHERE event_id IN ('{}', '{}');
             CREATE TEMP TABLE again AS SELECT * FROM events WHERE event_id = '{}';
             UPDATE again SET event_timestamp = event_timestamp + interval '1 millisecond';
             INSERT INTO events SELECT * FROM again",
            text(&id(0, 3)),
            text(&id(2, 0)),
            text(&id(1, 1)),
        ),
    )
    .await;
    let [gone, twice, raw] = [id(1, 4), id(0, 2), id(2, 1)].map(|id| text(&id));
    for statement in [
        format!("ALTER TABLE events DELETE WHERE event_id = '{gone}' SETTINGS mutations_sync = 1"),
        "SYSTEM STOP MERGES holdfast.events".to_owned(),
        format!(
            "INSERT INTO events SELECT * REPLACE(event_timestamp + INTERVAL 1 MILLISECOND AS event_timestamp) \
             FROM events FINAL WHERE event_id = '{twice}'"
        ),
        // Readers do not see the second one of the same key.
        format!("INSERT INTO events SELECT * FROM events WHERE event_id = '{raw}'"),
    ] {
        query_clickhouse(&clickhouse, &statement).await.unwrap();
    }
    let again = format!("--check --check-timeout 0s --saved {}", record.display());
    let said = load(&collector, &format!("{again} --json"));
    assert_eq!(said.code, 1, "{said:?}");
    let document = said.json();
    let found = table(&document, "postgres");
    assert_eq!(found["rows"], EVENTS - 2 + 1);
    assert_eq!(found["missing"], 2);
    assert_eq!(found["missing_ids"], json!([id(0, 3), id(2, 0)]));
    assert_eq!(
        (&found["twice"], &found["twice_ids"]),
        (&json!(1), &json!([id(1, 1)]))
    );
    assert_eq!(found["raw_duplicate_rows"], Json::Null);
    let found = table(&document, "clickhouse");
    assert_eq!(found["rows"], EVENTS - 1 + 1);
    assert_eq!(
        (&found["missing"], &found["missing_ids"]),
        (&json!(1), &json!([gone]))
    );
    assert_eq!(
        (&found["twice"], &found["twice_ids"]),
        (&json!(1), &json!([twice]))
    );
    assert_eq!(found["raw_duplicate_rows"], 1);
    let said = load(&collector, &again);
    assert_eq!(said.code, 1, "{said:?}");
    let said = said.fits();
    for said_id in [&gone, &twice, &text(&id(2, 0))] {
        assert!(said.contains(said_id), "{said_id}: {said}");
    }

    // What is refused is told by its code, and is not sent again.
    assert_eq!(
        holdfast(&format!(
            "drain --config {}",
            collector.dir.join("holdfast.toml").display()
        ))
        .code,
        0
    );
    let said = load(
        &collector,
        "--calls 5 --connections 1 --in-flight 1 --check --json",
    );
    assert_eq!(said.code, 4, "{said:?}");
    let document = said.json();
    assert_eq!(
        (&document["acked_calls"], &document["check"]),
        (&json!(0), &Json::Null)
    );
    assert_eq!(document["refused"]["UNAVAILABLE"]["calls"], 5, "{document}");
    assert!(collector.terminate().success());
}

#[test]
fn load_without_a_collector_ends_at_once() {
    let nobody = holdfast(&format!("load --to http://127.0.0.1:{}", free_port()));
    assert_eq!(nobody.code, 4, "{nobody:?}");
    assert!(nobody.err.contains("connect to"), "{nobody:?}");
    for wrong in [
        "--connections 9 --in-flight 8",
        "--types Nothing",
        "--rate 0",
        "--saved x",
    ] {
        let said = holdfast(&format!("load {wrong}"));
        assert_eq!(said.code, 2, "{said:?}");
    }
}
