//! A batch as one statement: one array per column, unnested. Called by `write`; pure.
//!
//! # Invariants
//! - One round trip per batch, however many rows; the statement's text depends on
//!   the table and its key only, so that it is prepared once per connection.
//! - Rows that are there already, or twice in the batch, change nothing. Where the table
//!   has a version, a row of a later one takes the place of the earlier (test
//!   `postgres_keeps_the_last_version_of_a_row`).
//! - Where the table has no key, rows that are there are left out. Two writers at the same moment
//!   do not see each other's. No day is read that no row is near to, and no statement reads more
//!   than two (tests `postgres_reads_no_days_between_those_of_a_batch`,
//!   `parts_are_of_two_days_at_most`).
//!   Tests: `tests` below, `postgres_*` in tests/it/sinks.

use chrono::NaiveDateTime;
use sqlx::Postgres;
use sqlx::postgres::PgArguments;
use sqlx::query::Query;

use crate::sink::convert::{Place, quoted, quoted_list};
use crate::sink::schema::{Column, ColumnType, Partition, Table};
use crate::sink::{Batch, Row, Value, WriteError};

/// Years that chrono and Postgres can both hold (Postgres: 4713 BC to 294276 AD).
const YEARS: std::ops::RangeInclusive<i32> = -4712..=262_142;

/// Days are UTC's, as those of partitions are.
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// One column of a batch.
pub(super) enum Array<'a> {
    Text(Vec<Option<&'a str>>),
    Int(Vec<Option<i64>>),
    Float(Vec<Option<f64>>),
    Time(Vec<Option<NaiveDateTime>>),
}

impl<'a> Array<'a> {
    pub(super) fn bind(
        self,
        query: Query<'a, Postgres, PgArguments>,
    ) -> Query<'a, Postgres, PgArguments> {
        match self {
            Self::Text(values) => query.bind(values),
            Self::Int(values) => query.bind(values),
            Self::Float(values) => query.bind(values),
            Self::Time(values) => query.bind(values),
        }
    }
}

/// The batch turned by 90 degrees.
pub(super) fn arrays(batch: &Batch) -> Result<Vec<Array<'_>>, WriteError> {
    batch
        .table
        .columns
        .iter()
        .enumerate()
        .map(|(i, column)| array(batch, i, column))
        .collect()
}

fn array<'a>(batch: &'a Batch, index: usize, column: &Column) -> Result<Array<'a>, WriteError> {
    let cells = batch
        .rows
        .iter()
        .enumerate()
        .map(|(row, values)| (Place { row, column }, &values.values[index]));
    Ok(match column.kind {
        ColumnType::Text => Array::Text(cells.map(|(at, v)| at.text(v)).collect::<Result<_, _>>()?),
        // Sent as text: it is the server that knows what its jsonb can hold.
        ColumnType::Json | ColumnType::AnyJson => {
            Array::Text(cells.map(|(at, v)| at.json(v)).collect::<Result<_, _>>()?)
        }
        ColumnType::Int64 | ColumnType::UInt64 | ColumnType::UInt32 | ColumnType::Flag => {
            Array::Int(
                cells
                    .map(|(at, v)| at.signed(v))
                    .collect::<Result<_, _>>()?,
            )
        }
        ColumnType::Float64 => {
            Array::Float(cells.map(|(at, v)| at.float(v)).collect::<Result<_, _>>()?)
        }
        ColumnType::TimeMs => Array::Time(
            cells
                .map(|(at, v)| at.time(v, YEARS))
                .collect::<Result<_, _>>()?,
        ),
    })
}

/// The batch of a table without a key, in parts of a day and the next; none where it is one. What is
/// there already is looked for between the first and the last time of a statement's rows: for
/// events of many days all of them would be read, for longer than a statement may take.
pub(super) fn parts(batch: &Batch) -> Vec<Batch> {
    let Partition::ByTime(column) = batch.table.partition else {
        return Vec::new();
    };
    let Some(at) = batch.table.columns.iter().position(|c| c.name == column) else {
        return Vec::new();
    };
    let day = |row: &Row| match row.values[at] {
        Value::TimeMs(ms) => ms.div_euclid(DAY_MS),
        _ => i64::MIN / DAY_MS,
    };
    let mut rows = batch.rows.to_vec();
    // Of equal rows the first is still the first.
    rows.sort_by_key(day);
    let mut parts = Vec::new();
    let mut rest = rows.as_slice();
    while let Some(first) = rest.first().map(day) {
        let (part, others) = rest.split_at(rest.partition_point(|row| day(row) - first <= 1));
        parts.push(Batch {
            rows: part.into(),
            ..batch.clone()
        });
        rest = others;
    }
    if parts.len() == 1 {
        return Vec::new();
    }
    parts
}

