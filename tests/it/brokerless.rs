//! Without a broker: nothing configured gives SQLite; configured sinks are fed from
//! the journal, each at its own pace.

use crate::support::collector::{Collector, binary, get};
use crate::support::judge::{judge_clickhouse, judge_postgres};
use crate::support::load::{self, Progress};
use crate::support::servers::{Kind, Server};
use crate::support::{Scratch, eventually, free_port, load_events, root, seed};
use std::process::{Command, Output};
use std::time::Duration;

const ARRIVAL: Duration = Duration::from_secs(300);

pub fn sqlite3(database: &std::path::Path, sql: &str) -> String {
    let output = asked(database, sql);
    assert!(output.status.success(), "{output:?}");
    answer(&output)
}

fn asked(database: &std::path::Path, sql: &str) -> Output {
    let output = Command::new("sqlite3").arg(database).arg(sql).output();
    output.expect("sqlite3 is installed by tests/run")
}

fn answer(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_configuration_a_dispatched_file_is_in_sqlite() {
    let scratch = Scratch::new("no_config");
    let (grpc, http) = (free_port(), free_port());
    let log = scratch.0.join("log");
    // Only the ports are set: the default ones may be in use on this machine.
    let environment = [
        (
            "HOLDFAST__GRPC__LISTEN".to_owned(),
            format!("127.0.0.1:{grpc}"),
        ),
        (
            "HOLDFAST__HTTP__LISTEN".to_owned(),
            format!("127.0.0.1:{http}"),
        ),
        ("HOLDFAST__ADMIN__LISTEN".to_owned(), "off".to_owned()),
        (
            "HOLDFAST__DATA__DIR".to_owned(),
            scratch.0.join("data").display().to_string(),
        ),
    ];
    let command = [binary().display().to_string()];
    let process = crate::support::guarded::Guarded::start(&command, &environment, &log);
    eventually("it accepts", Duration::from_secs(30), || async {
        get(http, "/heartbeat/").is_some_and(|(status, _)| status == 200)
    })
    .await;
    let sample = root().join("examples/events.ndjson");
    let output = Command::new(binary())
        .args([
            "dispatch",
            "--json",
            "--to",
            &format!("http://127.0.0.1:{grpc}"),
        ])
        .arg(&sample)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let result: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(result["refused"], 0);
    let events = result["events"].as_u64().unwrap();
    assert!(events >= 5);
    let database = scratch.0.join("data/events.sqlite");
    eventually("all rows are there", ARRIVAL, || async {
        // The service makes the file, then sets it up, and then its tables.
        database.exists() && {
            let counted = asked(&database, "SELECT count(*) FROM events");
            counted.status.success() && answer(&counted) == events.to_string()
        }
    })
    .await;
    let row = sqlite3(
        &database,
        "SELECT event_name, user_id, json_extract(event_params, '$.productId') FROM events WHERE event_name = 'AddToCartEvent'",
    );
    assert_eq!(row, "AddToCartEvent|9007199254740993|9007199254740995");
    assert!(process.terminate(Duration::from_secs(30)).success());
    // Sent again, nothing shows twice: the ids are the client's.
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_sink_has_its_own_cursor_and_a_dead_one_stops_no_other() {
    let scratch = Scratch::new("direct");
    let mut clickhouse = Server::new(Kind::ClickHouse, &scratch);
    let mut postgres = Server::new(Kind::Postgres, &scratch);
    clickhouse.start().await;
    postgres.start().await;
    let config = format!(
        "[clickhouse]\nurl = \"{}\"\ndatabase = \"holdfast\"\nuser = \"holdfast\"\npassword = \"click-secret\"\n[postgres]\nurl = \"{}\"\n[sqlite]\n",
        clickhouse.clickhouse_url(),
        postgres.postgres_url()
    );
    let mut collector = Collector::new(&scratch, &config);
    collector.start().await;
    let clients = collector.same_address();
    let events = load_events() / 4;
    let progress = Progress::default();
    let faults = async {
        progress.reached(events / 4).await;
        clickhouse.kill();
        progress.reached(events / 2).await;
        collector.kill();
        collector.start().await;
    };
    let (acked, ()) = tokio::join!(
        load::run(&clients, seed(), events, 16, progress.clone()),
        faults
    );
    // ClickHouse is still away; the others have everything.
    judge_postgres(&postgres, &acked.rows, ARRIVAL)
        .await
        .assert_complete("Postgres");
    collector.delivered("sqlite", ARRIVAL).await;
    let database = collector.data_dir().join("events.sqlite");
    let count = sqlite3(&database, "SELECT count(*) FROM events");
    assert_eq!(count, acked.rows.len().to_string());
    assert!(collector.metric("holdfast_journal_backlog_requests{cursor=\"clickhouse\"}") > 0.0);
    clickhouse.start().await;
    judge_clickhouse(&clickhouse, &acked.rows, ARRIVAL)
        .await
        .assert_complete("ClickHouse");
    collector.delivered("clickhouse", ARRIVAL).await;
    assert!(collector.terminate().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_row_is_a_dead_letter_and_the_others_go_on() {
    let scratch = Scratch::new("dead_letters");
    let mut postgres = Server::new(Kind::Postgres, &scratch);
    postgres.start().await;
    let config = format!("[postgres]\nurl = \"{}\"\n", postgres.postgres_url());
    let mut collector = Collector::new(&scratch, &config);
    collector.start().await;
    let long = "x".repeat(60);
    let line = |id: &str| {
        format!(
            "{{\"header\":{{\"deviceId\":\"d\"}},\"events\":[{{\"id\":\"{id}\",\"timestamp\":\"1700000000000\",\"testEvent\":{{}}}}]}}\n"
        )
    };
    let body = ["a", &long, "b"].map(line).concat();
    let answer =
        crate::support::collector::send(collector.http, "POST", "/events", body.as_bytes());
    let (status, text) = answer.unwrap();
    assert_eq!(status, 200, "{text}");
    collector.delivered("postgres", ARRIVAL).await;
    let letters = collector.data_dir().join("dead_letters.sqlite");
    let letter = sqlite3(
        &letters,
        "SELECT way_out, event_name, body FROM dead_letters",
    );
    assert!(letter.starts_with("postgres|TestEvent|{"), "{letter}");
    assert!(letter.contains(&long));
    let pool = crate::support::judge::postgres(&postgres).await;
    let ids: Vec<String> = sqlx::query_scalar("SELECT event_id FROM events ORDER BY 1")
        .fetch_all(&pool)
        .await
        .unwrap();
    assert_eq!(ids, ["a", "b"]);
    assert_eq!(
        collector.metric("holdfast_dead_letters_total{way_out=\"postgres\"}"),
        1.0
    );
    assert!(collector.terminate().success());
}
