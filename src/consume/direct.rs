//! The way out without a broker: the journal's records through the same handlers
//! into one sink, by one cursor. Called by `app`, once for each sink.
//!
//! # Invariants
//! - The cursor moves after the rows of all records before it are committed, and
//!   what the sink refused of them is in the dead letters.
//! - Bounded: what is in memory are the rows of one group beyond a batch, however many
//!   rows a record becomes (test `a_large_record_is_written_batch_by_batch`).

use super::deliver::{Stopped, Target, Verdict};
use super::handlers::{self, Item};
use super::in_hand::{Outcome, Rows, Source};
use super::webhooks::{self, Taker};
use crate::clock::now_ms;
use crate::dead_letters::{DeadLetter, DeadLetters};
use crate::event::envelope::{self, Origins, PROTOBUF};
use crate::event::group::{Group, Route};
use crate::event::guarded::{PANICKED, unless_it_panics};
use crate::event::limits;
use crate::event::parcel::Destination;
use crate::event::split;
use crate::event::tally::Tally;
use crate::event::webhook;
use crate::journal::{Cursor, Journal, Kind, Passed, Record};
use crate::pace::{Lane, Pace, Pacer};
use crate::retry::Backoff;
use crate::sink::Sink;
use crate::sink::schema::{ERROR_EVENTS, EVENTS};
use crate::telemetry::{Metrics, News};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Bytes of records that are handled at a time.
const READ_BYTES: usize = 1 << 20;

/// How long records may gather once there is one: sinks take many rows at the
/// price of one.
const GATHER: Duration = Duration::from_millis(100);

/// The pump of one sink.
#[derive(Debug, Clone)]
pub struct Direct {
    /// Where records come from.
    pub journal: Journal,
    /// Where rows go; its name is the cursor's.
    pub sink: Arc<dyn Sink>,
    /// Where refused rows go.
    pub dead_letters: DeadLetters,
    /// For figures.
    pub metrics: Metrics,
    /// What takes webhooks.
    pub takers: Arc<[Taker]>,
    /// For handlers.
    pub context: handlers::Context,
    /// How fast.
    pub pace: Pace,
}

impl Direct {
    /// Pumps until `stop`.
    pub async fn run(&self, cursor: Arc<Cursor>, stop: CancellationToken) {
        let mut backoff = Backoff::new();
        let mut moves = cursor.moves();
        let mut reader = self.journal.reader(cursor.next());
        let mut settings = self.pace.changes();
        let mut pacer = Pacer::new(&self.pace, cursor.name(), 1);
        let mut news = News::default();
        loop {
            tokio::select! {
                waited = reader.wait() => if waited.is_err() { return },
                () = stop.cancelled() => return,
            }
            tokio::select! {
                () = tokio::time::sleep(GATHER) => {}
                () = stop.cancelled() => return,
            }
            let records = match reader.read(READ_BYTES).await {
                Ok(records) => records,
                Err(error) => {
                    if news.is_new("read") {
                        tracing::error!(cursor = cursor.name(), %error, "cannot read the journal; trying again");
                    } else {
                        tracing::debug!(cursor = cursor.name(), %error, "cannot read the journal yet");
                    }
                    tokio::select! {
                        () = tokio::time::sleep(backoff.next()) => continue,
                        () = stop.cancelled() => return,
                    }
                }
            };
            backoff.reset();
            if let Some(lasted) = news.over() {
                tracing::info!(cursor = cursor.name(), failed_for = ?lasted, "the journal is read again");
            }
            let events = records.iter().map(|record| record.events.total()).sum();
            // One lane: rows are told apart by their keys, so all is as fresh as it gets.
            while let Some(due) = pacer.admit(Lane::Fresh, events, Instant::now().into_std()) {
                tokio::select! {
                    () = tokio::time::sleep_until(due.into()) => {}
                    _ = settings.changed() => {}
                    () = stop.cancelled() => return,
                }
            }
            let delivered = tokio::select! {
                delivered = self.deliver(records, &stop) => delivered,
                // Rows that were written show once, wherever it goes on.
                _ = moves.changed() => {
                    reader = self.journal.reader(cursor.next());
                    continue;
                }
            };
            let Ok(passed) = delivered else {
                return;
            };
            cursor.advance(reader.position(), &passed);
            self.metrics.delivered(cursor.name(), now_ms());
        }
    }

