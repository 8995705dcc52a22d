//! A batch as rows of RowBinaryWithNamesAndTypes, for tables whose columns all have a type
//! that we can write exactly. Called by `known` (the plan) and `write` (the rows); pure.
//!
//! # Invariants
//! - What arrives is what JSONEachRow would have brought. A value of which that is not plain,
//!   such as one that its column cannot hold, sends its batch the other way (`Ok(None)`), so
//!   that it is judged there.
//! - The rows name their columns' types: of a table that was changed meanwhile the server
//!   takes none of them for something else.
//! - The same values are refused here as there, with the same words.
//!   Tests: binary_tests.rs, binary_same_tests.rs, `clickhouse_takes_both_forms_for_the_same` in
//!   tests/it/sinks.

use serde_json::value::RawValue;

use super::encode::{Layout, YEARS};
use crate::sink::convert::Place;
use crate::sink::schema::{Column, ColumnType, Table};
use crate::sink::{Batch, Row, Value, WriteError};

/// Settings without which the server would not compare the types (of servers from 21.11).
pub(super) const COMPARE_TYPES: &str = "input_format_with_types_use_header";

/// The setting with which JSON columns are read as text (of servers from 24.10).
pub(super) const JSON_AS_TEXT: &str = "input_format_binary_read_json_as_string";

/// Room for a row that is longer than those before it, so that a piece seldom grows.
const SPARE_BYTES: usize = 16 << 10;

/// How a table's rows are written.
#[derive(Debug)]
pub(super) struct Plan {
    cells: Vec<Cell>,
    /// Names and types of the columns: what the rows begin with.
    head: Vec<u8>,
    /// Whether the server parses JSON of the rows.
    pub(super) has_native_json: bool,
}

/// How one column's values are written.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Cell {
    is_nullable: bool,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Text,
    /// Text of an object, which the server parses.
    NativeJson,
    /// The range, and how many bytes a number has.
    Integer(i128, i128, usize),
    Float,
    /// Whole seconds in 32 bits.
    Seconds,
    /// In 64 bits; so many for each millisecond.
    Ticks(i64),
}

impl Plan {
    /// # Errors
    /// Why there is none: which column of the table has a type that JSON alone fits.
    pub(super) fn of(table: &Table, layout: &Layout) -> Result<Self, String> {
        if !layout.knows(COMPARE_TYPES) {
            return Err(format!("the server has no setting {COMPARE_TYPES}"));
        }
        let mut cells = Vec::with_capacity(table.columns.len());
        let (mut names, mut types) = (Vec::new(), Vec::new());
        for column in table.columns {
            let name = column.name;
            let kind = layout
                .columns
                .get(name)
                .ok_or_else(|| format!("there is no column {name}"))?;
            let cell = Cell::of(column, kind)
                .ok_or_else(|| format!("column {name} is of the type {kind}"))?;
            if cell.kind == Kind::NativeJson && !layout.knows(JSON_AS_TEXT) {
                return Err(format!("the server has no setting {JSON_AS_TEXT}"));
            }
            cells.push(cell);
            put_text(&mut names, name);
            put_text(&mut types, kind);
        }
        let mut head = Vec::with_capacity(10 + names.len() + types.len());
        put_length(&mut head, cells.len());
        head.extend(names);
        head.extend(types);
        Ok(Self {
            has_native_json: cells.iter().any(|cell| cell.kind == Kind::NativeJson),
            cells,
            head,
        })
    }
}

impl Cell {
    /// `kind` as the server writes it in `system.columns`.
    fn of(column: &Column, kind: &str) -> Option<Self> {
        let text_alone = within(kind, "LowCardinality(");
        let kind = text_alone.unwrap_or(kind);
        let inner = within(kind, "Nullable(");
        let cell = Self {
            is_nullable: inner.is_some(),
            kind: Kind::of(column.kind, inner.unwrap_or(kind))?,
        };
        (text_alone.is_none() || cell.kind == Kind::Text).then_some(cell)
    }
}

impl Kind {
    fn of(ours: ColumnType, theirs: &str) -> Option<Self> {
        let signed = |bytes: usize| {
            let max = (1_i128 << (8 * bytes - 1)) - 1;
            Self::Integer(-max - 1, max, bytes)
        };
        let unsigned = |bytes: usize| Self::Integer(0, (1 << (8 * bytes)) - 1, bytes);
        Some(match ours {
            ColumnType::Text if theirs == "String" => Self::Text,
            ColumnType::Json | ColumnType::AnyJson => match theirs {
                "String" => Self::Text,
                _ if theirs == "JSON" || theirs.starts_with("JSON(") => Self::NativeJson,
                _ => return None,
            },
            ColumnType::Int64 | ColumnType::UInt64 | ColumnType::UInt32 | ColumnType::Flag => {
                match theirs {
                    "Int8" => signed(1),
                    "Int16" => signed(2),
                    "Int32" => signed(4),
                    "Int64" => signed(8),
                    "UInt8" => unsigned(1),
                    "UInt16" => unsigned(2),
                    "UInt32" => unsigned(4),
                    "UInt64" => unsigned(8),
                    "Bool" => Self::Integer(0, 1, 1),
                    _ => return None,
                }
            }
            ColumnType::Float64 if theirs == "Float64" => Self::Float,
            ColumnType::TimeMs => time(theirs)?,
            ColumnType::Text | ColumnType::Float64 => return None,
        })
    }
}

