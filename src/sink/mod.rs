//! Where rows end up: one file per destination behind one trait. Called by the
//! consumers and the brokerless pump; calls nothing of ours.
//!
//! # Invariants
//! - `write` answers `Ok` only after the destination said that the whole batch is
//!   committed; anything else is an error that says whether it is the batch's
//!   fault (`Refused`) or not (`Unavailable`).
//! - Writing the same batch again is harmless: each destination recognises rows
//!   by their key.
//! - Sinks never split, drop or reorder a batch: that is the caller's decision.

pub mod absence;
pub mod api;
pub mod clickhouse;
mod convert;
mod drilled;
pub mod inspect;
pub mod postgres;
pub mod schema;
pub mod sqlite;
pub mod webengage;

pub use drilled::Drilled;

use std::sync::Arc;
use std::time::Duration;

/// One column's value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// SQL NULL; only for nullable columns.
    Null,
    /// Text.
    Text(String),
    /// A signed integer.
    Int(i64),
    /// An unsigned integer (`ingest_seq`).
    UInt(u64),
    /// A float.
    Float(f64),
    /// Epoch milliseconds, UTC.
    TimeMs(i64),
    /// A JSON document as text; always valid JSON.
    Json(String),
}

/// The values of one row, in the order of its table's columns.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// One value for each column of the table's [`schema::Table`].
    pub values: Vec<Value>,
}

impl Row {
    /// About how much memory it takes, for bounds.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let text = |value: &Value| match value {
            Value::Text(text) | Value::Json(text) => text.len(),
            _ => 0,
        };
        let texts: usize = self.values.iter().map(text).sum();
        texts + self.values.len() * size_of::<Value>()
    }
}

/// Rows that are written together, frozen: a retry sends the same rows in the
/// same order with the same token.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The table they belong to.
    pub table: &'static schema::Table,
    /// The ClickHouse database or Postgres schema; `None` is the sink's default.
    pub namespace: Option<String>,
    /// The rows; never empty.
    pub rows: Arc<[Row]>,
    /// The same for the same rows, different for others (a digest of their ids): the
    /// `insert_deduplication_token` of ClickHouse's replicated tables.
    pub token: String,
}

/// Why a batch was not written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WriteError {
    /// Not the batch's fault: hold it, wait, try again for ever. Covers a sink
    /// that is down, slow, full, read-only, misconfigured, or lacks its tables.
    /// The batch may have been written all the same.
    #[error("unavailable: {reason}")]
    Unavailable {
        /// What the sink or the network said.
        reason: String,
        /// How long the sink asked us to wait, if it did.
        retry_after: Option<Duration>,
        /// Whether the sink is there and has too much to do: less at once would help.
        overloaded: bool,
    },
    /// The sink refuses the content of at least one row. Nothing was written.
    #[error("refused: {reason}")]
    Refused {
        /// What the sink said.
        reason: String,
    },
}

impl WriteError {
    /// Whether the same batch may succeed later without being changed.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}

/// A failure to read or make the tables.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct SchemaError {
    /// What the destination said, with the statement's purpose.
    pub reason: String,
}

/// Options that no sink can be made from (a URL that is none). Never names a
/// password.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct OptionsError {
    /// Which option, and what is wrong with it.
    pub reason: String,
}

/// A device, by the two ids that apps give it; an empty one is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// The app's own id of it.
    pub device_id: String,
    /// The id that the backend gave it.
    pub bb_device_id: String,
}

/// A launch of an app through a referral link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// When, in epoch milliseconds.
    pub at_ms: i64,
    /// Who referred.
    pub referral_identifier: String,
    /// The link.
    pub dynamic_link: String,
    /// Where it led.
    pub deep_link: Option<String>,
}

/// A destination of rows.
#[async_trait::async_trait]
pub trait Sink: Send + Sync + std::fmt::Debug {
    /// The destination's name in configuration, metrics, cursors and logs.
    fn name(&self) -> &'static str;

    /// Writes a batch as one unit. Cancel-safe in the sense that a dropped call
    /// leaves either nothing or the whole batch behind.
    ///
    /// # Errors
    /// See [`WriteError`].
    async fn write(&self, batch: &Batch) -> Result<(), WriteError>;

    /// The first launch through a referral link of each device, where there is one.
    /// `namespace` as in [`Batch`].
    ///
    /// # Errors
    /// Always `Unavailable`: what cannot be asked is no row's fault. Sinks that do not
    /// keep launches say so; the configuration does not let it come to that.
    async fn launches(
        &self,
        _namespace: Option<&str>,
        _devices: &[Device],
    ) -> Result<Vec<Option<Launch>>, WriteError> {
        Err(WriteError::Unavailable {
            reason: format!("{} cannot look launches up", self.name()),
            retry_after: None,
            overloaded: false,
        })
    }

    /// Creates what is missing (namespace, tables, columns, partitions ahead);
    /// never drops or rewrites. Idempotent, safe to run from several hosts.
    ///
    /// # Errors
    /// When the destination is away or does not allow it.
    async fn create_missing(&self, tables: &[&'static schema::Table]) -> Result<(), SchemaError>;

    /// The statements that `create_missing` would run on an empty destination,
    /// for `holdfast schema print`.
    fn ddl(&self, tables: &[&'static schema::Table]) -> Vec<String>;

    /// A look at its rows, of sinks that take rows.
    fn inspect(&self) -> Option<&dyn inspect::Inspect> {
        None
    }

    /// Upkeep that the running service calls every hour (daily partitions made
    /// ahead).
    ///
    /// # Errors
    /// As [`Sink::create_missing`].
    async fn maintain(&self) -> Result<(), SchemaError>;

    /// Ends its connections in order, when nothing is written any more; after it nothing may be.
    async fn close(&self) {}
}