/// The insert whose parameters are the batch's [`arrays`], in their order, for a table that has
/// its key or does not.
pub(super) fn statement(schema: &str, table: &Table, has_key: bool) -> String {
    let columns = table.columns;
    let names = quoted_list(columns.iter().map(|c| c.name));
    let mut picks = Vec::with_capacity(columns.len());
    let mut arrays = Vec::with_capacity(columns.len());
    for (i, column) in columns.iter().enumerate() {
        let (array, cast) = match column.kind {
            ColumnType::Text => ("text", ""),
            ColumnType::Json | ColumnType::AnyJson => ("text", "::jsonb"),
            ColumnType::Int64 | ColumnType::UInt64 | ColumnType::UInt32 | ColumnType::Flag => {
                ("int8", "")
            }
            ColumnType::Float64 => ("float8", ""),
            ColumnType::TimeMs => ("timestamp", ""),
        };
        picks.push(format!("u.{}{cast}", quoted(column.name)));
        arrays.push(format!("${}::{array}[]", i + 1));
    }
    let into = format!(
        "INSERT INTO {}.{} AS t ({names})",
        quoted(schema),
        quoted(table.name)
    );
    let (picks, arrays) = (picks.join(", "), arrays.join(", "));
    let of_key: Vec<_> = table
        .key
        .iter()
        .map(|k| format!("u.{}", quoted(k)))
        .collect();
    let of_key = of_key.join(", ");
    let Some(version) = table.replacing_version().map(quoted) else {
        if !has_key {
            let is_there = is_there(schema, table);
            // A key that is made in the meantime counts.
            return format!(
                "{into} SELECT DISTINCT ON ({of_key}) {picks} FROM UNNEST({arrays}) \
                 WITH ORDINALITY AS u({names}, \"#\") WHERE NOT EXISTS ({is_there}) \
                 ORDER BY {of_key}, u.\"#\" ON CONFLICT DO NOTHING"
            );
        }
        return format!(
            "{into} SELECT {picks} FROM UNNEST({arrays}) AS u({names}) ON CONFLICT DO NOTHING"
        );
    };
    // A statement may touch a row once: of a batch's own versions only the last goes in. Of
    // equal ones the later row counts, as for ClickHouse's ReplacingMergeTree.
    let key = quoted_list(table.key.iter().copied());
    let others = columns.iter().filter(|c| !table.key.contains(&c.name));
    let sets: Vec<_> = others
        .map(|c| format!("{0} = EXCLUDED.{0}", quoted(c.name)))
        .collect();
    format!(
        "{into} SELECT DISTINCT ON ({of_key}) {picks} FROM UNNEST({arrays}) \
         WITH ORDINALITY AS u({names}, \"#\") \
         ORDER BY {of_key}, u.{version} DESC NULLS LAST, u.\"#\" DESC \
         ON CONFLICT ({key}) DO UPDATE SET {} \
         WHERE t.{version} IS NULL OR EXCLUDED.{version} >= t.{version}",
        sets.join(", ")
    )
}

