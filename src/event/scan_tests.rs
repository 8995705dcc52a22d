//! The scan against the decoders, on whole, changed and hostile requests.

use super::*;
use crate::event::descriptor::EventType;
use crate::event::proto::Events;
use crate::event::{json, split};
use proptest::prelude::*;
use prost::Message as _;

const MANY: usize = 10_000;

/// A request with every kind of field that the contract has.
fn rich() -> Vec<u8> {
    let text = br#"{"header":{"deviceId":"d","userId":"-7"},"events":[
        {"id":"a","timestamp":"1","widgetViewEvent":{"recoInfoKV":{"k":"v","":""}}},
        {"id":"b","timestamp":"2","completePurchaseEvent":{"productIds":["1","-2","300"],"chargeableAmount":1.5}},
        {"id":"c","timestamp":"3","launchEvent":{}},{}]}"#;
    let batch = json::parse(&schema().events, text).unwrap();
    batch.encode_to_vec()
}

/// The bytes of a field.
fn field(number: u32, wire: u32, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    prost::encoding::encode_varint(u64::from(number << 3 | wire), &mut bytes);
    bytes.extend(value);
    bytes
}

/// A length-delimited field.
fn holder(number: u32, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    prost::encoding::encode_varint(value.len() as u64, &mut bytes);
    bytes.extend(value);
    field(number, 2, &bytes)
}

/// Whether it is taken: what the generated decoder takes, and nothing else. The dynamic one
/// takes a little more: a map's field is read as one whatever kind its key names.
fn is_taken(bytes: &[u8]) -> bool {
    let found = request(bytes, MANY);
    let is_decoded = Events::decode(bytes).is_ok();
    assert_eq!(found.is_ok(), is_decoded, "{found:?}: {bytes:?}");
    if !matches!(found, Err(ScanError::WrongKind(_))) {
        assert_eq!(split::decode(bytes).is_ok(), is_decoded, "{bytes:?}");
    }
    found.is_ok()
}

#[test]
fn counts_what_is_there() {
    let found = request(&rich(), MANY).unwrap();
    assert_eq!(
        (found.events, found.has_header, found.has_device_id),
        (4, true, true)
    );
    // A header with 2 fields, 4 events with 3 each but the last, 2 entries of a map of which
    // one is empty, a list of 3 and an amount.
    assert_eq!(found.fields, 1 + 2 + 4 + 9 + 2 + 2 + 1 + 3 + 1);
    let empty = request(b"", MANY).unwrap();
    assert_eq!(empty, Found::default());
    // The last device id counts.
    let header = |id: &[u8]| holder(4, &holder(8, id));
    let twice = [header(b"d"), header(b"")].concat();
    let found = request(&twice, MANY).unwrap();
    assert!(found.has_header && !found.has_device_id);
    let decoded = Events::decode(&twice[..]).unwrap();
    assert_eq!(decoded.header.unwrap().device_id, "");
}

proptest! {
    #[test]
    fn a_tally_agrees_with_the_split(
        events in proptest::collection::vec(
            proptest::collection::vec(prop_oneof![9u32..70, 200u32..230], 0..3), 0..20)
    ) {
        let mut bytes = holder(4, &holder(8, b"d"));
        for numbers in &events {
            let mut event = [holder(4, b"a"), holder(5, b"1")].concat();
            event.extend(numbers.iter().flat_map(|number| holder(*number, b"")));
            bytes.extend(holder(5, &event));
        }
        let mut expected = Tally::default();
        for group in split::split(&bytes, 10, None).unwrap() {
            for event in &group.events {
                expected.add(TypeKey::of(&EventType::of(event)), 1);
            }
            prop_assert_eq!(Tally::of_group(&group), Tally::of_events(&group.events));
        }
        prop_assert_eq!(request(&bytes, MANY).unwrap().tally, expected);
    }
}

#[test]
fn bounds_end_the_scan() {
    let events = holder(5, b"").repeat(MANY + 1);
    assert_eq!(request(&events, MANY), Err(ScanError::TooManyEvents(MANY)));
    let within = &events[..events.len() - 2];
    assert_eq!(request(within, MANY).unwrap().events, MANY);
    // Lists, maps, unknown fields and groups, each far larger decoded than on the wire.
    let number = |count: usize| {
        let list = holder(9, &vec![1; count]);
        request(&holder(5, &holder(18, &list)), MANY)
    };
    assert!(number(FIELDS_MAX - 3).is_ok());
    assert_eq!(
        number(FIELDS_MAX),
        Err(ScanError::TooManyFields(FIELDS_MAX))
    );
    for one in [field(1000, 0, &[1]), field(1000, 3, &field(1000, 4, &[]))] {
        let many = one.repeat(FIELDS_MAX);
        let inside = holder(5, &many);
        assert!(matches!(
            request(&inside, MANY),
            Err(ScanError::TooManyFields(_))
        ));
    }
}

#[test]
fn depth_is_bounded_as_prost_bounds_it() {
    let groups = |depth: usize| {
        [
            field(1000, 3, &[]).repeat(depth),
            field(1000, 4, &[]).repeat(depth),
        ]
        .concat()
    };
    assert!(is_taken(&groups(100)));
    for depth in [101, 100_000] {
        let bytes = groups(depth);
        assert!(matches!(request(&bytes, MANY), Err(ScanError::TooDeep(_))));
        assert!(Events::decode(&bytes[..]).is_err());
    }
}

#[test]
fn each_mistake_is_named() {
    for (bytes, error) in [
        (vec![0x2a, 5, 1], ScanError::Truncated(2)),
        (vec![0x2a], ScanError::Truncated(1)),
        (vec![0xff; 12], ScanError::BadNumber(0)),
        (vec![0x02, 0], ScanError::BadNumber(0)),
        (vec![0x2f, 0], ScanError::BadNumber(0)),
        (vec![0x28, 0], ScanError::WrongKind(1)),
        (field(9, 4, &[]), ScanError::WrongKind(1)),
        (holder(5, &holder(4, b"\xff")), ScanError::NotUtf8(5)),
    ] {
        assert_eq!(request(&bytes, MANY), Err(error), "{bytes:?}");
        assert!(!is_taken(&bytes));
    }
}

#[test]
fn a_map_of_another_kind_is_refused() {
    let entry = [holder(1, b"k"), holder(2, b"v")].concat();
    let entry = [&[entry.len() as u8], &entry[..]].concat();
    for kind in 0..8 {
        // `widgetViewEvent.recoInfoKV`, with a key that names this kind.
        let bytes = holder(5, &holder(13, &field(23, kind, &entry)));
        assert_eq!(is_taken(&bytes), u64::from(kind) == LENGTH, "kind {kind}");
        // Only the dynamic decoder does not look.
        let is_read = split::decode(&bytes[..]).is_ok();
        assert_eq!(is_read, kind <= 5, "kind {kind}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn takes_what_prost_takes(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3u8), 0..4),
        end in any::<prop::sample::Index>(),
        is_cut in prop::bool::weighted(0.2),
    ) {
        let mut bytes = rich();
        for (at, byte, kind) in changes {
            let at = at.index(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => drop(bytes.remove(at)),
            }
        }
        if is_cut {
            bytes.truncate(end.index(bytes.len()));
        }
        is_taken(&bytes);
    }

    #[test]
    fn foreign_bytes_are_taken_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        is_taken(&bytes);
    }
}
