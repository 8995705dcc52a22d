//! One record as JSON for people and scripts: what the door knew, the header, and
//! each event with its name and place. Called by `peek`.
//!
//! # Invariants
//! - Nothing is left out: what JSON cannot carry is there as protobuf in base64
//!   (test `an_event_that_json_cannot_carry_has_its_bytes`).

use super::select::{TypeFilter, takes, takes_webhook};
use crate::event::batch::Batch;
use crate::event::descriptor::EventType;
use crate::event::json::EncodeError;
use crate::event::split::DecodeError;
use crate::event::webhook::{Source, Stored};
use crate::event::{json, split};
use crate::journal::{Kind, Record};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use prost::Message as _;
use serde_json::{Map, Value, json};
use std::time::{Duration, UNIX_EPOCH};

/// The kind's name.
pub(super) fn kind(record: &Record) -> &'static str {
    match record.kind {
        Kind::Dispatch => "accepted",
        Kind::Rejected => "rejected",
        Kind::Webhook(_) => "webhook",
    }
}

/// A record with its events of these types; `None` when it has none of them.
pub(super) fn describe(record: &Record, types: &[TypeFilter]) -> Option<Value> {
    let mut text = Map::new();
    let received = Duration::from_millis(u64::try_from(record.received_at_ms).unwrap_or(0));
    let received = humantime::format_rfc3339_millis(UNIX_EPOCH + received);
    text.insert("seq".into(), json!(record.seq.0));
    text.insert("received_at".into(), json!(received.to_string()));
    text.insert("kind".into(), json!(kind(record)));
    if let Some(reason) = &record.reason {
        text.insert("reason".into(), json!(reason));
    }
    if let Kind::Webhook(source) = record.kind {
        return webhook(source, record, types, text);
    }
    let content = &record.content[..];
    let read = || Ok::<_, DecodeError>((split::decode(content)?, Batch::decode(content)?.events));
    let (batch, all) = match read() {
        Ok(read) => read,
        Err(error) => {
            text.insert("unreadable".into(), json!(error.to_string()));
            text.insert("bytes".into(), json!(BASE64.encode(&record.content)));
            return types.is_empty().then_some(Value::Object(text));
        }
    };
    if let Some(header) = split::header_of(&batch) {
        text.insert("header".into(), shown(json::encode(&header)));
        if !json::carries(&header) {
            let bytes = BASE64.encode(header.encode_to_vec());
            text.insert("header_protobuf".into(), json!(bytes));
        }
    }
    let mut events = Vec::new();
    for (index, event) in all.iter().enumerate() {
        let event_type = EventType::of(event);
        if !takes(types, &event_type) {
            continue;
        }
        let mut one = Map::new();
        one.insert("index".into(), json!(index));
        one.insert("name".into(), json!(event_type.name()));
        one.insert("event".into(), shown(json::encode_event(event)));
        if !event.is_known() {
            let bytes = BASE64.encode(event.encode_to_vec());
            one.insert("protobuf".into(), json!(bytes));
        }
        events.push(Value::Object(one));
    }
    if events.is_empty() && !types.is_empty() {
        return None;
    }
    text.insert("events".into(), Value::Array(events));
    Some(Value::Object(text))
}

/// A webhook with what the door kept of its request.
fn webhook(
    source: Source,
    record: &Record,
    types: &[TypeFilter],
    mut text: Map<String, Value>,
) -> Option<Value> {
    if !takes_webhook(types, source) {
        return None;
    }
    text.insert("name".into(), json!(source.event_name()));
    match Stored::decode(&record.content) {
        Ok(stored) => {
            text.insert("headers".into(), json!(stored.headers));
            match serde_json::from_slice::<Value>(&stored.body) {
                Ok(body) => text.insert("body".into(), body),
                Err(_) => text.insert("bytes".into(), json!(BASE64.encode(&stored.body))),
            };
        }
        Err(error) => {
            text.insert("unreadable".into(), json!(error));
            text.insert("bytes".into(), json!(BASE64.encode(&record.content)));
        }
    }
    Some(Value::Object(text))
}

fn shown(text: Result<Vec<u8>, EncodeError>) -> Value {
    let text = text.map_err(|error| error.to_string());
    let value = text.and_then(|text| serde_json::from_slice(&text).map_err(|e| e.to_string()));
    value.unwrap_or_else(|error| json!({ "no JSON form": error }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::identity::Seq;
    use crate::event::proto::event::EventOf;
    use crate::event::proto::{Event, Events, Header, LaunchEvent};
    use crate::event::tally::Tally;

    #[test]
    fn an_event_that_json_cannot_carry_has_its_bytes() {
        let launch = Event {
            id: "a".into(),
            timestamp: "1".into(),
            event_of: Some(EventOf::LaunchEvent(LaunchEvent::default())),
            ..Event::default()
        };
        let mut content = Events {
            header: Some(Header {
                device_id: "d".into(),
                ..Header::default()
            }),
            events: vec![launch],
        }
        .encode_to_vec();
        // An event with field 200 only.
        let unknown = [0xc2, 0x0c, 0x02, b'h', b'i'];
        content.extend([0x2a, 5]);
        content.extend(unknown);
        let record = Record {
            seq: Seq(9),
            kind: Kind::Rejected,
            received_at_ms: 1000,
            reason: Some("why".into()),
            events: Tally::default(),
            content: content.into(),
        };
        let all = describe(&record, &[]).unwrap();
        assert_eq!(
            all,
            json!({
                "seq": 9, "received_at": "1970-01-01T00:00:01.000Z", "kind": "rejected",
                "reason": "why", "header": {"deviceId": "d"},
                "events": [
                    {"index": 0, "name": "LaunchEvent",
                     "event": {"id": "a", "timestamp": "1", "launchEvent": {}}},
                    {"index": 1, "name": "Unknown.200", "event": {},
                     "protobuf": BASE64.encode(unknown)},
                ],
            })
        );
        let only = describe(&record, &[TypeFilter::Unknown]).unwrap();
        assert_eq!(only["events"].as_array().unwrap().len(), 1);
        assert_eq!(only["events"][0]["index"], 1);
        assert!(describe(&record, &[TypeFilter::parse("TestEvent").unwrap()]).is_none());
    }
}
