//! A batch as the lines of JSONEachRow, for tables that `binary` does not write, and as the
//! statement of either. Called by `write`; pure.
//!
//! # Invariants
//! - One line per row, and a value can never end its line, field or row: JSON text
//!   is checked before it is embedded.
//! - Times carry their zone, so that `DateTime` columns of a server in another zone
//!   hold the right instant, as do `DateTime64(3)` ones.
//! - Integers and floats are written in full; tests: `tests` below and
//!   `clickhouse_keeps_every_value` in tests/it/sinks.
//! - A number that the table's column cannot hold is refused, and not another one there
//!   (`clickhouse_takes_both_forms_for_the_same`).

use std::collections::HashMap;

use serde_json::value::RawValue;

use super::binary;
use crate::sink::convert::Place;
use crate::sink::schema::{ColumnType, Table};
use crate::sink::{Batch, Value, WriteError};

/// The years that `DateTime64` promises on every server; outside of them older ones
/// store another time without a word.
pub(super) const YEARS: std::ops::RangeInclusive<i32> = 1900..=2299;

/// A setting; a server that has it has a native JSON type that is fit for our keys.
pub(super) const DOTS_IN_KEYS: &str = "json_type_escape_dots_in_keys";

/// What a table on a server looks like, as far as rows depend on it.
#[derive(Debug, Clone, Default)]
pub(super) struct Layout {
    /// Types of the columns that exist, by name.
    pub(super) columns: HashMap<String, String>,
    /// The table's engine; empty where this user may not see it.
    pub(super) engine: String,
    /// Of the settings that we would like to send, those that the server knows.
    pub(super) settings: Vec<String>,
}

impl Layout {
    /// Whether the table may be told a batch's token. Replicas note it together with the part
    /// that they commit. Other tables note it before the part has its name: a server that ends
    /// in between takes the retry for the batch that it has just lost, and drops it (test
    /// `clickhouse_killed_between_its_note_and_the_part_loses_no_batch`).
    pub(super) fn commits_tokens(&self) -> bool {
        ["Replicated", "Shared"]
            .iter()
            .any(|kind| self.engine.starts_with(kind))
    }

    /// Whether the server has a JSON type that keeps dots in keys apart.
    pub(super) fn has_fit_json(&self) -> bool {
        self.knows(DOTS_IN_KEYS)
    }

    /// Whether the server knows this one of the settings that we would like to send.
    pub(super) fn knows(&self, setting: &str) -> bool {
        self.settings.iter().any(|name| name == setting)
    }

    /// Whether the column takes JSON objects rather than text.
    fn is_native_json(&self, column: &str) -> bool {
        self.columns.get(column).is_some_and(|kind| {
            let kind = kind.strip_prefix("Nullable(").unwrap_or(kind);
            kind.starts_with("JSON") || kind.starts_with("Object(")
        })
    }
}

/// A name as a ClickHouse identifier.
pub(super) fn identifier(name: &str) -> String {
    format!("`{}`", name.replace('\\', "\\\\").replace('`', "\\`"))
}

/// A text as a ClickHouse literal.
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// `database`.`table`
pub(super) fn full_name(database: &str, table: &Table) -> String {
    format!("{}.{}", identifier(database), identifier(table.name))
}

/// The form of a batch's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// The lines of [`lines`].
    Json,
    /// The rows of [`binary::rows`](super::binary::rows).
    Binary {
        /// Whether the server parses JSON of them.
        has_native_json: bool,
    },
}

/// The insert that takes a batch in this form.
pub(super) fn statement(database: &str, table: &Table, form: Form) -> String {
    let names: Vec<_> = table.columns.iter().map(|c| identifier(c.name)).collect();
    let format = match form {
        Form::Json => "JSONEachRow",
        Form::Binary { .. } => "RowBinaryWithNamesAndTypes",
    };
    format!(
        "INSERT INTO {} ({}) FORMAT {format}",
        full_name(database, table),
        names.join(", ")
    )
}