    /// Writes the records' rows, and says what became of each record.
    async fn deliver(
        &self,
        records: Vec<Record>,
        stop: &CancellationToken,
    ) -> Result<Vec<Passed>, Stopped> {
        let mut events = Rows::new(&EVENTS);
        let mut errors = Rows::new(&ERROR_EVENTS);
        let mut webhooks: BTreeMap<&str, Rows> = BTreeMap::new();
        let mut passed = Outcome::new(&records);
        for record in records {
            if let Kind::Webhook(source) = record.kind {
                self.take_webhook(&record, source, &mut webhooks, &mut passed, stop)
                    .await?;
                continue;
            }
            let rejected = record.reason.as_deref();
            let split = || split::split(&record.content, record.received_at_ms, rejected);
            let mut groups = match unless_it_panics(split) {
                Some(Ok(groups)) => groups,
                Some(Err(error)) => {
                    let why = (error.to_string(), error.indexes());
                    self.set_aside_whole(&record, why, &mut passed, stop)
                        .await?;
                    continue;
                }
                None => {
                    let why = (PANICKED.to_owned(), record.indexes());
                    self.set_aside_whole(&record, why, &mut passed, stop)
                        .await?;
                    continue;
                }
            };
            loop {
                let Some(group) = unless_it_panics(|| groups.next()) else {
                    // The groups before this one may be rows already, and are both then.
                    let why = (PANICKED.to_owned(), record.indexes());
                    self.set_aside_whole(&record, why, &mut passed, stop)
                        .await?;
                    break;
                };
                let Some(group) = group else { break };
                let rows = match group.route {
                    Route::Type(_) => &mut events,
                    Route::Error(_) => &mut errors,
                };
                self.take_group(&record, group, rows, &mut passed, stop)
                    .await?;
                if rows.is_full() {
                    self.write(rows, &mut passed, stop).await?;
                }
            }
        }
        self.write(&mut events, &mut passed, stop).await?;
        self.write(&mut errors, &mut passed, stop).await?;
        for rows in webhooks.values_mut() {
            self.write(rows, &mut passed, stop).await?;
        }
        Ok(passed.0)
    }

    /// A record as it is in the log, with why, and the places of its events.
    async fn set_aside_whole(
        &self,
        record: &Record,
        (reason, indexes): (String, String),
        passed: &mut Outcome,
        stop: &CancellationToken,
    ) -> Result<(), Stopped> {
        let letter = DeadLetter {
            reason: limits::reason(&reason),
            indexes,
            content_type: PROTOBUF.to_owned(),
            body: record.content.to_vec(),
            ..self.letter(record.seq.0)
        };
        self.keep(&letter, stop).await?;
        passed.dead_lettered(record.seq.0, &record.events);
        Ok(())
    }

    async fn take_webhook(
        &self,
        record: &Record,
        source: webhook::Source,
        rows: &mut BTreeMap<&'static str, Rows>,
        passed: &mut Outcome,
        stop: &CancellationToken,
    ) -> Result<(), Stopped> {
        let host = self.journal.host();
        let made = webhooks::make(&self.takers, source, record, host, &self.context, now_ms());
        let letter = Arc::new(DeadLetter {
            event_name: source.event_name().to_owned(),
            indexes: "0".to_owned(),
            content_type: made.letter.0.to_owned(),
            body: made.letter.1,
            destination: made.letter.2,
            ..self.letter(record.seq.0)
        });
        if let Some(reason) = made.refused {
            let source = Source::Webhook(Arc::clone(&letter), source);
            self.set_aside(&source, &reason, passed, stop).await?;
        }
        for (table, new) in made.rows {
            let rows = rows.entry(table.name).or_insert_with(|| Rows::new(table));
            rows.push(new, Source::Webhook(Arc::clone(&letter), source));
            if rows.is_full() {
                self.write(rows, passed, stop).await?;
            }
        }
        Ok(())
    }

