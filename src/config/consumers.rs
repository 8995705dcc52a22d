//! Consumers as data: which queue, bound how, handled by what, into which sink.
//! The shipped table is the default; `[[consumer]]` entries change it by queue
//! name or add to it. Called by `app` and `check`.

use super::shipped::{consumer, shipped};
use super::units::Span;
use serde::{Deserialize, Serialize, Serializer};
use std::collections::BTreeMap;
use std::time::Duration;

/// What turns a message into rows or calls. Each is described at its function in
/// `consume/handlers`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Handler {
    /// Dispatched events, protobuf JSON, into `events`.
    Events,
    /// Refused events, into `error_events`.
    ErrorEvents,
    /// Clicks on short links, into `events` as `ClickEvent`.
    Click,
    /// Starts of an app, into `app_init_events`.
    AppInit,
    /// Starts of an app through a referral link, into `launch_refer_events`.
    LaunchRefer,
    /// New accounts, into `signup_referral_events` where a launch led to them.
    AccountCreated,
    /// Completed profiles, into `profile_completion_referral_events`.
    ProfileCompleted,
    /// Assignments to experiments, into `ab_assignments`.
    AbAssignments,
    /// Branch's webhooks, into `branch_events`.
    Branch,
    /// Graphy's webhooks, into `graphy_events`.
    Graphy,
    /// Graphy's webhooks, as WebEngage events of the learner.
    GraphyCall,
    /// HTTP exchanges of other services, into `trace_log_events`.
    TraceLog,
    /// Affiliates' orders, into `affiliate_order_events`.
    AffiliateOrder,
    /// Votes, into `bigboss_vote_log`.
    BigbossVote,
    /// Scraped posts, into `post_log_events`.
    PostLog,
    /// Sentiments of comments, into `sentiment_log_events`.
    SentimentLog,
    /// What happened at posts, into `post_activity_log_events`.
    PostActivityLog,
    /// Scraped profiles, into `profile_log_events`.
    ProfileLog,
    /// Relations of profiles, into `profile_relationship_log_events`.
    ProfileRelationshipLog,
    /// What the scraper was asked for, into `scrape_request_log_events`.
    ScrapeRequestLog,
    /// Scraped orders, into `order_log_events`.
    OrderLog,
    /// Shops' events, into `shopify_events`.
    Shopify,
    /// Events, as calls of WebEngage.
    WebEngageCall,
    /// The same events, into `webengage_events`.
    WebEngageEvent,
    /// Users, as calls of WebEngage.
    WebEngageUserCall,
    /// Partners' activities, into `partner_activity_log_events`.
    PartnerActivity,
    /// Flat JSON, into the consumer's own `table` with its own `columns`.
    FlatJson,
}

impl Handler {
    /// Whether it makes calls of an API, not rows.
    #[must_use]
    pub fn makes_calls(self) -> bool {
        matches!(
            self,
            Self::GraphyCall | Self::WebEngageCall | Self::WebEngageUserCall
        )
    }

    /// Whether it reads batches of events, and makes a row of each event.
    #[must_use]
    pub fn reads_events(self) -> bool {
        matches!(self, Self::Events | Self::ErrorEvents)
    }

    /// Whether its rows need a look into another table first.
    #[must_use]
    pub fn looks_up(self) -> bool {
        matches!(self, Self::AccountCreated | Self::ProfileCompleted)
    }
}

/// Where rows go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SinkKind {
    /// `[clickhouse]`
    ClickHouse,
    /// `[postgres]`
    Postgres,
    /// `[sqlite]`
    Sqlite,
    /// `[webengage]`: calls instead of rows.
    WebEngage,
}

impl SinkKind {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::ClickHouse,
        Self::Postgres,
        Self::Sqlite,
        Self::WebEngage,
    ];

    /// Whether rows can be written to it; the others take calls.
    #[must_use]
    pub fn takes_rows(self) -> bool {
        self != Self::WebEngage
    }

    /// The sink's name in configuration, cursors, metrics and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ClickHouse => "clickhouse",
            Self::Postgres => "postgres",
            Self::Sqlite => "sqlite",
            Self::WebEngage => "webengage",
        }
    }
}

/// A consumer with every value set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
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
    #[serde(serialize_with = "as_text")]
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
    /// ClickHouse database other than the default one.
    pub namespace: Option<String>,
    /// The table, for [`Handler::FlatJson`].
    pub table: Option<String>,
    /// Its columns, for [`Handler::FlatJson`]: keys of the message.
    pub columns: Vec<FlatColumn>,
    /// Columns that identify a row, for [`Handler::FlatJson`].
    pub row_key: Vec<String>,
    /// Deliveries after which a refused message goes to the error exchange.
    pub max_attempts: u32,
    /// Wait between two attempts.
    #[serde(serialize_with = "as_text")]
    pub retry_delay: Duration,
    /// Whether it is declared and run at all; unset: by its sink.
    pub enabled: Option<bool>,
}

/// One value, as it is written in a file.
fn as_text<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&humantime::format_duration(*time))
}

/// A column of a flat table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FlatColumn {
    /// Its name, and the key of the message.
    pub name: String,
    /// What it holds.
    pub kind: FlatType,
}

/// What a column of a flat table holds. A `?` behind the name allows NULL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
pub enum FlatType {
    /// Text.
    #[serde(rename = "text")]
    Text,
    /// Text or NULL.
    #[serde(rename = "text?")]
    NullableText,
    /// A whole number.
    #[serde(rename = "int")]
    Int,
    /// A whole number or NULL.
    #[serde(rename = "int?")]
    NullableInt,
    /// A number.
    #[serde(rename = "float")]
    Float,
    /// A number or NULL.
    #[serde(rename = "float?")]
    NullableFloat,
    /// true or false, kept as 1 or 0.
    #[serde(rename = "bool")]
    Bool,
    /// A time: epoch seconds or milliseconds, or text.
    #[serde(rename = "time")]
    Time,
    /// A time or NULL.
    #[serde(rename = "time?")]
    NullableTime,
    /// A JSON object.
    #[serde(rename = "json")]
    Json,
}

impl FlatType {
    /// Whether equal values mean the same thing: a column of a row's key.
    #[must_use]
    pub fn identifies(self) -> bool {
        matches!(self, Self::Text | Self::Int | Self::Time)
    }
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
    pub table: Option<String>,
    pub columns: Option<BTreeMap<String, FlatType>>,
    pub row_key: Option<Vec<String>>,
    pub max_attempts: Option<u32>,
    pub retry_delay: Option<Span>,
    pub enabled: Option<bool>,
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
    if entry.table.is_some() {
        consumer.table.clone_from(&entry.table);
    }
    if let Some(columns) = &entry.columns {
        let column = |(name, kind): (&String, &FlatType)| FlatColumn {
            name: name.clone(),
            kind: *kind,
        };
        consumer.columns = columns.iter().map(column).collect();
    }
    set(&mut consumer.row_key, entry.row_key.as_ref());
    if entry.enabled.is_some() {
        consumer.enabled = entry.enabled;
    }
}
