//! Consumers as data: which queue, bound how, handled by what, into which sink.
//! The shipped table is the default; `[[consumer]]` entries change it by queue
//! name or add to it. Called by `app` and `check`.

use super::units::Span;
use serde::Deserialize;
use std::time::Duration;

/// What turns a message into rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Handler {
    /// Dispatched events, protobuf JSON, into `events`.
    Events,
    /// Refused events, into `error_events`.
    ErrorEvents,
}

/// Where rows go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SinkKind {
    /// `[clickhouse]`
    ClickHouse,
    /// `[postgres]`
    Postgres,
    /// `[sqlite]`
    Sqlite,
}

impl SinkKind {
    /// The sink's name in configuration, cursors, metrics and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ClickHouse => "clickhouse",
            Self::Postgres => "postgres",
            Self::Sqlite => "sqlite",
        }
    }
}

/// A consumer with every value set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consumer {
    /// Its queue.
    pub queue: String,
    /// Exchange the queue is bound to. A name that ends in `.tx` is a topic
    /// exchange, any other is direct.
    pub exchange: String,
    /// Binding keys.
    pub keys: Vec<String>,
    /// Concurrent workers, each with its own channel and batch.
    pub workers: usize,
    /// Rows of a batch, and the prefetch of a worker, so that batches can fill.
    pub batch_rows: usize,
    /// Age at which a batch is written even if it is not full.
    pub batch_age: Duration,
    /// Exchange for what is refused in the end.
    pub error_exchange: String,
    /// Key for what is refused in the end.
    pub error_key: String,
    /// Queue that is bound to them, so that refused messages are kept.
    pub error_queue: String,
    /// What turns messages into rows.
    pub handler: Handler,
    /// Where the rows go.
    pub sink: SinkKind,
    /// ClickHouse database or Postgres schema other than the sink's default.
    pub namespace: Option<String>,
    /// Deliveries after which a refused message goes to the error exchange.
    pub max_attempts: u32,
    /// Wait between two attempts.
    pub retry_delay: Duration,
    /// Whether it is declared and run at all; unset: by its sink.
    pub enabled: Option<bool>,
}

/// An entry of `[[consumer]]`: what is set replaces the shipped value of the same
/// queue, or describes a new consumer.
#[derive(Debug, Clone, Deserialize, Default)]
#[serde(default)]
#[allow(missing_docs, reason = "each field is described at `Consumer`")]
pub struct ConsumerEntry {
    pub queue: String,
    pub exchange: Option<String>,
    pub keys: Option<Vec<String>>,
    pub workers: Option<usize>,
    pub batch_rows: Option<usize>,
    pub batch_age: Option<Span>,
    pub error_exchange: Option<String>,
    pub error_key: Option<String>,
    pub error_queue: Option<String>,
    pub handler: Option<Handler>,
    pub sink: Option<SinkKind>,
    pub namespace: Option<String>,
    pub max_attempts: Option<u32>,
    pub retry_delay: Option<Span>,
    pub enabled: Option<bool>,
}

/// Rows of a batch where nothing else is said: sinks take thousands at the price
/// of one, and a worker holds as many messages.
const BATCH_ROWS: usize = 1000;
/// Age of a batch: what a row waits at most before it is written, when traffic is
/// thin. ClickHouse makes a part for each insert, so not much less.
const BATCH_AGE: Duration = Duration::from_secs(1);
/// Attempts for content that a sink refuses, as queues in the field expect.
const MAX_ATTEMPTS: u32 = 3;
/// Wait between attempts: long enough for a schema change to settle, short enough
/// that a refused message does not hold its place in the prefetch for long.
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// Workers where nothing else is said.
const WORKERS: usize = 2;

fn consumer(
    queue: &str,
    exchange: &str,
    keys: &[&str],
    handler: Handler,
    sink: SinkKind,
) -> Consumer {
    Consumer {
        queue: queue.to_owned(),
        exchange: exchange.to_owned(),
        keys: keys.iter().map(|&key| key.to_owned()).collect(),
        workers: WORKERS,
        batch_rows: BATCH_ROWS,
        batch_age: BATCH_AGE,
        error_exchange: "grpc_event_error.dx".to_owned(),
        error_key: format!("error.{queue}"),
        error_queue: format!("{queue}_error"),
        handler,
        sink,
        namespace: None,
        max_attempts: MAX_ATTEMPTS,
        retry_delay: RETRY_DELAY,
        enabled: None,
    }
}

