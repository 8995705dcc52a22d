//! Whether every event that this host accepted shows in its tables: the log and its receipts
//! on one side, rows by host and sequence on the other. Called by the `cli` (`reconcile`,
//! `drill`).
//!
//! # Invariants
//! - Takes no lock and changes nothing; works beside a running service, and on the directory
//!   of a dead host.
//! - What is said to be missing has no row of its own and none of the same event from another
//!   request, is not set aside, purged, lost or still pending (test
//!   `reconcile_names_exactly_what_is_missing_and_what_is_extra`).
//! - Times are compared as exactly as the table keeps them (test
//!   `a_table_may_keep_whole_seconds`).
//! - What nothing is known of is said to be unknown, and is never complete.
//! - What a running service acknowledged before is in it, even where its files do not show it
//!   yet (test `what_was_just_acknowledged_is_looked_for`).
//! - Cheap for the database: it sums up once for each sink; only buckets that differ are
//!   fetched, of some tens of thousands of events at a time. Cheap here: one generation's
//!   identities in memory at a time.

mod compare;
mod letters;
mod log;
mod places;
mod ranges;

pub(super) use places::{EventPlace, EventSink, event_sinks};

use crate::admin::{self, CallError, Status};
use crate::config::Config;
use crate::event::identity::Seq;
use crate::forward::Forwarder;
use crate::journal::{InspectError, Span};
use crate::sink::{OptionsError, WriteError};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How long a running service may take to say how far its log goes.
const STATUS_WAIT: Duration = Duration::from_secs(5);

/// Events of each kind that are named; the rest are counted.
pub const NAMED_MAX: usize = 100_000;

/// Which part of the log. What is absent does not bound it.
#[derive(Debug, Clone, Default)]
pub struct Range {
    /// The first sequence.
    pub from_seq: Option<u64>,
    /// The sequence after the last.
    pub to_seq: Option<u64>,
    /// Requests received at this time or later, epoch milliseconds.
    pub since_ms: Option<i64>,
    /// Requests received before it.
    pub until_ms: Option<i64>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The data directory cannot be read.
    #[error(transparent)]
    Log(#[from] InspectError),
    /// The dead letters cannot be read; worth another try.
    #[error("the dead letters cannot be read: {0}")]
    Letters(String),
    /// The directory does not say whose it is.
    #[error("the directory's host id cannot be read")]
    Host,
    /// A sink's section cannot be used.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// No sink of the configuration keeps events, or not the one that was asked for.
    #[error("no such sink is configured for events on this host")]
    NoSink,
    /// A sink did not answer; worth another try.
    #[error("{sink}: {source}")]
    Sink {
        /// Its name.
        sink: &'static str,
        /// What it said.
        source: WriteError,
    },
}

impl ReconcileError {
    /// Whether the same question may be answered later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Sink { .. } | Self::Log(_) | Self::Letters(_))
    }
}

/// An event by name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Item {
    /// Its request.
    pub seq: u64,
    /// Its place there.
    pub index: u32,
    /// Its type; empty of a row that the log does not know.
    pub event: String,
    /// Its id.
    pub event_id: String,
    /// Its time, epoch milliseconds; 0 where it has none.
    pub event_timestamp_ms: i64,
}

/// What became of events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Accepted.
    pub events: u64,
    /// With a row of their own.
    pub rows: u64,
    /// Sent twice: the row is that of another request.
    pub replaced: u64,
    /// In `error_events`, or in the dead letters.
    pub set_aside: u64,
    /// Still to be delivered by the way out.
    pub pending: u64,
    /// Passed over by an operator.
    pub purged: u64,
    /// Nowhere.
    pub missing: u64,
    /// Rows that the log does not know.
    pub extra: u64,
}

/// What one sink has.
#[derive(Debug, Clone, Serialize)]
pub struct SinkReport {
    /// Its name.
    pub sink: String,
    /// The ClickHouse database or Postgres schema of its events, where it is not the sink's
    /// default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The way out that feeds it.
    pub way: String,
    /// All events of the range.
    pub total: Counts,
    /// By the hour in which they were received, UTC. Extra rows are of no hour.
    pub hours: BTreeMap<String, Counts>,
    /// Missing events by name, at most [`NAMED_MAX`].
    pub missing: Vec<Item>,
    /// Extra rows by name, at most as many.
    pub extra: Vec<Item>,
}

/// A range that nothing is known of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unknown {
    /// Its sequences.
    #[serde(flatten)]
    pub span: Span,
    /// Why.
    pub reason: String,
}

