//! Whether what a load generator was acknowledged shows in the tables, once each. Called by
//! the `cli` (`load`); knows nothing of this host's log, so it works wherever the databases
//! are reached from.
//!
//! # Invariants
//! - An acknowledged event without a row of its own is missing, whatever became of it; one
//!   with two rows is there twice (tests in `compare`, and
//!   `load_says_exactly_what_is_missing_and_what_is_there_twice`).
//! - What was sent and not acknowledged may be there or not: it is counted, and no fault.
//! - Memory is bounded by one bit for each event sent and sink, and by the ids of one
//!   slice of time.
//! - Of a sink whose consumers fill several namespaces, the first is looked at.
//! - The sinks are looked at side by side, so that one does not make another look late.

mod compare;
mod sent;

pub use compare::{NAMED_MAX, Rows};
pub use sent::{Calls, EVENTS_MAX, RUN_CHARS, RecordError, Sent, State};

use super::reconcile::{EventSink, event_sinks};
use crate::config::Config;
use crate::sink::inspect::{self, Place, TimeRange};
use crate::sink::schema::{ERROR_EVENTS, EVENTS};
use crate::sink::{OptionsError, WriteError};
use compare::Comparison;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Least time between two looks at a sink, which bounds how exactly it is known when
/// something became visible.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A look is followed by a pause of so many times its own length: a judge must not be the
/// load.
const PAUSE_FACTOR: u32 = 2;

/// Ids that are fetched at one time: some megabytes.
const SLICE_ROWS: u64 = 50_000;

/// Slices are made of buckets of time; so many in a run.
const BUCKETS: i64 = 4096;

/// The shortest bucket, in milliseconds: fewer answers for a short run.
const BUCKET_MS_MIN: i64 = 20;

/// How far the clocks of this host and the collector's may differ: a time that lies in the
/// future becomes that of the receipt.
const CLOCKS_DIFFER_MS: i64 = 3_600_000;

/// Why there is no judgement.
#[derive(Debug, thiserror::Error)]
pub enum ArrivalsError {
    /// A sink's section cannot be used.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// No sink of the configuration keeps events.
    #[error("no sink of this configuration keeps events")]
    NoSink,
    /// A sink did not answer before the time was up; worth another try.
    #[error("{sink}: {said}")]
    Sink {
        /// Its name.
        sink: &'static str,
        /// What it said.
        said: WriteError,
    },
}

impl ArrivalsError {
    /// Whether the same question may be answered later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Sink { .. })
    }
}

/// What one sink has of a run.
#[derive(Debug, Clone, Serialize)]
pub struct TableReport {
    /// The sink.
    pub sink: &'static str,
    /// Its rows against what was sent.
    #[serde(flatten)]
    pub rows: Rows,
    /// Rows of the run in `error_events`; such events are missing in `events`.
    pub error_rows: u64,
    /// Further rows of the same events that readers do not see (ClickHouse: before a merge,
    /// without FINAL); `None` where there cannot be any.
    pub raw_duplicate_rows: Option<u64>,
    /// How long after the last acknowledgement all acknowledged events were seen; at most a
    /// look and its pause too long. `None` where they were not, or nobody measured it.
    pub visible_after_ms: Option<u64>,
}

/// The judgement.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Events that were acknowledged.
    pub events_acked: u64,
    /// Events that were sent, and not acknowledged.
    pub events_unknown: u64,
    /// Each sink.
    pub tables: Vec<TableReport>,
}

impl Report {
    /// Whether nothing is missing, nothing is there twice, and nothing that was never sent.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.tables.iter().all(|table| table.rows.is_clean())
    }
}

/// Compares what was sent with the tables of the configuration; waits up to `wait` until all
/// that was acknowledged is there. `last_ack` is when the last acknowledgement came, where
/// this process saw it.
///
/// # Errors
/// See [`ArrivalsError`].
pub async fn judge(
    config: &Config,
    sent: &Sent,
    wait: Duration,
    last_ack: Option<Instant>,
) -> Result<Report, ArrivalsError> {
    let sinks = event_sinks(config)?;
    if sinks.is_empty() {
        return Err(ArrivalsError::NoSink);
    }
    let until = Instant::now() + wait;
    let sides = sinks
        .iter()
        .map(|side| wait_for(side, sent, until, last_ack));
    let tables = futures::future::try_join_all(sides).await?;
    Ok(Report {
        events_acked: sent.acked_events(),
        events_unknown: sent.unknown_events(),
        tables,
    })
}

