//! The ClickHouse sink: every value arrives, the same batch again shows once, older
//! tables are written as far as they go, only content is refused, and what is missing
//! is made, also by two at once.

use super::rows::{
    AT, JSON, KINDS, OLD_KINDS, VERSIONS, VERSIONS_LEFT, assert_row, assert_rows, batch, events,
    extremes, good_and_bad, kinds, one, versions, with,
};
use super::{refused, unavailable};
use crate::support::guarded::Guarded;
use crate::support::judge::query_clickhouse;
use crate::support::servers::{CLICKHOUSE_PASSWORD, CLICKHOUSE_USER, Kind, Server};
use crate::support::shared::Shared;
use crate::support::small_disk::run;
use crate::support::{Scratch, eventually};
use holdfast::sink::clickhouse::{ClickHouse, Options};
use holdfast::sink::schema::{ERROR_EVENTS, EVENT_TABLES, EVENTS};
use holdfast::sink::{Batch, Sink, Value};
use holdfast::trust::TrustFiles;
use serde_json::{Value as Json, json};
use std::time::Duration;

/// A sink with a database of its own, and a second way to look into that.
pub struct ClickHouseTest<'a> {
    pub sink: ClickHouse,
    server: &'a Server,
    database: &'static str,
}

pub fn options(server: &Server, database: &str) -> Options {
    Options {
        url: server.clickhouse_url(),
        database: database.into(),
        databases: vec![],
        user: CLICKHOUSE_USER.into(),
        password: CLICKHOUSE_PASSWORD.into(),
        trust: TrustFiles::default(),
        min_free_disk_bytes: 0,
    }
}

