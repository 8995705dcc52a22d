//! Every metric that the service serves: its name, type, unit, labels with their
//! values, and what it means. `metrics` registers them from here; the README's table
//! is this one.
//!
//! # Invariants
//! - Nothing is served that does not stand here, and all that stands here is
//!   registered (test `all_that_is_registered_stands_here_once`).
//! - The README has the same table (test `the_readme_has_this_table`).
//! - A label has few values: those that are named here, or names from the
//!   configuration and of our event types (`Entry::takes`, looked at by each call of a
//!   debug build).

/// What a series does over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, until a restart.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Observations in buckets.
    Histogram,
}

/// The values of a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Values {
    /// These and no others.
    Are(&'static [&'static str]),
    /// As many as there are of this.
    OneFor(&'static str),
}

/// A label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label {
    /// Its name.
    pub name: &'static str,
    /// What it can be.
    pub values: Values,
}

/// A metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Its name; with its unit, where that is of time or bytes.
    pub name: &'static str,
    /// What it does over time.
    pub kind: Kind,
    /// What it counts.
    pub unit: &'static str,
    /// Its labels, in the order of a call's values.
    pub labels: &'static [Label],
    /// What it means: HELP for Prometheus.
    pub meaning: &'static str,
}

impl Entry {
    /// Whether a series may have these label values.
    #[must_use]
    pub fn takes(&self, values: &[&str]) -> bool {
        let fits = |(label, value): (&Label, &&str)| match label.values {
            Values::Are(named) => named.contains(value),
            Values::OneFor(_) => true,
        };
        values.len() == self.labels.len() && self.labels.iter().zip(values).all(fits)
    }

    /// All combinations of label values, where all are named here.
    #[must_use]
    pub fn combinations(&self) -> Vec<Vec<&'static str>> {
        let mut rows = vec![Vec::new()];
        for label in self.labels {
            let Values::Are(named) = label.values else {
                return Vec::new();
            };
            let longer = |row: &Vec<&'static str>| {
                let row = row.clone();
                named.iter().map(move |value| [&row[..], &[value]].concat())
            };
            rows = rows.iter().flat_map(longer).collect();
        }
        rows
    }
}

const fn one_for(name: &'static str, what: &'static str) -> Label {
    let values = Values::OneFor(what);
    Label { name, values }
}

