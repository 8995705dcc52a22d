//! The SQLite sink: every value arrives once, only content is refused, and a file that
//! is locked or lacks its tables is waited for.

use super::rows::{
    KINDS, OLD_KINDS, VERSIONS, VERSIONS_LEFT, assert_rows, events, extremes, good_and_bad, one,
    versions,
};
use super::{refused, unavailable};
use crate::support::Scratch;
use holdfast::sink::schema::{EVENT_TABLES, EVENTS};
use holdfast::sink::sqlite::{Options, Sqlite};
use holdfast::sink::{Sink, Value};
use serde_json::Value as Json;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A sink with a file of its own, and a second way to look into that.
pub struct SqliteTest {
    pub sink: Sqlite,
    scratch: Scratch,
}

impl SqliteTest {
    pub fn new(name: &str) -> Self {
        let scratch = Scratch::new(&format!("sinks_sqlite_{name}"));
        let sink = sink(scratch.0.join("rows.db"));
        Self { sink, scratch }
    }

    pub async fn open(&self) -> SqlitePool {
        let options = SqliteConnectOptions::new().filename(self.scratch.0.join("rows.db"));
        SqlitePool::connect_with(options).await.unwrap()
    }

    async fn rows(&self) -> Vec<Json> {
        // SQLite prints 15 digits of a float; what it stores is exact.
        let rows: Vec<(String, f64)> = sqlx::query_as(
            "SELECT json_object('id', id, 'at', round((julianday(at) - 2440587.5) * 86400000) | 0, 'text', text, 'i', i, \
             'u', u, 'small', small, 'maybe_at', round((julianday(maybe_at) - 2440587.5) * 86400000) | 0, \
             'maybe_text', maybe_text, 'j', j), f FROM kinds ORDER BY id",
        )
        .fetch_all(&self.open().await)
        .await
        .unwrap();
        let row = |(text, float): &(String, f64)| {
            let mut row: Json = serde_json::from_str(text).unwrap();
            row["f"] = (*float).into();
            row
        };
        rows.iter().map(row).collect()
    }
}

fn sink(path: PathBuf) -> Sqlite {
    Sqlite::new(Options { path })
}

#[tokio::test]
async fn sqlite_keeps_every_value() {
    let file = SqliteTest::new("kept");
    file.sink.create_missing(&[&OLD_KINDS]).await.unwrap();
    file.sink.create_missing(&[&KINDS]).await.unwrap();
    file.sink.create_missing(&[&KINDS]).await.unwrap();
    let written = extremes();
    file.sink.write(&written).await.unwrap();
    file.sink.write(&written).await.unwrap();
    assert_rows(&file.rows().await, &written);
    let at: String = sqlx::query_scalar("SELECT at FROM kinds LIMIT 1")
        .fetch_one(&file.open().await)
        .await
        .unwrap();
    assert_eq!(at, "2024-01-02 03:04:05.678");
}

#[tokio::test]
async fn sqlite_takes_more_rows_than_one_statement_holds() {
    let file = SqliteTest::new("many");
    file.sink.create_missing(EVENT_TABLES).await.unwrap();
    file.sink.write(&events(5000, &EVENTS)).await.unwrap();
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM events")
        .fetch_one(&file.open().await)
        .await
        .unwrap();
    assert_eq!(count, 5000);
}

#[tokio::test]
async fn sqlite_refuses_only_content() {
    let file = SqliteTest::new("content");
    file.sink.create_missing(&[&KINDS]).await.unwrap();
    let bad = [
        (1, Value::Null),
        (4, Value::UInt(u64::MAX)),
        (6, Value::Float(f64::NAN)),
        (7, Value::TimeMs(i64::MAX)),
    ];
    for (column, value) in bad {
        refused(file.sink.write(&good_and_bad(column, value)).await);
    }
    let rows = file.rows().await;
    assert!(rows.is_empty(), "nothing of a refused batch is there");
}

#[tokio::test]
async fn sqlite_waits_for_what_is_not_the_rows_fault() {
    let file = SqliteTest::new("waits");
    let rows = one("a");
    let reason = unavailable(file.sink.write(&rows).await);
    assert!(reason.contains("no such table"), "{reason}");
    let nowhere = sink(file.scratch.0.join("no/such/dir/rows.db"));
    let start = Instant::now();
    unavailable(nowhere.write(&rows).await);
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn sqlite_keeps_the_last_version_of_a_row() {
    let file = SqliteTest::new("versions");
    file.sink.create_missing(&[&VERSIONS]).await.unwrap();
    for batch in versions() {
        file.sink.write(&batch).await.unwrap();
    }
    let left: Vec<(String, String)> = sqlx::query_as("SELECT id, state FROM versions ORDER BY id")
        .fetch_all(&file.open().await)
        .await
        .unwrap();
    assert_eq!(
        left,
        VERSIONS_LEFT.map(|(id, state)| (id.into(), state.into()))
    );
}
