//! Events and refused events: an `event.Events` into rows of `events` or
//! `error_events`.
//!
//! # Invariants
//! - Values are taken as they came: text, every digit of 64-bit integers, floats
//!   with their own precision, unset fields as empty or 0. An event's own
//!   `currentURL` wins over the header's.
//! - A refused event always gives a row: what cannot be read is left empty, text
//!   that databases refuse (NUL) is replaced.
//! - A refused event without an id gets one of where it came from: the same by whatever way it
//!   comes, and another for each (test `made_ids_are_of_the_origin_alone`). A foreign producer's
//!   is of the message that it came in.
//! - The time of a refused event is kept unless it is after the receipt. The clock of the host
//!   that makes the row has no say: it may be behind that of the door (test
//!   `a_refused_event_keeps_its_time_whatever_the_clock_here`).

use super::{Item, NewRow};
use crate::event::batch::Parts;
use crate::event::descriptor::EventType;
use crate::event::envelope::Origins;
use crate::event::identity::{Content, derived_id};
use crate::event::proto::Header;
use crate::event::reflected::Event;
use crate::event::reject::Invalid;
use crate::event::{json, limits, validate};
use crate::sink::schema::ERROR_EVENTS;
use crate::sink::{Row, Value};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message as _;

/// Columns of a row that come from the header: from `session_id` to `pp_id`.
const HEADER_COLUMNS: usize = 20;

/// The end of 2105: what every table can hold, also one that keeps seconds in 32 bits.
const TIME_MS_MAX: i64 = 4_291_747_199_999;

/// The times that a row of `error_events` is made with; epoch milliseconds.
#[derive(Debug, Clone, Copy)]
pub struct Clocks {
    /// When the event's request was received, by the clock of the host that took it.
    pub received_at_ms: Option<i64>,
    /// Now.
    pub now_ms: i64,
}

impl Clocks {
    /// The latest time that is taken for an event's.
    fn latest_ms(self) -> i64 {
        self.received_at_ms.unwrap_or(TIME_MS_MAX).min(TIME_MS_MAX)
    }
}

/// The cells of a row that come from the header, in the order of the columns.
fn head(header: &Header, event: &Event) -> [Value; HEADER_COLUMNS] {
    let cell = |text: &String| Value::Text(text.clone());
    let own_url = Some(&event.current_url).filter(|url| !url.is_empty());
    let url = own_url.unwrap_or(&header.current_url);
    [
        cell(&header.session_id),
        Value::Int(header.bb_device_id),
        Value::Int(header.user_id),
        cell(&header.device_id),
        cell(&header.android_advertising_id),
        cell(&header.client_id),
        cell(&header.channel),
        cell(&header.os),
        cell(&header.client_type),
        cell(&header.app_language),
        cell(&header.app_version),
        cell(&header.app_version_code),
        cell(url),
        cell(&header.merchant_id),
        cell(&header.utm_referrer),
        cell(&header.utm_platform),
        cell(&header.utm_source),
        cell(&header.utm_medium),
        cell(&header.utm_campaign),
        cell(&header.pp_id),
    ]
}

/// Rows of `events`; an event that breaks a rule gives its reason instead.
#[must_use]
pub fn rows(batch: Parts<'_>, origins: &Origins, now_ms: i64) -> Vec<Item> {
    let events = batch.events.iter().enumerate();
    events
        .map(|(at, event)| row(batch.header, event, Place { origins, at }, now_ms))
        .collect()
}

fn row(header: Option<&Header>, event: &Event, place: Place<'_>, now_ms: i64) -> Item {
    let Some(header) = header else {
        return Err("incomplete event: the batch has no header".to_owned());
    };
    if header.device_id.is_empty() {
        return Err("incomplete event: header.deviceId is empty".to_owned());
    }
    let id = event.id.clone();
    let timestamp_ms = validate::event(&id, &event.timestamp)
        .map_err(|invalid| limits::reason(&invalid.to_string()))?;
    let event_type = EventType::of(event);
    let params = params(event, &event_type)?;
    let identity = format!("{id}/{timestamp_ms}");
    let stamp = Stamp {
        id,
        timestamp: Value::TimeMs(timestamp_ms),
        now_ms,
    };
    let values = values(stamp, event_type.name(), head(header, event), params);
    Ok(place.row(values, identity))
}

