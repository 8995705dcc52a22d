//! The Postgres sink's tables: made with their days ahead, by many hosts at once,
//! beside what is there already and what was detached on purpose.

use super::postgres::PostgresTest;
use super::rows::{KINDS, OLD_KINDS, events, extremes};
use super::unavailable;
use crate::support::eventually;
use futures::future::join_all;
use holdfast::sink::schema::{ERROR_EVENTS, EVENT_TABLES, EVENTS};
use holdfast::sink::{Batch, Sink, Value};
use std::time::Duration;

/// Partitions of the table `events`.
const PARTS: &str = "pg_inherits WHERE inhparent = '{s}.events'::regclass";

/// The columns of the field's tables, which have no key.
const FIELD_COLUMNS: &str = "(event_id varchar(55) NOT NULL, event_name varchar(55) NOT NULL, \
     event_timestamp timestamp NOT NULL, insert_timestamp timestamp NOT NULL, session_id varchar(50), \
     bb_device_id bigint, user_id bigint, device_id varchar(50), android_advertising_id varchar(50), \
     client_id varchar(30), channel varchar(20), os varchar(30), client_type varchar(20), \
     app_language varchar(20), app_version varchar(20), app_version_code varchar(20), current_url varchar, \
     merchant_id varchar(20), utm_referrer varchar, utm_platform varchar(50), utm_source varchar(80), \
     utm_medium varchar(80), utm_campaign varchar(80), event_params jsonb)";

/// How long the server's counts may take to show.
const PROMPT: Duration = Duration::from_secs(20);

/// Nine days and the default.
const ALL_PARTS: i64 = 10;

#[tokio::test]
async fn postgres_makes_what_is_missing_and_only_that() {
    let pg = PostgresTest::start("made").await;
    pg.sink.create_missing(&[&OLD_KINDS]).await.unwrap();
    pg.sink.create_missing(&[&KINDS]).await.unwrap();
    pg.sink.write(&extremes()).await.unwrap();
    pg.sink.create_missing(EVENT_TABLES).await.unwrap();
    pg.sink.create_missing(EVENT_TABLES).await.unwrap();
    pg.sink.maintain().await.unwrap();
    assert_eq!(pg.count(PARTS).await, ALL_PARTS);
    pg.sink.write(&events(100, &EVENTS)).await.unwrap();
    pg.sink.write(&events(100, &ERROR_EVENTS)).await.unwrap();
    assert_eq!(pg.count("{s}.events").await, 100);
    let elsewhere = pg.count("{s}.events_default").await;
    assert_eq!(elsewhere, 0, "today has its partition");
    // One day is dropped and made again.
    let today: String = sqlx::query_scalar("SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD')")
        .fetch_one(&pg.pool)
        .await
        .unwrap();
    let drop = format!("DROP TABLE {{s}}.events_{today}");
    pg.execute(&drop).await;
    pg.sink.maintain().await.unwrap();
    assert_eq!(pg.count(PARTS).await, ALL_PARTS);
    // Detached on purpose: it stays so.
    let detach = format!("ALTER TABLE {{s}}.events DETACH PARTITION {{s}}.events_{today}");
    pg.execute(&detach).await;
    pg.sink.maintain().await.unwrap();
    assert_eq!(pg.count(PARTS).await, ALL_PARTS - 1);
    pg.sink.write(&events(5, &EVENTS)).await.unwrap();
    assert_eq!(pg.count("{s}.events_default").await, 5);
}

#[tokio::test]
async fn postgres_makes_tables_from_many_hosts_at_once() {
    let pg = PostgresTest::start("hosts").await;
    let hosts = (0..4).map(|_| {
        let sink = pg.another_sink();
        tokio::spawn(async move { sink.create_missing(EVENT_TABLES).await })
    });
    for host in join_all(hosts).await {
        host.unwrap().unwrap();
    }
    assert_eq!(pg.count(PARTS).await, ALL_PARTS);
}

#[tokio::test]
async fn postgres_makes_do_with_the_fields_tables() {
    let pg = PostgresTest::start("field").await;
    pg.execute("CREATE SCHEMA {s}").await;
    // No key, no default, and rows of today before there is a partition for them.
    pg.execute(&format!(
        "CREATE TABLE {{s}}.events {FIELD_COLUMNS} PARTITION BY RANGE (event_timestamp)"
    ))
    .await;
    pg.execute("CREATE TABLE {s}.mine PARTITION OF {s}.events DEFAULT")
        .await;
    pg.execute(
        "INSERT INTO {s}.events (event_id, event_name, event_timestamp, insert_timestamp) \
         VALUES ('a', 'b', now() AT TIME ZONE 'UTC', now())",
    )
    .await;
    let reason = unavailable(pg.sink.write(&events(1, &EVENTS)).await);
    assert!(reason.contains("42703"), "{reason}");
    pg.sink.create_missing(EVENT_TABLES).await.unwrap();
    let parts = pg.count(PARTS).await;
    assert_eq!(parts, ALL_PARTS - 1, "all days but today");
    pg.sink.write(&events(10, &EVENTS)).await.unwrap();
    let default = pg.count("{s}.mine").await;
    assert_eq!(default, 11, "today stays in the default");
    pg.sink.maintain().await.unwrap();
}

