//! Messages of one read, joined and taken apart.

use super::super::outgoing::{ErrorRoute, Part, Template};
use super::*;
use crate::event::documents::{DOCUMENTS, DOCUMENTS_HEADER};
use crate::event::identity::{HostId, Seq};
use crate::event::proto::event::EventOf;
use crate::event::proto::{Event, Events, Header, LaunchEvent, TestEvent};
use crate::event::scan;
use crate::event::tally::Tally;
use crate::event::webhook::Source;
use crate::journal::{Kind, Record};
use proptest::prelude::*;
use prost::Message as _;
use std::collections::BTreeMap;

const ROOMY: Coalescing = Coalescing {
    documents: 1000,
    bytes: 1 << 20,
};

fn host() -> HostId {
    HostId::parse("edge-1").unwrap()
}

fn template() -> Template {
    Template {
        host: host(),
        exchange: "grpc_event.tx".into(),
        error_routes: vec![ErrorRoute {
            exchange: "grpc_event_error.dx".into(),
            key: "error".into(),
        }],
        webhooks: BTreeMap::from([(Source::Branch, "branch_event.tx".to_owned())]),
    }
}

/// Of each number an event: of one type if it is even, of another if not.
fn record(seq: u64, numbers: &[u32]) -> Record {
    let event = |number: &u32| Event {
        id: format!("{seq}-{number}"),
        timestamp: "1".into(),
        current_url: "u".repeat(*number as usize),
        event_of: Some(if number.is_multiple_of(2) {
            EventOf::LaunchEvent(LaunchEvent::default())
        } else {
            EventOf::TestEvent(TestEvent::default())
        }),
    };
    let request = Events {
        header: Some(Header {
            device_id: "d".into(),
            ..Header::default()
        }),
        events: numbers.iter().map(event).collect(),
    };
    of_bytes(seq, Kind::Dispatch, None, request.encode_to_vec())
}

fn of_bytes(seq: u64, kind: Kind, reason: Option<&str>, content: Vec<u8>) -> Record {
    Record {
        seq: Seq(seq),
        received_at_ms: 1_700_000_000_000,
        kind,
        reason: reason.map(str::to_owned),
        events: scan::request(&content, usize::MAX)
            .map_or_else(|_| Tally::default(), |found| found.tally),
        content: content.into(),
    }
}

/// Messages of one group each, as they are prepared.
fn prepared(records: &[Record]) -> Vec<Outgoing> {
    let template = template();
    let prepared = records.iter().map(|record| template.prepare(record));
    prepared.flat_map(|prepared| prepared.messages).collect()
}

/// The same as they go alone.
fn singles(records: &[Record]) -> Vec<Outgoing> {
    let mut singles = prepared(records);
    for single in &mut singles {
        let document = single.parts[0].document.clone();
        single.message.tell(host().as_str(), &document);
    }
    singles
}

/// What each message carries, and the message.
fn seen(messages: &[Outgoing]) -> Vec<(Vec<(u64, usize)>, Message)> {
    let places = |parts: &[Part]| parts.iter().map(|p| (p.seq().0, p.group())).collect();
    let seen = messages.iter();
    seen.map(|out| (places(&out.parts), out.message.clone()))
        .collect()
}

proptest! {
    #[test]
    fn everything_goes_once_in_order_and_within_bounds(
        requests in proptest::collection::vec(proptest::collection::vec(0u32..400, 1..4), 1..60),
        documents in 1usize..20,
        bytes in 1usize..3000,
    ) {
        let records: Vec<_> = requests.iter().zip(1..).map(|(numbers, seq)| record(seq, numbers)).collect();
        let before = singles(&records);
        let joined = coalesce(&host(), prepared(&records), Coalescing { documents, bytes });
        for out in &joined {
            prop_assert!(out.parts.len() <= documents.max(1));
            prop_assert!(out.parts.len() == 1 || out.message.body.len() <= bytes);
            prop_assert!(out.parts.is_sorted_by_key(|part| (part.seq(), part.group())));
            prop_assert_eq!(out.parts.len() > 1, out.message.has_documents());
        }
        // By the first of each, so that nothing waits behind what came after it.
        prop_assert!(joined.is_sorted_by_key(|out| (out.seq(), out.parts[0].group())));
        let events: u64 = joined.iter().map(Outgoing::events).sum();
        prop_assert_eq!(events, requests.iter().map(|numbers| numbers.len() as u64).sum::<u64>());
        let mut apart: Vec<_> = joined.into_iter().flat_map(Outgoing::apart).collect();
        apart.sort_by_key(|out| (out.seq(), out.parts[0].group()));
        prop_assert_eq!(seen(&apart), seen(&before));
    }
}

