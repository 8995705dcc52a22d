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
use crate::event::descriptor::EventType;
use crate::event::envelope::Origins;
use crate::event::identity::Content;
use crate::event::reject::Invalid;
use crate::event::split::{events_of, header_of, text};
use crate::event::{json, limits, validate};
use crate::sink::{Row, Value};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message as _;
use prost_reflect::{DynamicMessage, Value as Field};

/// Header fields in the order of the columns from `device_id` to `app_version_code`.
const HEADER_TEXTS_BEFORE_URL: [&str; 9] = [
    "deviceId",
    "androidAdvertisingId",
    "clientId",
    "channel",
    "os",
    "clientType",
    "appLanguage",
    "appVersion",
    "appVersionCode",
];
/// And from `merchant_id` to `pp_id`.
const HEADER_TEXTS_AFTER_URL: [&str; 7] = [
    "merchantId",
    "utmReferrer",
    "utmPlatform",
    "utmSource",
    "utmMedium",
    "utmCampaign",
    "ppId",
];

/// Rows of `events`; an event that breaks a rule gives its reason instead.
#[must_use]
pub fn rows(batch: &DynamicMessage, origins: &Origins, now_ms: i64) -> Vec<Item> {
    let header = header_of(batch);
    events_of(batch)
        .iter()
        .enumerate()
        .map(|(at, event)| {
            let device = header.as_ref().map(|header| text(header, "deviceId"));
            match device {
                None => return Err("incomplete event: the batch has no header".to_owned()),
                Some(device) if device.is_empty() => {
                    return Err("incomplete event: header.deviceId is empty".to_owned());
                }
                Some(_) => {}
            }
            let id = text(event, "id");
            let timestamp_ms = validate::event(&id, &text(event, "timestamp"))
                .map_err(|invalid| limits::reason(&invalid.to_string()))?;
            let params = params(event)?;
            let place = Place { origins, at };
            let values = values(
                header.as_ref(),
                event,
                &id,
                Value::TimeMs(timestamp_ms),
                params,
                now_ms,
            );
            Ok(place.row(values, format!("{id}/{timestamp_ms}")))
        })
        .collect()
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
    let header = header_of(batch);
    let mut events = events_of(batch);
    if events.is_empty() {
        events.push(DynamicMessage::new(
            crate::event::descriptor::SCHEMA.event.clone(),
        ));
    }
    events
        .iter()
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
            let params = params(event).unwrap_or_else(|_| {
                serde_json::json!({ "errorEventParams": format!("{event:?}") }).to_string()
            });
            let mut values = values(header.as_ref(), event, &id, timestamp, params, now_ms);
            let reason = own_reason.as_deref().unwrap_or(reason);
            values.push(Value::Text(limits::reason(reason)));
            for value in &mut values {
                make_storable(value);
            }
            let place = Place { origins, at };
            let identity = format!(
                "{id}/{}/{}/{}",
                origins.host,
                origins.seq,
                origins.index(at)
            );
            Ok(place.row(values, identity))
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

fn values(
    header: Option<&DynamicMessage>,
    event: &DynamicMessage,
    id: &str,
    timestamp: Value,
    params: String,
    now_ms: i64,
) -> Vec<Value> {
    let header_text = |field: &str| header.map(|h| text(h, field)).unwrap_or_default();
    let header_int = |field: &str| header.map_or(0, |h| int(h, field));
    let own_url = text(event, "currentURL");
    let url = if own_url.is_empty() {
        header_text("currentURL")
    } else {
        own_url
    };
    let mut values = vec![
        Value::Text(id.to_owned()),
        Value::Text(EventType::of(event).name()),
        timestamp,
        Value::TimeMs(now_ms),
        Value::Text(header_text("sessionId")),
        Value::Int(header_int("bbDeviceId")),
        Value::Int(header_int("userId")),
    ];
    values.extend(HEADER_TEXTS_BEFORE_URL.map(|field| Value::Text(header_text(field))));
    values.push(Value::Text(url));
    values.extend(HEADER_TEXTS_AFTER_URL.map(|field| Value::Text(header_text(field))));
    values.push(Value::Json(params));
    values
}

/// The event's parameters; for a type that this build does not know its number
/// and its bytes, so that nothing of it is lost.
fn params(event: &DynamicMessage) -> Result<String, String> {
    if let EventType::Unknown(number) = EventType::of(event) {
        let bytes = STANDARD.encode(event.encode_to_vec());
        let params = serde_json::json!({ "unknownField": number, "eventProtobuf": bytes });
        return Ok(params.to_string());
    }
    json::params(event).map_err(|error| limits::reason(&error.to_string()))
}

fn int(message: &DynamicMessage, field: &str) -> i64 {
    match message.get_field_by_name(field).as_deref() {
        Some(Field::I64(value)) => *value,
        _ => 0,
    }
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
