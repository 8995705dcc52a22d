//! The tables as Postgres statements. Called by `tables` and `ddl`; pure.
//!
//! # Invariants
//! - Statements only add: nothing is dropped or rewritten.
//! - `NOT NULL` only where the key or the field's tables have it: a row is not
//!   refused for a value that nobody needs.
//! - A partitioned table has a default partition, so that no row is refused for its
//!   date. Tests: `tests` below.

use chrono::{Days, NaiveDate};

use crate::sink::convert::{quoted, quoted_list};
use crate::sink::schema::{Column, ColumnType, Partition, Table};

/// Partitions are made for yesterday (rows that are late) to this many days ahead:
/// a collector may fail at making them for a week before rows go to the default.
const DAYS_AHEAD: u64 = 7;

pub(super) fn create_schema(schema: &str) -> String {
    format!("CREATE SCHEMA IF NOT EXISTS {}", quoted(schema))
}

/// `"schema"."name"`
pub(super) fn full_name(schema: &str, name: &str) -> String {
    format!("{}.{}", quoted(schema), quoted(name))
}

/// The table, its default partition and its comments.
pub(super) fn create_table(schema: &str, table: &Table) -> Vec<String> {
    let name = full_name(schema, table.name);
    let mut lines: Vec<_> = table
        .columns
        .iter()
        .map(|c| format!("    {}", define(c, table)))
        .collect();
    lines.push(format!(
        "    PRIMARY KEY ({})",
        quoted_list(table.key.iter().copied())
    ));
    let partition = match table.partition {
        Partition::None => String::new(),
        Partition::ByTime(column) => format!(" PARTITION BY RANGE ({})", quoted(column)),
    };
    let mut statements = vec![format!(
        "CREATE TABLE IF NOT EXISTS {name} (\n{}\n){partition}",
        lines.join(",\n")
    )];
    if table.partition != Partition::None {
        statements.push(create_default(schema, table));
    }
    if !table.comment.is_empty() {
        statements.push(format!(
            "COMMENT ON TABLE {name} IS {}",
            literal(table.comment)
        ));
    }
    statements.extend(
        table
            .columns
            .iter()
            .filter(|c| !c.comment.is_empty())
            .map(|c| comment(schema, table, c)),
    );
    statements
}

pub(super) fn default_name(table: &Table) -> String {
    format!("{}_default", table.name)
}

pub(super) fn create_default(schema: &str, table: &Table) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {} PARTITION OF {} DEFAULT",
        full_name(schema, &default_name(table)),
        full_name(schema, table.name)
    )
}

pub(super) fn day_name(table: &Table, day: NaiveDate) -> String {
    format!("{}_{}", table.name, day.format("%Y%m%d"))
}

/// The days whose partitions are to exist.
pub(super) fn days(today: NaiveDate) -> Vec<NaiveDate> {
    let first = today.checked_sub_days(Days::new(1)).unwrap_or(today);
    first
        .iter_days()
        .take(2 + usize::try_from(DAYS_AHEAD).unwrap_or(0))
        .collect()
}

/// The partition of one day, made beside the table and then attached: unlike
/// `PARTITION OF` this does not lock out the table's readers and writers.
pub(super) fn create_day(schema: &str, table: &Table, day: NaiveDate) -> [String; 2] {
    let parent = full_name(schema, table.name);
    let name = full_name(schema, &day_name(table, day));
    let end = day.succ_opt().unwrap_or(day);
    [
        format!(
            "CREATE TABLE {name} (LIKE {parent} INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING COMMENTS)"
        ),
        format!(
            "ALTER TABLE {parent} ATTACH PARTITION {name} FOR VALUES FROM ('{day} 00:00:00') TO ('{end} 00:00:00')"
        ),
    ]
}

/// A column for a table that is there already, nullable because its rows lack it.
pub(super) fn add_column(schema: &str, table: &Table, column: &Column) -> Vec<String> {
    let name = full_name(schema, table.name);
    let mut statements = vec![format!(
        "ALTER TABLE {name} ADD COLUMN IF NOT EXISTS {} {}",
        quoted(column.name),
        kind(column)
    )];
    if !column.comment.is_empty() {
        statements.push(comment(schema, table, column));
    }
    statements
}

fn comment(schema: &str, table: &Table, column: &Column) -> String {
    let name = full_name(schema, table.name);
    format!(
        "COMMENT ON COLUMN {name}.{} IS {}",
        quoted(column.name),
        literal(column.comment)
    )
}

