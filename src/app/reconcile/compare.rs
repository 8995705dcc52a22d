//! One sink's rows against what was accepted. Called by `reconcile`; its invariants stand in
//! `mod.rs`.

use super::letters::{At, Letters};
use super::log::Log;
use super::ranges::ranges;
use super::{Counts, EventPlace, Item, NAMED_MAX, ReconcileError, Report, SinkReport, hour};
use crate::event::expect::Expected;
use crate::event::identity::Seq;
use crate::journal::{CursorInfo, Receipted, Span};
use crate::sink::inspect::{self, Digest, Inspect, KEYS_MAX, Place, RowOrigin};
use crate::sink::schema::{ERROR_EVENTS, EVENTS};
use crate::sink::{Sink, WriteError};
use serde_json::Value as Json;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// Requests of a bucket, which the database sums up as one.
const BUCKET: u64 = 4096;

/// What is expected of a bucket.
#[derive(Debug, Default)]
struct Bucket {
    events: Digest,
    errors: Digest,
    hours: BTreeMap<String, (u64, u64)>,
    /// Whether the way out has passed all of it, or some of it.
    passed: bool,
    some_passed: bool,
}

/// One place of a sink, and what feeds it.
pub(super) struct Side<'a> {
    pub(super) sink: Arc<dyn Sink>,
    pub(super) way: &'static str,
    pub(super) place: EventPlace,
    pub(super) letters: &'a Letters,
    /// Whose letters tell what became of its events.
    pub(super) letters_of: Vec<String>,
}

/// What one comparison works on.
struct Work<'a> {
    side: &'a Side<'a>,
    inspect: &'a dyn Inspect,
    log: &'a Arc<Log>,
    cursor: Option<&'a CursorInfo>,
    /// How exactly the table keeps the times of events, in milliseconds.
    unit_ms: i64,
    purged: Vec<Span>,
    found: SinkReport,
}

impl Side<'_> {
    fn waits(&self, at: At) -> bool {
        self.letters.waits(&self.letters_of, at)
    }

    /// Compares, and adds what it found.
    pub(super) async fn compare(
        &self,
        log: &Arc<Log>,
        report: &mut Report,
    ) -> Result<(), ReconcileError> {
        let Some(inspect) = self.sink.inspect() else {
            return Err(ReconcileError::NoSink);
        };
        let first_side = report.sinks.is_empty();
        let mut work = Work {
            side: self,
            inspect,
            log,
            cursor: log.cursors.iter().find(|cursor| cursor.name == self.way),
            unit_ms: 1,
            purged: purged(log, self.way)?,
            found: SinkReport {
                sink: self.sink.name().to_owned(),
                namespace: self.place.events.clone(),
                way: self.way.to_owned(),
                total: Counts::default(),
                hours: BTreeMap::new(),
                missing: Vec::new(),
                extra: Vec::new(),
            },
        };
        // Only the first side tells of the log itself.
        let mut nobody = Report {
            sinks: Vec::new(),
            ..report.clone()
        };
        let of_log = if first_side {
            &mut *report
        } else {
            &mut nobody
        };
        let unit_ms = inspect.unit_ms(work.place(EVENTS.name)).await;
        work.unit_ms = unit_ms.map_err(|e| work.failed(e))?;
        let buckets = work.expect(of_log).await?;
        let differing = work.sum_up(buckets).await?;
        work.look(&differing).await?;
        let mut found = work.found;
        for counts in found.hours.values() {
            add(&mut found.total, counts);
        }
        found.missing.sort_unstable();
        found.extra.sort_unstable();
        report.sinks.push(found);
        Ok(())
    }
}

fn add(total: &mut Counts, other: &Counts) {
    total.events += other.events;
    total.rows += other.rows;
    total.replaced += other.replaced;
    total.set_aside += other.set_aside;
    total.pending += other.pending;
    total.purged += other.purged;
    total.missing += other.missing;
}

