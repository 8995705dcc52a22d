//! Tests of `split` with requests that are made to be taken apart into far more than they
//! are: what they become is bounded by what they were.

use super::*;
use crate::event::batch::Batch;
use crate::event::descriptor::EventType;
use crate::event::envelope;
use crate::event::limits::{
    EVENTS_PER_MESSAGE_MAX, HEADER_COPIES_BYTES_MAX, MESSAGE_BYTES_SOFT_MAX,
    MESSAGE_ROWS_BYTES_SOFT_MAX, UNKNOWN_TYPES_MAX,
};
use crate::event::proto::{Event, Events, Header};

const NOW_MS: i64 = 1_700_000_000_000;

/// Routes that do not come from a sender's numbers: the known types, none, several unknown
/// ones, and the two reasons.
fn routes_max() -> usize {
    crate::event::descriptor::event_names().len() + 1 + UNKNOWN_TYPES_MAX + 1 + 2
}

fn header(bytes: usize) -> Header {
    Header {
        device_id: "d".into(),
        utm_referrer: "h".repeat(bytes),
        ..Header::default()
    }
}

/// A request with events given by their bytes.
fn request(header_bytes: usize, events: impl Iterator<Item = Vec<u8>>) -> Vec<u8> {
    let mut bytes = Events {
        header: Some(header(header_bytes)),
        events: Vec::new(),
    }
    .encode_to_vec();
    for event in events {
        prost::encoding::bytes::encode(5, &event, &mut bytes);
    }
    bytes
}

/// An event with a field: one of a known type is empty, any other has some bytes.
fn event(id: &str, timestamp: &str, field: Option<u32>) -> Vec<u8> {
    let mut bytes = Event {
        id: id.into(),
        timestamp: timestamp.into(),
        ..Event::default()
    }
    .encode_to_vec();
    if let Some(number) = field {
        let value: &[u8] = if number < 100 { b"" } else { b"hi" };
        prost::encoding::bytes::encode(number, &value.to_vec(), &mut bytes);
    }
    bytes
}

/// What a request becomes: its groups, and the bytes of all messages.
fn messages(bytes: &[u8]) -> Result<(Vec<Group>, usize), SplitError> {
    let groups: Vec<Group> = split(bytes, NOW_MS, None)?.collect();
    let sizes = groups.iter().map(|group| {
        let (_, body) = envelope::encode(group).unwrap();
        body.len()
    });
    let total = sizes.sum();
    Ok((groups, total))
}

fn assert_every_event_is_there(groups: &[Group], events: u32) {
    let mut seen: Vec<u32> = groups.iter().flat_map(|g| g.indexes.clone()).collect();
    seen.sort_unstable();
    assert!(seen.into_iter().eq(0..events));
}

#[test]
fn distinct_bad_timestamps_share_their_messages() {
    let bad = |at: u32| event("e", &format!("soon {at}"), None);
    let bytes = request(1000, (0..20_000).map(bad));
    let (groups, total) = messages(&bytes).unwrap();
    assert_every_event_is_there(&groups, 20_000);
    assert_eq!(groups.len(), 20_000 / EVENTS_PER_MESSAGE_MAX);
    assert!(total < 4 * bytes.len(), "{total} of {}", bytes.len());
    for group in &groups {
        assert_eq!(
            group.route,
            Route::Error(Invalid::BadTimestamps.to_string())
        );
    }
    // The same text in all of a message is quoted.
    let bytes = request(10, (0..700).map(|_| event("e", "soon", None)));
    let (groups, _) = messages(&bytes).unwrap();
    let quoted = Route::Error(Invalid::BadTimestamp("soon".into()).to_string());
    assert_eq!(groups.len(), 2);
    assert!(groups.iter().all(|group| group.route == quoted));
}

