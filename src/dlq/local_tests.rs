//! Tests of `local`: what is tried, and what becomes of what was not.

use super::*;
use crate::dead_letters::DeadLetters;
use crate::event::envelope::{
    EARLIER_REASON_HEADER, HISTORY_HEADER, REASON_HEADER, REFUSED_AT_HEADER, RETRY_COUNT_HEADER,
};
use crate::event::proto::event::EventOf;
use crate::event::proto::{Event, Events, Header, TestEvent};
use crate::sink::schema::Table;
use crate::sink::{Batch, SchemaError, WriteError};
use crate::telemetry::Metrics;
use prost::Message as _;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio_util::sync::CancellationToken;

/// A letter of a message with these headers, which goes to the queue "q".
fn kept(headers: &[(&str, &str)]) -> (DeadLetter, Parcel) {
    let mut message = Message {
        routing_key: "q".into(),
        message_id: Some("m".into()),
        ..Message::default()
    };
    for (name, value) in headers {
        message.headers.set((*name).to_owned(), *value);
    }
    let parcel = message.to_parcel();
    let letter = DeadLetter {
        way_out: "q".into(),
        event_name: String::new(),
        reason: "too long; and its error queue is not there".into(),
        host: String::new(),
        seq: 0,
        indexes: String::new(),
        content_type: envelope::JSON.to_owned(),
        body: b"{}".to_vec(),
        destination: Destination::Message(parcel.clone()),
    };
    (letter, parcel)
}

#[tokio::test]
async fn what_was_not_tried_keeps_its_reason() {
    let dir = tempfile::tempdir().unwrap();
    let letters = DeadLetters::new(dir.path());
    let (metrics, stop) = (Metrics::new(), CancellationToken::new());
    let (to_broker, _) = kept(&[]);
    let to_sink = DeadLetter {
        way_out: "clickhouse".into(),
        destination: Destination::Table {
            name: "events".into(),
            reason: None,
        },
        ..to_broker.clone()
    };
    for letter in [&to_broker, &to_sink] {
        assert!(letters.keep(letter, &metrics, &stop).await);
    }
    let local = Local::open(dir.path(), Vec::new(), Vec::new()).unwrap();
    let (filter, repaired) = (Filter::default(), Repaired::default());
    let why = Err("the broker is away");
    let (report, ended) = local
        .change(&filter, Act::Replay, None, &repaired, why)
        .await;
    ended.unwrap();
    let said: Vec<_> = report.failures.iter().map(|f| f.reason.as_str()).collect();
    let no_sink = "the sink \"clickhouse\" is not configured";
    assert_eq!((report.done, report.failed), (0, 2));
    assert_eq!(said, ["the broker is away", no_sink]);
    let mut reasons = Vec::new();
    let look = local.look(&filter, |letter| {
        reasons.push(letter.reason);
        ControlFlow::Continue(())
    });
    look.await.unwrap();
    assert_eq!(reasons, [to_broker.reason, to_sink.reason]);
    local.close().await;
    letters.close().await;
}

/// Takes rows, each of which is behind a new letter at once.
#[derive(Debug)]
struct Again {
    letters: DeadLetters,
    letter: DeadLetter,
    written: AtomicU64,
}