/// A zone changes how times are shown, not what is stored.
fn time(theirs: &str) -> Option<Kind> {
    let is_text = |text: &str| text.starts_with('\'') && text.ends_with('\'');
    if theirs == "DateTime" || within(theirs, "DateTime(").is_some_and(is_text) {
        return Some(Kind::Seconds);
    }
    let inner = within(theirs, "DateTime64(")?;
    let digits = match inner.split_once(", ") {
        Some((digits, zone)) => is_text(zone).then_some(digits)?,
        None => inner,
    };
    // Fewer than three would have to be rounded as the server does.
    let more = digits.parse::<u32>().ok()?.checked_sub(3)?;
    (more <= 6).then(|| Kind::Ticks(10_i64.pow(more)))
}

/// The least and the greatest value that a column of whole numbers holds.
pub(super) fn bounds(ours: ColumnType, theirs: &str) -> Option<(i128, i128)> {
    let theirs = within(theirs, "LowCardinality(").unwrap_or(theirs);
    let theirs = within(theirs, "Nullable(").unwrap_or(theirs);
    match Kind::of(ours, theirs)? {
        Kind::Integer(min, max, _) => Some((min, max)),
        _ => None,
    }
}

/// What stands between this and the last bracket.
pub(super) fn within<'a>(kind: &'a str, before: &str) -> Option<&'a str> {
    kind.strip_prefix(before)?.strip_suffix(')')
}

/// The rows in pieces of about `piece_bytes`; `None` where they must go as JSON.
pub(super) fn rows(
    batch: &Batch,
    plan: &Plan,
    piece_bytes: usize,
) -> Result<Option<Vec<Vec<u8>>>, WriteError> {
    let columns = batch.table.columns;
    let bytes: usize = batch.rows.iter().map(Row::bytes).sum();
    let room = bytes.min(piece_bytes) + plan.head.len() + SPARE_BYTES;
    let mut pieces = Vec::new();
    let mut piece = Vec::with_capacity(room);
    piece.extend_from_slice(&plan.head);
    for (row, values) in batch.rows.iter().enumerate() {
        for ((column, cell), value) in columns.iter().zip(&plan.cells).zip(&values.values) {
            if !put(&mut piece, Place { row, column }, *cell, value)? {
                return Ok(None);
            }
        }
        if piece.len() >= piece_bytes {
            pieces.push(std::mem::replace(&mut piece, Vec::with_capacity(room)));
        }
    }
    if !piece.is_empty() {
        pieces.push(piece);
    }
    Ok(Some(pieces))
}

/// Whether the value has this form; if not, what was put is of no use.
fn put(to: &mut Vec<u8>, place: Place<'_>, cell: Cell, value: &Value) -> Result<bool, WriteError> {
    if matches!(value, Value::Null) {
        // Elsewhere it is the column's default, which may be an expression.
        to.push(1);
        return Ok(cell.is_nullable);
    }
    if cell.is_nullable {
        to.push(0);
    }
    Ok(match place.column.kind {
        ColumnType::Text => {
            put_text(to, place.text(value)?.unwrap_or_default());
            true
        }
        ColumnType::Json | ColumnType::AnyJson => {
            let text = place.json(value)?.unwrap_or_default();
            serde_json::from_str::<&RawValue>(text)
                .map_err(|e| place.refused(&format!("not JSON: {e}")))?;
            put_text(to, text);
            cell.kind != Kind::NativeJson || text.trim_ascii_start().starts_with('{')
        }
        ColumnType::Int64 | ColumnType::UInt64 | ColumnType::UInt32 | ColumnType::Flag => {
            let number = place.integer(value)?.unwrap_or_default();
            match cell.kind {
                Kind::Integer(min, max, bytes) if (min..=max).contains(&number) => {
                    to.extend_from_slice(&number.to_le_bytes()[..bytes]);
                    true
                }
                _ => false,
            }
        }
        ColumnType::Float64 => {
            let number = place.float(value)?.unwrap_or_default();
            // Of the many that are none, the one that their text stands for.
            let number = if number.is_nan() { f64::NAN } else { number };
            to.extend_from_slice(&number.to_le_bytes());
            true
        }
        ColumnType::TimeMs => {
            place.time(value, YEARS)?;
            let Value::TimeMs(ms) = *value else {
                return Ok(false);
            };
            match cell.kind {
                Kind::Seconds => put_seconds(to, ms),
                Kind::Ticks(per_ms) => match ms.checked_mul(per_ms) {
                    Some(ticks) => {
                        to.extend_from_slice(&ticks.to_le_bytes());
                        true
                    }
                    None => false,
                },
                _ => false,
            }
        }
    })
}

fn put_seconds(to: &mut Vec<u8>, ms: i64) -> bool {
    match u32::try_from(ms.div_euclid(1000)) {
        Ok(seconds) => {
            to.extend_from_slice(&seconds.to_le_bytes());
            true
        }
        Err(_) => false,
    }
}

fn put_text(to: &mut Vec<u8>, text: &str) {
    put_length(to, text.len());
    to.extend_from_slice(text.as_bytes());
}

/// Seven bits a byte, the lowest first.
fn put_length(to: &mut Vec<u8>, mut length: usize) {
    while length >= 0x80 {
        #[allow(clippy::cast_possible_truncation, reason = "seven bits and a mark")]
        to.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    #[allow(clippy::cast_possible_truncation, reason = "less than 128")]
    to.push(length as u8);
}

#[cfg(test)]
#[path = "binary_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "binary_same_tests.rs"]
mod same_tests;
