//! The service's figures, made from the `catalogue`. Call sites use the methods; no
//! metric name stands anywhere else.
//!
//! # Invariants
//! - Every way an event can leave has a counter: delivered, refused, set aside.
//! - Label values come from enums, configuration or our own names, never from
//!   foreign input; a debug build panics at one that the catalogue does not take.
//! - A counter whose label values are all known is there from the start with 0, so that
//!   its first step is one for Prometheus, too (test
//!   `counters_are_there_before_they_count`).
//! - A sink is available while nobody waits for it (test
//!   `a_sink_is_away_while_anybody_waits_for_it`). Of all who do, one line says so, and one
//!   that it is back (`news`).

use super::catalogue::{self, Entry, Kind};
use super::news::Absence;
use super::sink_away::Held;
use super::vitals::{Vital, Vitals};
use prometheus::core::{Collector, Metric as _};
use prometheus::{
    Encoder, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry,
    TextEncoder,
};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// All metrics of one process.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
    ready: Gauges,
    connections: Gauges,
    connections_ended: Counters,
    certificate_expiry: Gauges,
    certificate_reload_failed: Gauges,
    requests: Counters,
    body_bytes: Gauges,
    events: Counters,
    ack_latency: Histogram,
    journal: Gauges,
    backlog: Gauges,
    oldest_pending: Gauges,
    last_delivery: Gauges,
    connected: Gauges,
    forwarded: Counters,
    forwarded_documents: Counters,
    confirm_latency: Histogram,
    consumed: Counters,
    sink_available: Gauges,
    sink_writes: Counters,
    ledger_accepted: Gauges,
    ledger_way_accepted: Gauges,
    ledger: Gauges,
    ledger_adds_up: Gauges,
    dead_letters: Counters,
    dead_letters_waiting: Gauges,
    /// Who waits for each sink.
    away: Arc<Mutex<BTreeMap<String, Absence>>>,
    /// Which tables are waited for.
    pub(super) held: Held,
    vitals: Vitals,
}

#[derive(Debug, Clone)]
struct Counters {
    entry: &'static Entry,
    vec: IntCounterVec,
}

impl Counters {
    fn of(&self, values: &[&str]) -> IntCounter {
        debug_assert!(self.entry.takes(values), "{values:?} of {:?}", self.entry);
        self.vec.with_label_values(values)
    }
}

#[derive(Debug, Clone)]
struct Gauges {
    entry: &'static Entry,
    vec: IntGaugeVec,
}

impl Gauges {
    fn set(&self, values: &[&str], value: u64) {
        debug_assert!(self.entry.takes(values), "{values:?} of {:?}", self.entry);
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        self.vec.with_label_values(values).set(value);
    }
}

/// Registers, and notes what.
struct Builder {
    registry: Registry,
    registered: Vec<&'static str>,
}

impl Builder {
    fn add(&mut self, entry: &'static Entry, kind: Kind, collector: impl Collector + 'static) {
        assert_eq!(entry.kind, kind, "{}", entry.name);
        let registered = self.registry.register(Box::new(collector));
        registered.expect("each name is registered once");
        self.registered.push(entry.name);
    }

    fn counters(&mut self, entry: &'static Entry) -> Counters {
        let vec = IntCounterVec::new(opts(entry), &label_names(entry)).expect(VALID);
        for values in entry.combinations() {
            vec.with_label_values(&values);
        }
        self.add(entry, Kind::Counter, vec.clone());
        Counters { entry, vec }
    }

    fn gauges(&mut self, entry: &'static Entry) -> Gauges {
        let vec = IntGaugeVec::new(opts(entry), &label_names(entry)).expect(VALID);
        self.add(entry, Kind::Gauge, vec.clone());
        Gauges { entry, vec }
    }

    fn latency(&mut self, entry: &'static Entry) -> Histogram {
        let opts = HistogramOpts::from(opts(entry)).buckets(LATENCY_BUCKETS.to_vec());
        let histogram = Histogram::with_opts(opts).expect(VALID);
        self.add(entry, Kind::Histogram, histogram.clone());
        histogram
    }
}

fn opts(entry: &Entry) -> Opts {
    Opts::new(entry.name, entry.meaning)
}

fn label_names(entry: &Entry) -> Vec<&'static str> {
    entry.labels.iter().map(|label| label.name).collect()
}

impl Metrics {
    /// Makes and registers all metrics.
    #[must_use]
    pub fn new() -> Self {
        Self::build().0
    }