#[test]
fn numbers_that_a_sender_makes_up_share_a_message() {
    let made_up = |at: u32| event("e", "1", Some(1000 + at));
    let bytes = request(1000, (0..20_000).map(made_up));
    let (groups, total) = messages(&bytes).unwrap();
    assert_every_event_is_there(&groups, 20_000);
    let full = 20_000 / EVENTS_PER_MESSAGE_MAX;
    assert!(groups.len() <= full + UNKNOWN_TYPES_MAX + 1);
    assert!(total < 4 * bytes.len(), "{total} of {}", bytes.len());
    let own = |group: &&Group| group.route != Route::Type(EventType::Unknown(0));
    assert_eq!(groups.iter().filter(own).count(), UNKNOWN_TYPES_MAX);
    for group in &groups {
        assert!(group.needs_protobuf());
        for (event, at) in group.events.iter().zip(&group.indexes) {
            assert_eq!(EventType::of(event), EventType::Unknown(1000 + at));
        }
    }
}

#[test]
fn a_header_is_not_repeated_beyond_any_use() {
    let bad = |at: u32| event("e", &format!("soon {at}"), None);
    let bytes = request(2 << 20, (0..100_000).map(bad));
    let error = split(&bytes, NOW_MS, None).unwrap_err();
    assert!(
        matches!(&error, SplitError::Header { events: 100_000, header_bytes } if *header_bytes > 2 << 20)
    );
    assert_eq!(error.indexes(), "0-99999");
    // Few events of many types: the copies in the messages count.
    let types = |from| (from..from + 40).map(|number| event("e", "1", Some(number)));
    let bytes = request(1 << 20, types(9));
    assert!(matches!(
        split(&bytes, NOW_MS, None),
        Err(SplitError::Header { events: 40, .. })
    ));
    let bytes = request(1 << 20, types(1000));
    assert!(matches!(
        split(&bytes, NOW_MS, None),
        Err(SplitError::Header { events: 40, .. })
    ));
    // Also in the form of JSON, in which a control character is six.
    let mut escaped = header(0);
    escaped.utm_referrer = "\u{1}".repeat(1 << 20);
    let mut bytes = Events {
        header: Some(escaped),
        events: Vec::new(),
    }
    .encode_to_vec();
    for number in 9..19 {
        prost::encoding::bytes::encode(5, &event("e", "1", Some(number)), &mut bytes);
    }
    assert!(matches!(
        split(&bytes, NOW_MS, None),
        Err(SplitError::Header { events: 10, .. })
    ));
}

#[test]
fn an_honest_request_is_never_one_for_its_header() {
    // A very long address as referrer, and a usual batch.
    let good = |at: u32| event(&format!("event-{at}"), "1700000000000", None);
    let bytes = request(60 << 10, (0..500).map(good));
    let (groups, total) = messages(&bytes).unwrap();
    assert_every_event_is_there(&groups, 500);
    assert!(groups.len() <= 2);
    assert!(total < 4 * bytes.len());
    // A backlog of smallest events in one request of 16 MiB, and a usual header.
    let id = "0123456789abcdef0123456789abcdef0123";
    let small = |_| event(id, "1700000000000", None);
    let events = (16u32 << 20) / 60;
    let bytes = request(2 << 10, (0..events).map(small));
    assert!(split(&bytes, NOW_MS, None).is_ok());
    // One event may have any header, and so may a request that is one message.
    for events in [1, 2] {
        let bytes = request(15 << 20, (0..events).map(good));
        assert_eq!(split(&bytes, NOW_MS, None).unwrap().len(), 1);
    }
}

#[test]
fn whatever_the_events_the_messages_are_bounded() {
    for (header_bytes, events) in [
        (0, 50_000u32),
        (3000, 30_000),
        (20_000, 3000),
        (400_000, 60),
    ] {
        let mixed = |at: u32| match at % 4 {
            0 => event("e", &at.to_string().repeat(3), Some(at + 1000)),
            1 => event("e", &format!("x{at}"), Some(9 + at % 56)),
            2 => event("", "1", None),
            _ => event("e", "1", Some(9 + at % 56)),
        };
        let bytes = request(header_bytes, (0..events).map(mixed));
        let (groups, total) = match messages(&bytes) {
            Ok(made) => made,
            // Set aside as it came: once.
            Err(SplitError::Header { .. }) => continue,
            Err(error) => panic!("{error}"),
        };
        assert_every_event_is_there(&groups, events);
        let rows_bytes = (header_bytes + 100) * events as usize + bytes.len();
        let full = events as usize / EVENTS_PER_MESSAGE_MAX
            + bytes.len() / MESSAGE_BYTES_SOFT_MAX
            + rows_bytes / MESSAGE_ROWS_BYTES_SOFT_MAX;
        assert!(groups.len() <= routes_max() + full, "{}", groups.len());
        // JSON has the names of fields, too.
        assert!(total <= 8 * bytes.len() + 2 * HEADER_COPIES_BYTES_MAX);
        for group in &groups {
            let in_rows = header_bytes * group.indexes.len();
            assert!(in_rows <= MESSAGE_ROWS_BYTES_SOFT_MAX + header_bytes);
        }
    }
}