/// Looks at one sink until nothing is missing any more, or the time is up.
async fn wait_for(
    side: &EventSink,
    sent: &Sent,
    until: Instant,
    last_ack: Option<Instant>,
) -> Result<TableReport, ArrivalsError> {
    loop {
        let began = Instant::now();
        let is_late = began >= until;
        match look(side, sent, is_late, last_ack).await {
            Ok(Some(report)) if is_late || report.rows.missing == 0 => return Ok(report),
            Err(error) if is_late || !error.is_retryable() => return Err(error),
            Ok(_) | Err(_) => {}
        }
        let pause = LOOK_AGAIN.max(began.elapsed() * PAUSE_FACTOR);
        // The last look is at the end.
        let left = until.saturating_duration_since(Instant::now());
        sleep(pause.min(left)).await;
    }
}

/// Looks once; `None` where it is plain that rows are missing, unless the answer is wanted
/// all the same.
async fn look(
    side: &EventSink,
    sent: &Sent,
    is_last: bool,
    last_ack: Option<Instant>,
) -> Result<Option<TableReport>, ArrivalsError> {
    let sink = side.sink.name();
    let failed = |said| ArrivalsError::Sink { sink, said };
    let Some(inspect) = side.sink.inspect() else {
        return Err(ArrivalsError::NoSink);
    };
    let Some(place) = side.places.first() else {
        return Err(ArrivalsError::NoSink);
    };
    let events = Place {
        namespace: place.events.as_deref(),
        table: EVENTS.name,
    };
    let errors = Place {
        namespace: place.errors.as_deref(),
        table: ERROR_EVENTS.name,
    };
    let run = sent.prefix();
    let range = TimeRange {
        from_ms: (sent.from_ms - CLOCKS_DIFFER_MS).max(0),
        until_ms: sent.until_ms + CLOCKS_DIFFER_MS,
    };
    let bucket_ms = ((sent.until_ms - sent.from_ms) / BUCKETS).max(BUCKET_MS_MIN);
    let buckets = inspect::run_buckets(inspect, events, &run, range, bucket_ms).await;
    let buckets = buckets.map_err(failed)?;
    let mut seen_at = Instant::now();
    let rows: u64 = buckets.values().sum();
    if rows < sent.acked_events() && !is_last {
        return Ok(None);
    }
    // First, so that what comes in between is not taken for another copy.
    let raw_rows = inspect::run_rows_raw(inspect, events, &run, range).await;
    let raw_rows = raw_rows.map_err(failed)?;
    // Their times may be none.
    let error_rows = inspect::run_rows(inspect, errors, &run).await;
    let error_rows = error_rows.map_err(failed)?;
    let mut comparison = Comparison::new(sent);
    for slice in slices(&buckets, range, bucket_ms) {
        let ids = inspect::run_ids(inspect, events, &run, slice).await;
        for id in ids.map_err(failed)? {
            comparison.row(&id);
        }
    }
    let found = comparison.rows();
    if found.rows != rows {
        // What came in between is seen now, and was not before.
        seen_at = Instant::now();
    }
    let visible = last_ack.filter(|_| found.missing == 0);
    let visible = visible.map(|last_ack| seen_at.saturating_duration_since(last_ack));
    Ok(Some(TableReport {
        sink,
        error_rows,
        raw_duplicate_rows: raw_rows.map(|raw_rows| raw_rows.saturating_sub(found.rows)),
        visible_after_ms: visible
            .map(|visible| u64::try_from(visible.as_millis()).unwrap_or(u64::MAX)),
        rows: found,
    }))
}

/// Times that together are the whole range, each with about [`SLICE_ROWS`] rows or a single
/// bucket.
fn slices(buckets: &BTreeMap<i64, u64>, range: TimeRange, bucket_ms: i64) -> Vec<TimeRange> {
    let mut slices = Vec::new();
    let (mut from_ms, mut rows) = (range.from_ms, 0);
    for (number, more) in buckets {
        let begins_ms = number * bucket_ms;
        if rows > 0 && rows + more > SLICE_ROWS {
            slices.push(TimeRange {
                from_ms,
                until_ms: begins_ms,
            });
            (from_ms, rows) = (begins_ms, 0);
        }
        rows += more;
    }
    slices.push(TimeRange {
        from_ms,
        until_ms: range.until_ms,
    });
    slices
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_cover_the_whole_time_and_are_bounded() {
        let range = TimeRange {
            from_ms: 1_000,
            until_ms: 900_000,
        };
        let none = slices(&BTreeMap::new(), range, 100);
        assert_eq!(none, [range]);
        let buckets: BTreeMap<_, _> = (100..200).map(|at| (at, 20_000)).collect();
        let some = slices(&buckets, range, 100);
        assert_eq!(some.len(), 50);
        assert_eq!(some[0].from_ms, range.from_ms);
        assert_eq!(some[49].until_ms, range.until_ms);
        for pair in some.windows(2) {
            assert_eq!(pair[0].until_ms, pair[1].from_ms, "no gap");
        }
        // A bucket is not divided.
        let large = BTreeMap::from([(100, SLICE_ROWS * 3), (101, 1)]);
        assert_eq!(slices(&large, range, 100).len(), 2);
    }
}
