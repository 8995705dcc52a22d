//! What of a message goes to another attempt or to the error queue: all of it, or the
//! one event that was refused. Called by `worker`.
//!
//! # Invariants
//! - A message of which nothing else is left stays as its producer made it, byte for
//!   byte and with its id; so does the refused event of a larger one at its next attempts.
//! - The routing key that it was first published with is kept beside it.

use crate::broker::Message;
use crate::event::envelope::{self, INDEXES_HEADER, LETTER_HEADER, ROUTING_KEY_HEADER};
use crate::event::{identity, limits};

/// A copy of the message with the event at a place of it, or all of it.
pub(super) fn part(message: &Message, at: Option<usize>) -> Message {
    let mut copy = message.clone();
    if copy.headers.text(ROUTING_KEY_HEADER).is_none() {
        copy.headers
            .set(ROUTING_KEY_HEADER, message.routing_key.clone());
    }
    let Some(at) = at else {
        return copy;
    };
    // The handler read it before, so it can be read again; if not, all of it goes.
    let kind = message.content_type.as_deref();
    if let Ok(Some(body)) = envelope::single(kind, &message.body, at) {
        copy.body = body.into();
        let indexes = message.headers.text(INDEXES_HEADER).unwrap_or_default();
        let place = identity::parse_indexes(&indexes, limits::EVENTS_PER_MESSAGE_MAX)
            .and_then(|indexes| indexes.get(at).copied());
        if let Some(place) = place {
            copy.headers.set(INDEXES_HEADER, place.to_string());
        }
        copy.message_id = message.message_id.as_ref().map(|id| format!("{id}/{at}"));
        // Parts of a message that was refused as a whole are letters of their own.
        copy.headers.remove(LETTER_HEADER);
    }
    copy
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As foreign producers write it: spaces, a zero field, a number for an int64.
    const HEAD: &str = r#"{ "header": {"deviceId": "d", "userId": 7, "os": ""}, "events": ["#;
    const FIRST: &str = r#"{"id": "a", "timestamp": "1"}"#;
    const SECOND: &str = r#"{"id": "b", "timestamp": "2"}"#;

    fn message(events: &[&str]) -> Message {
        let mut message = Message {
            routing_key: "LaunchEvent".to_owned(),
            message_id: Some("m".to_owned()),
            body: format!("{HEAD}{}] }}", events.join(",")).into(),
            ..Message::default()
        };
        message.headers.set(INDEXES_HEADER, "4,9");
        message
    }

    #[test]
    fn a_message_of_one_event_stays_as_it_was_made() {
        let sent = message(&[FIRST]);
        let mut handed = part(&sent, Some(0));
        let key = handed.headers.remove(ROUTING_KEY_HEADER);
        assert_eq!(key, Some("LaunchEvent".into()));
        assert_eq!(handed, sent);
    }

    #[test]
    fn of_several_events_only_the_refused_one_goes() {
        let mut sent = message(&[FIRST, SECOND]);
        sent.headers.set(LETTER_HEADER, "of the whole");
        let first = part(&sent, Some(1));
        assert_eq!(first.headers.text(LETTER_HEADER), None);
        let text = String::from_utf8(first.body.to_vec()).unwrap();
        assert!(
            text.contains(r#""b""#) && !text.contains(r#""a""#),
            "{text}"
        );
        assert_eq!(first.message_id.as_deref(), Some("m/1"));
        assert_eq!(first.headers.text(INDEXES_HEADER).unwrap(), "9");
        // It does not change any more, however often it is tried.
        assert_eq!(part(&first, Some(0)), first);
    }

    #[test]
    fn what_holds_no_events_goes_whole() {
        for body in ["{}", "not json", r#"{"eventTime": 5}"#] {
            let mut sent = message(&[]);
            sent.body = body.into();
            assert_eq!(part(&sent, Some(0)).body, sent.body, "{body}");
            assert_eq!(part(&sent, None).message_id, sent.message_id);
        }
    }
}