    /// Also says what was registered.
    pub(super) fn build() -> (Self, Vec<&'static str>) {
        let mut make = Builder {
            registry: Registry::new(),
            registered: Vec::new(),
        };
        let info = make.gauges(&catalogue::BUILD_INFO);
        info.set(&[env!("CARGO_PKG_VERSION")], 1);
        let metrics = Self {
            ready: make.gauges(&catalogue::READY),
            connections: make.gauges(&catalogue::CONNECTIONS),
            connections_ended: make.counters(&catalogue::CONNECTIONS_ENDED),
            certificate_expiry: make.gauges(&catalogue::CERTIFICATE_EXPIRY),
            certificate_reload_failed: make.gauges(&catalogue::CERTIFICATE_RELOAD_FAILED),
            requests: make.counters(&catalogue::REQUESTS),
            body_bytes: make.gauges(&catalogue::BODY_BYTES),
            events: make.counters(&catalogue::EVENTS),
            ack_latency: make.latency(&catalogue::ACK_LATENCY),
            journal: make.gauges(&catalogue::JOURNAL),
            backlog: make.gauges(&catalogue::BACKLOG),
            oldest_pending: make.gauges(&catalogue::OLDEST_PENDING),
            last_delivery: make.gauges(&catalogue::LAST_DELIVERY),
            connected: make.gauges(&catalogue::CONNECTED),
            forwarded: make.counters(&catalogue::FORWARDED),
            forwarded_documents: make.counters(&catalogue::FORWARDED_DOCUMENTS),
            confirm_latency: make.latency(&catalogue::CONFIRM_LATENCY),
            consumed: make.counters(&catalogue::CONSUMED),
            sink_available: make.gauges(&catalogue::SINK_AVAILABLE),
            sink_writes: make.counters(&catalogue::SINK_WRITES),
            ledger_accepted: make.gauges(&catalogue::LEDGER_ACCEPTED),
            ledger_way_accepted: make.gauges(&catalogue::LEDGER_WAY_ACCEPTED),
            ledger: make.gauges(&catalogue::LEDGER),
            ledger_adds_up: make.gauges(&catalogue::LEDGER_ADDS_UP),
            dead_letters: make.counters(&catalogue::DEAD_LETTERS),
            dead_letters_waiting: make.gauges(&catalogue::DEAD_LETTERS_WAITING),
            away: Arc::default(),
            held: Held::default(),
            vitals: Vitals::default(),
            registry: make.registry,
        };
        metrics.ready(false);
        (metrics, make.registered)
    }

    /// The bodies of requests hold so many bytes.
    pub fn body_bytes(&self, held: usize) {
        self.body_bytes.set(&[], held as u64);
    }

    /// So many connections of a port are open.
    pub fn connections(&self, port: &'static str, open: usize) {
        self.connections.set(&[port], open as u64);
    }

    /// A connection ended.
    pub fn connection_ended(&self, port: &'static str, outcome: &'static str) {
        self.connections_ended.of(&[port, outcome]).inc();
    }

    /// The certificate ends then, epoch seconds; `None`: it stays, its successor is unusable.
    pub fn certificate(&self, ends_at_s: Option<u64>) {
        let (expiry, failed) = (&self.certificate_expiry, &self.certificate_reload_failed);
        failed.set(&[], u64::from(ends_at_s.is_none()));
        ends_at_s.into_iter().for_each(|at| expiry.set(&[], at));
    }

    /// One request was answered.
    pub fn request(&self, door: &'static str, outcome: &'static str) {
        self.requests.of(&[door, outcome]).inc();
    }

    /// Events were acknowledged after this long.
    pub fn acknowledged(&self, events: usize, latency: Duration) {
        self.events.of(&[]).inc_by(events as u64);
        self.ack_latency.observe(latency.as_secs_f64());
    }

    /// Acknowledgements since the start that took no longer than so many seconds, ascending;
    /// the last are all.
    #[must_use]
    pub fn ack_counts(&self) -> Vec<(f64, u64)> {
        let figure = self.ack_latency.metric();
        let histogram = figure.get_histogram();
        let buckets = histogram.get_bucket().iter();
        let counts = buckets.map(|bucket| (bucket.upper_bound(), bucket.cumulative_count()));
        let all = (f64::INFINITY, histogram.get_sample_count());
        counts.chain([all]).collect()
    }

    /// A value of the journal's state.
    pub fn journal(&self, what: &'static str, value: u64) {
        self.journal.set(&[what], value);
    }

    /// How many requests a cursor is behind.
    pub fn backlog(&self, cursor: &str, requests: u64) {
        self.backlog.set(&[cursor], requests);
    }

    /// What became of events of one type on a way out. The type is a
    /// name of `event::tally`, whose number is bounded.
    pub fn ledger(&self, way: &str, event: &str, state: &'static str, events: u64) {
        self.ledger.set(&[way, event, state], events);
    }

    /// Events of one type that were accepted.
    pub fn ledger_accepted(&self, event: &str, events: u64) {
        self.ledger_accepted.set(&[event], events);
    }