/// The shipped consumers. `Unknown.*` is bound beside `*`: in a topic exchange `*`
/// stands for one word, and a type that this build does not know has two.
#[must_use]
pub(super) fn shipped() -> Vec<Consumer> {
    let event_keys = ["*", "Unknown.*"];
    let errors = "grpc_event_error.dx";
    vec![
        Consumer {
            error_queue: "grpc_clickhouse_event_error_q".to_owned(),
            ..consumer(
                "grpc_clickhouse_event_q",
                "grpc_event.tx",
                &event_keys,
                Handler::Events,
                SinkKind::ClickHouse,
            )
        },
        consumer(
            "grpc_clickhouse_event_error_q",
            errors,
            &["error.grpc_clickhouse_event_q"],
            Handler::ErrorEvents,
            SinkKind::ClickHouse,
        ),
        consumer(
            "grpc_postgres_event_q",
            "grpc_event.tx",
            &event_keys,
            Handler::Events,
            SinkKind::Postgres,
        ),
        consumer(
            "grpc_postgres_event_q_error",
            errors,
            &["error.grpc_postgres_event_q"],
            Handler::ErrorEvents,
            SinkKind::Postgres,
        ),
    ]
}

/// Applies entries to the shipped consumers; what is wrong goes to `errors`.
pub(super) fn resolve(entries: &[ConsumerEntry], errors: &mut Vec<String>) -> Vec<Consumer> {
    let mut consumers = shipped();
    for (at, entry) in entries.iter().enumerate() {
        if entry.queue.is_empty() {
            errors.push(format!("consumer[{at}].queue: is required"));
            continue;
        }
        let duplicate = entries[..at].iter().any(|e| e.queue == entry.queue);
        if duplicate {
            errors.push(format!(
                "consumer[{at}].queue: {:?} is configured twice",
                entry.queue
            ));
            continue;
        }
        match consumers.iter_mut().find(|c| c.queue == entry.queue) {
            Some(consumer) => apply(consumer, entry),
            None => match new_consumer(entry) {
                Ok(consumer) => consumers.push(consumer),
                Err(missing) => errors.push(format!(
                    "consumer[{at}].{missing}: is required for the new queue {:?}",
                    entry.queue
                )),
            },
        }
    }
    consumers
}

fn new_consumer(entry: &ConsumerEntry) -> Result<Consumer, &'static str> {
    let exchange = entry.exchange.as_deref().ok_or("exchange")?;
    let handler = entry.handler.ok_or("handler")?;
    let sink = entry.sink.ok_or("sink")?;
    entry.keys.as_ref().ok_or("keys")?;
    let mut new = consumer(&entry.queue, exchange, &[], handler, sink);
    new.error_exchange = exchange.to_owned();
    apply(&mut new, entry);
    Ok(new)
}

fn apply(consumer: &mut Consumer, entry: &ConsumerEntry) {
    fn set<T: Clone>(to: &mut T, from: Option<&T>) {
        if let Some(value) = from {
            to.clone_from(value);
        }
    }
    set(&mut consumer.exchange, entry.exchange.as_ref());
    set(&mut consumer.keys, entry.keys.as_ref());
    set(&mut consumer.workers, entry.workers.as_ref());
    set(&mut consumer.batch_rows, entry.batch_rows.as_ref());
    set(
        &mut consumer.batch_age,
        entry.batch_age.map(Span::get).as_ref(),
    );
    set(&mut consumer.error_exchange, entry.error_exchange.as_ref());
    set(&mut consumer.error_key, entry.error_key.as_ref());
    set(&mut consumer.error_queue, entry.error_queue.as_ref());
    set(&mut consumer.handler, entry.handler.as_ref());
    set(&mut consumer.sink, entry.sink.as_ref());
    set(&mut consumer.max_attempts, entry.max_attempts.as_ref());
    set(
        &mut consumer.retry_delay,
        entry.retry_delay.map(Span::get).as_ref(),
    );
    if entry.namespace.is_some() {
        consumer.namespace.clone_from(&entry.namespace);
    }
    if entry.enabled.is_some() {
        consumer.enabled = entry.enabled;
    }
}
