//! What the sinks share: checks of rows before anything is sent, time as text,
//! quoting, and errors of bounded length. Called by the sinks only.
//!
//! # Invariants
//! - A value that its column cannot hold is `Refused` with row and column named,
//!   never a panic and never a changed value. Tests: `tests` below.
//! - Names from the schema reach SQL only through [`quoted`].

use chrono::{DateTime, Datelike, NaiveDateTime};

use super::schema::Column;
use super::{Batch, Value, WriteError};

/// Longest reason passed on, in bytes: servers quote rows in their errors, and
/// reasons travel in logs and message headers.
const REASON_BYTES: usize = 600;

/// Where in a batch a value stands, for errors.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) row: usize,
    pub(super) column: &'a Column,
}

impl Place<'_> {
    pub(super) fn refused(self, why: &str) -> WriteError {
        refused(&format!(
            "row {}, column {}: {why}",
            self.row, self.column.name
        ))
    }

    fn mismatch(self, value: &Value) -> WriteError {
        let kind = match value {
            Value::Null => "NULL",
            Value::Text(_) => "text",
            Value::Int(_) | Value::UInt(_) => "an integer",
            Value::Float(_) => "a float",
            Value::TimeMs(_) => "a time",
            Value::Json(_) => "JSON",
        };
        self.refused(&format!("{kind} where {:?} belongs", self.column.kind))
    }

    /// Text, or `None` for NULL.
    pub(super) fn text(self, value: &Value) -> Result<Option<&str>, WriteError> {
        match value {
            Value::Null => Ok(None),
            Value::Text(text) => Ok(Some(text)),
            other => Err(self.mismatch(other)),
        }
    }

    /// JSON text, or `None` for NULL.
    pub(super) fn json(self, value: &Value) -> Result<Option<&str>, WriteError> {
        match value {
            Value::Null => Ok(None),
            Value::Json(text) => Ok(Some(text)),
            other => Err(self.mismatch(other)),
        }
    }

    /// An integer for a destination without unsigned ones.
    pub(super) fn signed(self, value: &Value) -> Result<Option<i64>, WriteError> {
        match value {
            Value::Null => Ok(None),
            Value::Int(number) => Ok(Some(*number)),
            Value::UInt(number) => i64::try_from(*number)
                .map(Some)
                .map_err(|_| self.refused(&format!("{number} is beyond 64 signed bits"))),
            other => Err(self.mismatch(other)),
        }
    }

    /// An integer of either sign.
    pub(super) fn integer(self, value: &Value) -> Result<Option<i128>, WriteError> {
        match value {
            Value::Null => Ok(None),
            Value::Int(number) => Ok(Some((*number).into())),
            Value::UInt(number) => Ok(Some((*number).into())),
            other => Err(self.mismatch(other)),
        }
    }

    /// A float.
    pub(super) fn float(self, value: &Value) -> Result<Option<f64>, WriteError> {
        match value {
            Value::Null => Ok(None),
            Value::Float(number) => Ok(Some(*number)),
            other => Err(self.mismatch(other)),
        }
    }

    /// A time in UTC whose year lies in `years`, the range of the destination.
    pub(super) fn time(
        self,
        value: &Value,
        years: std::ops::RangeInclusive<i32>,
    ) -> Result<Option<NaiveDateTime>, WriteError> {
        match value {
            Value::Null => Ok(None),
            Value::TimeMs(ms) => DateTime::from_timestamp_millis(*ms)
                .map(|time| time.naive_utc())
                .filter(|time| years.contains(&time.year()))
                .map(Some)
                .ok_or_else(|| {
                    let (from, to) = (years.start(), years.end());
                    self.refused(&format!("{ms} ms is outside of the years {from} to {to}"))
                }),
            other => Err(self.mismatch(other)),
        }
    }
}

/// Whether each row has one value for each column. Anything else is a mistake of
/// ours, but refusing the rows keeps the others going.
pub(super) fn check_shape(batch: &Batch) -> Result<(), WriteError> {
    let columns = batch.table.columns.len();
    match batch
        .rows
        .iter()
        .position(|row| row.values.len() != columns)
    {
        None => Ok(()),
        Some(row) => Err(refused(&format!(
            "row {row} has {} values for the {columns} columns of {}",
            batch.rows[row].values.len(),
            batch.table.name
        ))),
    }
}

/// A name as an SQL identifier (Postgres, SQLite).
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Names as a list of SQL identifiers.
pub(super) fn quoted_list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(quoted).collect::<Vec<_>>().join(", ")
}

/// A refusal with a reason of bounded length.
pub(super) fn refused(reason: &str) -> WriteError {
    WriteError::Refused {
        reason: brief(reason),
    }
}

/// An unavailability with a reason of bounded length; no destination here says
/// how long to wait.
pub(super) fn unavailable(reason: &str) -> WriteError {
    WriteError::Unavailable {
        reason: brief(reason),
        retry_after: None,
        overloaded: false,
    }
}

/// Not the batch's fault: the sink has too much to do.
pub(super) fn overloaded(reason: &str) -> WriteError {
    WriteError::Unavailable {
        reason: brief(reason),
        retry_after: None,
        overloaded: true,
    }
}

/// A text literal of standard SQL.
pub(super) fn sql_text(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// The start of a text, cut between characters.
pub(super) fn brief(text: &str) -> String {
    let text = text.trim();
    if text.len() <= REASON_BYTES {
        return text.to_owned();
    }
    format!("{}…", &text[..text.floor_char_boundary(REASON_BYTES)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::schema::EVENTS;

    fn place() -> Place<'static> {
        Place {
            row: 3,
            column: &EVENTS.columns[2],
        }
    }

    #[test]
    fn values_beyond_the_destination_are_refused_with_their_place() {
        let error = place().signed(&Value::UInt(u64::MAX)).unwrap_err();
        assert!(!error.is_retryable());
        assert!(
            error.to_string().contains("row 3, column event_timestamp"),
            "{error}"
        );
        assert!(place().time(&Value::TimeMs(i64::MAX), 0..=9999).is_err());
        assert!(
            place()
                .time(&Value::TimeMs(i64::MIN), i32::MIN..=i32::MAX)
                .is_err()
        );
        assert!(
            place()
                .time(&Value::TimeMs(-2_208_988_800_001), 1900..=2299)
                .is_err()
        );
        assert!(
            place()
                .time(&Value::TimeMs(-2_208_988_800_000), 1900..=2299)
                .is_ok()
        );
        assert!(place().text(&Value::Int(1)).is_err());
    }

    #[test]
    fn times_keep_their_milliseconds_before_1970_too() {
        let time = place()
            .time(&Value::TimeMs(-999), 1900..=2299)
            .unwrap()
            .unwrap();
        assert_eq!(
            time.format("%Y-%m-%d %H:%M:%S%.3f").to_string(),
            "1969-12-31 23:59:59.001"
        );
    }

    #[test]
    fn quoting_and_cutting() {
        assert_eq!(quoted("a\"b"), "\"a\"\"b\"");
        let long = "é".repeat(REASON_BYTES);
        assert!(brief(&long).len() <= REASON_BYTES + '…'.len_utf8());
    }
}
