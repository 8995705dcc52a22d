//! Pure functions from a message to rows, one file for each message family.
//! Called by `worker` and `direct`.
//!
//! # Invariants
//! - No I/O and no clock: the time comes in. The same message gives the same rows
//!   (but for `insert_timestamp`) and the same ids.

mod events;
pub mod fields;

pub use events::{error_rows, rows};

use crate::config::Handler;
use crate::event::envelope::{self, Origins};
use crate::event::limits;
use crate::sink::schema::{ERROR_EVENTS, EVENTS, Table};
use crate::sink::{Row, Value};
use std::collections::BTreeMap;

/// AMQP headers that handlers may read, in lower case, beside our own.
pub const KEPT_HEADERS: [&str; 12] = [
    "accept-language",
    "authorization",
    "x-apollo-operation-name",
    "x-bb-channelid",
    "x-bb-clientid",
    "x-bb-clienttype",
    "x-bb-custom-deviceid",
    "x-bb-deviceid",
    "x-bb-os",
    "x-bb-requestid",
    "x-bb-user-rt",
    "x-bb-version-name",
];

/// What a handler reads of a message.
#[derive(Debug, Default)]
pub struct Input<'a> {
    /// The body's content type, if the producer set one.
    pub content_type: Option<&'a str>,
    /// The body.
    pub body: &'a [u8],
    /// Where its events came from.
    pub origins: Origins,
    /// Why it was refused before, for error queues.
    pub reason: Option<String>,
    /// The [`KEPT_HEADERS`] that it has.
    pub headers: BTreeMap<&'static str, String>,
    /// The producer's id of the message.
    pub message_id: Option<&'a str>,
    /// When the producer made it, or our door received it; epoch milliseconds.
    pub sent_at_ms: Option<i64>,
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

/// What all handlers may lean on beside the message: state of this process.
#[derive(Debug, Clone, Default)]
pub struct Context {}

/// The table that a handler fills.
#[must_use]
pub fn table(handler: Handler) -> &'static Table {
    match handler {
        Handler::Events => &EVENTS,
        Handler::ErrorEvents => &ERROR_EVENTS,
        other => unimplemented_table(other),
    }
}

fn unimplemented_table(_handler: Handler) -> &'static Table {
    &EVENTS
}

/// Runs a handler. `Err` is why the message as a whole cannot be read.
///
/// # Errors
/// The reason, fit for headers and logs.
pub fn run(
    handler: Handler,
    input: &Input<'_>,
    _context: &Context,
    now_ms: i64,
) -> Result<Vec<Item>, String> {
    match handler {
        Handler::Events => {
            let items = rows(&batch(input)?, &input.origins, now_ms);
            if items.is_empty() {
                return Err("the message has no events".to_owned());
            }
            Ok(items)
        }
        Handler::ErrorEvents => {
            let reason = input.reason.as_deref().unwrap_or_default();
            let batch = batch(input)?;
            Ok(error_rows(
                &batch,
                &input.origins,
                reason,
                input.body,
                now_ms,
            ))
        }
        other => Err(format!("{other:?} has no handler")),
    }
}

fn batch(input: &Input<'_>) -> Result<prost_reflect::DynamicMessage, String> {
    envelope::decode(input.content_type, input.body)
        .map_err(|error| limits::reason(&error.to_string()))
}

impl Input<'_> {
    /// The id of a row whose message brings none: the same for the same message,
    /// different for others.
    #[must_use]
    pub fn derived_id(&self) -> String {
        let content = self.message_id.map_or(self.body, str::as_bytes);
        crate::event::identity::derived_id(content, 0)
    }

    /// The last three columns of a table that is fed from the journal.
    #[must_use]
    pub fn origin(&self) -> [Value; 3] {
        [
            Value::Text(self.origins.host.clone()),
            Value::UInt(self.origins.seq),
            Value::UInt(u64::from(self.origins.index(0))),
        ]
    }
}