    /// Events of one type that were accepted since a way out exists.
    pub fn ledger_way_accepted(&self, way: &str, event: &str, events: u64) {
        self.ledger_way_accepted.set(&[way, event], events);
    }

    /// Whether a way out's accounts add up.
    pub fn ledger_adds_up(&self, way: &str, does: bool) {
        self.ledger_adds_up.set(&[way], u64::from(does));
    }

    /// How long a way out's oldest request has been waiting.
    pub fn oldest_pending(&self, way: &str, seconds: u64) {
        self.oldest_pending.set(&[way], seconds);
    }

    /// A way out delivered something.
    pub fn delivered(&self, way: &str, now_ms: i64) {
        let seconds = u64::try_from(now_ms / 1000).unwrap_or(0);
        self.last_delivery.set(&[way], seconds);
    }

    /// A way out or consumer has its connection, or has lost it.
    pub fn connected(&self, who: &str, is: bool) {
        self.connected.set(&[who], u64::from(is));
        self.vitals.connected(who, is);
    }

    /// Something troubles a way out, a consumer or a sink, until it is connected or gets
    /// something done.
    pub fn trouble(&self, who: &str, text: &str) {
        self.vitals.trouble(who, text);
    }

    /// A way out got something done.
    pub fn done(&self, who: &str) {
        self.vitals.done(who);
    }

    /// A way out got something done while something else of it is in trouble still.
    pub fn did(&self, who: &str) {
        self.vitals.did(who);
    }

    /// How ways out, consumers and sinks do at this moment, by name.
    #[must_use]
    pub fn vitals(&self) -> BTreeMap<String, Vital> {
        self.vitals.all()
    }

    /// A message to the broker ended.
    pub fn forwarded(&self, outcome: &'static str) {
        self.forwarded.of(&[outcome]).inc();
    }

    /// A message of so many documents was confirmed after this long.
    pub fn confirmed(&self, latency: Duration, documents: usize) {
        self.forwarded("confirmed");
        self.forwarded_documents.of(&[]).inc_by(documents as u64);
        self.confirm_latency.observe(latency.as_secs_f64());
    }

    /// A consumer exists; it has no connection and has done nothing yet.
    pub fn consumer(&self, consumer: &str) {
        self.connected(consumer, false);
        for outcome in ["written", "retried", "refused", "unreadable"] {
            self.consumed(consumer, outcome, 0);
        }
    }

    /// Rows or messages of a consumer ended.
    pub fn consumed(&self, consumer: &str, outcome: &'static str, count: usize) {
        let counter = self.consumed.of(&[consumer, outcome]);
        counter.inc_by(count as u64);
        if outcome == "written" && count > 0 {
            self.vitals.done(consumer);
        }
    }

    /// A sink exists.
    pub fn sink(&self, sink: &str) {
        self.at_sink(sink, |_| {});
    }

    pub(super) fn at_sink<T>(&self, sink: &str, change: impl FnOnce(&Absence) -> T) -> T {
        let mut all = self.away.lock().unwrap_or_else(PoisonError::into_inner);
        let away = all.entry(sink.to_owned()).or_insert_with(|| {
            let sink = sink.to_owned();
            Absence::new(move |lasted| tracing::info!(sink, away_for = ?lasted, "sink is back"))
        });
        let changed = change(away);
        // Under the lock, so that the last change is what shows.
        let available = u64::from(away.waiting() == 0);
        self.sink_available.set(&[sink], available);
        changed
    }

    /// A sink answered a batch.
    pub fn sink_write(&self, sink: &str, outcome: &'static str) {
        self.sink_writes.of(&[sink, outcome]).inc();
        if outcome == "written" {
            self.vitals.done(sink);
        }
        if outcome != "unavailable" {
            self.at_sink(sink, Absence::worked);
        }
    }

    /// Events were set aside on this host.
    pub fn dead_letters(&self, way_out: &str, events: usize) {
        self.dead_letters.of(&[way_out]).inc_by(events as u64);
    }

    /// How many letters of a way out wait for an operator.
    pub fn dead_letters_waiting(&self, way_out: &str, letters: u64) {
        self.dead_letters_waiting.set(&[way_out], letters);
    }

    /// Whether requests are accepted.
    pub fn ready(&self, is: bool) {
        self.ready.set(&[], u64::from(is));
    }

    /// The Prometheus text format of all metrics.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = Vec::new();
        match TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            Ok(()) => String::from_utf8_lossy(&text).into_owned(),
            Err(error) => format!("# metrics cannot be rendered: {error}\n"),
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

const VALID: &str = "names and labels are valid by the tests";

/// From a fast SSD's sync to the default deadlines.
const LATENCY_BUCKETS: [f64; 14] = [
    0.000_25, 0.000_5, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5, 1.0, 10.0,
];

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
