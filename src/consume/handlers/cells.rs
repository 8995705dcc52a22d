//! A row under construction: one value after the other, each with its column's name.
//! Used by the handlers of JSON messages.
//!
//! # Invariants
//! - The values are in the order of the table's columns; a handler that gets it wrong
//!   fails its own test (debug builds check each name).

use super::{Input, NewRow};
use crate::sink::schema::Table;
use crate::sink::{Row, Value};

/// The values of a row so far.
#[derive(Debug)]
pub(super) struct Cells {
    table: &'static Table,
    values: Vec<Value>,
}

impl Cells {
    pub(super) fn new(table: &'static Table) -> Self {
        Self {
            table,
            values: Vec::with_capacity(table.columns.len()),
        }
    }

    /// The next column's value.
    pub(super) fn put(mut self, name: &str, value: impl Into<Value>) -> Self {
        debug_assert_eq!(
            self.table.columns.get(self.values.len()).map(|c| c.name),
            Some(name),
            "order of {}",
            self.table.name
        );
        self.values.push(value.into());
        self
    }

    /// The row; tables that are fed from the journal get its origin.
    pub(super) fn finish(mut self, input: &Input<'_>) -> NewRow {
        if self.table.has_origin() {
            self.values.extend(input.origin());
        }
        debug_assert_eq!(self.values.len(), self.table.columns.len());
        NewRow {
            row: Row {
                values: self.values,
            },
            // Not the row's own id: two messages about the same thing are two writes.
            id: input.derived_id(),
        }
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::UInt(number)
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Float(number)
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Int(flag.into())
    }
}

/// NULL where there is nothing.
impl<T: Into<Self>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// A time that may be NULL.
pub(super) fn time(ms: impl Into<Option<i64>>) -> Value {
    ms.into().map_or(Value::Null, Value::TimeMs)
}

/// A JSON document.
pub(super) fn json(text: impl Into<String>) -> Value {
    Value::Json(text.into())
}