#[test]
fn what_is_alone_stays_as_it_was() {
    let alone = [record(1, &[0, 1])];
    assert_eq!(singles(&alone).len(), 2, "two types");
    let on = coalesce(&host(), prepared(&alone), ROOMY);
    assert_eq!(seen(&on), seen(&singles(&alone)));
    // And all do, where nothing is switched on.
    let many = [record(1, &[0]), record(2, &[0]), record(3, &[0])];
    let off = Coalescing {
        documents: 1,
        ..ROOMY
    };
    let alone = coalesce(&host(), prepared(&many), off);
    assert_eq!(seen(&alone), seen(&singles(&many)));
    let on = coalesce(&host(), prepared(&many), ROOMY);
    assert_eq!(on.len(), 1);
    let message = &on[0].message;
    assert_eq!(message.content_type.as_deref(), Some(DOCUMENTS));
    assert_eq!(message.routing_key, "LaunchEvent");
}

#[test]
fn only_events_of_a_known_type_share() {
    let unknown = || {
        let mut event = Event {
            id: "e".into(),
            timestamp: "1".into(),
            ..Event::default()
        };
        event.event_of = None;
        let mut bytes = event.encode_to_vec();
        bytes.extend([0xc2, 0x0c, 0x03, b'n', b'e', b'w']); // field 200
        let mut request = vec![0x2a, u8::try_from(bytes.len()).unwrap()];
        request.extend(bytes);
        request
    };
    let webhook = crate::event::webhook::Stored {
        headers: BTreeMap::new(),
        body: r#"{"name":"INSTALL"}"#.into(),
    };
    let webhook = webhook.encode();
    let no_id = {
        let mut request = Events::decode(&record(1, &[0]).content[..]).unwrap();
        request.events[0].id.clear();
        request.encode_to_vec()
    };
    for (kind, reason, content) in [
        (Kind::Dispatch, None, unknown()),
        (Kind::Webhook(Source::Branch), None, webhook.to_vec()),
        (Kind::Rejected, Some("no header"), unknown()),
        (Kind::Dispatch, None, no_id),
    ] {
        let records = [1, 2].map(|seq| of_bytes(seq, kind, reason, content.clone()));
        let before = singles(&records);
        assert_eq!(before.len(), 2, "{kind:?}");
        assert_eq!(
            seen(&coalesce(&host(), before.clone(), ROOMY)),
            seen(&before)
        );
    }
}

#[test]
fn the_header_is_bounded_whatever_the_places_are() {
    // Places with gaps, which take the most room: of 999 events every other one.
    let numbers: Vec<u32> = (0..999).map(|at| at % 2).collect();
    let records: Vec<_> = (1..=60).map(|seq| record(seq, &numbers)).collect();
    let by = Coalescing {
        documents: 1000,
        bytes: usize::MAX,
    };
    let joined = coalesce(&host(), prepared(&records), by);
    let mut largest = 0;
    for out in &joined {
        let header = out.message.headers.text(DOCUMENTS_HEADER);
        largest = largest.max(header.map_or(0, |header| header.len()));
    }
    assert!(
        (HEADER_BYTES_MAX / 2..=HEADER_BYTES_MAX).contains(&largest),
        "{largest}"
    );
    let carried: usize = joined.iter().map(|out| out.parts.len()).sum();
    assert_eq!(carried, 120);
    // A longer header is one that no consumer reads.
    for out in joined.into_iter().filter(|out| out.parts.len() > 1) {
        assert!(out.message.documents().is_ok());
    }
}
