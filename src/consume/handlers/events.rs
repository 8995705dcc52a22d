//! Events and refused events: an `event.Events` into rows of `events` or
//! `error_events`.
//!
//! # Invariants
//! - Values are taken as they came: text, every digit of 64-bit integers, floats
//!   with their own precision, unset fields as empty or 0. An event's own
//!   `currentURL` wins over the header's.
//! - A refused event always gives a row: what cannot be read is left empty, text
//!   that databases refuse (NUL) is replaced.

use super::{Item, NewRow};
use crate::event::descriptor::{EventType, schema};
use crate::event::envelope::Origins;
use crate::event::identity::Content;
use crate::event::reject::Invalid;
use crate::event::split::{events_in, header_in, text};
use crate::event::{json, limits, validate};
use crate::sink::schema::ERROR_EVENTS;
use crate::sink::{Row, Value};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message as _;
use prost_reflect::{DynamicMessage, Value as Field};

/// Header fields in the order of the columns from `session_id` to `pp_id`; `current_url`, which
/// events may have of their own, is one of them.
const HEADER_FIELDS: [&str; 20] = [
    "sessionId",
    "bbDeviceId",
    "userId",
    "deviceId",
    "androidAdvertisingId",
    "clientId",
    "channel",
    "os",
    "clientType",
    "appLanguage",
    "appVersion",
    "appVersionCode",
    URL_FIELD,
    "merchantId",
    "utmReferrer",
    "utmPlatform",
    "utmSource",
    "utmMedium",
    "utmCampaign",
    "ppId",
];
/// Those of them that are whole numbers.
const HEADER_NUMBERS: [&str; 2] = ["bbDeviceId", "userId"];
const DEVICE_FIELD: &str = "deviceId";
const URL_FIELD: &str = "currentURL";

/// The cells of a row that come from the header, read once for all rows of a batch.
struct Head {
    cells: [Value; HEADER_FIELDS.len()],
    is_there: bool,
    has_device: bool,
}

impl Head {
    fn of(header: Option<&DynamicMessage>) -> Self {
        let mut head = Self {
            cells: HEADER_FIELDS.map(|name| {
                if HEADER_NUMBERS.contains(&name) {
                    Value::Int(0)
                } else {
                    Value::Text(String::new())
                }
            }),
            is_there: header.is_some(),
            has_device: false,
        };
        for (field, value) in header.into_iter().flat_map(DynamicMessage::fields) {
            let at = HEADER_FIELDS.iter().position(|name| *name == field.name());
            let Some(cell) = at.map(|at| &mut head.cells[at]) else {
                continue;
            };
            match (cell, value) {
                (Value::Text(text), Field::String(value)) => {
                    text.clone_from(value);
                    head.has_device |= field.name() == DEVICE_FIELD && !value.is_empty();
                }
                (Value::Int(number), Field::I64(value)) => *number = *value,
                _ => {}
            }
        }
        head
    }

    /// The cells of a row; those of the last may be taken.
    fn cells(&mut self, event: &DynamicMessage, is_last: bool) -> [Value; HEADER_FIELDS.len()] {
        let mut cells = if is_last {
            std::mem::replace(
                &mut self.cells,
                [const { Value::Null }; HEADER_FIELDS.len()],
            )
        } else {
            self.cells.clone()
        };
        let own_url = text(event, URL_FIELD);
        if !own_url.is_empty()
            && let Some(at) = HEADER_FIELDS.iter().position(|name| *name == URL_FIELD)
        {
            cells[at] = Value::Text(own_url);
        }
        cells
    }
}

/// Rows of `events`; an event that breaks a rule gives its reason instead.
#[must_use]
pub fn rows(batch: &DynamicMessage, origins: &Origins, now_ms: i64) -> Vec<Item> {
    let mut head = Head::of(header_in(batch));
    let mut events = events_in(batch).enumerate().peekable();
    let mut items = Vec::with_capacity(events_in(batch).count());
    while let Some((at, event)) = events.next() {
        let is_last = events.peek().is_none();
        items.push(row(
            &mut head,
            event,
            Place { origins, at },
            is_last,
            now_ms,
        ));
    }
    items
}

fn row(
    head: &mut Head,
    event: &DynamicMessage,
    place: Place<'_>,
    is_last: bool,
    now_ms: i64,
) -> Item {
    if !head.is_there {
        return Err("incomplete event: the batch has no header".to_owned());
    }
    if !head.has_device {
        return Err("incomplete event: header.deviceId is empty".to_owned());
    }
    let id = text(event, "id");
    let timestamp_ms = validate::event(&id, &text(event, "timestamp"))
        .map_err(|invalid| limits::reason(&invalid.to_string()))?;
    let event_type = EventType::of(event);
    let params = params(event, &event_type)?;
    let identity = format!("{id}/{timestamp_ms}");
    let stamp = Stamp {
        id,
        timestamp: Value::TimeMs(timestamp_ms),
        now_ms,
    };
    let values = values(stamp, event_type.name(), head.cells(event, is_last), params);
    Ok(place.row(values, identity))
}

/// Rows of `error_events`: one for each event, and one for a batch without any. `content`
/// is what they came in.
#[must_use]
pub fn error_rows(
    batch: &DynamicMessage,
    origins: &Origins,
    reason: &str,
    content: &Content<'_>,
    now_ms: i64,
) -> Vec<Item> {
    // A reason that several events share quotes none of them.
    let quotes_none = reason == Invalid::BadTimestamps.to_string();
    let mut head = Head::of(header_in(batch));
    let none = DynamicMessage::new(schema().event.clone());
    let mut events: Vec<_> = events_in(batch).collect();
    if events.is_empty() {
        events.push(&none);
    }
    let last = events.len() - 1;
    events
        .into_iter()
        .enumerate()
        .map(|(at, event)| {
            let mut id = text(event, "id");
            if id.is_empty() {
                id = content.derived_id(at);
            }
            let timestamp = validate::timestamp_ms(&text(event, "timestamp"));
            let own_reason = match &timestamp {
                Err(invalid) if quotes_none => Some(invalid.to_string()),
                _ => None,
            };
            let timestamp = timestamp
                .ok()
                .filter(|ms| *ms <= now_ms)
                .map_or(Value::Null, Value::TimeMs);
            let event_type = EventType::of(event);
            let params = params(event, &event_type).unwrap_or_else(|_| {
                serde_json::json!({ "errorEventParams": format!("{event:?}") }).to_string()
            });
            let cells = head.cells(event, at == last);
            let identity = format!(
                "{id}/{}/{}/{}",
                origins.host,
                origins.seq,
                origins.index(at)
            );
            let stamp = Stamp {
                id,
                timestamp,
                now_ms,
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
fn values(
    stamp: Stamp,
    name: String,
    head: [Value; HEADER_FIELDS.len()],
    params: String,
) -> Vec<Value> {
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
fn params(event: &DynamicMessage, event_type: &EventType) -> Result<String, String> {
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
