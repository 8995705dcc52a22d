//! The metrics, each with its name, unit and labels in one place. Call sites use
//! the methods; no metric name stands anywhere else.
//!
//! # Invariants
//! - Every way an event can leave has a counter: delivered, refused, set aside.
//! - Label values come from enums, configuration or our own names, never from
//!   foreign input.

use super::vitals::{Vital, Vitals};
use prometheus::{
    Encoder, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};
use std::collections::BTreeMap;
use std::time::Duration;

/// All metrics of one process.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    events: IntCounter,
    ack_latency: Histogram,
    journal: IntGaugeVec,
    cursor_backlog: IntGaugeVec,
    connected: IntGaugeVec,
    forwarded: IntCounterVec,
    confirm_latency: Histogram,
    consumed: IntCounterVec,
    sink_writes: IntCounterVec,
    dead_letters: IntCounterVec,
    ledger: IntGaugeVec,
    ledger_accepted: IntGaugeVec,
    oldest_pending: IntGaugeVec,
    ready: IntGauge,
    vitals: Vitals,
}

impl Metrics {
    /// Makes and registers all metrics.
    #[must_use]
    pub fn new() -> Self {
        let registry = Registry::new();
        let metrics = Self {
            requests: counters(
                "holdfast_ingest_requests_total",
                "Requests by door (grpc, http) and outcome (accepted, or the refusal's name)",
                &["door", "outcome"],
            ),
            events: IntCounter::with_opts(Opts::new(
                "holdfast_ingest_events_total",
                "Events acknowledged as durable",
            ))
            .expect(VALID),
            ack_latency: Histogram::with_opts(
                HistogramOpts::new(
                    "holdfast_ingest_ack_latency_seconds",
                    "From the request's bytes to its durable acknowledgement",
                )
                .buckets(LATENCY_BUCKETS.to_vec()),
            )
            .expect(VALID),
            journal: gauges(
                "holdfast_journal_state",
                "The journal: used_bytes, free_bytes, pressure (0 none, 1 warn, 2 slow, 3 refuse), generations, oldest_seq, durable_end_seq, lost_records, expired_appends, fenced (0/1)",
                &["what"],
            ),
            cursor_backlog: gauges(
                "holdfast_journal_backlog_requests",
                "Durable requests that a way out has not delivered",
                &["cursor"],
            ),
            connected: gauges(
                "holdfast_connected",
                "1 while the way out or consumer has its connection",
                &["who"],
            ),
            forwarded: counters(
                "holdfast_forward_messages_total",
                "Messages to the broker by outcome: confirmed, unroutable, nacked, lost",
                &["outcome"],
            ),
            confirm_latency: Histogram::with_opts(
                HistogramOpts::new(
                    "holdfast_forward_confirm_latency_seconds",
                    "From a message's publish to its confirm",
                )
                .buckets(LATENCY_BUCKETS.to_vec()),
            )
            .expect(VALID),
            consumed: counters(
                "holdfast_consumer_rows_total",
                "Rows and messages by consumer and outcome: written (rows), retried, refused (messages), unreadable (messages)",
                &["consumer", "outcome"],
            ),
            sink_writes: counters(
                "holdfast_sink_writes_total",
                "Batches by sink and outcome: written, unavailable, refused",
                &["sink", "outcome"],
            ),
            dead_letters: counters(
                "holdfast_dead_letters_total",
                "Events set aside on this host by the way out that could not deliver them",
                &["way_out"],
            ),
            ledger: gauges(
                "holdfast_ledger_events",
                "What became of the events accepted since the way out exists, by state: delivered, pending, dead_lettered, purged, lost",
                &["way", "event", "state"],
            ),
            ledger_accepted: gauges(
                "holdfast_ledger_accepted_events",
                "Events ever accepted by this host, by type",
                &["event"],
            ),
            oldest_pending: gauges(
                "holdfast_oldest_pending_age_seconds",
                "How long the oldest request waits that a way out has not delivered; 0 without one",
                &["way"],
            ),
            ready: IntGauge::new("holdfast_ready", "1 while requests are accepted").expect(VALID),
            registry,
            vitals: Vitals::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&self) {
        let all: [Box<dyn prometheus::core::Collector>; 16] = [
            Box::new(self.requests.clone()),
            Box::new(self.events.clone()),
            Box::new(self.ack_latency.clone()),
            Box::new(self.journal.clone()),
            Box::new(self.cursor_backlog.clone()),
            Box::new(self.connected.clone()),
            Box::new(self.forwarded.clone()),
            Box::new(self.confirm_latency.clone()),
            Box::new(self.consumed.clone()),
            Box::new(self.sink_writes.clone()),
            Box::new(self.dead_letters.clone()),
            Box::new(self.ledger.clone()),
            Box::new(self.ledger_accepted.clone()),
            Box::new(self.oldest_pending.clone()),
            Box::new(self.ready.clone()),
            Box::new(build_info()),
        ];
        for collector in all {
            self.registry
                .register(collector)
                .expect("each name is registered once");
        }
    }

    /// One request was answered.
    pub fn request(&self, door: &'static str, outcome: &'static str) {
        self.requests.with_label_values(&[door, outcome]).inc();
    }

    /// Events were acknowledged after this long.
    pub fn acknowledged(&self, events: usize, latency: Duration) {
        self.events.inc_by(events as u64);
        self.ack_latency.observe(latency.as_secs_f64());
    }

    /// A value of the journal's state.
    pub fn journal(&self, what: &'static str, value: u64) {
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        self.journal.with_label_values(&[what]).set(value);
    }

    /// How many requests a cursor is behind.
    pub fn backlog(&self, cursor: &str, requests: u64) {
        let requests = i64::try_from(requests).unwrap_or(i64::MAX);
        self.cursor_backlog
            .with_label_values(&[cursor])
            .set(requests);
    }

    /// What became of events of one type on a way out. The type is a
    /// name of `event::tally`, whose number is bounded.
    pub fn ledger(&self, way: &str, event: &str, state: &'static str, events: u64) {
        let events = i64::try_from(events).unwrap_or(i64::MAX);
        self.ledger
            .with_label_values(&[way, event, state])
            .set(events);
    }

    /// Events of one type that were accepted.
    pub fn ledger_accepted(&self, event: &str, events: u64) {
        let events = i64::try_from(events).unwrap_or(i64::MAX);
        self.ledger_accepted.with_label_values(&[event]).set(events);
    }

    /// How long a way out's oldest request has been waiting.
    pub fn oldest_pending(&self, way: &str, seconds: u64) {
        let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
        self.oldest_pending.with_label_values(&[way]).set(seconds);
    }

    /// A way out or consumer has its connection, or has lost it.
    pub fn connected(&self, who: &str, is: bool) {
        self.connected.with_label_values(&[who]).set(i64::from(is));
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

    /// How ways out, consumers and sinks do at this moment, by name.
    #[must_use]
    pub fn vitals(&self) -> BTreeMap<String, Vital> {
        self.vitals.all()
    }

    /// A message to the broker ended.
    pub fn forwarded(&self, outcome: &'static str) {
        self.forwarded.with_label_values(&[outcome]).inc();
    }

    /// A message was confirmed after this long.
    pub fn confirmed(&self, latency: Duration) {
        self.forwarded("confirmed");
        self.confirm_latency.observe(latency.as_secs_f64());
    }

    /// Rows or messages of a consumer ended.
    pub fn consumed(&self, consumer: &str, outcome: &'static str, count: usize) {
        self.consumed
            .with_label_values(&[consumer, outcome])
            .inc_by(count as u64);
        if outcome == "written" && count > 0 {
            self.vitals.done(consumer);
        }
    }

    /// A sink answered a batch.
    pub fn sink_write(&self, sink: &str, outcome: &'static str) {
        self.sink_writes.with_label_values(&[sink, outcome]).inc();
        if outcome == "written" {
            self.vitals.done(sink);
        }
    }

    /// Events were set aside on this host.
    pub fn dead_letters(&self, way_out: &str, events: usize) {
        self.dead_letters
            .with_label_values(&[way_out])
            .inc_by(events as u64);
    }

    /// Whether requests are accepted.
    pub fn ready(&self, is: bool) {
        self.ready.set(i64::from(is));
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

fn counters(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    IntCounterVec::new(Opts::new(name, help), labels).expect(VALID)
}

fn gauges(name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    IntGaugeVec::new(Opts::new(name, help), labels).expect(VALID)
}

fn build_info() -> IntGaugeVec {
    let info = gauges("holdfast_build_info", "Always 1", &["version"]);
    info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
    info
}
