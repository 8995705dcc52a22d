//! Looking at rows by where they came from: what a host's rows of a range are, without
//! fetching them, and which they are; and the rows of a load generator's run by their ids.
//! Called by `app::reconcile` and `app::arrivals`; each sink that takes rows runs the
//! questions.
//!
//! # Invariants
//! - One question reads three or four columns of a host's rows once; its answer is bounded by
//!   what was asked for: one line for each bucket, or the rows of one or of a time.
//! - Rows are counted as readers see them (in ClickHouse under FINAL).
//! - Ids have no bound of their own: no question is longer than its database takes (test
//!   `clickhouse_is_asked_for_long_ids` in tests/it/sinks).

use super::WriteError;
use super::convert::unavailable;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Bound on one question: it may read a table's whole range.
pub(super) const LOOK_TIMEOUT: Duration = Duration::from_mins(10);

/// Keys of one look-up: bounds its answer.
pub const KEYS_MAX: usize = 500;

/// Bytes of ids that one question names, unless it is a single id that is longer: half of the
/// 256 KiB that ClickHouse takes where nothing else is said.
const IDS_BYTES_MAX: usize = 128 << 10;

/// Around the times of a look-up, in milliseconds: tables may keep whole seconds, or binary
/// fractions.
const TIME_SLACK_MS: i64 = 1000;

/// How a sink writes SQL.
#[derive(Debug, Clone, Copy)]
pub struct Dialect {
    /// A table's name, as statements have it.
    pub table: fn(namespace: &str, name: &str) -> String,
    /// A text literal.
    pub literal: fn(&str) -> String,
    /// A column of time as epoch milliseconds.
    pub at_ms: fn(&str) -> String,
    /// A column of time, and a bound of it in epoch milliseconds.
    pub time: fn(i64) -> String,
    /// What makes a number text.
    pub text: fn(&str) -> String,
    /// A whole quotient.
    pub quotient: fn(&str, u64) -> String,
    /// What follows a table so that each row shows once.
    pub once: &'static str,
}

/// What the rows of some requests are together. Two sets of rows with the same digest are
/// taken for the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Digest {
    /// How many.
    pub rows: u64,
    /// Sum of their sequences.
    pub seqs: u64,
    /// Sum of their places.
    pub indexes: u64,
    /// Sum of products of both, so that places cannot change their requests unseen.
    pub mixed: u64,
}

/// Of a sequence, for [`Digest::mixed`]: a prime, so that neighbours differ.
const MODULUS: u64 = 9973;

impl Digest {
    /// Adds a row.
    pub fn add(&mut self, seq: u64, index: u32) {
        self.rows += 1;
        self.seqs = self.seqs.wrapping_add(seq);
        self.indexes += u64::from(index);
        self.mixed += (seq % MODULUS) * (u64::from(index) + 1);
    }
}

/// Where a row came from, and which event it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RowOrigin {
    /// The host.
    pub host: String,
    /// The request's sequence there.
    pub seq: u64,
    /// Its place in the request.
    pub index: u32,
    /// The event's id.
    pub id: String,
    /// Its time, epoch milliseconds; 0 where it has none.
    pub at_ms: i64,
}

/// A sink whose rows can be looked at.
#[async_trait::async_trait]
pub trait Inspect: Send + Sync {
    /// How it writes SQL.
    fn dialect(&self) -> Dialect;

    /// The namespace of its tables where none is named.
    fn namespace(&self) -> &str;

    /// How exactly a table keeps `event_timestamp`: times are cut down to whole units of so
    /// many milliseconds.
    ///
    /// # Errors
    /// Always `Unavailable`; worth another try.
    async fn unit_ms(&self, _place: Place<'_>) -> Result<i64, WriteError> {
        Ok(1)
    }

    /// Runs a query whose columns are texts.
    ///
    /// # Errors
    /// Always `Unavailable`; worth another try.
    async fn rows(&self, sql: String, columns: usize) -> Result<Vec<Vec<String>>, WriteError>;
}

/// A table to look at.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The ClickHouse database or Postgres schema; `None`: the sink's default.
    pub namespace: Option<&'a str>,
    /// `events` or `error_events`.
    pub table: &'a str,
}

impl Place<'_> {
    fn of(&self, sink: &dyn Inspect) -> String {
        format!("{} {}", self.raw(sink), sink.dialect().once)
    }

    /// With rows that readers do not see.
    fn raw(&self, sink: &dyn Inspect) -> String {
        let namespace = self.namespace.unwrap_or(sink.namespace());
        (sink.dialect().table)(namespace, self.table)
    }
}