/// The rows of the table with the key of the row `u`.
fn is_there(schema: &str, table: &Table) -> String {
    let mut conditions = Vec::new();
    for (i, column) in table.columns.iter().enumerate() {
        if !table.key.contains(&column.name) {
            continue;
        }
        let name = quoted(column.name);
        // The plain form where it will do: by the other no server joins with an index or a hash.
        let equals = if column.nullable {
            "IS NOT DISTINCT FROM"
        } else {
            "="
        };
        conditions.push(format!("o.{name} {equals} u.{name}"));
        if table.partition == Partition::ByTime(column.name) {
            // Leaves the partitions of other days alone.
            let times = format!("UNNEST(${}::timestamp[]) AS m", i + 1);
            conditions.push(format!(
                "o.{name} BETWEEN (SELECT min(m) FROM {times}) AND (SELECT max(m) FROM {times})"
            ));
        }
    }
    let (schema, name) = (quoted(schema), quoted(table.name));
    format!(
        "SELECT 1 FROM {schema}.{name} AS o WHERE {}",
        conditions.join(" AND ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::schema::Partition;
    use crate::sink::{Row, Value};

    const fn column(name: &'static str, kind: ColumnType) -> Column {
        Column {
            name,
            kind,
            nullable: false,
            max_chars: None,
            comment: "",
        }
    }

    static T: Table = Table {
        name: "t",
        columns: &[
            column("a", ColumnType::Text),
            column("n", ColumnType::UInt64),
            column("t", ColumnType::TimeMs),
            column("j", ColumnType::Json),
        ],
        key: &["a"],
        order_by: &["a"],
        version: None,
        partition: Partition::None,
        comment: "",
    };

    #[test]
    fn one_statement_for_any_number_of_rows() {
        assert_eq!(
            statement("_e", &T, true),
            "INSERT INTO \"_e\".\"t\" AS t (\"a\", \"n\", \"t\", \"j\") SELECT u.\"a\", u.\"n\", u.\"t\", u.\"j\"::jsonb \
             FROM UNNEST($1::text[], $2::int8[], $3::timestamp[], $4::text[]) AS u(\"a\", \"n\", \"t\", \"j\") \
             ON CONFLICT DO NOTHING"
        );
    }

    #[test]
    fn without_a_key_rows_that_are_there_are_left_out() {
        static KEYLESS: Table = Table {
            columns: &[
                column("a", ColumnType::Text),
                Column {
                    nullable: true,
                    ..column("n", ColumnType::UInt64)
                },
                column("t", ColumnType::TimeMs),
            ],
            key: &["a", "n", "t"],
            partition: Partition::ByTime("t"),
            ..T
        };
        assert_eq!(
            statement("_e", &KEYLESS, false),
            "INSERT INTO \"_e\".\"t\" AS t (\"a\", \"n\", \"t\") \
             SELECT DISTINCT ON (u.\"a\", u.\"n\", u.\"t\") u.\"a\", u.\"n\", u.\"t\" \
             FROM UNNEST($1::text[], $2::int8[], $3::timestamp[]) WITH ORDINALITY AS u(\"a\", \"n\", \"t\", \"#\") \
             WHERE NOT EXISTS (SELECT 1 FROM \"_e\".\"t\" AS o WHERE o.\"a\" = u.\"a\" \
             AND o.\"n\" IS NOT DISTINCT FROM u.\"n\" AND o.\"t\" = u.\"t\" \
             AND o.\"t\" BETWEEN (SELECT min(m) FROM UNNEST($3::timestamp[]) AS m) \
             AND (SELECT max(m) FROM UNNEST($3::timestamp[]) AS m)) \
             ORDER BY u.\"a\", u.\"n\", u.\"t\", u.\"#\" ON CONFLICT DO NOTHING"
        );
    }

    #[test]
    fn parts_are_of_two_days_at_most() {
        static DAILY: Table = Table {
            partition: Partition::ByTime("t"),
            ..T
        };
        let row = |day: i64, name: &str| Row {
            values: vec![
                Value::Text(name.into()),
                Value::UInt(0),
                Value::TimeMs(day * DAY_MS + 5),
                Value::Json("{}".into()),
            ],
        };
        let parted = |table, days: &[i64]| {
            let rows = days.iter().map(|day| row(*day, "a"));
            let batch = Batch {
                table,
                namespace: Some("n".into()),
                rows: rows.collect(),
                token: "token".into(),
            };
            let parts = parts(&batch).into_iter();
            let day = |row: &Row| match row.values[2] {
                Value::TimeMs(ms) => ms.div_euclid(DAY_MS),
                _ => panic!("no time"),
            };
            let days = |part: Batch| {
                assert_eq!(part.namespace, batch.namespace);
                part.rows.iter().map(day).collect::<Vec<_>>()
            };
            parts.map(days).collect::<Vec<_>>()
        };
        assert!(parted(&T, &[1, 100]).is_empty(), "it has no days");
        assert!(parted(&DAILY, &[101, 100, 101, 100]).is_empty());
        assert_eq!(
            parted(&DAILY, &[100, -1, 101, 60, 100, -2]),
            [vec![-2, -1], vec![60], vec![100, 100, 101]]
        );
        // However many of them follow one another.
        assert_eq!(
            parted(&DAILY, &[104, 103, 102, 101, 100, 103]),
            [vec![100, 101], vec![102, 103, 103], vec![104]]
        );
    }

    #[test]
    fn numbers_and_times_beyond_postgres_are_refused() {
        for (number, time) in [
            (u64::MAX, 0),
            (0, i64::MAX),
            (0, i64::MIN),
            (0, -300_000_000_000_000),
        ] {
            let values = vec![
                Value::Null,
                Value::UInt(number),
                Value::TimeMs(time),
                Value::Json("{}".into()),
            ];
            let rows = vec![Row { values }].into();
            let batch = Batch {
                table: &T,
                namespace: None,
                rows,
                token: String::new(),
            };
            let error = arrays(&batch).err().expect("out of range");
            assert!(!error.is_retryable(), "{error}");
        }
    }
}