/// The answer.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Whose events.
    pub host: String,
    /// The first sequence that was compared.
    pub from_seq: u64,
    /// The one after the last.
    pub to_seq: u64,
    /// Requests in the range.
    pub requests: u64,
    /// Webhooks among them, whose rows are not compared.
    pub webhooks: u64,
    /// Requests that cannot be read back.
    pub lost: Vec<Span>,
    /// Ranges that are not kept any more, or cannot be read.
    pub unknown: Vec<Unknown>,
    /// Each sink, and each namespace of it that gets events.
    pub sinks: Vec<SinkReport>,
}

impl Report {
    /// Whether everything is accounted for, and delivered.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        let of_sink = |sink: &SinkReport| {
            let total = &sink.total;
            total.missing == 0 && total.extra == 0 && total.pending == 0
        };
        self.lost.is_empty() && self.unknown.is_empty() && self.sinks.iter().all(of_sink)
    }

    /// Whether events may still arrive: those that are pending, and those that are missing,
    /// which may be on their way in the broker. What is lost or unknown stays so.
    #[must_use]
    pub fn may_still_come(&self) -> bool {
        let comes = |sink: &SinkReport| sink.total.missing > 0 || sink.total.pending > 0;
        self.sinks.iter().any(comes)
    }
}

/// Compares the log of `config.data.dir` with its sinks, or with the one named.
///
/// # Errors
/// See [`ReconcileError`].
pub async fn reconcile(
    config: &Config,
    range: &Range,
    sink: Option<&str>,
) -> Result<Report, ReconcileError> {
    let sinks: Vec<_> = event_sinks(config)?
        .into_iter()
        .filter(|found| sink.is_none_or(|name| found.sink.name() == name))
        .collect();
    if sinks.is_empty() {
        return Err(ReconcileError::NoSink);
    }
    let dir = config.data.dir.clone();
    let durable_end = durable_end(&dir).await;
    let opened = tokio::task::spawn_blocking({
        let range = range.clone();
        move || log::Log::open(&dir, &range, durable_end)
    });
    let log = Arc::new(opened.await.map_err(|_| ReconcileError::Host)??);
    let letters = letters::Letters::read(&config.data.dir, &log).await?;
    let mut report = Report {
        host: log.host.clone(),
        from_seq: log.span.first.0,
        to_seq: log.span.end.0,
        requests: 0,
        webhooks: 0,
        lost: Vec::new(),
        unknown: log.unknown.clone(),
        sinks: Vec::new(),
    };
    let sinks = sinks.into_iter();
    let places = sinks.flat_map(|EventSink { sink, places }| {
        let of_sink = places.into_iter();
        of_sink.map(move |place| (Arc::clone(&sink), place))
    });
    for (sink, place) in places {
        let way = if config.rabbitmq.is_some() {
            Forwarder::CURSOR
        } else {
            sink.name()
        };
        let side = compare::Side {
            sink,
            way,
            letters: &letters,
            letters_of: [way.to_owned()]
                .into_iter()
                .chain(place.queues.clone())
                .collect(),
            place,
        };
        side.compare(&log, &mut report).await?;
    }
    report.lost.sort_unstable_by_key(|span| span.first);
    report.lost.dedup();
    Ok(report)
}

/// The end of what the service that runs on the directory has made durable; its files say so
/// a moment later. `None` without a service, or one that does not answer: then the files are
/// all there is.
async fn durable_end(data_dir: &Path) -> Option<Seq> {
    match admin::get::<Status>(data_dir, "/status", STATUS_WAIT).await {
        Ok(status) => Some(Seq(status.next_seq)),
        Err(CallError::NotRunning) => None,
        Err(error) => {
            tracing::debug!(%error, "the service does not say how far its log goes");
            None
        }
    }
}

/// The hour of a time, as reports name it.
fn hour(at_ms: i64) -> String {
    let time = chrono::DateTime::from_timestamp_millis(at_ms).unwrap_or_default();
    time.format("%Y-%m-%d %H:00").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::identity::Seq;

    #[test]
    fn what_is_lost_or_too_much_does_not_end_the_wait_for_the_rest() {
        let mut report = Report {
            host: "h".into(),
            from_seq: 1,
            to_seq: 9,
            requests: 8,
            webhooks: 0,
            lost: vec![Span {
                first: Seq(2),
                end: Seq(3),
            }],
            unknown: Vec::new(),
            sinks: vec![SinkReport {
                sink: "s".into(),
                namespace: None,
                way: "s".into(),
                total: Counts {
                    pending: 1,
                    extra: 1,
                    ..Counts::default()
                },
                hours: BTreeMap::new(),
                missing: Vec::new(),
                extra: Vec::new(),
            }],
        };
        assert!(report.may_still_come());
        report.sinks[0].total.pending = 0;
        assert!(!report.may_still_come() && !report.is_complete());
        report.sinks[0].total.missing = 1;
        assert!(report.may_still_come());
    }
}
