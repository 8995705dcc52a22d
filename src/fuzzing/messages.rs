//! A foreign producer's message, from the frame that RabbitMQ sends to the rows of any
//! handler, and what becomes of it when it is refused.
//!
//! The bytes: which handler (1), which content type (1), the length of the headers
//! (2, big endian), the headers as AMQP encodes a table without its length, the body.

use super::rows::{self, HANDLERS};
use crate::broker::Message;
use crate::broker::fuzzing::received;
use crate::config::Handler;
use crate::consume::fuzzing::{input, part};
use crate::event::documents::{DOCUMENTS, DOCUMENTS_MAX};
use crate::event::envelope::{HOST_HEADER, JSON, PROTOBUF};
use crate::sink::schema::Table;

/// Content types that producers set, and none.
const KINDS: [Option<&str>; 5] = [
    None,
    Some(JSON),
    Some(PROTOBUF),
    Some("text/plain"),
    Some(DOCUMENTS),
];

pub(super) fn message(data: &[u8]) {
    let Some(([handler, kind, high, low], rest)) = data.split_first_chunk::<4>() else {
        return;
    };
    let length = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
    let (table, body) = rest.split_at(length);
    let kind = KINDS[usize::from(*kind) % KINDS.len()];
    // lapin refuses the whole connection for headers that it cannot read.
    let Some(message) = received(table, kind, body) else {
        return;
    };
    let handler = HANDLERS[usize::from(*handler) % HANDLERS.len()];
    assert_eq!(input(&message).content_type, kind);
    alone(&message, handler);
    if message.has_documents() {
        several(&message, handler);
    }
}

/// A message as one document.
fn alone(message: &Message, (handler, table): (Handler, &'static Table)) {
    let rows = rows::run(handler, table, &input(message));
    // Refused as a whole, or one row of it: what goes to the error queue can be handled, too.
    assert_eq!(part(message, None).body, message.body);
    for at in 0..rows.unwrap_or(0).min(3) {
        let one = part(message, Some(at));
        // As text: some numbers are not equal to themselves.
        let [first, again] = [part(&one, Some(0)), part(&one, None)].map(|m| format!("{m:?}"));
        assert_eq!(first, again, "a part has parts itself");
    }
}

/// A message that says that it holds several: each line of it is one, or none is.
fn several(message: &Message, handler: (Handler, &'static Table)) {
    let documents = match message.documents() {
        Ok(documents) => documents,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    assert!((1..=DOCUMENTS_MAX).contains(&documents.len()));
    let lines = message.body.split(|byte| *byte == b'\n');
    assert!(
        lines
            .zip(&documents)
            .all(|(line, (_, single))| single.body == line)
    );
    for (_, single) in documents.iter().take(3) {
        assert!(!single.has_documents());
        alone(single, handler);
    }
    // Written again, it is read as the same.
    let host = message.headers.text(HOST_HEADER).expect("it was read");
    let joined = Message::join(&host, documents.clone()).expect("there are documents");
    let again = match joined.has_documents() {
        true => joined.documents().expect("it was joined"),
        false => vec![(documents[0].0.clone(), joined)],
    };
    assert_eq!(format!("{again:?}"), format!("{documents:?}"));
}