fn define(column: &Column, table: &Table) -> String {
    let needed = table.key.contains(&column.name) || column.name == "insert_timestamp";
    format!(
        "{} {}{}",
        quoted(column.name),
        kind(column),
        if needed { " NOT NULL" } else { "" }
    )
}

fn kind(column: &Column) -> String {
    match (column.kind, column.max_chars) {
        (ColumnType::Text, Some(chars)) => format!("varchar({chars})"),
        (ColumnType::Text, None) => "text".to_owned(),
        // Unsigned ones beyond 63 bits do not occur; they would be refused.
        (ColumnType::Int64 | ColumnType::UInt64 | ColumnType::UInt32 | ColumnType::Flag, _) => {
            "bigint".to_owned()
        }
        (ColumnType::Float64, _) => "double precision".to_owned(),
        (ColumnType::TimeMs, _) => "timestamp".to_owned(),
        (ColumnType::Json | ColumnType::AnyJson, _) => "jsonb".to_owned(),
    }
}

/// A text as a literal, whatever `standard_conforming_strings` says.
fn literal(text: &str) -> String {
    if text.contains('\\') {
        format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
    } else {
        format!("'{}'", text.replace('\'', "''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::schema::{ERROR_EVENTS, EVENTS};

    #[test]
    fn events_are_partitioned_and_keyed() {
        let all = create_table("_e", &EVENTS);
        let sql = &all[0];
        assert!(sql.starts_with("CREATE TABLE IF NOT EXISTS \"_e\".\"events\" (\n    \"event_id\" varchar(55) NOT NULL,"), "{sql}");
        assert!(sql.contains("\"event_name\" varchar(55),"), "{sql}");
        assert!(
            sql.contains("\"insert_timestamp\" timestamp NOT NULL"),
            "{sql}"
        );
        assert!(sql.contains("\"current_url\" text,"), "{sql}");
        assert!(sql.contains("\"event_params\" jsonb"), "{sql}");
        assert!(sql.contains("\"ingest_seq\" bigint"), "{sql}");
        assert!(sql.ends_with("PRIMARY KEY (\"event_id\", \"event_timestamp\")\n) PARTITION BY RANGE (\"event_timestamp\")"), "{sql}");
        assert_eq!(
            all[1],
            "CREATE TABLE IF NOT EXISTS \"_e\".\"events_default\" PARTITION OF \"_e\".\"events\" DEFAULT"
        );
        assert!(
            all.iter()
                .any(|s| s.contains("IS 'the event''s own fields")),
            "{all:?}"
        );
    }

    #[test]
    fn error_events_are_one_table() {
        let all = create_table("_e", &ERROR_EVENTS);
        assert!(
            all[0].contains("\"event_timestamp\" timestamp,"),
            "{}",
            all[0]
        );
        assert!(!all.iter().any(|s| s.contains("PARTITION")), "{all:?}");
    }

    #[test]
    fn days_reach_from_yesterday_to_a_week_ahead() {
        let today = NaiveDate::from_ymd_opt(2024, 2, 28).unwrap();
        let days = days(today);
        assert_eq!(days.len(), 9);
        assert_eq!(day_name(&EVENTS, days[0]), "events_20240227");
        assert_eq!(day_name(&EVENTS, days[2]), "events_20240229");
        assert_eq!(day_name(&EVENTS, days[8]), "events_20240306");
        let [create, attach] = create_day("_e", &EVENTS, days[2]);
        assert!(
            create.starts_with("CREATE TABLE \"_e\".\"events_20240229\" (LIKE \"_e\".\"events\" "),
            "{create}"
        );
        assert_eq!(
            attach,
            "ALTER TABLE \"_e\".\"events\" ATTACH PARTITION \"_e\".\"events_20240229\" \
             FOR VALUES FROM ('2024-02-29 00:00:00') TO ('2024-03-01 00:00:00')"
        );
    }

    #[test]
    fn added_columns_are_nullable() {
        let column = EVENTS
            .columns
            .iter()
            .find(|c| c.name == "event_id")
            .unwrap();
        assert_eq!(
            add_column("_e", &EVENTS, column)[0],
            "ALTER TABLE \"_e\".\"events\" ADD COLUMN IF NOT EXISTS \"event_id\" varchar(55)"
        );
        assert_eq!(literal("a'b\\"), "E'a''b\\\\'");
    }
}