#[test]
fn no_header_is_larger_as_json_than_is_reckoned_with() {
    for field in schema().header.fields() {
        let mut header = DynamicMessage::new(schema().header.clone());
        let value = match field.kind() {
            prost_reflect::Kind::String => prost_reflect::Value::String("\u{1}".to_owned()),
            prost_reflect::Kind::Int64 => prost_reflect::Value::I64(1),
            kind => panic!("{kind:?} has a worst case of its own"),
        };
        header.set_field(&field, value);
        let json = json::encode(&header).unwrap();
        assert!(
            json.len() <= JSON_FACTOR_MAX * header.encoded_len(),
            "{}",
            field.name()
        );
    }
}

#[test]
fn a_foreign_message_is_not_repeated_in_its_rows_beyond_memory() {
    let good = |at: u32| event(&format!("event-{at}"), "1", None);
    let foreign = |header_bytes, events| {
        let bytes = request(header_bytes, (0..events).map(good));
        check_rows(Batch::decode(&bytes).unwrap().parts())
    };
    assert!(foreign(2 << 10, 30_000).is_ok());
    assert!(foreign(15 << 20, 1).is_ok());
    assert!(matches!(
        foreign(1 << 20, 1000),
        Err(SplitError::Header { events: 1000, .. })
    ));
    // What is made here always may.
    for (header_bytes, events) in [(15 << 20, 2), (300 << 10, 100), (3 << 10, 3000)] {
        let bytes = request(header_bytes, (0..events).map(good));
        for group in split(&bytes, NOW_MS, None).unwrap() {
            check_rows(group.parts()).unwrap();
        }
    }
}

#[test]
fn events_are_the_same_whether_kept_decoded_or_not() {
    let long = |at: u32| {
        event(
            &format!("{at}"),
            &format!("{}", 1_699_999_999_999 + i64::from(at)),
            None,
        )
    };
    let bytes = request(0, (0..3000).map(long));
    for group in split(&bytes, NOW_MS, None).unwrap() {
        for (event, at) in group.events.iter().zip(&group.indexes) {
            assert_eq!(event.id, at.to_string());
            let expected = (1_699_999_999_999 + i64::from(*at)).min(NOW_MS);
            assert_eq!(event.timestamp, expected.to_string());
        }
    }
}

#[test]
fn what_is_no_batch_is_told_before_any_group() {
    let good = request(0, (0..3).map(|_| event("e", "1", None)));
    for (at, tail) in [
        &b"\x2a"[..],            // no length
        b"\x2a\x05",             // no bytes
        b"\x2a\x02\x22\x05",     // an event that ends too soon
        b"\x2a\x03\x22\x01\xff", // an id that is not UTF-8
        b"\x28\x01",             // events that are a number
        b"\x20\x01",             // a header that is a number
        b"\x07",                 // no wire type
        b"\x0b",                 // a group without an end
    ]
    .iter()
    .enumerate()
    {
        let bytes = [&good[..], tail].concat();
        let error = split(&bytes, NOW_MS, None).unwrap_err();
        assert!(matches!(error, SplitError::Decode(_)), "{at}");
        assert_eq!(error.indexes(), "", "{at}");
        assert!(decode(&bytes[..]).is_err(), "{at}");
    }
    // A header in two parts is one, and other fields are passed over.
    let more = Events {
        header: Some(Header {
            os: "o".into(),
            ..Header::default()
        }),
        events: Vec::new(),
    };
    let bytes = [&good[..], &more.encode_to_vec(), b"\x9a\x06\x01x"].concat();
    let group = split(&bytes, NOW_MS, None).unwrap().next().unwrap();
    let header = group.parts().header.unwrap();
    assert_eq!((&header.device_id[..], &header.os[..]), ("d", "o"));
}
