//! What becomes of a record whose events cannot go to a consumer.

use super::*;
use crate::event::guarded::trap;
use crate::event::proto::event::EventOf;
use crate::event::proto::{Event, Events, Header, TestEvent};
use crate::event::scan;
use prost::Message as _;

fn template(error_routes: Vec<ErrorRoute>) -> Template {
    Template {
        host: HostId::parse("edge-1").unwrap(),
        exchange: "grpc_event.tx".into(),
        error_routes,
        webhooks: BTreeMap::new(),
    }
}

/// A good event, and one without an id.
fn record(kind: Kind, reason: Option<&str>) -> Record {
    let event = |id: &str| Event {
        id: id.into(),
        timestamp: "1700000000000".into(),
        current_url: String::new(),
        event_of: Some(EventOf::TestEvent(TestEvent::default())),
    };
    let request = Events {
        header: Some(Header {
            device_id: "d".into(),
            ..Header::default()
        }),
        events: vec![event("good"), event("")],
    };
    let content = request.encode_to_vec();
    Record {
        seq: Seq(7),
        received_at_ms: 1_700_000_000_000,
        kind,
        reason: reason.map(str::to_owned),
        events: scan::request(&content, usize::MAX).unwrap().tally,
        content: content.into(),
    }
}

#[test]
fn refused_events_without_an_error_route_are_set_aside() {
    let prepared = template(Vec::new()).prepare(&record(Kind::Dispatch, None));
    assert_eq!(prepared.messages.len(), 1, "the good one");
    let [(group, events, letter)] = prepared.letters.as_slice() else {
        panic!("{:?}", prepared.letters);
    };
    assert_ne!(*group, prepared.messages[0].parts[0].group());
    assert_eq!(events.total(), 1);
    assert_eq!(
        (letter.seq, letter.indexes.as_str(), letter.host.as_str()),
        (7, "1", "edge-1")
    );
    assert_eq!(letter.event_name, "TestEvent");
    assert!(letter.reason.contains("id"), "{}", letter.reason);
    // It can be mended, and then goes where it came from, with what tells its rows apart.
    let Destination::Message(parcel) = &letter.destination else {
        panic!("{letter:?}");
    };
    assert_eq!(
        (parcel.exchange.as_str(), parcel.routing_key.as_str()),
        ("grpc_event.tx", "TestEvent")
    );
    let body = letter.body.clone().into();
    let again = Message::of_parcel(parcel.clone(), &letter.content_type, body);
    assert_eq!(again.headers.text(INDEXES_HEADER).as_deref(), Some("1"));
    let text: serde_json::Value = serde_json::from_slice(&letter.body).unwrap();
    assert_eq!(text["events"].as_array().unwrap().len(), 1);

    // A whole request that was refused at the door, too.
    let refused = record(Kind::Rejected, Some("incomplete event"));
    let prepared = template(Vec::new()).prepare(&refused);
    assert!(prepared.messages.is_empty());
    let set_aside: u64 = prepared
        .letters
        .iter()
        .map(|(_, events, _)| events.total())
        .sum();
    assert_eq!(set_aside, refused.events.total());
    assert!(prepared.letters[0].2.reason.contains("incomplete event"));
}

#[test]
fn refused_events_go_to_each_error_route() {
    let route = |key: &str| ErrorRoute {
        exchange: "errors".into(),
        key: key.into(),
    };
    let template = template(vec![route("a"), route("b")]);
    let prepared = template.prepare(&record(Kind::Dispatch, None));
    assert!(prepared.letters.is_empty());
    let keys = prepared.messages.iter().filter(|out| out.is_error);
    let keys: Vec<_> = keys.map(|out| out.message.routing_key.as_str()).collect();
    assert_eq!(keys, ["a", "b"]);
}

#[test]
fn a_record_that_makes_us_panic_is_set_aside_whole() {
    let template = template(Vec::new());
    let record = record(Kind::Dispatch, None);
    trap::set(0);
    let prepared = template.prepare(&record);
    assert!(prepared.messages.is_empty());
    let [(_, events, letter)] = prepared.letters.as_slice() else {
        panic!("{:?}", prepared.letters);
    };
    assert_eq!(*events, record.events);
    assert_eq!((letter.seq, letter.indexes.as_str()), (7, "0-1"));
    assert_eq!(letter.body, record.content);
    assert_eq!(letter.reason, PANICKED);
    // The next one is as ever.
    assert_eq!(template.prepare(&record).messages.len(), 1);
}
