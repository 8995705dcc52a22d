//! The tables as data: names, columns, keys. Sinks turn them into their own DDL
//! and inserts; handlers fill rows in the order of the columns.
//!
//! # Invariants
//! - Column names are what downstream models read; they do not change.
//! - Every table has a key made of the event's identity, so that a redelivery
//!   never shows twice (FINAL in ClickHouse, ON CONFLICT elsewhere).
//! - The last three columns say where the row came from; see [`ORIGIN_COLUMNS`].

/// What a column holds; each sink has its own type for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnType {
    /// Text.
    Text,
    /// Signed 64 bits.
    Int64,
    /// Unsigned 64 bits.
    UInt64,
    /// Unsigned 32 bits.
    UInt32,
    /// Double precision.
    Float64,
    /// A point in time with milliseconds, UTC.
    TimeMs,
    /// A JSON document.
    Json,
}

/// One column.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// Its name, as downstream models read it.
    pub name: &'static str,
    /// What it holds.
    pub kind: ColumnType,
    /// Whether NULL is allowed.
    pub nullable: bool,
    /// Postgres' length bound, where the tables in the field have one.
    pub max_chars: Option<u32>,
    /// What it means, for the DDL's comment; empty when the name says it.
    pub comment: &'static str,
}

/// How rows are laid out by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Partition {
    /// Not at all.
    None,
    /// By this time column: months in ClickHouse, days in Postgres.
    ByTime(&'static str),
}

/// One table.
#[derive(Debug)]
pub struct Table {
    /// Its name in every destination.
    pub name: &'static str,
    /// Its columns, in the order of a row's values.
    pub columns: &'static [Column],
    /// The identity of a row in Postgres and SQLite (primary key or unique index).
    pub key: &'static [&'static str],
    /// ClickHouse's ORDER BY; made of functions of the identity, and contains it.
    pub order_by: &'static [&'static str],
    /// Layout by time.
    pub partition: Partition,
    /// For the DDL's comment.
    pub comment: &'static str,
}

/// Columns with which every table fed from the journal ends; empty or 0 where a
/// foreign producer made the message.
pub const ORIGIN_COLUMNS: [Column; 3] = [
    column(
        "ingest_host",
        ColumnType::Text,
        "host whose journal took the event; empty for foreign producers",
    ),
    column(
        "ingest_seq",
        ColumnType::UInt64,
        "sequence of the request on that host; 0 for foreign producers",
    ),
    column(
        "ingest_index",
        ColumnType::UInt32,
        "place of the event in the request, from 0",
    ),
];

const fn column(name: &'static str, kind: ColumnType, comment: &'static str) -> Column {
    Column {
        name,
        kind,
        nullable: false,
        max_chars: None,
        comment,
    }
}

const fn varchar(name: &'static str, max_chars: u32) -> Column {
    Column {
        name,
        kind: ColumnType::Text,
        nullable: false,
        max_chars: Some(max_chars),
        comment: "",
    }
}

const fn plain(name: &'static str, kind: ColumnType) -> Column {
    column(name, kind, "")
}

/// Columns that `events` and `error_events` share: identity, header, parameters.
macro_rules! event_columns {
    ($text:ident, $timestamp:expr $(, $more:expr)*) => {
        &[
            $text("event_id", 55),
            $text("event_name", 55),
            $timestamp,
            column("insert_timestamp", ColumnType::TimeMs, "when the row was made"),
            $text("session_id", 50),
            plain("bb_device_id", ColumnType::Int64),
            plain("user_id", ColumnType::Int64),
            $text("device_id", 50),
            $text("android_advertising_id", 50),
            $text("client_id", 30),
            $text("channel", 20),
            $text("os", 30),
            $text("client_type", 20),
            $text("app_language", 20),
            $text("app_version", 20),
            $text("app_version_code", 20),
            plain("current_url", ColumnType::Text),
            $text("merchant_id", 20),
            plain("utm_referrer", ColumnType::Text),
            $text("utm_platform", 50),
            $text("utm_source", 80),
            $text("utm_medium", 80),
            $text("utm_campaign", 80),
            plain("pp_id", ColumnType::Text),
            column("event_params", ColumnType::Json, "the event's own fields, zero values left out"),
            $($more,)*
            ORIGIN_COLUMNS[0],
            ORIGIN_COLUMNS[1],
            ORIGIN_COLUMNS[2],
        ]
    };
}

const EVENT_TIMESTAMP: Column = column(
    "event_timestamp",
    ColumnType::TimeMs,
    "when it happened on the device; never later than its receipt",
);

const fn unbounded(name: &'static str, _max_chars: u32) -> Column {
    plain(name, ColumnType::Text)
}

/// The events that clients dispatched.
pub static EVENTS: Table = Table {
    name: "events",
    columns: event_columns!(varchar, EVENT_TIMESTAMP),
    key: &["event_id", "event_timestamp"],
    order_by: &["event_name", "event_timestamp", "event_id"],
    partition: Partition::ByTime("event_timestamp"),
    comment: "Events dispatched by apps and sites, one row each under FINAL",
};

/// Events that could not be taken as what they wanted to be, with the reason.
pub static ERROR_EVENTS: Table = Table {
    name: "error_events",
    // No length bounds: what was refused elsewhere for its length must fit here.
    columns: event_columns!(
        unbounded,
        Column {
            nullable: true,
            ..EVENT_TIMESTAMP
        },
        column("error_reason", ColumnType::Text, "why it is here")
    ),
    key: &["event_id", "ingest_host", "ingest_seq", "ingest_index"],
    order_by: &[
        "event_name",
        "event_id",
        "ingest_host",
        "ingest_seq",
        "ingest_index",
    ],
    partition: Partition::None,
    comment: "Events that were refused, with the reason, for diagnosis and replay",
};

/// All tables, in the order in which they are created.
pub static TABLES: &[&Table] = &[&EVENTS, &ERROR_EVENTS];