/// The rows, one JSON object per line, in pieces of about `piece_bytes`.
pub(super) fn lines(
    batch: &Batch,
    layout: &Layout,
    piece_bytes: usize,
) -> Result<Vec<Vec<u8>>, WriteError> {
    let columns = batch.table.columns;
    let heads: Vec<String> = columns
        .iter()
        .map(|c| format!("{}:", serde_json::Value::from(c.name)))
        .collect();
    let native: Vec<bool> = columns
        .iter()
        .map(|c| layout.is_native_json(c.name))
        .collect();
    let bounds: Vec<_> = columns
        .iter()
        .map(|c| binary::bounds(c.kind, layout.columns.get(c.name)?))
        .collect();

    let mut pieces = Vec::new();
    let mut piece = Vec::with_capacity(piece_bytes);
    for (row, values) in batch.rows.iter().enumerate() {
        for (i, (column, value)) in columns.iter().zip(&values.values).enumerate() {
            piece.push(if i == 0 { b'{' } else { b',' });
            piece.extend_from_slice(heads[i].as_bytes());
            let place = Place { row, column };
            if let Some(bounds) = bounds[i] {
                within_bounds(place, value, bounds)?;
            }
            put(&mut piece, place, value, native[i])?;
        }
        piece.extend_from_slice(b"}\n");
        if piece.len() >= piece_bytes {
            pieces.push(std::mem::take(&mut piece));
        }
    }
    if !piece.is_empty() {
        pieces.push(piece);
    }
    Ok(pieces)
}

/// The server would wrap the number around.
fn within_bounds(
    place: Place<'_>,
    value: &Value,
    (min, max): (i128, i128),
) -> Result<(), WriteError> {
    let number = match *value {
        Value::Int(number) => number.into(),
        Value::UInt(number) => number.into(),
        _ => return Ok(()),
    };
    if (min..=max).contains(&number) {
        return Ok(());
    }
    let why = format!("{number} is beyond what the table's column holds, {min} to {max}");
    Err(place.refused(&why))
}

/// Puts a value as JSON.
fn put(
    to: &mut Vec<u8>,
    place: Place<'_>,
    value: &Value,
    native_json: bool,
) -> Result<(), WriteError> {
    let is_there = match place.column.kind {
        ColumnType::Text => match place.text(value)? {
            Some(text) => put_text(to, place, text)?,
            None => false,
        },
        ColumnType::Int64 | ColumnType::UInt64 | ColumnType::UInt32 | ColumnType::Flag => {
            match place.integer(value)? {
                Some(number) => put_plain(to, &number.to_string()),
                None => false,
            }
        }
        ColumnType::Float64 => match place.float(value)? {
            Some(number) => put_plain(to, &float_as_json(number)),
            None => false,
        },
        ColumnType::TimeMs => match place.time(value, YEARS)? {
            Some(time) => put_plain(to, &time.format("\"%Y-%m-%dT%H:%M:%S%.3fZ\"").to_string()),
            None => false,
        },
        ColumnType::Json | ColumnType::AnyJson => match place.json(value)? {
            None => false,
            Some(text) => {
                // A stray bracket would make the rows after it part of this one.
                serde_json::from_str::<&RawValue>(text)
                    .map_err(|e| place.refused(&format!("not JSON: {e}")))?;
                if native_json {
                    put_plain(to, text)
                } else {
                    put_text(to, place, text)?
                }
            }
        },
    };
    if !is_there {
        put_plain(to, "null");
    }
    Ok(())
}

fn put_plain(to: &mut Vec<u8>, text: &str) -> bool {
    to.extend_from_slice(text.as_bytes());
    true
}

fn put_text(to: &mut Vec<u8>, place: Place<'_>, text: &str) -> Result<bool, WriteError> {
    serde_json::to_writer(to, text).map_err(|e| place.refused(&format!("no JSON: {e}")))?;
    Ok(true)
}

