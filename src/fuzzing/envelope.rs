//! Requests of clients, in both forms, and the places of their events in headers.

use super::{NOW_MS, rows};
use crate::consume::handlers;
use crate::event::batch::Batch;
use crate::event::descriptor::{EventType, event_names, schema};
use crate::event::envelope::{self, Origins};
use crate::event::expect::{self, Expected};
use crate::event::group::{Group, Route};
use crate::event::identity::{HostId, format_indexes, parse_indexes};
use crate::event::limits::{
    EVENTS_PER_MESSAGE_MAX, HEADER_COPIES_BYTES_MAX, MESSAGE_BYTES_SOFT_MAX,
    MESSAGE_ROWS_BYTES_SOFT_MAX, UNKNOWN_TYPES_MAX,
};
use crate::event::proto::Events;
use crate::event::reflected::Event;
use crate::event::scan::{self, FIELDS_MAX, ScanError};
use crate::event::split::{self, SplitError, header_of};
use crate::event::tally::{Tally, TypeKey};
use crate::event::{json, validate};
use crate::sink::schema::{ERROR_EVENTS, EVENTS};
use prost::Message as _;
use prost_reflect::{DynamicMessage, ReflectMessage as _, UnknownField};

/// `ingest.max_request_events` where nothing is said.
const EVENTS_MAX: usize = 10_000;

/// A request's bytes, as the gRPC door takes them: what the scan takes, everything after it
/// can read, within bounds.
pub(super) fn envelope(data: &[u8]) {
    let found = match scan::request(data, EVENTS_MAX) {
        Ok(found) => found,
        Err(ScanError::TooManyEvents(_) | ScanError::TooManyFields(_)) => return,
        Err(error) => {
            assert!(Events::decode(data).is_err(), "the scan refuses: {error}");
            // The dynamic decoder reads a map's field as one, whatever kind its key names.
            let is_read = split::decode(data).is_ok();
            let is_known = matches!(error, ScanError::WrongKind(_));
            assert!(is_known || !is_read, "the scan refuses: {error}");
            return;
        }
    };
    assert!(found.events <= EVENTS_MAX && found.fields <= FIELDS_MAX);
    assert!(Events::decode(data).is_ok(), "prost refuses what is taken");
    let batch = split::decode(data).expect("the scan took it");
    assert_eq!(header_of(&batch).is_some(), found.has_header);
    let Batch { header, events } = Batch::decode(data).expect("the scan took it");
    assert_eq!(events.len(), found.events);
    assert_eq!(header.is_some(), found.has_header);
    let has_device_id = header.is_some_and(|header| !header.device_id.is_empty());
    assert_eq!(has_device_id, found.has_device_id);
    say_the_same(&events, &batch);
    assert_eq!(found.tally, Tally::of_events(&events));
    // A batch that breaks these rules is kept, and refused with the reason.
    let reason = validate::header(&found)
        .err()
        .map(|invalid| invalid.to_string());
    taken_apart(data, events.len(), reason.as_deref());
}

/// Events are what the library makes of them.
fn say_the_same(events: &[Event], batch: &DynamicMessage) {
    let library = batch.get_field_by_name("events").expect("it has the field");
    let library = library.as_list().expect("it is a list");
    assert_eq!(events.len(), library.len());
    for (event, library) in events.iter().zip(library) {
        let library = library.as_message().expect("of messages");
        let encoded = event.encode_to_vec();
        assert_eq!(event.encoded_len(), encoded.len());
        let same = DynamicMessage::decode(library.descriptor(), &encoded[..]);
        let same = same.expect("its parts were read");
        assert_eq!(same.encoded_len(), library.encoded_len());
        assert_same_json(
            &json::encode(&same).expect("it has a form"),
            &json::encode(library).expect("it has a form"),
        );
        assert!(same.unknown_fields().eq(library.unknown_fields()));
        assert_eq!(event.is_known(), json::carries(library));
        let unknown = library.unknown_fields().map(UnknownField::number);
        assert_eq!(event.unknown_field(), unknown.min());
    }
}

/// What the pumps and the receipts make of a request.
fn taken_apart(data: &[u8], events: usize, rejected: Option<&str>) {
    let groups = match split::split(data, NOW_MS, rejected) {
        Ok(groups) => groups,
        Err(SplitError::Decode(error)) => panic!("the scan took it: {error}"),
        Err(SplitError::Header {
            header_bytes,
            events: told,
        }) => {
            assert_eq!(told, events);
            let copies = header_bytes.saturating_mul(events);
            assert!(copies > HEADER_COPIES_BYTES_MAX, "{header_bytes} bytes");
            return;
        }
    };
    let routes_max = event_names().len() + 1 + UNKNOWN_TYPES_MAX + 1 + 3;
    let full_max = events / EVENTS_PER_MESSAGE_MAX + data.len() / MESSAGE_BYTES_SOFT_MAX;
    let mut made = Vec::new();
    let mut count = 0;
    for group in groups {
        count += 1;
        assert!(group.indexes.len() <= EVENTS_PER_MESSAGE_MAX);
        assert!(group.indexes.is_sorted());
        split::check_rows(group.parts()).expect("messages from here have bounded rows");
        assert_eq!(group.events.len(), group.indexes.len());
        for (event, index) in group.events.iter().zip(&group.indexes) {
            let id = event.id.clone();
            let timestamp = validate::event(&id, &event.timestamp);
            made.push(Expected {
                index: *index,
                event: TypeKey::of(&EventType::of(event)),
                id,
                at_ms: timestamp.map_or(0, |at_ms| at_ms.min(NOW_MS)),
                refused: matches!(group.route, Route::Error(_)),
            });
        }
        travels(&group);
        into_rows(data, &group);
    }
    assert!(
        count <= routes_max + full_max + data.len() / (MESSAGE_ROWS_BYTES_SOFT_MAX >> 10),
        "{count} messages"
    );
    made.sort_by_key(|made| made.index);
    let expected = expect::of_request(data, NOW_MS, rejected.is_some());
    if rejected.is_some() && made.is_empty() {
        assert_eq!(
            (count, expected.len()),
            (1, 1),
            "a refused batch is one row"
        );
    } else {
        assert_eq!(expected, made);
        assert!(made.iter().map(|made| made.index).eq(0..events as u32));
    }
}