#[tokio::test]
async fn postgres_reads_no_days_between_those_of_a_batch() {
    const DAYS: i64 = 5;
    let pg = PostgresTest::start("keyless_days").await;
    pg.execute("CREATE SCHEMA {s}").await;
    pg.execute(&format!(
        "CREATE TABLE {{s}}.events {FIELD_COLUMNS} PARTITION BY RANGE (event_timestamp)"
    ))
    .await;
    pg.sink.create_missing(&[&EVENTS]).await.unwrap();
    // A batch of today with one event of a clock that is days ahead.
    let mut batch = events(10, &EVENTS);
    let mut rows = batch.rows.to_vec();
    let at = EVENTS
        .columns
        .iter()
        .position(|c| c.name == "event_timestamp");
    let now = i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap();
    for (n, row) in rows.iter_mut().enumerate() {
        let day = if n == 3 { DAYS } else { 0 };
        row.values[at.unwrap()] = Value::TimeMs(now + day * 86_400_000);
    }
    batch.rows = rows.into();
    let sink = pg.another_sink();
    for _ in 0..2 {
        sink.write(&batch).await.unwrap();
    }
    // The server counts for a session when that ends.
    sink.close().await;
    let scans = async |day: i64| -> i64 {
        let sql = format!(
            "SELECT coalesce(sum(seq_scan + coalesce(idx_scan, 0)), 0)::bigint FROM pg_stat_user_tables \
             WHERE schemaname = 'keyless_days' AND relname = 'events_' || \
             to_char(now() AT TIME ZONE 'UTC' + interval '{day} days', 'YYYYMMDD')"
        );
        let sql = sqlx::query_scalar(pg.sql(&sql));
        sql.fetch_one(&pg.pool).await.unwrap()
    };
    // As often as a day was read that is near to none of them: when it was made, if ever.
    let before = scans(DAYS + 2).await;
    eventually("the days of the rows were read", PROMPT, || async {
        scans(0).await >= before + 2 && scans(DAYS).await >= before + 2
    })
    .await;
    for day in 2..DAYS - 1 {
        assert_eq!(scans(day).await, before, "in {day} days");
    }
    assert_eq!(pg.count("{s}.events").await, 10);
}

#[tokio::test]
async fn postgres_reads_a_table_without_days_once_for_a_batch() {
    let pg = PostgresTest::start("keyless_whole").await;
    pg.execute("CREATE SCHEMA {s}").await;
    pg.execute(&format!("CREATE TABLE {{s}}.events {FIELD_COLUMNS}"))
        .await;
    pg.sink.create_missing(&[&EVENTS]).await.unwrap();
    let scans = async || -> i64 {
        let sql = "SELECT coalesce(sum(seq_scan), 0)::bigint FROM pg_stat_user_tables \
                   WHERE schemaname = 'keyless_whole' AND relname = 'events'";
        let sql = sqlx::query_scalar(pg.sql(sql));
        sql.fetch_one(&pg.pool).await.unwrap()
    };
    let columns = EVENTS.columns.iter();
    let columns: Vec<_> = columns.map(|column| column.name).collect();
    let at = |name| columns.iter().position(|column| *column == name).unwrap();
    let (id, time) = (at("event_id"), at("event_timestamp"));
    let mut read = Vec::new();
    for days in [1, 10] {
        let mut batch = events(10, &EVENTS);
        let mut rows = batch.rows.to_vec();
        for (n, row) in (0..).zip(&mut rows) {
            row.values[id] = Value::Text(format!("{days}_{n}"));
            row.values[time] = Value::TimeMs(1_700_000_000_000 + n % days * 3 * 86_400_000);
        }
        batch.rows = rows.into();
        let before = scans().await;
        let sink = pg.another_sink();
        sink.write(&batch).await.unwrap();
        // The server counts for a session when that ends.
        sink.close().await;
        eventually("it is counted", PROMPT, || async { scans().await > before }).await;
        read.push(scans().await - before);
    }
    assert_eq!(read[0], read[1], "one look for ten days, too");
    assert_eq!(pg.count("{s}.events").await, 20);
}

#[tokio::test]
async fn postgres_shows_rows_once_in_tables_without_a_key() {
    let pg = PostgresTest::start("keyless").await;
    pg.execute("CREATE SCHEMA {s}").await;
    for (table, partition) in [
        ("events", "PARTITION BY RANGE (event_timestamp)"),
        ("error_events", ""),
    ] {
        pg.execute(&format!(
            "CREATE TABLE {{s}}.{table} {FIELD_COLUMNS} {partition}"
        ))
        .await;
    }
    pg.execute("ALTER TABLE {s}.error_events ALTER event_timestamp DROP NOT NULL")
        .await;
    pg.sink.create_missing(EVENT_TABLES).await.unwrap();
    for table in EVENT_TABLES {
        let all = events(100, table);
        let mut twice = all.rows.to_vec();
        twice.extend(all.rows.iter().cloned());
        let twice = Batch {
            rows: twice.into(),
            ..all.clone()
        };
        for batch in [&twice, &all, &twice] {
            pg.sink.write(batch).await.unwrap();
        }
        let count = pg.count(&format!("{{s}}.{}", table.name)).await;
        assert_eq!(count, 100, "{}", table.name);
    }
    // One that gets a key, or loses it, goes on as it is then.
    let again = events(7, &EVENTS);
    pg.sink.write(&again).await.unwrap();
    let before = pg.count("{s}.events").await;
    pg.execute("ALTER TABLE {s}.events ADD PRIMARY KEY (event_id, event_timestamp)")
        .await;
    pg.sink.write(&again).await.unwrap();
    pg.execute("ALTER TABLE {s}.events DROP CONSTRAINT events_pkey")
        .await;
    pg.sink.maintain().await.unwrap();
    pg.sink.write(&again).await.unwrap();
    assert_eq!(pg.count("{s}.events").await, before);
}
