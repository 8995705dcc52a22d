//! The tables as ClickHouse statements. Called by `create_missing` and `ddl`; pure.
//!
//! # Invariants
//! - Statements only add: nothing is dropped or rewritten.
//! - `ORDER BY` is the table's `order_by` to the letter: it is what makes two copies
//!   of a row one under FINAL. Tests: `tests` below.

use super::encode::{Layout, full_name, identifier, literal};
use crate::sink::schema::{Column, ColumnType, Partition, Table};

/// Has the server answer an insert when its disk has the rows, and not its memory alone, which is
/// gone with the machine: the events are deleted from the log then.
pub(super) const DURABLE: &str = "fsync_after_insert = 1, fsync_part_directory = 1";

pub(super) fn create_database(database: &str) -> String {
    format!("CREATE DATABASE IF NOT EXISTS {}", identifier(database))
}

/// `native_json`: whether the server has a JSON type that keeps dots in keys apart.
pub(super) fn create_table(database: &str, table: &Table, native_json: bool) -> String {
    let columns: Vec<_> = table
        .columns
        .iter()
        .map(|c| format!("    {}", define(c, native_json)))
        .collect();
    let order: Vec<_> = table.order_by.iter().map(|name| identifier(name)).collect();
    let partition = match table.partition {
        Partition::None => String::new(),
        Partition::ByTime(column) => format!("PARTITION BY toYYYYMM({})\n", identifier(column)),
    };
    let version = table.version.map(identifier);
    let version = version.map_or_else(String::new, |column| format!("({column})"));
    format!(
        "CREATE TABLE IF NOT EXISTS {} (\n{}\n)\nENGINE = ReplacingMergeTree{version}\n{partition}ORDER BY ({})\n\
         SETTINGS index_granularity = 8192, {DURABLE}\nCOMMENT {}",
        full_name(database, table),
        columns.join(",\n"),
        order.join(", "),
        literal(table.comment),
    )
}

/// Adds the columns that `layout` lacks; `None` when it has all.
pub(super) fn add_columns(
    database: &str,
    table: &Table,
    layout: &Layout,
    native_json: bool,
) -> Option<String> {
    let additions: Vec<_> = table
        .columns
        .iter()
        .filter(|c| !layout.columns.contains_key(c.name))
        .map(|c| format!("ADD COLUMN IF NOT EXISTS {}", define(c, native_json)))
        .collect();
    if additions.is_empty() {
        return None;
    }
    Some(format!(
        "ALTER TABLE {} {}",
        full_name(database, table),
        additions.join(", ")
    ))
}

fn define(column: &Column, native_json: bool) -> String {
    let kind = kind(column, native_json);
    let comment = if column.comment.is_empty() {
        String::new()
    } else {
        format!(" COMMENT {}", literal(column.comment))
    };
    format!("{} {kind}{comment}", identifier(column.name))
}

fn kind(column: &Column, native_json: bool) -> String {
    let kind = match column.kind {
        ColumnType::Int64 => "Int64",
        ColumnType::UInt64 => "UInt64",
        ColumnType::UInt32 => "UInt32",
        ColumnType::Flag => "UInt8",
        ColumnType::Float64 => "Float64",
        ColumnType::TimeMs => "DateTime64(3, 'UTC')",
        ColumnType::Json if native_json => "JSON",
        ColumnType::Text | ColumnType::Json | ColumnType::AnyJson => "String",
    };
    if column.nullable {
        format!("Nullable({kind})")
    } else {
        kind.to_owned()
    }
}

/// The types of a table's columns, as the server tells them of one that was made here.
#[cfg(test)]
pub(super) fn types(table: &Table, native_json: bool) -> std::collections::HashMap<String, String> {
    let columns = table.columns.iter();
    columns
        .map(|column| (column.name.to_owned(), kind(column, native_json)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::schema::{ERROR_EVENTS, EVENTS};

    #[test]
    fn events() {
        let sql = create_table("_e", &EVENTS, true);
        assert!(
            sql.starts_with("CREATE TABLE IF NOT EXISTS `_e`.`events` (\n    `event_id` String,\n"),
            "{sql}"
        );
        assert!(
            sql.contains("`event_timestamp` DateTime64(3, 'UTC') COMMENT 'when it happened"),
            "{sql}"
        );
        assert!(
            sql.contains("`event_params` JSON COMMENT 'the event\\'s own fields"),
            "{sql}"
        );
        assert!(sql.contains("`ingest_seq` UInt64"), "{sql}");
        assert!(
            sql.contains(
                "ENGINE = ReplacingMergeTree\nPARTITION BY toYYYYMM(`event_timestamp`)\n\
                 ORDER BY (`event_name`, `event_timestamp`, `event_id`)\n\
                 SETTINGS index_granularity = 8192, fsync_after_insert = 1, fsync_part_directory = 1\n"
            ),
            "{sql}"
        );
        assert!(create_table("_e", &EVENTS, false).contains("`event_params` String"));
    }

    #[test]
    fn error_events_have_a_nullable_time_and_no_partitions() {
        let sql = create_table("_e", &ERROR_EVENTS, true);
        assert!(
            sql.contains("`event_timestamp` Nullable(DateTime64(3, 'UTC'))"),
            "{sql}"
        );
        assert!(!sql.contains("PARTITION BY"), "{sql}");
    }

    #[test]
    fn only_missing_columns_are_added() {
        let mut layout = Layout::default();
        for column in EVENTS.columns {
            layout
                .columns
                .insert(column.name.to_owned(), "String".to_owned());
        }
        assert_eq!(add_columns("d", &EVENTS, &layout, true), None);
        layout.columns.remove("pp_id");
        assert_eq!(
            add_columns("d", &EVENTS, &layout, true).as_deref(),
            Some("ALTER TABLE `d`.`events` ADD COLUMN IF NOT EXISTS `pp_id` String")
        );
    }
}
