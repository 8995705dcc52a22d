//! A letter as the message that it was before it was refused. Pure; called by `queues` and
//! `local`.
//!
//! # Invariants
//! - A replay is the message as it came, but for its history: what the refusal added is gone, and
//!   what it replaced is back (tests `a_replay_is_as_it_came_but_for_its_history`,
//!   `a_kept_letter_is_replayed_as_it_came_but_for_its_history`).

use crate::broker::{Headers, Message};
use crate::clock::now_ms;
use crate::event::envelope::{
    EARLIER_REASON_HEADER, HISTORY_HEADER, QUEUE_HEADER, REASON_HEADER, REFUSED_AT_HEADER,
    RETRY_COUNT_HEADER,
};
use crate::event::history;

/// A message for one queue alone.
pub(super) fn to_queue(mut message: Message, queue: &str) -> Message {
    // The default exchange reaches the queue of this name, and no other.
    message.exchange = String::new();
    queue.clone_into(&mut message.routing_key);
    message
}

/// A letter as a message that was never tried, but for its history.
pub(super) fn again(message: Message, from: &str, queue: &str) -> Message {
    let mut message = to_queue(message, queue);
    untried(&mut message.headers, from, queue);
    message
}

/// Takes back what a refusal did to the headers, and notes the replay.
pub(super) fn untried(headers: &mut Headers, from: &str, to: &str) {
    for name in [REASON_HEADER, REFUSED_AT_HEADER, QUEUE_HEADER] {
        headers.remove(name);
    }
    if let Some(earlier) = headers.remove(EARLIER_REASON_HEADER) {
        headers.set(REASON_HEADER, earlier);
    }
    headers.set(RETRY_COUNT_HEADER, 0_i64);
    let line = history::replayed(now_ms(), from, to);
    let lines = history::with(headers.list(HISTORY_HEADER), line);
    headers.set(HISTORY_HEADER, lines);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replay_is_as_it_came_but_for_its_history() {
        let mut came = Message {
            exchange: "e".into(),
            routing_key: "error.q".into(),
            message_id: Some("m".into()),
            body: bytes::Bytes::from_static(b"{}"),
            ..Message::default()
        };
        came.headers.set("x-bb-os", "android");
        came.headers.set(REASON_HEADER, "said by another host");
        let mut refused = came.clone();
        let headers = &mut refused.headers;
        for (name, value) in [
            (EARLIER_REASON_HEADER, "said by another host"),
            (REASON_HEADER, "too long"),
            (QUEUE_HEADER, "q"),
            (REFUSED_AT_HEADER, "5"),
            (RETRY_COUNT_HEADER, "3"),
        ] {
            headers.set(name, value);
        }
        let mut replayed = again(refused, "q_error", "q");
        assert_eq!(
            (replayed.exchange.as_str(), replayed.routing_key.as_str()),
            ("", "q")
        );
        let history = replayed.headers.list(HISTORY_HEADER);
        assert!(
            history[0].ends_with("replayed from q_error to q"),
            "{history:?}"
        );
        for name in [HISTORY_HEADER, RETRY_COUNT_HEADER] {
            replayed.headers.remove(name);
        }
        assert_eq!(replayed.headers, came.headers);
        assert_eq!(
            (replayed.message_id, replayed.body),
            (came.message_id, came.body)
        );
        // Without a reason from elsewhere there is none after the replay.
        let mut plain = Message::default();
        plain.headers.set(REASON_HEADER, "too long");
        assert_eq!(
            again(plain, "q_error", "q").headers.text(REASON_HEADER),
            None
        );
    }
}
