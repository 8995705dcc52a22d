//! Writes rows into a sink, whatever it takes: waits while the sink is down, and
//! halves what it refuses until the refused rows stand alone. Called by `worker`
//! and `direct`.
//!
//! # Invariants
//! - Returns a verdict for every row, or `Stopped` with none promised.
//! - A retry sends the same rows in the same order with the same token.
//! - A sink that is away is asked no oftener than the backoff has it, whatever it asks for (test
//!   `a_sink_that_asks_for_no_pause_gets_one`).
//! - A table is held also while a write of it hangs (test `a_write_that_hangs_holds_its_table`).
//! - One log line when the sink goes away and one when it is back, of all who write to it and
//!   not one a retry; its gauge says the same (tests `a_sink_that_is_away_shows`,
//!   `an_outage_is_said_once_however_many_wait`).

use crate::pace::Pace;
use crate::retry::Backoff;
use crate::sink::schema::{LAUNCH_REFER_EVENTS, Table};
use crate::sink::{Batch, Device, Launch, Row, Sink, WriteError, absence};
use crate::telemetry::{Metrics, SinkAway};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How long a write may take before its table counts as held: far more than one takes of a sink
/// that works, and less than who looks for its rows grants it (`launches`).
pub(super) const USUAL_WRITE: Duration = Duration::from_secs(5);

/// The service stops; nothing is known of rows without a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stopped;

/// What became of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Committed.
    Written,
    /// Refused by the sink for its content.
    Refused(String),
}

/// Where rows go.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) sink: Arc<dyn Sink>,
    pub(super) table: &'static Table,
    pub(super) namespace: Option<String>,
    /// Who writes, for logs and metrics.
    pub(super) who: String,
    pub(super) metrics: Metrics,
    /// Who is told when the sink has too much to do.
    pub(super) pace: Pace,
}

impl Target {
    /// Writes all rows; `ids` name them for the deduplication token. They are copied only
    /// where the sink refuses some.
    pub(super) async fn write(
        &self,
        rows: Arc<[Row]>,
        ids: &[String],
        stop: &CancellationToken,
    ) -> Result<Vec<Verdict>, Stopped> {
        let mut verdicts = vec![Verdict::Written; rows.len()];
        let mut ranges: Vec<Range<usize>> = Vec::new();
        if !rows.is_empty() {
            ranges.push(0..rows.len());
        }
        while let Some(range) = ranges.pop() {
            let batch = Batch {
                table: self.table,
                namespace: self.namespace.clone(),
                rows: if range.len() == rows.len() {
                    Arc::clone(&rows)
                } else {
                    rows[range.clone()].into()
                },
                token: token(self.table, &ids[range.clone()]),
            };
            match self.write_one(&batch, stop).await? {
                Verdict::Written => {}
                refused @ Verdict::Refused(_) if range.len() == 1 => {
                    verdicts[range.start] = refused;
                }
                Verdict::Refused(_) => {
                    let middle = range.start + range.len() / 2;
                    ranges.push(middle..range.end);
                    ranges.push(range.start..middle);
                }
            }
        }
        Ok(verdicts)
    }

    /// Looks launches up, for as long as it takes the sink to answer.
    pub(super) async fn launches(
        &self,
        devices: &[Device],
        stop: &CancellationToken,
    ) -> Result<Vec<Option<Launch>>, Stopped> {
        let mut backoff = Backoff::new();
        let mut away: Option<SinkAway> = None;
        loop {
            let began = Instant::now();
            let asked = tokio::select! {
                asked = self.sink.launches(self.namespace.as_deref(), devices) => asked,
                () = stop.cancelled() => return Err(Stopped),
            };
            let error = match asked {
                Ok(launches) if launches.len() == devices.len() => {
                    if let Some(away) = away {
                        away.back();
                    }
                    return Ok(launches);
                }
                Ok(_) => "as many answers as devices expected".to_owned(),
                Err(error) => error.to_string(),
            };
            let sink = self.sink.name();
            let kind = absence::kind(&error, false, "launches");
            let place = LAUNCH_REFER_EVENTS.name;
            let away = away.get_or_insert_with(|| self.metrics.sink_away(sink, place));
            if away.is_new(&kind, began) {
                tracing::warn!(
                    who = self.who,
                    sink,
                    error,
                    "sink is away (cannot look up); holding"
                );
            } else {
                tracing::debug!(who = self.who, sink, error, "the sink is still away");
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.next()) => {}
                () = stop.cancelled() => return Err(Stopped),
            }
        }
    }

    /// Has the table count as held while its sink hangs with a write.
    async fn shown<T>(&self, write: impl Future<Output = T>) -> T {
        tokio::pin!(write);
        if let Ok(written) = tokio::time::timeout(USUAL_WRITE, &mut write).await {
            return written;
        }
        let _held = self.metrics.table_held(self.sink.name(), self.table.name);
        write.await
    }

    /// Writes one frozen batch, holding it for as long as the sink is away.
    async fn write_one(&self, batch: &Batch, stop: &CancellationToken) -> Result<Verdict, Stopped> {
        let mut backoff = Backoff::new();
        let mut away: Option<SinkAway> = None;
        let sink = self.sink.name();
        loop {
            let began = Instant::now();
            let written = tokio::select! {
                written = self.shown(self.sink.write(batch)) => written,
                () = stop.cancelled() => return Err(Stopped),
            };
            let (reason, retry_after, overloaded) = match written {
                Ok(()) => {
                    self.metrics.sink_write(sink, "written");
                    return Ok(Verdict::Written);
                }
                Err(WriteError::Refused { reason }) => {
                    self.metrics.sink_write(sink, "refused");
                    return Ok(Verdict::Refused(reason));
                }
                Err(WriteError::Unavailable {
                    reason,
                    retry_after,
                    overloaded,
                }) => {
                    if overloaded {
                        self.pace.overloaded(&reason);
                    }
                    (reason, retry_after, overloaded)
                }
            };
            self.metrics.sink_write(sink, "unavailable");
            self.metrics.trouble(sink, &reason);
            if self.who != sink {
                self.metrics
                    .trouble(&self.who, &format!("{sink} is away: {reason}"));
            }
            let kind = absence::kind(&reason, overloaded, self.table.name);
            let away = away.get_or_insert_with(|| self.metrics.sink_away(sink, self.table.name));
            if away.is_new(&kind, began) {
                tracing::warn!(who = self.who, sink, %reason, "sink is away; holding");
            } else {
                tracing::debug!(who = self.who, sink, %reason, "the sink is still away");
            }
            // Whoever asks for no pause at all gets the usual one.
            let wait = backoff.next().max(retry_after.unwrap_or_default());
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = stop.cancelled() => return Err(Stopped),
            }
        }
    }
}

/// The same rows of the same table, the same token.
pub(super) fn token(table: &Table, ids: &[String]) -> String {
    let mut content = table.name.as_bytes().to_vec();
    for id in ids {
        content.push(0);
        content.extend(id.as_bytes());
    }
    Uuid::new_v5(&Uuid::NAMESPACE_OID, &content).to_string()
}

#[cfg(test)]
#[path = "deliver_tests.rs"]
mod tests;