/// A group is read by the consumer as it was sent.
fn travels(group: &Group) {
    let (kind, body) = envelope::encode(group).expect("every group has a form");
    let read = envelope::decode(Some(kind), &body).expect("a consumer can read it");
    assert_eq!(read.events.len(), group.indexes.len());
    let whole = group.protobuf();
    if kind == envelope::PROTOBUF {
        assert_eq!(body, whole);
    } else {
        let message = split::decode(&whole[..]).expect("its parts were read");
        assert_same_json(
            &body,
            &json::encode(&message).expect("its parts have a form"),
        );
        reads_as_the_library(&body);
    }
    let single = envelope::single(Some(kind), &body, 0).expect("it was read before");
    assert_eq!(single.is_some(), group.indexes.len() > 1);
    let indexes = format_indexes(&group.indexes);
    assert_eq!(
        parse_indexes(&indexes, EVENTS_PER_MESSAGE_MAX),
        Some(group.indexes.clone())
    );
}

fn into_rows(data: &[u8], group: &Group) {
    let origins = Origins {
        host: "edge-1".to_owned(),
        seq: 7,
        indexes: group.indexes.clone(),
    };
    let events = group.indexes.len();
    match &group.route {
        Route::Type(_) => {
            let items = handlers::rows(group.parts(), &origins, NOW_MS);
            assert_eq!(items.len(), events);
            rows::check(&EVENTS, &items);
        }
        Route::Error(reason) => {
            let clocks = handlers::Clocks {
                received_at_ms: None,
                now_ms: NOW_MS,
            };
            let items = handlers::error_rows(group.parts(), &origins, reason, data, clocks);
            assert_eq!(items.len(), events.max(1));
            assert!(items.iter().all(Result::is_ok), "a refused event is a row");
            rows::check(&ERROR_EVENTS, &items);
        }
    }
}

/// What is read of a text without the library's parser of all is what that reads.
fn reads_as_the_library(text: &[u8]) {
    let Some(batch) = json::read_batch(text) else {
        return;
    };
    let message = json::parse(&schema().events, text).expect("it was read");
    let same = Batch::decode(&message.encode_to_vec()).expect("it was encoded from one");
    assert_eq!(batch.header, same.header);
    assert_eq!(batch.events.len(), same.events.len());
    for (event, same) in batch.events.iter().zip(&same.events) {
        assert_eq!(event.encoded_len(), same.encoded_len());
        let form = |event| json::encode_event(event).expect("it was read from one");
        assert_same_json(&form(event), &form(same));
    }
}

/// Maps have no order.
fn assert_same_json(one: &[u8], other: &[u8]) {
    let read = |text| serde_json::from_slice::<serde_json::Value>(text).expect("it is JSON");
    assert_eq!(read(one), read(other));
}

/// A body of `POST /events`: batches that both doors' checks take, and that say in JSON
/// what was said.
pub(super) fn json_events(data: &[u8]) {
    data.split(|byte| *byte == b'\n')
        .for_each(reads_as_the_library);
    let Ok(batches) = crate::ingest::fuzzing::parse(data) else {
        return;
    };
    assert!(!batches.is_empty(), "nothing is a success");
    for bytes in batches {
        match scan::request(&bytes, EVENTS_MAX) {
            Ok(_) => {}
            Err(ScanError::TooManyEvents(_) | ScanError::TooManyFields(_)) => continue,
            Err(error) => panic!("the door refuses what it made itself: {error}"),
        }
        let batch = split::decode(&bytes[..]).expect("it was encoded from one");
        assert!(json::carries(&batch), "JSON brings no unknown fields");
        let text = json::encode(&batch).expect("it came as JSON");
        let again = json::parse(&schema().events, &text).expect("it was written from one");
        assert_eq!(again.encoded_len(), batch.encoded_len());
        assert_same_json(&text, &json::encode(&again).expect("it had one before"));
        envelope(&bytes);
    }
}

/// The headers that say where a message's events came from.
pub(super) fn indexes(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let (host, list) = text.split_once('\n').unwrap_or(("", text));
    for count_max in [1, 7, EVENTS_PER_MESSAGE_MAX] {
        let Some(indexes) = parse_indexes(list, count_max) else {
            continue;
        };
        assert!(indexes.len() <= count_max, "{} places", indexes.len());
        let formatted = format_indexes(&indexes);
        assert_eq!(parse_indexes(&formatted, count_max), Some(indexes));
    }
    let origins = Origins::from_headers(Some(host), Some(1), Some(list));
    // What does not fit together counts as foreign.
    let again = Origins::from_headers(Some(host), Some(1), Some(&origins.indexes_text()));
    assert!(
        origins == again || origins == Origins::default(),
        "{origins:?}"
    );
    for at in [0, 1, EVENTS_PER_MESSAGE_MAX, usize::MAX] {
        let known = origins.indexes.get(at).copied();
        assert_eq!(
            origins.index(at),
            known.unwrap_or(at.min(u32::MAX as usize) as u32)
        );
    }
    if let Ok(id) = HostId::parse(host) {
        assert_eq!(id.as_str(), host);
        assert!(host.len() <= 64 && host.is_ascii());
    }
}
