//! Takes one journaled request apart into groups: events of one type together,
//! each defective event with its reason. Called by the forwarder and by the
//! brokerless pump, so that both ways out see the same events.
//!
//! # Invariants
//! - Every event of the request is in exactly one group, with its index (test
//!   `every_event_is_in_one_group`). A request without events has no group.
//! - Pure: the same bytes and receive time give the same groups in the same order.
//! - A timestamp in the future becomes the receive time; nothing else is changed.
//! - What a sender chooses cannot multiply a request: values do not make groups of their
//!   own, new types do so up to a bound, and a header that would be copied too often is an
//!   error (tests in `split_hostile_tests`). Groups are made one at a time.

use super::batch::Parts;
use super::descriptor::schema;
use super::group::{Group, Route};
use super::identity::format_index_range;
use super::json;
use super::limits::MESSAGE_HEADERS_BYTES_MAX;
use super::plan::{self, Key, Planned, Request};
use super::reject::Invalid;
use bytes::Buf;
use prost::Message as _;
use prost_reflect::DynamicMessage;

/// A header's JSON is at most so many times as large as its protobuf: the name of a field with
/// a byte of text, `"androidAdvertisingId":"\u0001",`, stands for three bytes.
const JSON_FACTOR_MAX: usize = 16;

/// Bytes that are not an `event.Events` message.
#[derive(Debug, thiserror::Error)]
#[error("not an Events message: {0}")]
pub struct DecodeError(#[from] prost::DecodeError);

/// A request that cannot be taken apart: it is set aside as it came. Trying again gives
/// the same.
#[derive(Debug, thiserror::Error)]
pub enum SplitError {
    /// Its bytes are no batch.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// Its messages or rows would repeat its header beyond any use.
    #[error(
        "a header of {header_bytes} bytes is too large to be repeated for each of {events} events"
    )]
    Header {
        /// The header's size, in its larger form.
        header_bytes: usize,
        /// The request's events.
        events: usize,
    },
}

impl SplitError {
    /// The places of the events that are set aside, as in the `x-holdfast-indexes` header;
    /// empty where none can be told.
    #[must_use]
    pub fn indexes(&self) -> String {
        match self {
            Self::Decode(_) => String::new(),
            Self::Header { events, .. } => format_index_range(*events),
        }
    }
}

/// The header of an `event.Events`, copied, when it has one.
#[must_use]
pub fn header_of(batch: &DynamicMessage) -> Option<DynamicMessage> {
    let mut fields = batch.fields();
    let header = fields.find_map(|(field, value)| (field.name() == "header").then_some(value))?;
    header.as_message().cloned()
}

/// Decodes a request's bytes, with all that this build does not know of them.
///
/// # Errors
/// When they are not an `event.Events`.
pub fn decode(bytes: impl Buf) -> Result<DynamicMessage, DecodeError> {
    Ok(DynamicMessage::decode(schema().events.clone(), bytes)?)
}

/// Splits a request that was accepted at `received_at_ms` (epoch milliseconds).
/// With a `rejected` reason every event goes to the error exchange with it, and
/// a rejected batch without events still gives one group.
///
/// # Errors
/// See [`SplitError`].
pub fn split<'a>(
    bytes: &'a [u8],
    received_at_ms: i64,
    rejected: Option<&'a str>,
) -> Result<Groups<'a>, SplitError> {
    let mut request = Request::read(bytes, received_at_ms, rejected.is_some())?;
    let planned = plan::make(&mut request)?;
    Ok(Groups {
        request,
        rejected,
        planned: planned.into_iter(),
    })
}

/// Whether the rows of a message, which are in memory together, may repeat its header.
/// Messages from here always may; others are whatever their producers make them.
///
/// # Errors
/// [`SplitError::Header`].
pub fn check_rows(batch: Parts<'_>) -> Result<(), SplitError> {
    let events = batch.events.len();
    let Some(header) = batch.header.filter(|_| events > 1) else {
        return Ok(());
    };
    // Whether it is far too small is seen without writing it as JSON.
    let bytes_at_most = header.encoded_len().saturating_mul(JSON_FACTOR_MAX);
    if bytes_at_most.saturating_mul(events) <= MESSAGE_HEADERS_BYTES_MAX {
        return Ok(());
    }
    let json_bytes = json::encode_header(header).map_or(0, |json| json.len());
    let header_bytes = header.encoded_len().max(json_bytes);
    if header_bytes.saturating_mul(events) > MESSAGE_HEADERS_BYTES_MAX {
        return Err(SplitError::Header {
            header_bytes,
            events,
        });
    }
    Ok(())
}

/// The groups of a request, each made when it is asked for.
#[derive(Debug)]
pub struct Groups<'a> {
    request: Request<'a>,
    rejected: Option<&'a str>,
    planned: std::vec::IntoIter<Planned>,
}

impl Iterator for Groups<'_> {
    type Item = Group;

    fn next(&mut self) -> Option<Group> {
        let planned = self.planned.next()?;
        let rejected = self.rejected.unwrap_or_default();
        let route = match planned.key {
            Key::Type(event_type) => Route::Type(event_type),
            Key::Rejected => Route::Error(rejected.to_owned()),
            Key::NoId => Route::Error(Invalid::NoId.to_string()),
            Key::BadTimestamp => Route::Error(match planned.timestamp {
                Some(text) => Invalid::BadTimestamp(text).to_string(),
                None => Invalid::BadTimestamps.to_string(),
            }),
        };
        let events = planned.indexes.iter().map(|at| self.request.take(*at));
        let events = events.collect();
        Some(Group {
            route,
            header: self.request.header.clone(),
            events,
            indexes: planned.indexes,
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.planned.size_hint()
    }
}

impl ExactSizeIterator for Groups<'_> {}

#[cfg(test)]
#[path = "split_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "split_hostile_tests.rs"]
mod hostile_tests;