pub async fn start(database: &'static str) -> ClickHouseTest<'static> {
    static SERVER: Shared = Shared::new(Kind::ClickHouse, "sinks_clickhouse");
    ClickHouseTest::at(SERVER.get().await, database)
}

impl<'a> ClickHouseTest<'a> {
    pub fn at(server: &'a Server, database: &'static str) -> Self {
        let sink = ClickHouse::new(options(server, database)).unwrap();
        Self {
            sink,
            server,
            database,
        }
    }

    pub fn server(&self) -> &Server {
        self.server
    }

    /// What the sink was made with.
    pub fn options(&self) -> Options {
        options(self.server, self.database)
    }

    /// Runs SQL in which `{db}` is the database.
    async fn query(&self, sql: &str) -> Vec<Json> {
        let sql = sql.replace("{db}", self.database);
        query_clickhouse(self.server, &sql).await.unwrap()
    }

    async fn rows(&self) -> Vec<Json> {
        self.query(
            "SELECT id, toUnixTimestamp64Milli(at) AS at, text, i, u, small, f, \
             toUnixTimestamp64Milli(maybe_at) AS maybe_at, maybe_text, toString(j) AS j \
             FROM `{db}`.kinds FINAL ORDER BY id",
        )
        .await
    }

    pub async fn count(&self, from: &str) -> Json {
        let sql = format!("SELECT count() AS n FROM `{{db}}`.{from}");
        self.query(&sql).await[0]["n"].clone()
    }
}

#[tokio::test]
async fn clickhouse_keeps_every_value() {
    let ch = start("kept").await;
    ch.sink.create_missing(&[&KINDS]).await.unwrap();
    let written = extremes();
    ch.sink.write(&written).await.unwrap();
    assert_rows(&ch.rows().await, &written);
    // The same batch again is one under FINAL.
    ch.sink.write(&written).await.unwrap();
    assert_rows(&ch.rows().await, &written);

    let unsigned = with("u", &[(4, Value::UInt(u64::MAX))]);
    let rows = vec![unsigned.clone()];
    ch.sink.write(&batch(&KINDS, "u", rows)).await.unwrap();
    assert_row(ch.rows().await.last().unwrap(), &unsigned);
    // A NUL is text like any other here.
    let json = Value::Json(r#"{"k":"a\u0000b"}"#.into());
    let nul = with("v", &[(2, Value::Text("a\0b".into())), (9, json)]);
    let rows = vec![nul.clone()];
    ch.sink.write(&batch(&KINDS, "v", rows)).await.unwrap();
    assert_row(ch.rows().await.last().unwrap(), &nul);
}

/// What it could not write whole the engine acknowledges all the same (26.9): it is to refuse
/// rows while there is room for those that it has let in.
#[tokio::test]
async fn clickhouse_takes_no_rows_onto_a_disk_that_is_nearly_full() {
    let ch = start("nearly_full").await;
    ch.sink.create_missing(&[&KINDS]).await.unwrap();
    let at = |min_free_disk_bytes| {
        let options = options(ch.server, ch.database);
        ClickHouse::new(Options {
            min_free_disk_bytes,
            ..options
        })
    };
    // No disk has as much.
    let nearly_full = at(1 << 60).unwrap();
    unavailable(nearly_full.write(&one("a")).await);
    assert_eq!(ch.count("kinds").await, json!(0));
    at(1 << 20).unwrap().write(&one("a")).await.unwrap();
    assert_eq!(ch.count("kinds").await, json!(1));
}

/// A table without replicas notes a batch's token, and then gives the part its name: killed
/// in between, the server would take the same token again for the part that it has lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clickhouse_killed_between_its_note_and_the_part_loses_no_batch() {
    let scratch = Scratch::new("clickhouse_note");
    let mut server = Server::new(Kind::ClickHouse, &scratch);
    server.start().await;
    let sink = ClickHouse::new(options(&server, "note")).unwrap();
    sink.create_missing(&[&KINDS]).await.unwrap();
    let ch = ClickHouseTest::at(&server, "note");
    // As somebody may have set it who wants inserts to be recognised.
    ch.query("ALTER TABLE `{db}`.kinds MODIFY SETTING non_replicated_deduplication_window = 100")
        .await;
    let batch = extremes();
    let killer = killed_at_the_next_rename(&server, &scratch).await;
    unavailable(sink.write(&batch).await);
    let limit = Duration::from_secs(30);
    eventually("the server is killed", limit, || {
        std::future::ready(server.has_ended())
    })
    .await;
    drop(killer);
    let notes = run(
        "grep",
        &[
            "-rl",
            "_1_1_1",
            "--include=deduplication_log_*",
            &scratch.0.display().to_string(),
        ],
    );
    assert_eq!(notes.lines().count(), 1, "it was not killed after its note");
    server.start().await;
    sink.write(&batch).await.unwrap();
    assert_rows(&ClickHouseTest::at(&server, "note").rows().await, &batch);
}

/// Kills a server when one of its threads next renames a file, before that is done. (The
/// engine calls the system past libraries that are loaded before it.)
async fn killed_at_the_next_rename(server: &Server, scratch: &Scratch) -> Guarded {
    let pid = server.pid().to_string();
    let command = [
        "strace",
        "-f",
        "-qq",
        "-e",
        "trace=rename,renameat,renameat2",
        "-e",
        "inject=rename,renameat,renameat2:signal=SIGKILL:when=1",
        "-p",
        &pid,
    ];
    let log = scratch.0.join("strace.log");
    let strace = Guarded::start(&command.map(str::to_owned), &[], &log);
    let limit = Duration::from_secs(30);
    eventually("every thread is watched", limit, || async {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        tasks.flatten().all(|task| {
            let status = std::fs::read_to_string(task.path().join("status"));
            status.is_ok_and(|text| !text.contains("TracerPid:\t0\n"))
        })
    })
    .await;
    strace
}

#[tokio::test]
async fn clickhouse_takes_rows_into_older_tables() {
    let ch = start("older").await;
    ch.query("CREATE DATABASE `{db}`").await;
    ch.query(
        "CREATE TABLE `{db}`.kinds (id String, at DateTime, text String, i String, u UInt64, small UInt32, \
         f Float64, maybe_at DateTime('Asia/Kolkata'), j String) ENGINE = MergeTree ORDER BY id",
    )
    .await;
    let reason = unavailable(ch.sink.write(&one("a")).await);
    assert!(reason.contains("Code: 16"), "{reason}");
    ch.sink.create_missing(&[&KINDS]).await.unwrap();
    let times = [(7, Value::TimeMs(AT)), (1, Value::TimeMs(-1))];
    let rows = vec![kinds("a"), with("b", &times)];
    ch.sink.write(&batch(&KINDS, "b", rows)).await.unwrap();
    let rows = ch
        .query(
            "SELECT id, toUnixTimestamp(at) AS at, i, toUnixTimestamp(maybe_at) AS maybe_at, maybe_text, j \
             FROM `{db}`.kinds ORDER BY id",
        )
        .await;
    assert_eq!(rows[0]["at"], AT / 1000);
    assert_eq!(rows[0]["i"], i64::MIN.to_string());
    assert_eq!(rows[0]["j"], JSON, "to the letter");
    assert!(rows[0]["maybe_text"].is_null());
    let no_time = &rows[0]["maybe_at"];
    assert_eq!(no_time, 0, "NULL where none is allowed is the default");
    let time = &rows[1]["maybe_at"];
    assert_eq!(time, AT / 1000, "the column's zone does not matter");
    assert_eq!(rows[1]["at"], 0, "before the type's first second");
}

#[tokio::test]
async fn clickhouse_refuses_only_content() {
    let ch = start("content").await;
    ch.sink.create_missing(&[&KINDS]).await.unwrap();
    let deep = format!("{}1{}", "{\"a\":".repeat(3000), "}".repeat(3000));
    let json = |text: &str| (9, Value::Json(text.into()));
    let bad = [
        ("twice the same key", json(r#"{"a":1,"a":2}"#)),
        ("no object", json("[1]")),
        ("too deep", json(&deep)),
        ("half a character", json(r#"{"a":"\ud800"}"#)),
        ("no JSON", json("{")),
        ("a time of another age", (7, Value::TimeMs(i64::MAX))),
    ];
    for (what, (column, value)) in bad {
        let reason = refused(ch.sink.write(&good_and_bad(column, value)).await);
        assert!(!reason.is_empty(), "{what}");
    }
    let count = ch.count("kinds").await;
    assert_eq!(count, 0, "nothing of a refused batch is there");
}

#[tokio::test]
async fn clickhouse_refuses_too_many_months_at_once() {
    let ch = start("months").await;
    ch.sink.create_missing(&[&KINDS]).await.unwrap();
    let months = |count: i64| {
        let month = |n: i64| with(&format!("m{n}"), &[(1, Value::TimeMs(n * 32 * 86_400_000))]);
        batch(&KINDS, &format!("{count}"), (0..count).map(month).collect())
    };
    let reason = refused(ch.sink.write(&months(150)).await);
    assert!(reason.contains("Code: 252"), "{reason}");
    let count = ch.count("kinds").await;
    assert_eq!(count, 0, "nothing of a refused batch is there");
    ch.sink.write(&months(75)).await.unwrap();
    assert_eq!(ch.count("kinds").await, 75);
}

#[tokio::test]
async fn clickhouse_waits_for_what_is_not_the_rows_fault() {
    let ch = start("waits").await;
    let rows = one("a");
    unavailable(ch.sink.write(&rows).await);
    ch.sink.create_missing(&[&KINDS]).await.unwrap();
    ch.sink.write(&rows).await.unwrap();
    // A table that vanishes while its layout is remembered, and comes back.
    ch.query("DROP TABLE `{db}`.kinds SYNC").await;
    let reason = unavailable(ch.sink.write(&rows).await);
    assert!(reason.contains("Code: 60"), "{reason}");
    ch.sink.create_missing(&[&KINDS]).await.unwrap();
    ch.sink.write(&rows).await.unwrap();
    assert_eq!(ch.count("kinds FINAL").await, 1);
    let elsewhere = Batch {
        namespace: Some("nowhere".into()),
        ..rows.clone()
    };
    unavailable(ch.sink.write(&elsewhere).await);

    let stranger = ClickHouse::new(Options {
        password: "not-the-one".into(),
        ..options(ch.server, "waits")
    });
    let reason = unavailable(stranger.unwrap().write(&rows).await);
    assert!(reason.contains("Code: 516"), "{reason}");
    assert!(!reason.contains("not-the-one"), "{reason}");
    let down = ClickHouse::new(Options {
        url: "http://127.0.0.1:1".into(),
        ..options(ch.server, "waits")
    })
    .unwrap();
    unavailable(down.write(&rows).await);
    assert!(down.create_missing(&[&KINDS]).await.is_err());
}

#[tokio::test]
async fn clickhouse_makes_what_is_missing_and_only_that() {
    let ch = start("made").await;
    ch.sink.create_missing(&[&OLD_KINDS]).await.unwrap();
    let tables = [&KINDS];
    let (one, other) = tokio::join!(
        ch.sink.create_missing(&tables),
        ch.sink.create_missing(&tables)
    );
    one.unwrap();
    other.unwrap();
    ch.sink.create_missing(EVENT_TABLES).await.unwrap();
    ch.sink.create_missing(EVENT_TABLES).await.unwrap();
    ch.sink.maintain().await.unwrap();
    ch.sink.write(&extremes()).await.unwrap();
    ch.sink.write(&events(10, &EVENTS)).await.unwrap();
    ch.sink.write(&events(10, &ERROR_EVENTS)).await.unwrap();
    let sql =
        "SELECT count() AS n, countIf(event_params.page = '/p/3') AS p FROM `{db}`.events FINAL";
    assert_eq!(ch.query(sql).await, [json!({"n": 10, "p": 1})]);
}

#[tokio::test]
async fn clickhouse_keeps_the_last_version_of_a_row() {
    let ch = start("versions").await;
    ch.sink.create_missing(&[&VERSIONS]).await.unwrap();
    for batch in versions() {
        ch.sink.write(&batch).await.unwrap();
    }
    let left = ch
        .query("SELECT id, state FROM `{db}`.versions FINAL ORDER BY id")
        .await;
    let expected = VERSIONS_LEFT.map(|(id, state)| json!({"id": id, "state": state}));
    assert_eq!(left, expected);
}