    async fn take_group(
        &self,
        record: &Record,
        group: Group,
        rows: &mut Rows,
        passed: &mut Outcome,
        stop: &CancellationToken,
    ) -> Result<(), Stopped> {
        let origins = Arc::new(Origins {
            host: self.journal.host().to_string(),
            seq: record.seq.0,
            indexes: group.indexes.clone(),
        });
        let group = Arc::new(group);
        let make = || match &group.route {
            Route::Type(_) => handlers::rows(group.parts(), &origins, now_ms()),
            Route::Error(reason) => {
                let clocks = handlers::Clocks {
                    received_at_ms: Some(record.received_at_ms),
                    now_ms: now_ms(),
                };
                handlers::error_rows(group.parts(), &origins, reason, &record.content, clocks)
            }
        };
        let items: Vec<Item> = unless_it_panics(make).unwrap_or_else(|| {
            // A refused batch without events is a row, too.
            let rows = group.events.len().max(1);
            (0..rows).map(|_| Err(PANICKED.to_owned())).collect()
        });
        // The sources keep it until its rows are written.
        rows.bytes += group.encoded_len();
        for (at, item) in items.into_iter().enumerate() {
            let source = Source::Event {
                batch: Arc::clone(&group),
                origins: Arc::clone(&origins),
                kind: record.kind,
                at,
            };
            match item {
                Ok(new) => rows.push(new, source),
                Err(reason) => self.set_aside(&source, &reason, passed, stop).await?,
            }
        }
        Ok(())
    }

    async fn write(
        &self,
        rows: &mut Rows,
        passed: &mut Outcome,
        stop: &CancellationToken,
    ) -> Result<(), Stopped> {
        let target = Target {
            sink: Arc::clone(&self.sink),
            table: rows.table,
            namespace: None,
            who: self.sink.name().to_owned(),
            metrics: self.metrics.clone(),
            pace: self.pace.clone(),
        };
        let written = std::mem::take(&mut rows.rows).into();
        let verdicts = target.write(written, &rows.ids, stop).await?;
        for (verdict, source) in verdicts.into_iter().zip(&rows.letters) {
            if let Verdict::Refused(reason) = verdict {
                self.set_aside(source, &reason, passed, stop).await?;
            }
        }
        *rows = Rows::new(rows.table);
        Ok(())
    }

    async fn set_aside(
        &self,
        source: &Source,
        reason: &str,
        passed: &mut Outcome,
        stop: &CancellationToken,
    ) -> Result<(), Stopped> {
        let (group, origins, kind, at) = match source {
            Source::Event {
                batch,
                origins,
                kind,
                at,
            } => (batch, origins, kind, *at),
            Source::Webhook(letter, source) => {
                let letter = DeadLetter {
                    reason: limits::reason(reason),
                    ..DeadLetter::clone(letter)
                };
                self.keep(&letter, stop).await?;
                passed.dead_lettered(letter.seq, &Tally::webhook(*source));
                return Ok(());
            }
        };
        let event = group.events.get(at);
        let name = event.map(crate::event::descriptor::EventType::of);
        let counted = match kind {
            Kind::Dispatch => Tally::of_events(event),
            Kind::Rejected => Tally::rejected(),
            Kind::Webhook(source) => Tally::webhook(*source),
        };
        let destination = match &group.route {
            Route::Type(_) => Destination::Table {
                name: EVENTS.name.to_owned(),
                reason: None,
            },
            Route::Error(reason) => Destination::Table {
                name: ERROR_EVENTS.name.to_owned(),
                reason: Some(reason.clone()),
            },
        };
        let one = group.single(at);
        let (content_type, body) = match unless_it_panics(|| envelope::encode(&one)) {
            Some(Ok(encoded)) => encoded,
            // No JSON form: the bytes say all.
            Some(Err(_)) | None => (PROTOBUF, one.protobuf()),
        };
        let letter = DeadLetter {
            event_name: name.map(|name| name.name()).unwrap_or_default(),
            reason: limits::reason(reason),
            indexes: origins.index(at).to_string(),
            content_type: content_type.to_owned(),
            body,
            destination,
            ..self.letter(origins.seq)
        };
        self.keep(&letter, stop).await?;
        passed.dead_lettered(origins.seq, &counted);
        Ok(())
    }

    async fn keep(&self, letter: &DeadLetter, stop: &CancellationToken) -> Result<(), Stopped> {
        let kept = self.dead_letters.keep(letter, &self.metrics, stop).await;
        if kept { Ok(()) } else { Err(Stopped) }
    }

    fn letter(&self, seq: u64) -> DeadLetter {
        DeadLetter {
            way_out: self.sink.name().to_owned(),
            event_name: String::new(),
            reason: String::new(),
            host: self.journal.host().to_string(),
            seq,
            indexes: String::new(),
            content_type: String::new(),
            body: Vec::new(),
            destination: Destination::Nowhere,
        }
    }
}

#[cfg(test)]
#[path = "direct_tests.rs"]
mod tests;
