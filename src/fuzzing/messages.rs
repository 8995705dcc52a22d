//! A foreign producer's message, from the frame that RabbitMQ sends to the rows of any
//! handler, and what becomes of it when it is refused.
//!
//! The bytes: which handler (1), which content type (1), the length of the headers
//! (2, big endian), the headers as AMQP encodes a table without its length, the body.

use super::rows::{self, HANDLERS};
use crate::broker::fuzzing::received;
use crate::consume::fuzzing::{input, part};
use crate::event::envelope::{JSON, PROTOBUF};

/// Content types that producers set, and none.
const KINDS: [Option<&str>; 4] = [None, Some(JSON), Some(PROTOBUF), Some("text/plain")];

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
    let (handler, table) = HANDLERS[usize::from(*handler) % HANDLERS.len()];
    let input = input(&message);
    assert_eq!(input.content_type, kind);
    let rows = rows::run(handler, table, &input);
    // Refused as a whole, or one row of it: what goes to the error queue can be handled, too.
    assert_eq!(part(&message, None).body, message.body);
    for at in 0..rows.unwrap_or(0).min(3) {
        let one = part(&message, Some(at));
        // As text: some numbers are not equal to themselves.
        let [first, again] = [part(&one, Some(0)), part(&one, None)].map(|m| format!("{m:?}"));
        assert_eq!(first, again, "a part has parts itself");
    }
}
