//! Takes one journaled request apart into groups: events of one type together,
//! each defective event with its reason. Called by the forwarder and by the
//! brokerless pump, so that both ways out see the same events.
//!
//! # Invariants
//! - Every event of the request is in exactly one group, with its index (test
//!   `every_event_is_in_one_group`). A request without events has no group.
//! - Pure: the same bytes and receive time give the same groups in the same order.
//! - A timestamp in the future becomes the receive time; nothing else is changed.

use super::descriptor::{EventType, SCHEMA};
use super::limits::{EVENTS_PER_MESSAGE_MAX, MESSAGE_BYTES_SOFT_MAX};
use super::validate;
use bytes::Buf;
use prost::Message as _;
use prost_reflect::{DynamicMessage, Value};

/// Bytes that are not an `event.Events` message.
#[derive(Debug, thiserror::Error)]
#[error("not an Events message: {0}")]
pub struct DecodeError(#[from] prost::DecodeError);

/// Where a group goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// To the consumers of this event type.
    Type(EventType),
    /// To the error exchange, for this reason.
    Error(String),
}

/// Events of one request that travel together.
#[derive(Debug, Clone)]
pub struct Group {
    /// Where they go.
    pub route: Route,
    /// An `event.Events` with the request's header and these events.
    pub batch: DynamicMessage,
    /// Each event's place in the request; ascending, one for each event.
    pub indexes: Vec<u32>,
}

impl Group {
    /// Whether JSON would lose events: the JSON mapping has no place for a type
    /// that this build does not know, so such a group travels as protobuf.
    #[must_use]
    pub fn needs_protobuf(&self) -> bool {
        match &self.route {
            Route::Type(event_type) => matches!(event_type, EventType::Unknown(_)),
            Route::Error(_) => events_of(&self.batch)
                .iter()
                .any(|e| matches!(EventType::of(e), EventType::Unknown(_))),
        }
    }
}

/// The events of an `event.Events`, borrowed.
#[must_use]
pub fn events_of(batch: &DynamicMessage) -> Vec<DynamicMessage> {
    let list = batch.get_field_by_name("events");
    let Some(Value::List(list)) = list.as_deref() else {
        return Vec::new();
    };
    list.iter()
        .filter_map(|value| match value {
            Value::Message(event) => Some(event.clone()),
            _ => None,
        })
        .collect()
}

/// The header of an `event.Events`, when it has one.
#[must_use]
pub fn header_of(batch: &DynamicMessage) -> Option<DynamicMessage> {
    if !batch.has_field_by_name("header") {
        return None;
    }
    match batch.get_field_by_name("header").as_deref() {
        Some(Value::Message(header)) => Some(header.clone()),
        _ => None,
    }
}

/// A text field of a message; empty when unset.
#[must_use]
pub fn text(message: &DynamicMessage, field: &str) -> String {
    match message.get_field_by_name(field).as_deref() {
        Some(Value::String(text)) => text.clone(),
        _ => String::new(),
    }
}

/// An `event.Events` with this header and these events.
#[must_use]
pub fn batch_of(header: Option<DynamicMessage>, events: Vec<DynamicMessage>) -> DynamicMessage {
    let mut batch = DynamicMessage::new(SCHEMA.events.clone());
    if let Some(header) = header {
        batch.set_field_by_name("header", Value::Message(header));
    }
    let list = events.into_iter().map(Value::Message).collect();
    batch.set_field_by_name("events", Value::List(list));
    batch
}

/// Decodes a request's bytes.
///
/// # Errors
/// When they are not an `event.Events`.
pub fn decode(bytes: impl Buf) -> Result<DynamicMessage, DecodeError> {
    Ok(DynamicMessage::decode(SCHEMA.events.clone(), bytes)?)
}

/// Splits a request that was accepted at `received_at_ms` (epoch milliseconds).
/// With a `rejected` reason every event goes to the error exchange with it, and
/// a rejected batch without events still gives one group.
///
/// # Errors
/// When the bytes are not an `event.Events`.
pub fn split(
    bytes: impl Buf,
    received_at_ms: i64,
    rejected: Option<&str>,
) -> Result<Vec<Group>, DecodeError> {
    let batch = decode(bytes)?;
    let header = header_of(&batch);
    let mut open: Vec<OpenGroup> = Vec::new();
    let mut closed = Vec::new();
    for (index, mut event) in events_of(&batch).into_iter().enumerate() {
        let route = match rejected {
            Some(reason) => Route::Error(reason.to_owned()),
            None => route_of(&mut event, received_at_ms),
        };
        let at = match open.iter().position(|group| group.route == route) {
            Some(at) => at,
            None => {
                open.push(OpenGroup::new(route));
                open.len() - 1
            }
        };
        open[at].push(u32::try_from(index).unwrap_or(u32::MAX), event);
        if open[at].is_full() {
            let full = std::mem::replace(&mut open[at], OpenGroup::empty());
            open[at].route = full.route.clone();
            closed.push(full.close(header.clone()));
        }
    }
    if let (Some(reason), true, true) = (rejected, open.is_empty(), closed.is_empty()) {
        open.push(OpenGroup::new(Route::Error(reason.to_owned())));
        closed.extend(open.drain(..).map(|group| group.close(header.clone())));
    }
    closed.extend(
        open.into_iter()
            .filter(|group| !group.events.is_empty())
            .map(|group| group.close(header.clone())),
    );
    Ok(closed)
}

fn route_of(event: &mut DynamicMessage, received_at_ms: i64) -> Route {
    match validate::event(&text(event, "id"), &text(event, "timestamp")) {
        Err(invalid) => Route::Error(invalid.to_string()),
        Ok(timestamp_ms) => {
            if timestamp_ms > received_at_ms {
                let clamped = Value::String(received_at_ms.to_string());
                event.set_field_by_name("timestamp", clamped);
            }
            Route::Type(EventType::of(event))
        }
    }
}

struct OpenGroup {
    route: Route,
    events: Vec<DynamicMessage>,
    indexes: Vec<u32>,
    encoded_bytes: usize,
}

impl OpenGroup {
    fn new(route: Route) -> Self {
        Self {
            route,
            events: Vec::new(),
            indexes: Vec::new(),
            encoded_bytes: 0,
        }
    }

    fn empty() -> Self {
        Self::new(Route::Type(EventType::None))
    }

    fn push(&mut self, index: u32, event: DynamicMessage) {
        self.encoded_bytes += event.encoded_len();
        self.events.push(event);
        self.indexes.push(index);
    }

    fn is_full(&self) -> bool {
        self.events.len() >= EVENTS_PER_MESSAGE_MAX || self.encoded_bytes >= MESSAGE_BYTES_SOFT_MAX
    }

    fn close(self, header: Option<DynamicMessage>) -> Group {
        Group {
            route: self.route,
            batch: batch_of(header, self.events),
            indexes: self.indexes,
        }
    }
}

#[cfg(test)]
#[path = "split_tests.rs"]
mod tests;
