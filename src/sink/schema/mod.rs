//! The tables as data: names, columns, keys. Sinks turn them into their own DDL
//! and inserts; handlers fill rows in the order of the columns.
//!
//! # Invariants
//! - Column names are what downstream models read; they do not change.
//! - Every table has a key made of the event's identity, so that a redelivery
//!   never shows twice (FINAL in ClickHouse, ON CONFLICT elsewhere).
//! - The last three columns of tables that are fed from the journal say where the
//!   row came from; see [`ORIGIN_COLUMNS`].

mod apps;
mod calls;
mod events;
mod logs;
mod vendors;

pub use apps::*;
pub use calls::*;
pub use events::*;
pub use logs::*;
pub use vendors::*;

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
    /// 0 or 1.
    Flag,
    /// Double precision.
    Float64,
    /// A point in time with milliseconds, UTC.
    TimeMs,
    /// A JSON object.
    Json,
    /// A JSON document of any kind, such as a list: text in ClickHouse, whose JSON
    /// type takes objects alone.
    AnyJson,
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
    /// The column that tells the newest of several rows of one key. Without one it is in
    /// ClickHouse the row that was written last, elsewhere the first.
    pub version: Option<&'static str>,
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

const fn text(name: &'static str) -> Column {
    plain(name, ColumnType::Text)
}

const fn int(name: &'static str) -> Column {
    plain(name, ColumnType::Int64)
}

const fn flag(name: &'static str) -> Column {
    plain(name, ColumnType::Flag)
}

const fn time(name: &'static str) -> Column {
    plain(name, ColumnType::TimeMs)
}

const fn json(name: &'static str) -> Column {
    plain(name, ColumnType::Json)
}

/// When the row was made.
const INSERT_TIMESTAMP: Column = column(
    "insert_timestamp",
    ColumnType::TimeMs,
    "when the row was made",
);

const fn nullable(name: &'static str, kind: ColumnType) -> Column {
    Column {
        nullable: true,
        ..plain(name, kind)
    }
}

impl Table {
    /// The column by which a row takes the place of another of the same identity; none where
    /// rows of one identity are all of one version.
    #[must_use]
    pub fn replacing_version(&self) -> Option<&'static str> {
        self.version.filter(|version| !self.key.contains(version))
    }

    /// Whether its rows end with [`ORIGIN_COLUMNS`].
    #[must_use]
    pub fn has_origin(&self) -> bool {
        let last = self.columns.last();
        last.is_some_and(|column| column.name == ORIGIN_COLUMNS[2].name)
    }
}

/// The tables of dispatched events, in the order in which they are created.
pub static EVENT_TABLES: &[&Table] = &[&EVENTS, &ERROR_EVENTS];