const fn one_of(name: &'static str, values: &'static [&'static str]) -> Label {
    let values = Values::Are(values);
    Label { name, values }
}

const fn entry(
    name: &'static str,
    (kind, unit): (Kind, &'static str),
    labels: &'static [Label],
    meaning: &'static str,
) -> Entry {
    Entry {
        name,
        kind,
        unit,
        labels,
        meaning,
    }
}

/// The doors: two for events, one for each source of webhooks.
const DOORS: &[&str] = &[
    "grpc",
    "http",
    "vidooly",
    "branch",
    "graphy",
    "webengage_event",
    "webengage_user",
    "shopify",
];

const WAY: Label = one_for("way", "way out");
const EVENT: Label = one_for(
    "event",
    "event type of this build, `Unknown`, and what is no event",
);
const SINK: Label = one_for("sink", "configured sink");

pub(super) const READY: Entry = entry(
    "holdfast_ready",
    (Kind::Gauge, "0 or 1"),
    &[],
    "1 while requests are accepted",
);

pub(super) const BUILD_INFO: Entry = entry(
    "holdfast_build_info",
    (Kind::Gauge, "1"),
    &[one_for("version", "release")],
    "always 1, with the version that runs",
);

/// The ports of the service.
const PORTS: Label = one_of("port", &["grpc", "http", "admin"]);

pub(super) const CONNECTIONS: Entry = entry(
    "holdfast_port_connections",
    (Kind::Gauge, "connections"),
    &[PORTS],
    "connections that are open",
);

pub(super) const CONNECTIONS_ENDED: Entry = entry(
    "holdfast_port_connections_ended_total",
    (Kind::Counter, "connections"),
    &[
        PORTS,
        one_of(
            "outcome",
            &[
                "closed",
                "failed",
                "idle",
                "slow_head",
                "slow_reader",
                "handshake",
                "no_place",
                "address_full",
            ],
        ),
    ],
    "connections that ended: let go by either side, broken, without a request for long, too slow with a request's head or with taking its answer, not encrypted as configured, and those that found no place, in all or for their address",
);

pub(super) const CERTIFICATE_EXPIRY: Entry = entry(
    "holdfast_tls_certificate_expiry_timestamp_seconds",
    (Kind::Gauge, "epoch seconds"),
    &[],
    "when the certificate of the ports ends; absent without `[tls]`",
);

pub(super) const CERTIFICATE_RELOAD_FAILED: Entry = entry(
    "holdfast_tls_certificate_reload_failed",
    (Kind::Gauge, "0 or 1"),
    &[],
    "1 while the files of `[tls]` cannot be used and the certificate before them goes on; absent without `[tls]`",
);

pub(super) const REQUESTS: Entry = entry(
    "holdfast_ingest_requests_total",
    (Kind::Counter, "requests"),
    &[
        one_of("door", DOORS),
        one_of(
            "outcome",
            &[
                "accepted",
                "malformed",
                "incomplete",
                "unverified",
                "unauthenticated",
                "forbidden",
                "too_fast",
                "too_large",
                "slow",
                "busy",
                "no_room",
                "full",
                "unavailable",
                "draining",
            ],
        ),
    ],
    "requests answered, by door and outcome",
);

pub(super) const BODY_BYTES: Entry = entry(
    "holdfast_ingest_body_bytes",
    (Kind::Gauge, "bytes"),
    &[],
    "what the bodies of requests hold until they are answered, decompressed, with 4 KiB for each request; at `ingest.max_body_bytes` more are refused as `no_room`",
);

pub(super) const EVENTS: Entry = entry(
    "holdfast_ingest_events_total",
    (Kind::Counter, "events"),
    &[],
    "events acknowledged as durable",
);

pub(super) const ACK_LATENCY: Entry = entry(
    "holdfast_ingest_ack_latency_seconds",
    (Kind::Histogram, "seconds"),
    &[],
    "from a request's bytes to its durable acknowledgement",
);

pub(super) const JOURNAL: Entry = entry(
    "holdfast_journal_state",
    (Kind::Gauge, "as `what` says"),
    &[one_of(
        "what",
        &[
            "used_bytes",
            "max_bytes",
            "free_bytes",
            "min_free_bytes",
            "pressure",
            "fenced",
            "generations",
            "oldest_seq",
            "durable_end_seq",
            "lost_records",
            "expired_appends",
        ],
    )],
    "the log: its bytes and their bound, the disk's free bytes and their floor, the pressure (0 none, 1 warn, 2 slow, 3 refuse), whether it is fenced (0 or 1), its generations and sequences, acknowledged requests that cannot be read back, and requests since the start that were not written within their deadline",
);

pub(super) const BACKLOG: Entry = entry(
    "holdfast_journal_backlog_requests",
    (Kind::Gauge, "requests"),
    &[one_for("cursor", "way out")],
    "durable requests that a way out has not delivered",
);

pub(super) const OLDEST_PENDING: Entry = entry(
    "holdfast_oldest_pending_age_seconds",
    (Kind::Gauge, "seconds"),
    &[WAY],
    "how long the oldest request waits that a way out has not delivered; 0 without one",
);

pub(super) const LAST_DELIVERY: Entry = entry(
    "holdfast_last_delivery_timestamp_seconds",
    (Kind::Gauge, "epoch seconds"),
    &[WAY],
    "when a way out last finished with something: delivered it, or set it aside; absent until it did since the start",
);

pub(super) const CONNECTED: Entry = entry(
    "holdfast_connected",
    (Kind::Gauge, "0 or 1"),
    &[one_for(
        "who",
        "consumer's queue, and `rabbitmq` for the way out",
    )],
    "1 while the way out or the consumer has its connection to RabbitMQ",
);

pub(super) const FORWARDED: Entry = entry(
    "holdfast_forward_messages_total",
    (Kind::Counter, "messages"),
    &[one_of(
        "outcome",
        &["confirmed", "nacked", "unroutable", "lost", "invalid"],
    )],
    "messages published to RabbitMQ, by outcome; all but confirmed are sent again, or set aside with their reason",
);

pub(super) const FORWARDED_DOCUMENTS: Entry = entry(
    "holdfast_forward_documents_total",
    (Kind::Counter, "documents"),
    &[],
    "documents of the messages that RabbitMQ confirmed: one each, unless `forward.documents_per_message` allows more",
);

pub(super) const CONFIRM_LATENCY: Entry = entry(
    "holdfast_forward_confirm_latency_seconds",
    (Kind::Histogram, "seconds"),
    &[],
    "from a message's publish to its confirm",
);

pub(super) const CONSUMED: Entry = entry(
    "holdfast_consumer_rows_total",
    (Kind::Counter, "rows or messages"),
    &[
        one_for("consumer", "consumer's queue"),
        one_of(
            "outcome",
            &["written", "retried", "refused", "unreadable", "no_launch"],
        ),
    ],
    "what became of messages: rows written and rows left out for want of a launch, messages sent back for a retry, and those put into the error queue as refused or unreadable",
);

pub(super) const SINK_AVAILABLE: Entry = entry(
    "holdfast_sink_available",
    (Kind::Gauge, "0 or 1"),
    &[SINK],
    "0 while anything is held because the sink is down, slow, read-only, or lacks a table; 1 otherwise",
);

pub(super) const SINK_WRITES: Entry = entry(
    "holdfast_sink_writes_total",
    (Kind::Counter, "batches"),
    &[
        SINK,
        one_of("outcome", &["written", "unavailable", "refused"]),
    ],
    "batches given to a sink, by outcome; unavailable ones are tried again, refused ones in halves",
);

pub(super) const LEDGER_ACCEPTED: Entry = entry(
    "holdfast_ledger_accepted_events",
    (Kind::Gauge, "events"),
    &[EVENT],
    "events ever accepted by this host",
);

pub(super) const LEDGER_WAY_ACCEPTED: Entry = entry(
    "holdfast_ledger_way_accepted_events",
    (Kind::Gauge, "events"),
    &[WAY, EVENT],
    "events accepted since the way out exists; the sum of `holdfast_ledger_events`",
);

pub(super) const LEDGER: Entry = entry(
    "holdfast_ledger_events",
    (Kind::Gauge, "events"),
    &[
        WAY,
        EVENT,
        one_of(
            "state",
            &["delivered", "pending", "dead_lettered", "purged", "lost"],
        ),
    ],
    "what became of the events accepted since the way out exists",
);

pub(super) const LEDGER_ADDS_UP: Entry = entry(
    "holdfast_ledger_adds_up",
    (Kind::Gauge, "0 or 1"),
    &[WAY],
    "1 while the way out's accounts add up and agree with the log",
);

pub(super) const DEAD_LETTERS: Entry = entry(
    "holdfast_dead_letters_total",
    (Kind::Counter, "messages"),
    &[one_for("way_out", "way out and consumer's queue")],
    "messages set aside on this host, with their reason",
);

pub(super) const DEAD_LETTERS_WAITING: Entry = entry(
    "holdfast_dead_letters_waiting",
    (Kind::Gauge, "messages"),
    &[one_for("way_out", "way out and consumer's queue")],
    "messages set aside on this host that nobody has replayed or purged yet; absent where there was none since the start",
);

/// All of them, in the order of the data's path.
pub const ALL: [&Entry; 27] = [
    &READY,
    &BUILD_INFO,
    &CONNECTIONS,
    &CONNECTIONS_ENDED,
    &CERTIFICATE_EXPIRY,
    &CERTIFICATE_RELOAD_FAILED,
    &REQUESTS,
    &BODY_BYTES,
    &EVENTS,
    &ACK_LATENCY,
    &JOURNAL,
    &BACKLOG,
    &OLDEST_PENDING,
    &LAST_DELIVERY,
    &CONNECTED,
    &FORWARDED,
    &FORWARDED_DOCUMENTS,
    &CONFIRM_LATENCY,
    &CONSUMED,
    &SINK_AVAILABLE,
    &SINK_WRITES,
    &LEDGER_ACCEPTED,
    &LEDGER_WAY_ACCEPTED,
    &LEDGER,
    &LEDGER_ADDS_UP,
    &DEAD_LETTERS,
    &DEAD_LETTERS_WAITING,
];

#[cfg(test)]
#[path = "catalogue_tests.rs"]
mod tests;