/// Rows of `error_events`: one for each event, and one for a batch without any. `content`
/// is what they came in.
#[must_use]
pub fn error_rows(
    batch: Parts<'_>,
    origins: &Origins,
    reason: &str,
    content: &[u8],
    clocks: Clocks,
) -> Vec<Item> {
    // A reason that several events share quotes none of them.
    let quotes_none = reason == Invalid::BadTimestamps.to_string();
    let no_header = Header::default();
    let header = batch.header.unwrap_or(&no_header);
    let no_event = Event::default();
    let content = Content::new(content);
    let events = match batch.events {
        [] => std::slice::from_ref(&no_event),
        events => events,
    };
    events
        .iter()
        .enumerate()
        .map(|(at, event)| {
            let mut id = event.id.clone();
            if id.is_empty() {
                id = made_id(origins, &content, at);
            }
            let timestamp = validate::timestamp_ms(&event.timestamp);
            let own_reason = match &timestamp {
                Err(invalid) if quotes_none => Some(invalid.to_string()),
                _ => None,
            };
            let timestamp = timestamp
                .ok()
                .filter(|ms| *ms <= clocks.latest_ms())
                .map_or(Value::Null, Value::TimeMs);
            let event_type = EventType::of(event);
            let params = params(event, &event_type).unwrap_or_else(|_| {
                serde_json::json!({ "errorEventParams": format!("{event:?}") }).to_string()
            });
            let cells = head(header, event);
            let identity = format!(
                "{id}/{}/{}/{}",
                origins.host,
                origins.seq,
                origins.index(at)
            );
            let stamp = Stamp {
                id,
                timestamp,
                now_ms: clocks.now_ms,
            };
            let mut values = values(stamp, event_type.name(), cells, params);
            let reason = own_reason.as_deref().unwrap_or(reason);
            values.push(Value::Text(limits::reason(reason)));
            for value in &mut values {
                make_storable(value);
            }
            Ok(Place { origins, at }.row(values, identity))
        })
        .collect()
}

/// An id for an event that came without one.
fn made_id(origins: &Origins, content: &Content<'_>, at: usize) -> String {
    if origins.host.is_empty() {
        return content.derived_id(at);
    }
    let request = format!("{}/{}", origins.host, origins.seq);
    derived_id(request.as_bytes(), origins.index(at) as usize)
}

struct Place<'a> {
    origins: &'a Origins,
    at: usize,
}

impl Place<'_> {
    fn row(&self, mut values: Vec<Value>, id: String) -> NewRow {
        values.push(Value::Text(self.origins.host.clone()));
        values.push(Value::UInt(self.origins.seq));
        values.push(Value::UInt(u64::from(self.origins.index(self.at))));
        NewRow {
            row: Row { values },
            id,
        }
    }
}

/// What a row says first.
struct Stamp {
    id: String,
    timestamp: Value,
    now_ms: i64,
}

/// The values up to `event_params`.
fn values(stamp: Stamp, name: String, head: [Value; HEADER_COLUMNS], params: String) -> Vec<Value> {
    let mut values = Vec::with_capacity(ERROR_EVENTS.columns.len());
    values.push(Value::Text(stamp.id));
    values.push(Value::Text(name));
    values.push(stamp.timestamp);
    values.push(Value::TimeMs(stamp.now_ms));
    values.extend(head);
    values.push(Value::Json(params));
    values
}

/// The event's parameters; for a type that this build does not know its number
/// and its bytes, so that nothing of it is lost.
fn params(event: &Event, event_type: &EventType) -> Result<String, String> {
    if let EventType::Unknown(number) = event_type {
        let bytes = STANDARD.encode(event.encode_to_vec());
        let params = serde_json::json!({ "unknownField": number, "eventProtobuf": bytes });
        return Ok(params.to_string());
    }
    json::params(event).map_err(|error| limits::reason(&error.to_string()))
}

/// Replaces NUL, which Postgres refuses in text and in JSON.
fn make_storable(value: &mut Value) {
    match value {
        Value::Text(text) if text.contains('\0') => *text = text.replace('\0', "\u{fffd}"),
        Value::Json(text) if text.contains("\\u0000") => {
            // An escaped backslash before u0000 is text, not a NUL; replacing it as
            // well only changes how a refused event is shown.
            *text = text.replace("\\u0000", "\\ufffd");
        }
        _ => {}
    }
}

#[cfg(test)]
#[path = "events_tests.rs"]
mod tests;
