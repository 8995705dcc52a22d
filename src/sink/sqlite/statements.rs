//! The tables and rows as SQLite statements. Called by this folder's `mod`; pure.
//!
//! # Invariants
//! - Statements only add: nothing is dropped or rewritten.
//! - No statement has more parameters than SQLite allows.
//! - A row that is there already stays as it is; where the table has a version, a row of a
//!   later one takes its place (test `sqlite_keeps_the_last_version_of_a_row`).
//! - Times are text that sorts by time and that SQLite's date functions read.
//!   Tests: `tests` below, `sqlite_*` in tests/it/sinks.

use crate::sink::convert::{Place, quoted, quoted_list};
use crate::sink::schema::{Column, ColumnType, Table};
use crate::sink::{Value, WriteError};

/// Parameters that one statement may have, by SQLite's default since 3.32.
const MAX_PARAMETERS: usize = 32_766;

/// Years that SQLite's date functions read, and whose text sorts by time.
const YEARS: std::ops::RangeInclusive<i32> = 0..=9999;

/// A value as SQLite stores it.
#[derive(Debug, PartialEq)]
pub(super) enum Cell<'a> {
    Text(Option<&'a str>),
    Time(Option<String>),
    Int(Option<i64>),
    Float(Option<f64>),
}

/// The value for its column.
pub(super) fn cell<'a>(place: Place<'_>, value: &'a Value) -> Result<Cell<'a>, WriteError> {
    Ok(match place.column.kind {
        ColumnType::Text => Cell::Text(place.text(value)?),
        ColumnType::Json | ColumnType::AnyJson => Cell::Text(place.json(value)?),
        ColumnType::Int64 | ColumnType::UInt64 | ColumnType::UInt32 | ColumnType::Flag => {
            Cell::Int(place.signed(value)?)
        }
        ColumnType::Float64 => match place.float(value)? {
            Some(number) if number.is_nan() => {
                return Err(place.refused("SQLite would store NaN as NULL"));
            }
            number => Cell::Float(number),
        },
        ColumnType::TimeMs => {
            let time = place.time(value, YEARS)?;
            Cell::Time(time.map(|time| time.format("%Y-%m-%d %H:%M:%S%.3f").to_string()))
        }
    })
}

/// Rows that one statement can take.
pub(super) fn rows_per_statement(table: &Table) -> usize {
    (MAX_PARAMETERS / table.columns.len().max(1)).max(1)
}

/// The insert of so many rows.
pub(super) fn insert(table: &Table, rows: usize) -> String {
    let row = format!("({})", vec!["?"; table.columns.len()].join(", "));
    format!(
        "INSERT INTO {} AS t ({}) VALUES {} ON CONFLICT {}",
        quoted(table.name),
        quoted_list(table.columns.iter().map(|c| c.name)),
        vec![row; rows].join(", "),
        on_conflict(table)
    )
}

/// What becomes of a row whose key is there. Of equal versions the later row counts, as for
/// ClickHouse's ReplacingMergeTree.
fn on_conflict(table: &Table) -> String {
    let Some(version) = table.replacing_version().map(quoted) else {
        return "DO NOTHING".to_owned();
    };
    let columns = table.columns.iter();
    let others = columns.filter(|c| !table.key.contains(&c.name));
    let sets: Vec<_> = others
        .map(|c| format!("{0} = excluded.{0}", quoted(c.name)))
        .collect();
    format!(
        "({}) DO UPDATE SET {} WHERE t.{version} IS NULL OR excluded.{version} >= t.{version}",
        quoted_list(table.key.iter().copied()),
        sets.join(", ")
    )
}

/// The table; comments are kept by SQLite, `.schema` shows them.
pub(super) fn create_table(table: &Table) -> String {
    let columns: Vec<_> = table
        .columns
        .iter()
        .map(|c| {
            // SQLite lets NULLs into primary keys, where they never conflict.
            let needed = if table.key.contains(&c.name) {
                " NOT NULL"
            } else {
                ""
            };
            let comment = if c.comment.is_empty() {
                String::new()
            } else {
                format!(" -- {}", line(c.comment))
            };
            format!("    {}{needed},{comment}\n", define(c))
        })
        .collect();
    format!(
        "CREATE TABLE IF NOT EXISTS {} ( -- {}\n{}    PRIMARY KEY ({})\n)",
        quoted(table.name),
        line(table.comment),
        columns.concat(),
        quoted_list(table.key.iter().copied())
    )
}

/// A column for a table that is there already.
pub(super) fn add_column(table: &Table, column: &Column) -> String {
    format!(
        "ALTER TABLE {} ADD COLUMN {}",
        quoted(table.name),
        define(column)
    )
}

fn define(column: &Column) -> String {
    let kind = match column.kind {
        ColumnType::Text | ColumnType::TimeMs | ColumnType::Json | ColumnType::AnyJson => "TEXT",
        ColumnType::Int64 | ColumnType::UInt64 | ColumnType::UInt32 | ColumnType::Flag => "INTEGER",
        ColumnType::Float64 => "REAL",
    };
    format!("{} {kind}", quoted(column.name))
}

/// A line break would end an SQL comment.
fn line(comment: &str) -> String {
    comment.replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::schema::{ERROR_EVENTS, EVENTS};

    #[test]
    fn tables_have_their_key() {
        let sql = create_table(&EVENTS);
        assert!(
            sql.starts_with("CREATE TABLE IF NOT EXISTS \"events\" ( -- Events"),
            "{sql}"
        );
        assert!(sql.contains("\"event_id\" TEXT NOT NULL,"), "{sql}");
        assert!(sql.contains("\"event_name\" TEXT,"), "{sql}");
        assert!(sql.contains("\"ingest_seq\" INTEGER, -- sequence"), "{sql}");
        assert!(
            sql.ends_with("    PRIMARY KEY (\"event_id\", \"event_timestamp\")\n)"),
            "{sql}"
        );
        assert!(create_table(&ERROR_EVENTS).contains("\"event_timestamp\" TEXT,"));
    }

    #[test]
    fn statements_stay_within_the_parameters() {
        let rows = rows_per_statement(&EVENTS);
        assert!(rows * EVENTS.columns.len() <= MAX_PARAMETERS);
        assert_eq!(
            insert(&EVENTS, 3).matches('?').count(),
            3 * EVENTS.columns.len()
        );
    }

    #[test]
    fn values_that_sqlite_would_change_are_refused() {
        let column = |kind| Column {
            name: "c",
            kind,
            nullable: true,
            max_chars: None,
            comment: "",
        };
        let (time, float, number) = (
            column(ColumnType::TimeMs),
            column(ColumnType::Float64),
            column(ColumnType::UInt64),
        );
        let time = Place {
            row: 0,
            column: &time,
        };
        assert_eq!(
            cell(time, &Value::TimeMs(7)).unwrap(),
            Cell::Time(Some("1970-01-01 00:00:00.007".into()))
        );
        assert!(cell(time, &Value::TimeMs(253_402_300_800_000)).is_err());
        assert!(
            cell(
                Place {
                    row: 0,
                    column: &float
                },
                &Value::Float(f64::NAN)
            )
            .is_err()
        );
        assert!(
            cell(
                Place {
                    row: 0,
                    column: &number
                },
                &Value::UInt(u64::MAX)
            )
            .is_err()
        );
    }
}
