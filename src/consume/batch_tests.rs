//! Deliveries taken apart, batched and settled.

use super::super::handlers::{self, Context};
use super::*;
use crate::config::Handler;
use crate::event::documents::{DOCUMENTS_HEADER, Document};
use crate::event::envelope::{INDEXES_HEADER, JSON, SEQ_HEADER};
use crate::event::identity::Seq;
use crate::sink::schema::EVENTS;
use proptest::prelude::*;

const NOW_MS: i64 = 1_700_000_000_999;

/// A document's body with these events.
fn body(ids: &[&str]) -> String {
    let event = |id: &&str| format!(r#"{{"id":"{id}","timestamp":"1","testEvent":{{}}}}"#);
    let events: Vec<_> = ids.iter().map(event).collect();
    format!(
        r#"{{"header":{{"deviceId":"d"}},"events":[{}]}}"#,
        events.join(",")
    )
}

fn joined(bodies: &[String]) -> Message {
    let single = |(body, seq): (&String, u64)| {
        let events = body.matches("\"id\"").count().max(1);
        let document = Document {
            seq: Seq(seq),
            part: 0,
            received_at_ms: NOW_MS,
            indexes: crate::event::identity::format_index_range(events),
        };
        let mut message = Message {
            routing_key: "TestEvent".into(),
            content_type: Some(JSON.into()),
            body: body.clone().into(),
            ..Message::default()
        };
        message.tell("edge-1", &document);
        (document, message)
    };
    Message::join("edge-1", bodies.iter().zip(1..).map(single).collect()).unwrap()
}

fn delivered(message: Message, number: u64) -> Delivery {
    Delivery {
        message,
        redelivered: false,
        tag: Tag::of_test(number),
    }
}

fn handle(message: &Message) -> Items {
    let input = super::super::worker::input(message);
    handlers::run_guarded(
        Handler::Events,
        &EVENTS,
        &input,
        &Context::default(),
        NOW_MS,
    )
}

fn take(message: Message) -> Vec<Pending> {
    taken(delivered(message, 1), true, handle)
}

#[test]
fn documents_make_the_rows_that_single_messages_make() {
    let bodies = [body(&["a", "b"]), body(&["c"]), body(&["d"])];
    let message = joined(&bodies);
    let alone = message.documents().unwrap().into_iter();
    let alone: Vec<_> = alone.flat_map(|(_, single)| take(single)).collect();
    let together = take(message);
    assert_eq!(together.len(), 3);
    let rows = |documents: &[Pending]| {
        let items = documents.iter().flat_map(|d| d.items.as_ref().unwrap());
        let rows: Vec<_> = items.map(|item| format!("{item:?}")).collect();
        rows
    };
    assert_eq!(rows(&together), rows(&alone));
    assert_eq!(rows(&together).len(), 4);
}

#[test]
fn a_bad_document_is_refused_alone() {
    let bodies = [body(&["a"]), "not json".to_owned(), body(&["c"])];
    let documents = take(joined(&bodies));
    assert_eq!(documents.len(), 3);
    assert!(documents[0].items.is_ok() && documents[2].items.is_ok());
    let bad = &documents[1];
    let reason = bad.items.as_ref().unwrap_err();
    assert!(reason.contains("not protobuf JSON"), "{reason}");
    let headers = &bad.message.headers;
    assert_eq!(headers.int(SEQ_HEADER), Some(2));
    assert_eq!(headers.text(INDEXES_HEADER).unwrap(), "0");
    assert_eq!(bad.message.body, "not json");
    assert!(!bad.message.has_documents());
}

#[test]
fn a_message_at_odds_with_itself_is_refused_whole() {
    let bodies = [body(&["a", "b"]), body(&["c"]), body(&["d"])];
    let good = joined(&bodies);
    let mut short = good.clone();
    short.body = format!("{}\n{}\n", bodies[0], bodies[1]).into();
    // As many lines, but not the ones that the header tells of.
    let mut moved = good.clone();
    moved.body = format!("{}\n{}\n{}\n", bodies[1], bodies[0], bodies[2]).into();
    let mut nameless = good;
    nameless.headers.remove(DOCUMENTS_HEADER);
    for (message, said) in [
        (short, "2 lines, and 3 documents"),
        (moved, "document 1 has 1 events, and 2 places"),
        (nameless, "do not agree"),
    ] {
        let documents = take(message.clone());
        assert_eq!(documents.len(), 1, "{said}");
        assert_eq!(documents[0].message, message, "as it came");
        let reason = documents[0].items.as_ref().unwrap_err();
        assert!(reason.contains(said), "{reason}");
    }
}

#[test]
fn batches_end_within_a_message() {
    let bodies: Vec<_> = (0..25).map(|at| body(&[&format!("e{at}")])).collect();
    let mut waiting: VecDeque<_> = take(joined(&bodies)).into();
    let mut batch = Batch::new(10);
    let mut sizes = Vec::new();
    while !waiting.is_empty() {
        batch.fill(&mut waiting);
        sizes.push(batch.take().len());
        assert!(batch.is_empty() && !batch.is_full());
    }
    assert_eq!(sizes, [10, 10, 5]);
    // And by bytes, of which the last document may go beyond.
    let large = "x".repeat(BATCH_BYTES_MAX / 2);
    let large = [&large, &large, &large].map(Clone::clone);
    let mut waiting: VecDeque<_> = take(joined(&large)).into();
    batch.fill(&mut waiting);
    assert!(batch.is_full());
    assert_eq!((batch.take().len(), waiting.len()), (2, 1));
    // Headers are bytes, too.
    let headed = |number: u64| {
        let mut message = Message::default();
        message
            .headers
            .set("x-large", "x".repeat(BATCH_BYTES_MAX / 2));
        taken(delivered(message, number), false, handle)
    };
    let mut waiting: VecDeque<_> = (1..=3).flat_map(headed).collect();
    batch.fill(&mut waiting);
    assert_eq!((batch.take().len(), waiting.len()), (2, 1));
}

proptest! {
    #[test]
    fn a_delivery_is_done_with_its_last_document(
        sizes in proptest::collection::vec(1usize..5, 1..10),
        order in any::<u64>(),
    ) {
        let mut unsettled = Unsettled::default();
        let mut open = Vec::new();
        for (size, number) in sizes.iter().zip(1..) {
            unsettled.add(Tag::of_test(number), *size);
            open.extend(std::iter::repeat_n(number, *size));
        }
        let mut settled = Vec::new();
        let mut state = order;
        while !open.is_empty() {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let number = open.swap_remove((state >> 33) as usize % open.len());
            let done = unsettled.done([Tag::of_test(number)]);
            let is_last = !open.contains(&number);
            prop_assert_eq!(done.len(), usize::from(is_last));
            settled.extend(done);
        }
        settled.sort();
        let all: Vec<_> = (1..).take(sizes.len()).map(Tag::of_test).collect();
        prop_assert_eq!(settled, all);
        prop_assert!(unsettled.0.is_empty());
        // What is done does not count again.
        prop_assert!(unsettled.done([Tag::of_test(1)]).is_empty());
    }
}
