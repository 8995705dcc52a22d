//! Looks at rows: whatever their ids are, and without a trace.

use super::rows::{batch, events};
use super::{clickhouse, unavailable};
use crate::support::Scratch;
use holdfast::sink::inspect::{self, KEYS_MAX, Place};
use holdfast::sink::schema::{EVENT_TABLES, EVENTS};
use holdfast::sink::sqlite::{Options, Sqlite};
use holdfast::sink::{Sink, Value, WriteError};
use std::collections::BTreeSet;

const PLACE: Place<'_> = Place {
    namespace: None,
    table: "events",
};

/// The ids that are found of these.
async fn found(sink: &dyn Sink, ids: &[String], at_ms: i64) -> Result<Vec<String>, WriteError> {
    let keys: Vec<_> = ids.iter().map(|id| (id.as_str(), at_ms)).collect();
    let rows = inspect::by_keys(sink.inspect().unwrap(), PLACE, &keys).await?;
    Ok(rows.into_iter().map(|row| row.id).collect())
}

#[tokio::test]
async fn clickhouse_is_asked_for_long_ids() {
    let ch = clickhouse::start("long_ids").await;
    ch.sink.create_missing(EVENT_TABLES).await.unwrap();
    // Quotes double, so that it is the statement that counts.
    let mut ids: Vec<_> = (1..KEYS_MAX)
        .map(|at| format!("{at}-{}", "'".repeat(1 << 10)))
        .collect();
    ids.push(format!("long-{}", "x".repeat(300 << 10)));
    let made = events(ids.len(), &EVENTS);
    let Value::TimeMs(at_ms) = made.rows[0].values[2] else {
        panic!("no time: {:?}", made.rows[0]);
    };
    let rows = made.rows.iter().zip(&ids).map(|(row, id)| {
        let mut values = row.values.clone();
        values[0] = Value::Text(id.clone());
        values
    });
    let rows = rows.collect();
    ch.sink.write(&batch(&EVENTS, "ids", rows)).await.unwrap();
    let all = found(&ch.sink, &ids, at_ms).await.unwrap();
    assert_eq!(all.len(), ids.len());
    let all: BTreeSet<_> = all.into_iter().collect();
    assert_eq!(all, ids.into_iter().collect());
}

#[tokio::test]
async fn a_look_at_sqlite_makes_no_file() {
    let scratch = Scratch::new("sinks_look");
    let path = scratch.0.join("rows.db");
    let sink = Sqlite::new(Options { path: path.clone() });
    let look = async || found(&sink, &["a".to_owned()], 1).await;
    let reason = unavailable(look().await.map(|_| ()));
    assert!(reason.contains("is not there"), "{reason}");
    assert_eq!(std::fs::read_dir(&scratch.0).unwrap().count(), 0);
    // It is looked at as soon as it is there.
    sink.create_missing(EVENT_TABLES).await.unwrap();
    assert_eq!(look().await.unwrap(), Vec::<String>::new());
}
