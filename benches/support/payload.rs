//! Requests as apps send them: ten events of different types and some 300 bytes, 3 KB in
//! all. Used where a bench makes its requests itself; those of `holdfast load` are alike.

use holdfast::event::descriptor::schema;
use holdfast::event::proto::{Events, Header};
use holdfast::event::scan;
use holdfast::event::tally::Tally;
use holdfast::journal::{Kind, NewRecord};
use prost::Message as _;
use prost_reflect::{DynamicMessage, Kind as FieldKind, MessageDescriptor, Value};
use std::sync::LazyLock;

/// Events of a request.
pub const BATCH_EVENTS: usize = 10;

/// Bytes of an event's own fields at most, and of all of it.
const BODY_BYTES: usize = 200;
const EVENT_BYTES: usize = 290;

/// The fields of one event of each type, as bytes of `event.Event`.
static EVENTS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let cases = schema().event_of.fields();
    let events = cases.map(|case| {
        let mut event = DynamicMessage::new(schema().event.clone());
        let body = match case.kind() {
            FieldKind::Message(body) => fill(&body, case.number()),
            kind => panic!("an event of kind {kind:?}"),
        };
        event.set_field(&case, Value::Message(body));
        event.encode_to_vec()
    });
    events.collect()
});

/// A message with about [`BODY_BYTES`] in its own plain fields.
fn fill(of: &MessageDescriptor, seed: u32) -> DynamicMessage {
    let mut message = DynamicMessage::new(of.clone());
    for field in of.fields().filter(|field| !field.is_list()) {
        let number = i64::from(seed * 131 + field.number());
        let value = match field.kind() {
            FieldKind::String => Value::String(format!("value-{number:06}-of-a-field")),
            FieldKind::Int64 => Value::I64(number * 1_000),
            FieldKind::Int32 => Value::I32(number as i32),
            FieldKind::Double => Value::F64(number as f64 / 8.0),
            FieldKind::Bool => Value::Bool(true),
            _ => continue,
        };
        message.set_field(&field, value);
        if message.encoded_len() >= BODY_BYTES {
            break;
        }
    }
    message
}

/// The request of a number, whose events have ids of their own that begin with `run`.
pub fn request(run: &str, number: usize, now_ms: i64) -> Vec<u8> {
    let header = Header {
        session_id: format!("session-{}", number % 997),
        bb_device_id: 1_000_000 + (number % 997) as i64,
        user_id: 2_000_000 + (number % 997) as i64,
        device_id: format!("holdfast-bench-{:04}", number % 997),
        client_id: "bench".to_owned(),
        channel: "bench".to_owned(),
        os: "android".to_owned(),
        client_type: "app".to_owned(),
        app_language: "en".to_owned(),
        app_version: "7.12.3".to_owned(),
        merchant_id: "merchant-7".to_owned(),
        utm_source: "newsletter".to_owned(),
        ..Header::default()
    };
    let events = (0..BATCH_EVENTS).map(|index| {
        let place = number * BATCH_EVENTS + index;
        let made = &EVENTS[place % EVENTS.len()];
        let mut event = holdfast::event::proto::Event::decode(&made[..]).unwrap();
        event.id = format!("{run}-{number:08}-{index}");
        event.timestamp = now_ms.to_string();
        // Types have few fields or many; an address fills what is left.
        event.current_url = "https://bench.example/".to_owned();
        let rest = EVENT_BYTES.saturating_sub(event.encoded_len());
        event.current_url.push_str(&"winter-".repeat(rest / 7));
        event
    });
    let batch = Events {
        header: Some(header),
        events: events.collect(),
    };
    batch.encode_to_vec()
}

/// The record that the door makes of a request's bytes; of others, one without events.
pub fn record(bytes: Vec<u8>, received_at_ms: i64) -> NewRecord {
    NewRecord {
        kind: Kind::Dispatch,
        received_at_ms,
        reason: None,
        events: scan::request(&bytes, usize::MAX)
            .map_or_else(|_| Tally::default(), |found| found.tally),
        content: bytes.into(),
    }
}
