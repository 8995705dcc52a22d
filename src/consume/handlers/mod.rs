//! Pure functions from a message to rows, one file for each message family.
//! Called by `worker` and `direct`.
//!
//! # Invariants
//! - No I/O and no clock: the time comes in. The same message gives the same rows
//!   (but for `insert_timestamp`) and the same ids.

mod events;

pub use events::{error_rows, rows};

use crate::config::Handler;
use crate::event::envelope::{self, Origins};
use crate::event::limits;
use crate::sink::Row;
use crate::sink::schema::{ERROR_EVENTS, EVENTS, Table};

/// What a handler reads of a message.
#[derive(Debug)]
pub struct Input<'a> {
    /// The body's content type, if the producer set one.
    pub content_type: Option<&'a str>,
    /// The body.
    pub body: &'a [u8],
    /// Where its events came from.
    pub origins: Origins,
    /// Why it was refused before, for error queues.
    pub reason: Option<String>,
}

/// One row, or why there is none; the place in the list is the event's place in
/// the message.
pub type Item = Result<NewRow, String>;

/// A row and what identifies it.
#[derive(Debug, Clone)]
pub struct NewRow {
    /// The row.
    pub row: Row,
    /// Its identity: part of the batch's deduplication token.
    pub id: String,
}

/// The table that a handler fills.
#[must_use]
pub fn table(handler: Handler) -> &'static Table {
    match handler {
        Handler::Events => &EVENTS,
        Handler::ErrorEvents => &ERROR_EVENTS,
    }
}

/// Runs a handler. `Err` is why the message as a whole cannot be read.
///
/// # Errors
/// The reason, fit for headers and logs.
pub fn run(handler: Handler, input: &Input<'_>, now_ms: i64) -> Result<Vec<Item>, String> {
    let batch = envelope::decode(input.content_type, input.body)
        .map_err(|error| limits::reason(&error.to_string()))?;
    match handler {
        Handler::Events => {
            let items = rows(&batch, &input.origins, now_ms);
            if items.is_empty() {
                return Err("the message has no events".to_owned());
            }
            Ok(items)
        }
        Handler::ErrorEvents => {
            let reason = input.reason.as_deref().unwrap_or_default();
            Ok(error_rows(
                &batch,
                &input.origins,
                reason,
                input.body,
                now_ms,
            ))
        }
    }
}