/// JSON has no words for these three; ClickHouse reads them from text.
fn float_as_json(number: f64) -> String {
    if number.is_nan() {
        "\"nan\"".to_owned()
    } else if number.is_infinite() {
        if number > 0.0 {
            "\"inf\"".to_owned()
        } else {
            "\"-inf\"".to_owned()
        }
    } else {
        serde_json::Value::from(number).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::Row;
    use crate::sink::schema::{Column, Partition};

    const fn column(name: &'static str, kind: ColumnType) -> Column {
        Column {
            name,
            kind,
            nullable: true,
            max_chars: None,
            comment: "",
        }
    }

    static T: Table = Table {
        name: "t`x",
        columns: &[
            column("a", ColumnType::Text),
            column("n", ColumnType::UInt64),
            column("f", ColumnType::Float64),
            column("t", ColumnType::TimeMs),
            column("j", ColumnType::Json),
        ],
        key: &["a"],
        order_by: &["a"],
        version: None,
        partition: Partition::None,
        comment: "",
    };

    fn batch(values: Vec<Value>) -> Batch {
        Batch {
            table: &T,
            namespace: None,
            rows: vec![Row { values }].into(),
            token: "t".into(),
        }
    }

    fn one(values: Vec<Value>, json_type: &str) -> String {
        let columns = HashMap::from([("j".to_owned(), json_type.to_owned())]);
        let layout = Layout {
            columns,
            engine: String::new(),
            settings: vec![],
        };
        String::from_utf8(lines(&batch(values), &layout, 10).unwrap().concat()).unwrap()
    }

    fn values(json: &str) -> Vec<Value> {
        vec![
            Value::Text("q\"\\\n\u{0}é".into()),
            Value::UInt(u64::MAX),
            Value::Float(0.1),
            Value::TimeMs(1_704_164_645_678),
            Value::Json(json.into()),
        ]
    }

    #[test]
    fn only_replicas_are_told_a_token_twice() {
        for (engine, is) in [
            ("ReplicatedReplacingMergeTree", true),
            ("SharedMergeTree", true),
            ("ReplacingMergeTree", false),
            ("Distributed", false),
            ("", false),
        ] {
            let layout = Layout {
                engine: engine.to_owned(),
                ..Layout::default()
            };
            assert_eq!(layout.commits_tokens(), is, "{engine}");
        }
    }

    #[test]
    fn a_row_is_one_line_with_json_as_the_column_wants_it() {
        let head = r#"{"a":"q\"\\\n\u0000é","n":18446744073709551615,"f":0.1,"t":"2024-01-02T03:04:05.678Z","j":"#;
        assert_eq!(
            one(values(r#"{"x":1}"#), "JSON(max_dynamic_paths=8)"),
            format!("{head}{{\"x\":1}}}}\n")
        );
        assert_eq!(
            one(values(r#"{"x":1}"#), "String"),
            format!("{head}\"{{\\\"x\\\":1}}\"}}\n")
        );
        assert_eq!(
            one(
                vec![
                    Value::Null,
                    Value::Null,
                    Value::Float(f64::NAN),
                    Value::Null,
                    Value::Null
                ],
                "JSON"
            ),
            "{\"a\":null,\"n\":null,\"f\":\"nan\",\"t\":null,\"j\":null}\n"
        );
    }

    #[test]
    fn text_that_is_no_json_or_too_old_a_time_is_refused() {
        for bad in ["{", "{}{}", "{}}, {", "", "{\"a\":1}\n{\"a\":2}"] {
            let error = lines(&batch(values(bad)), &Layout::default(), 10).unwrap_err();
            assert!(!error.is_retryable(), "{bad}");
        }
        let mut old = values("{}");
        old[3] = Value::TimeMs(i64::MIN);
        assert!(
            !lines(&batch(old), &Layout::default(), 10)
                .unwrap_err()
                .is_retryable()
        );
    }

    #[test]
    fn names_are_quoted() {
        assert_eq!(
            statement("d", &T, Form::Json),
            "INSERT INTO `d`.`t\\`x` (`a`, `n`, `f`, `t`, `j`) FORMAT JSONEachRow"
        );
        let form = Form::Binary {
            has_native_json: false,
        };
        assert!(statement("d", &T, form).ends_with("`j`) FORMAT RowBinaryWithNamesAndTypes"));
        assert_eq!(literal("it's \\"), "'it\\'s \\\\'");
    }
}