fn odd(row: &[String]) -> WriteError {
    unavailable(&format!("odd answer: {row:?}"))
}

fn number<T: std::str::FromStr>(row: &[String], at: usize) -> Result<T, WriteError> {
    let cell = row.get(at).ok_or_else(|| odd(row))?;
    cell.parse().map_err(|_| odd(row))
}

fn of_host(sink: &dyn Inspect, host: &str, first: u64, end: u64) -> String {
    let host = (sink.dialect().literal)(host);
    format!("ingest_host = {host} AND ingest_seq >= {first} AND ingest_seq < {end}")
}

/// The digests of a host's rows with sequences from `first` up to `end`, by `seq / bucket`.
///
/// # Errors
/// When the sink does not answer; worth another try.
pub async fn digests(
    sink: &dyn Inspect,
    place: Place<'_>,
    host: &str,
    (first, end): (u64, u64),
    bucket: u64,
) -> Result<BTreeMap<u64, Digest>, WriteError> {
    let dialect = sink.dialect();
    let text = dialect.text;
    let sql = format!(
        "SELECT {}, {}, {}, {}, {} FROM {} WHERE {} GROUP BY {}",
        text(&(dialect.quotient)("ingest_seq", bucket)),
        text("count(*)"),
        text("sum(ingest_seq)"),
        text("sum(ingest_index)"),
        text(&format!(
            "sum((ingest_seq % {MODULUS}) * (ingest_index + 1))"
        )),
        place.of(sink),
        of_host(sink, host, first, end),
        (dialect.quotient)("ingest_seq", bucket),
    );
    let mut digests = BTreeMap::new();
    for row in sink.rows(sql, 5).await? {
        let digest = Digest {
            rows: number(&row, 1)?,
            seqs: number(&row, 2)?,
            indexes: number(&row, 3)?,
            mixed: number(&row, 4)?,
        };
        digests.insert(number(&row, 0)?, digest);
    }
    Ok(digests)
}

async fn origins(
    sink: &dyn Inspect,
    place: Place<'_>,
    condition: &str,
) -> Result<Vec<RowOrigin>, WriteError> {
    let dialect = sink.dialect();
    let text = dialect.text;
    let sql = format!(
        "SELECT {}, {}, {}, event_id, {} FROM {} WHERE {condition}",
        "coalesce(ingest_host, '')",
        text("coalesce(ingest_seq, 0)"),
        text("coalesce(ingest_index, 0)"),
        text(&format!(
            "coalesce({}, 0)",
            (dialect.at_ms)("event_timestamp")
        )),
        place.of(sink),
    );
    let rows = sink.rows(sql, 5).await?;
    rows.into_iter()
        .map(|row| {
            Ok(RowOrigin {
                seq: number(&row, 1)?,
                index: number(&row, 2)?,
                at_ms: number(&row, 4)?,
                host: row.first().cloned().ok_or_else(|| odd(&row))?,
                id: row.get(3).cloned().ok_or_else(|| odd(&row))?,
            })
        })
        .collect()
}

/// A host's rows of a range.
///
/// # Errors
/// When the sink does not answer; worth another try.
pub async fn of_range(
    sink: &dyn Inspect,
    place: Place<'_>,
    host: &str,
    (first, end): (u64, u64),
) -> Result<Vec<RowOrigin>, WriteError> {
    origins(sink, place, &of_host(sink, host, first, end)).await
}

/// The rows of these events, whatever request or host they came from; `keys` are ids and
/// times, at most [`KEYS_MAX`].
///
/// # Errors
/// When the sink does not answer; worth another try.
pub async fn by_keys(
    sink: &dyn Inspect,
    place: Place<'_>,
    keys: &[(&str, i64)],
) -> Result<Vec<RowOrigin>, WriteError> {
    let dialect = sink.dialect();
    let (Some(first), Some(last)) = (
        keys.iter().map(|(_, at_ms)| *at_ms).min(),
        keys.iter().map(|(_, at_ms)| *at_ms).max(),
    ) else {
        return Ok(Vec::new());
    };
    // No database keeps a NUL in a text, and some do not take the question.
    let ids = keys.iter().filter(|(id, _)| !id.contains('\0'));
    let ids: BTreeSet<_> = ids.map(|(id, _)| (dialect.literal)(id)).collect();
    let mut rows = Vec::new();
    for ids in lists(ids) {
        // The times let a database leave partitions out.
        let condition = format!(
            "event_id IN ({ids}) AND event_timestamp >= {} AND event_timestamp <= {}",
            (dialect.time)((first - TIME_SLACK_MS).max(0)),
            (dialect.time)(last.saturating_add(TIME_SLACK_MS)),
        );
        rows.extend(origins(sink, place, &condition).await?);
    }
    Ok(rows)
}

