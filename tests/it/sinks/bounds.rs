//! No write waits without a bound: on a server that is frozen, that never answers, or
//! whose table is locked by another. Afterwards the same batch is written.

use super::clickhouse::ClickHouseTest;
use super::postgres::{self, PostgresTest};
use super::rows::{KINDS, one};
use super::sqlite::SqliteTest;
use super::unavailable;
use crate::support::Scratch;
use crate::support::servers::{Kind, Server};
use holdfast::sink::Sink;
use holdfast::sink::clickhouse::{ClickHouse, Options};
use holdfast::trust::TrustFiles;
use std::time::{Duration, Instant};

#[tokio::test]
async fn clickhouse_gives_up_on_an_insert_that_hangs() {
    let scratch = Scratch::new("sinks_clickhouse_frozen");
    let mut server = Server::new(Kind::ClickHouse, &scratch);
    server.start().await;
    let ch = ClickHouseTest::at(&server, "hangs");
    ch.sink.create_missing(&[&KINDS]).await.unwrap();
    ch.sink.write(&one("before")).await.unwrap();
    let rows = one("frozen");
    server.pause().await;
    let start = Instant::now();
    let result = ch.sink.write(&rows).await;
    assert!(start.elapsed() < Duration::from_secs(50));
    unavailable(result);
    server.resume().await;
    // It may have written them all the same, and shows them once.
    ch.sink.write(&rows).await.unwrap();
    assert_eq!(ch.count("kinds FINAL").await, 2);
}

#[tokio::test]
async fn postgres_gives_up_on_a_locked_table() {
    let pg = PostgresTest::start("locked").await;
    pg.sink.create_missing(&[&KINDS]).await.unwrap();
    let mut lock = pg.pool.begin().await.unwrap();
    let sql = sqlx::raw_sql(pg.sql("LOCK TABLE {s}.kinds"));
    sql.execute(&mut *lock).await.unwrap();
    let start = Instant::now();
    let reason = unavailable(pg.sink.write(&one("a")).await);
    assert!(start.elapsed() < Duration::from_secs(31));
    assert!(reason.contains("57014"), "{reason}");
    lock.rollback().await.unwrap();
    pg.sink.write(&one("a")).await.unwrap();
    assert_eq!(pg.count("{s}.kinds").await, 1);
}

#[tokio::test]
async fn sqlite_gives_up_on_a_locked_file() {
    let file = SqliteTest::new("locked");
    file.sink.create_missing(&[&KINDS]).await.unwrap();
    let reader = file.open().await;
    let lock = reader.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let start = Instant::now();
    let reason = unavailable(file.sink.write(&one("a")).await);
    assert!(start.elapsed() < Duration::from_secs(30));
    assert!(reason.contains("locked"), "{reason}");
    lock.rollback().await.unwrap();
    file.sink.write(&one("a")).await.unwrap();
}

/// Takes connections and says nothing.
#[tokio::test]
async fn a_silent_server_is_unavailable_in_bounded_time() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let clickhouse = ClickHouse::new(Options {
        url: format!("http://{address}"),
        database: "d".into(),
        databases: vec![],
        user: String::new(),
        password: String::new(),
        trust: TrustFiles::default(),
        min_free_disk_bytes: 0,
    })
    .unwrap();
    let postgres = postgres::sink(&format!("postgres://u:hunter2@{address}/d"), "s");
    let rows = one("a");
    let start = Instant::now();
    let (one, other) = tokio::join!(clickhouse.write(&rows), postgres.write(&rows));
    assert!(start.elapsed() < Duration::from_secs(15));
    unavailable(one);
    assert!(!unavailable(other).contains("hunter2"));
}