#[async_trait::async_trait]
impl Sink for Again {
    fn name(&self) -> &'static str {
        "again"
    }

    async fn write(&self, _: &Batch) -> Result<(), WriteError> {
        let seq = 100 + self.written.fetch_add(1, Ordering::Relaxed);
        let letter = DeadLetter {
            seq,
            ..self.letter.clone()
        };
        let (metrics, stop) = (Metrics::new(), CancellationToken::new());
        assert!(self.letters.keep(&letter, &metrics, &stop).await);
        match seq {
            // It would have no end.
            200.. => Err(WriteError::Unavailable {
                reason: "enough".to_owned(),
                retry_after: None,
                overloaded: false,
            }),
            _ => Ok(()),
        }
    }

    async fn create_missing(&self, _: &[&'static Table]) -> Result<(), SchemaError> {
        Ok(())
    }

    fn ddl(&self, _: &[&'static Table]) -> Vec<String> {
        Vec::new()
    }

    async fn maintain(&self) -> Result<(), SchemaError> {
        Ok(())
    }
}

#[tokio::test]
async fn what_is_set_aside_again_is_for_the_next_time() {
    let dir = tempfile::tempdir().unwrap();
    let letters = DeadLetters::new(dir.path());
    let (metrics, stop) = (Metrics::new(), CancellationToken::new());
    let event = Event {
        id: "a".into(),
        timestamp: "1".into(),
        event_of: Some(EventOf::TestEvent(TestEvent::default())),
        ..Event::default()
    };
    let batch = Events {
        header: Some(Header {
            device_id: "d".into(),
            ..Header::default()
        }),
        events: vec![event],
    };
    let letter = DeadLetter {
        way_out: "again".into(),
        host: "h".into(),
        indexes: "0".into(),
        content_type: envelope::PROTOBUF.to_owned(),
        body: batch.encode_to_vec(),
        destination: Destination::Table {
            name: "events".into(),
            reason: None,
        },
        ..kept(&[]).0
    };
    for seq in 0..20 {
        let letter = DeadLetter {
            seq,
            ..letter.clone()
        };
        assert!(letters.keep(&letter, &metrics, &stop).await);
    }
    let sink = Arc::new(Again {
        letters: letters.clone(),
        letter,
        written: AtomicU64::new(0),
    });
    let local = Local::open(dir.path(), vec![sink], Vec::new()).unwrap();
    let (filter, repaired) = (Filter::default(), Repaired::default());
    for round in 1..=2 {
        let replay = local.change(&filter, Act::Replay, None, &repaired, Err("none"));
        let (report, ended) = replay.await;
        ended.unwrap();
        assert_eq!(
            (report.seen, report.done),
            (20, 20),
            "round {round}: {report:?}"
        );
    }
    local.close().await;
    letters.close().await;
}

#[test]
fn a_kept_letter_is_replayed_as_it_came_but_for_its_history() {
    let came = [("x-bb-os", "android"), (REASON_HEADER, "said elsewhere")];
    let refused = [
        ("x-bb-os", "android"),
        (EARLIER_REASON_HEADER, "said elsewhere"),
        (REASON_HEADER, "too long"),
        (QUEUE_HEADER, "q"),
        (REFUSED_AT_HEADER, "5"),
        (RETRY_COUNT_HEADER, "3"),
    ];
    for (to, queue) in [(None, "q"), (Some("other"), "other")] {
        let (letter, parcel) = kept(&refused);
        let mut message = message_of(&letter, parcel, to);
        assert_eq!(
            (message.exchange.as_str(), message.routing_key.as_str()),
            ("", queue)
        );
        let history = message.headers.list(HISTORY_HEADER);
        let line = format!("replayed from {DEAD_LETTERS} to {queue}");
        assert!(history[0].ends_with(&line), "{history:?}");
        assert_eq!(message.headers.int(RETRY_COUNT_HEADER), Some(0));
        for name in [HISTORY_HEADER, RETRY_COUNT_HEADER] {
            message.headers.remove(name);
        }
        let (letter, parcel) = kept(&came);
        let before = message_of(&letter, parcel, None);
        assert_eq!(message.headers, before.headers);
        assert_eq!(
            (message.message_id, message.body),
            (before.message_id, before.body)
        );
    }
}

#[test]
fn a_reason_that_is_read_where_it_goes_stays() {
    // Of the forwarder; and refused by one consumer, and set aside by that of its error queue.
    for headers in [
        [(REASON_HEADER, "no id"), ("x-bb-os", "ios")],
        [(REASON_HEADER, "no id"), (QUEUE_HEADER, "first")],
    ] {
        let (letter, parcel) = kept(&headers);
        let message = message_of(&letter, parcel, None);
        assert_eq!(
            message.headers.text(REASON_HEADER).as_deref(),
            Some("no id")
        );
        assert_eq!(message.headers.iter().count(), headers.len());
    }
}