/// Lists of at most [`IDS_BYTES_MAX`], or of one.
fn lists(ids: BTreeSet<String>) -> Vec<String> {
    let mut lists: Vec<String> = Vec::new();
    for id in ids {
        match lists.last_mut() {
            Some(list) if list.len() + id.len() < IDS_BYTES_MAX => {
                list.push(',');
                list.push_str(&id);
            }
            _ => lists.push(id),
        }
    }
    lists
}

/// Times of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeRange {
    /// Epoch milliseconds.
    pub from_ms: i64,
    /// The first that is not in it.
    pub until_ms: i64,
}

/// Rows whose ids begin with `prefix`, of `a-z 0-9 -`, within a time.
fn of_run(sink: &dyn Inspect, prefix: &str, range: Option<TimeRange>) -> String {
    let dialect = sink.dialect();
    let ids = format!("event_id LIKE {}", (dialect.literal)(&format!("{prefix}%")));
    let Some(TimeRange { from_ms, until_ms }) = range else {
        return ids;
    };
    let at_ms = (dialect.at_ms)("event_timestamp");
    format!(
        "{ids} AND {at_ms} >= {from_ms} AND {at_ms} < {until_ms} \
         AND event_timestamp >= {} AND event_timestamp <= {}",
        // As of `by_keys`.
        (dialect.time)((from_ms - TIME_SLACK_MS).max(0)),
        (dialect.time)(until_ms.saturating_add(TIME_SLACK_MS)),
    )
}

/// How many rows of a run there are, by `event_timestamp / bucket_ms`.
///
/// # Errors
/// When the sink does not answer; worth another try.
pub async fn run_buckets(
    sink: &dyn Inspect,
    place: Place<'_>,
    prefix: &str,
    range: TimeRange,
    bucket_ms: i64,
) -> Result<BTreeMap<i64, u64>, WriteError> {
    let dialect = sink.dialect();
    let at_ms = (dialect.at_ms)("event_timestamp");
    let bucket = (dialect.quotient)(&at_ms, bucket_ms.unsigned_abs());
    let sql = format!(
        "SELECT {}, {} FROM {} WHERE {} GROUP BY {bucket}",
        (dialect.text)(&bucket),
        (dialect.text)("count(*)"),
        place.of(sink),
        of_run(sink, prefix, Some(range)),
    );
    let rows = sink.rows(sql, 2).await?;
    let buckets = rows
        .iter()
        .map(|row| Ok((number(row, 0)?, number(row, 1)?)));
    buckets.collect()
}

/// The ids of a run's rows within a time.
///
/// # Errors
/// When the sink does not answer; worth another try.
pub async fn run_ids(
    sink: &dyn Inspect,
    place: Place<'_>,
    prefix: &str,
    range: TimeRange,
) -> Result<Vec<String>, WriteError> {
    let table = place.of(sink);
    let condition = of_run(sink, prefix, Some(range));
    let sql = format!("SELECT event_id FROM {table} WHERE {condition}");
    let rows = sink.rows(sql, 1).await?;
    let ids = rows
        .into_iter()
        .map(|row| match <[String; 1]>::try_from(row) {
            Ok([id]) => Ok(id),
            Err(row) => Err(odd(&row)),
        });
    ids.collect()
}

/// How many rows a run has, whatever their times.
///
/// # Errors
/// When the sink does not answer; worth another try.
pub async fn run_rows(
    sink: &dyn Inspect,
    place: Place<'_>,
    prefix: &str,
) -> Result<u64, WriteError> {
    count(sink, &place.of(sink), &of_run(sink, prefix, None)).await
}

/// How many rows a run has within a time, with those that readers do not see; `None` where
/// there are none of that kind.
///
/// # Errors
/// When the sink does not answer; worth another try.
pub async fn run_rows_raw(
    sink: &dyn Inspect,
    place: Place<'_>,
    prefix: &str,
    range: TimeRange,
) -> Result<Option<u64>, WriteError> {
    if sink.dialect().once.is_empty() {
        return Ok(None);
    }
    let condition = of_run(sink, prefix, Some(range));
    count(sink, &place.raw(sink), &condition).await.map(Some)
}

async fn count(sink: &dyn Inspect, table: &str, condition: &str) -> Result<u64, WriteError> {
    let text = (sink.dialect().text)("count(*)");
    let sql = format!("SELECT {text} FROM {table} WHERE {condition}");
    let rows = sink.rows(sql, 1).await?;
    number(rows.first().map_or(&[], Vec::as_slice), 0)
}