impl Work<'_> {
    fn has_passed(&self, seq: Seq) -> bool {
        self.cursor.is_some_and(|cursor| cursor.has_passed(seq))
    }

    /// Whether an operator gave it up: in the log, or in the dead letters.
    fn is_purged(&self, at: At) -> bool {
        let passed_over = |span: &Span| (span.first.0..span.end.0).contains(&at.0);
        let Side {
            letters,
            letters_of,
            ..
        } = self.side;
        self.purged.iter().any(passed_over) || letters.is_purged(letters_of, at)
    }

    fn failed(&self, source: WriteError) -> ReconcileError {
        let sink = self.side.sink.name();
        ReconcileError::Sink { sink, source }
    }

    /// An event's id and time, as its row has them.
    fn key(&self, event: &Expected) -> (String, i64) {
        let at_ms = event.at_ms - event.at_ms.rem_euclid(self.unit_ms);
        (event.id.clone(), at_ms)
    }

    fn place(&self, table: &'static str) -> Place<'_> {
        let EventPlace { events, errors, .. } = &self.side.place;
        let namespace = if table == ERROR_EVENTS.name {
            errors
        } else {
            events
        };
        Place {
            namespace: namespace.as_deref(),
            table,
        }
    }

    /// Sums up what was accepted, bucket by bucket.
    async fn expect(&self, report: &mut Report) -> Result<BTreeMap<u64, Bucket>, ReconcileError> {
        let mut buckets: BTreeMap<u64, Bucket> = BTreeMap::new();
        for at in 0..self.log.pieces() {
            let log = Arc::clone(self.log);
            let read = tokio::task::spawn_blocking(move || log.piece(at));
            let read = read.await.map_err(|_| ReconcileError::Host)??;
            report.lost.extend(read.lost);
            report.unknown.extend(read.unknown);
            for request in &read.requests {
                report.requests += 1;
                report.webhooks += u64::from(request.webhook);
                self.expect_request(request, &mut buckets);
            }
        }
        Ok(buckets)
    }

    fn expect_request(&self, request: &Receipted, buckets: &mut BTreeMap<u64, Bucket>) {
        let passed = self.has_passed(request.seq);
        let bucket = buckets
            .entry(request.seq.0 / BUCKET)
            .or_insert_with(|| Bucket {
                passed: true,
                ..Bucket::default()
            });
        bucket.passed &= passed;
        bucket.some_passed |= passed;
        let hour = bucket
            .hours
            .entry(hour(request.received_at_ms))
            .or_default();
        for event in &request.events {
            if event.refused {
                bucket.errors.add(request.seq.0, event.index);
                hour.1 += 1;
            } else if self.side.place.takes(event.event) {
                bucket.events.add(request.seq.0, event.index);
                hour.0 += 1;
            }
        }
    }

    /// Compares the sums; the buckets that have to be looked into.
    async fn sum_up(
        &mut self,
        buckets: BTreeMap<u64, Bucket>,
    ) -> Result<BTreeSet<u64>, ReconcileError> {
        let range = (self.log.span.first.0, self.log.span.end.0);
        let host = &self.log.host;
        let ask = |table| inspect::digests(self.inspect, self.place(table), host, range, BUCKET);
        let rows = ask(EVENTS.name).await.map_err(|e| self.failed(e))?;
        let errors = ask(ERROR_EVENTS.name).await.map_err(|e| self.failed(e))?;
        let mut differing = BTreeSet::new();
        for (number, bucket) in &buckets {
            let rows = rows.get(number).copied().unwrap_or_default();
            let errors = errors.get(number).copied().unwrap_or_default();
            let same = rows == bucket.events && errors == bucket.errors;
            let untouched = !bucket.some_passed && rows.rows == 0 && errors.rows == 0;
            if !(same && bucket.passed || untouched) {
                differing.insert(*number);
                continue;
            }
            for (hour, (events, refused)) in &bucket.hours {
                let counts = self.found.hours.entry(hour.clone()).or_default();
                counts.events += events + refused;
                if same && bucket.passed {
                    counts.rows += events;
                    counts.set_aside += refused;
                } else {
                    counts.pending += events + refused;
                }
            }
        }
        // Rows of requests that the log does not have.
        let of_nothing = rows.keys().chain(errors.keys());
        differing.extend(of_nothing.filter(|number| !buckets.contains_key(number)));
        Ok(differing)
    }

    /// Fetches the rows of some buckets, and says what became of each event.
    async fn look(&mut self, differing: &BTreeSet<u64>) -> Result<(), ReconcileError> {
        let mut open: BTreeMap<u64, Vec<Receipted>> = BTreeMap::new();
        let mut left: BTreeSet<u64> = differing.clone();
        for at in 0..self.log.pieces() {
            let Some(span) = self.log.span_of(at) else {
                continue;
            };
            let touches = |number: &&u64| {
                let (first, end) = (*number * BUCKET, (*number + 1) * BUCKET);
                first < span.end.0 && span.first.0 < end
            };
            if !differing.iter().any(|number| touches(&number)) {
                continue;
            }
            let log = Arc::clone(self.log);
            let read = tokio::task::spawn_blocking(move || log.piece(at));
            let read = read.await.map_err(|_| ReconcileError::Host)??;
            for request in read.requests {
                let number = request.seq.0 / BUCKET;
                if differing.contains(&number) {
                    open.entry(number).or_default().push(request);
                }
            }
            // A bucket is whole once a piece goes on behind it.
            let whole = open.keys().copied();
            let whole: Vec<_> = whole.filter(|n| (n + 1) * BUCKET <= span.end.0).collect();
            for number in whole {
                let requests = open.remove(&number).unwrap_or_default();
                self.bucket(number, &requests).await?;
                left.remove(&number);
            }
        }
        for number in left {
            let requests = open.remove(&number).unwrap_or_default();
            self.bucket(number, &requests).await?;
        }
        Ok(())
    }

    async fn bucket(&mut self, number: u64, requests: &[Receipted]) -> Result<(), ReconcileError> {
        let span = self.log.span;
        let first = (number * BUCKET).max(span.first.0);
        let end = ((number + 1) * BUCKET).min(span.end.0);
        for (range, requests) in ranges(requests, first, end) {
            self.range(range, requests).await?;
        }
        Ok(())
    }

    async fn range(
        &mut self,
        range: (u64, u64),
        requests: &[Receipted],
    ) -> Result<(), ReconcileError> {
        let host = &self.log.host;
        let ask = |table| inspect::of_range(self.inspect, self.place(table), host, range);
        let of_place = |row: RowOrigin| ((row.seq, row.index), row);
        let rows = ask(EVENTS.name).await.map_err(|e| self.failed(e))?;
        let errors = ask(ERROR_EVENTS.name).await.map_err(|e| self.failed(e))?;
        let mut rows: HashMap<_, _> = rows.into_iter().map(of_place).collect();
        let mut errors: HashMap<_, _> = errors.into_iter().map(of_place).collect();
        let mut without = Vec::new();
        for request in requests {
            for event in &request.events {
                let place = (request.seq.0, event.index);
                let row = rows.remove(&place);
                let error = errors.remove(&place);
                if !event.refused && !self.side.place.takes(event.event) {
                    // Also where it is here, from when it belonged here.
                    continue;
                }
                let (id, at_ms) = self.key(event);
                let is_it = |row: &RowOrigin| row.id == id && row.at_ms == at_ms;
                let counts = self.hour(request);
                counts.events += 1;
                if !event.refused && row.as_ref().is_some_and(is_it) {
                    counts.rows += 1;
                    continue;
                }
                if let Some(row) = row {
                    // It has the event's place, and is another.
                    self.extra(row);
                }
                if error.is_some() || self.side.waits(place) {
                    self.hour(request).set_aside += 1;
                } else {
                    without.push((request, event));
                }
            }
        }
        for row in rows.into_values().chain(errors.into_values()) {
            self.extra(row);
        }
        self.without_row(&without).await
    }

    fn hour(&mut self, request: &Receipted) -> &mut Counts {
        let hour = hour(request.received_at_ms);
        self.found.hours.entry(hour).or_default()
    }

    fn extra(&mut self, row: RowOrigin) {
        self.found.total.extra += 1;
        if self.found.extra.len() < NAMED_MAX {
            self.found.extra.push(Item {
                seq: row.seq,
                index: row.index,
                event: String::new(),
                event_id: row.id,
                event_timestamp_ms: row.at_ms,
            });
        }
    }

    /// Why events have no row of their own.
    async fn without_row(
        &mut self,
        without: &[(&Receipted, &Expected)],
    ) -> Result<(), ReconcileError> {
        for some in without.chunks(KEYS_MAX) {
            let keys = some.iter().filter(|(_, event)| !event.refused);
            let keys: Vec<_> = keys.map(|(_, e)| (e.id.as_str(), e.at_ms)).collect();
            let place = self.place(EVENTS.name);
            let others = inspect::by_keys(self.inspect, place, &keys).await;
            let others = others.map_err(|e| self.failed(e))?;
            let others: HashSet<_> = others.into_iter().map(|row| (row.id, row.at_ms)).collect();
            for (request, event) in some {
                let key = self.key(event);
                let has_passed = self.has_passed(request.seq);
                let is_purged = self.is_purged((request.seq.0, event.index));
                let counts = self.hour(request);
                if !event.refused && others.contains(&key) {
                    counts.replaced += 1;
                } else if !has_passed {
                    // Also what was passed over, where the cursor was put back since then.
                    counts.pending += 1;
                } else if is_purged {
                    counts.purged += 1;
                } else {
                    counts.missing += 1;
                    self.missing(request, event);
                }
            }
        }
        Ok(())
    }

    fn missing(&mut self, request: &Receipted, event: &Expected) {
        if self.found.missing.len() < NAMED_MAX {
            self.found.missing.push(Item {
                seq: request.seq.0,
                index: event.index,
                event: event.event.name().to_owned(),
                event_id: event.id.clone(),
                event_timestamp_ms: event.at_ms,
            });
        }
    }
}

/// What operators passed over, by the audit. A line that is no document is a torn one, of a
/// change that was not made.
fn purged(log: &Log, way: &str) -> Result<Vec<Span>, ReconcileError> {
    let lines = log.audit()?;
    let documents = lines
        .lines()
        .map(serde_json::from_str)
        .filter_map(Result::ok);
    let moves = documents.filter_map(|line: Json| line["done"].as_array().cloned());
    let moves = moves.flatten().filter(|moved| moved["way"] == way);
    let spans = moves.filter_map(|mut moved| {
        serde_json::from_value::<Vec<Span>>(moved["passed_over"].take()).ok()
    });
    Ok(spans.flatten().collect())
}
