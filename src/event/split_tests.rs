//! Tests of `split`: every event once, in the right group, unchanged.

use super::*;
use crate::event::descriptor::EventType;
use crate::event::limits::EVENTS_PER_MESSAGE_MAX;
use crate::event::proto::event::EventOf;
use crate::event::proto::{Event, Events, Header, LaunchEvent, TestEvent};
use proptest::prelude::*;

const NOW_MS: i64 = 1_700_000_000_000;

fn launch(id: &str, timestamp: &str) -> Event {
    Event {
        id: id.into(),
        timestamp: timestamp.into(),
        event_of: Some(EventOf::LaunchEvent(LaunchEvent {
            app_launch_count: i64::MAX,
            ..Default::default()
        })),
        ..Default::default()
    }
}

fn test_event(id: &str) -> Event {
    Event {
        id: id.into(),
        timestamp: "5".into(),
        event_of: Some(EventOf::TestEvent(TestEvent::default())),
        ..Default::default()
    }
}

fn request(events: Vec<Event>) -> Vec<u8> {
    Events {
        header: Some(Header {
            device_id: "d".into(),
            ..Default::default()
        }),
        events,
    }
    .encode_to_vec()
}

fn all(bytes: &[u8], rejected: Option<&str>) -> Vec<Group> {
    split(bytes, NOW_MS, rejected).unwrap().collect()
}

#[test]
fn events_are_grouped_by_type_in_order_of_appearance() {
    let bytes = request(vec![
        test_event("a"),
        launch("b", "7"),
        test_event("c"),
        Event {
            id: "d".into(),
            timestamp: "1".into(),
            ..Default::default()
        },
    ]);
    let groups = all(&bytes, None);
    let seen: Vec<_> = groups
        .iter()
        .map(|g| match &g.route {
            Route::Type(t) => (t.name(), g.indexes.clone()),
            Route::Error(reason) => (reason.clone(), g.indexes.clone()),
        })
        .collect();
    assert_eq!(
        seen,
        [
            ("TestEvent".to_owned(), vec![0, 2]),
            ("LaunchEvent".to_owned(), vec![1]),
            ("<nil>".to_owned(), vec![3]),
        ]
    );
}

#[test]
fn what_one_thread_begins_another_can_go_on_with() {
    // Two other threads, of which one has another copy of the schema than this one.
    let bytes = request(vec![test_event("a"), launch("b", "7"), test_event("c")]);
    let here: Vec<_> = all(&bytes, None).iter().map(encoded).collect();
    for _ in 0..2 {
        let mut groups = split(&bytes, NOW_MS, None).unwrap();
        let first = groups.next().unwrap();
        let rest = std::thread::scope(|scope| {
            let other = scope.spawn(move || {
                [encoded(&first)]
                    .into_iter()
                    .chain(groups.map(|group| encoded(&group)))
                    .collect::<Vec<_>>()
            });
            other.join().unwrap()
        });
        assert_eq!(rest, here);
    }
}

fn encoded(group: &Group) -> Vec<u8> {
    group.json().unwrap()
}

#[test]
fn a_future_timestamp_becomes_the_receive_time() {
    let bytes = request(vec![
        launch("a", "1700000000001"),
        launch("b", "1700000000000"),
    ]);
    let groups = all(&bytes, None);
    for event in &groups[0].events {
        assert_eq!(event.timestamp, "1700000000000");
    }
}

#[test]
fn a_defective_event_goes_to_the_errors_alone() {
    let bytes = request(vec![launch("a", "soon"), launch("b", "1"), launch("", "1")]);
    let groups = all(&bytes, None);
    assert_eq!(groups.len(), 3);
    assert!(matches!(&groups[0].route, Route::Error(r) if r.contains("\"soon\"")));
    assert_eq!(groups[1].indexes, [1]);
    assert!(matches!(&groups[2].route, Route::Error(r) if r.contains("id is empty")));
}

#[test]
fn an_unknown_type_is_named_by_its_field_number_and_keeps_its_bytes() {
    // field 200, length-delimited, "hi"
    let mut event = Event {
        id: "a".into(),
        timestamp: "1".into(),
        ..Default::default()
    }
    .encode_to_vec();
    event.extend([0xc2, 0x0c, 0x02, b'h', b'i']);
    let mut bytes = request(vec![]);
    bytes.extend([0x2a, u8::try_from(event.len()).unwrap()]);
    bytes.extend(&event);
    let groups = all(&bytes, None);
    assert_eq!(groups[0].route, Route::Type(EventType::Unknown(200)));
    assert!(groups[0].needs_protobuf());
    assert!(
        groups[0]
            .protobuf()
            .ends_with(&[0xc2, 0x0c, 0x02, b'h', b'i'])
    );
}

#[test]
fn a_rejected_batch_without_events_still_gives_one_group() {
    let groups = all(b"", Some("why"));
    assert_eq!(groups.len(), 1);
    assert_eq!(groups[0].route, Route::Error("why".into()));
    assert!(all(b"", None).is_empty());
}

proptest! {
    #[test]
    fn every_event_is_in_one_group(kinds in proptest::collection::vec(0u8..4, 0..1500)) {
        let events = kinds.iter().enumerate().map(|(i, kind)| match kind {
            0 => launch(&i.to_string(), "1"),
            1 => test_event(&i.to_string()),
            2 => launch(&i.to_string(), "x"),
            _ => launch("", "1"),
        }).collect();
        let groups = all(&request(events), None);
        let mut seen: Vec<u32> = Vec::new();
        for group in &groups {
            prop_assert_eq!(group.events.len(), group.indexes.len());
            prop_assert!(group.indexes.len() <= EVENTS_PER_MESSAGE_MAX);
            prop_assert!(group.indexes.is_sorted());
            seen.extend(&group.indexes);
        }
        seen.sort_unstable();
        prop_assert_eq!(seen, (0..kinds.len() as u32).collect::<Vec<_>>());
    }
}
