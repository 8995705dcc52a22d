//! A refused message as an operator sees it, wherever it is kept, and which of them are
//! meant. Used by the places, and printed by `cli`.
//!
//! # Invariants
//! - A letter's id is the same at each look, and no other letter's: the worker that refused
//!   the message gave it one. Messages that a foreign producer put into an error queue have
//!   one that is made from what they are (test `ids_are_the_same_at_each_look`).

use crate::broker::Message;
use crate::dead_letters::Kept;
use crate::event::documents::{self, DOCUMENTS_HEADER, Document};
use crate::event::envelope::{
    HISTORY_HEADER, HOST_HEADER, INDEXES_HEADER, LETTER_HEADER, QUEUE_HEADER, REASON_HEADER,
    REFUSED_AT_HEADER, RETRY_COUNT_HEADER, ROUTING_KEY_HEADER, SEQ_HEADER,
};
use crate::event::history;
use crate::event::identity::derived_id;
use crate::event::parcel::{Destination, Parcel};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// Characters of a letter's id: 48 random bits, so that of a million letters no two have one.
const ID_CHARS: usize = 12;

/// Headers that are said in fields of their own.
const OWN_HEADERS: [&str; 10] = [
    HISTORY_HEADER,
    HOST_HEADER,
    INDEXES_HEADER,
    LETTER_HEADER,
    QUEUE_HEADER,
    REASON_HEADER,
    REFUSED_AT_HEADER,
    RETRY_COUNT_HEADER,
    ROUTING_KEY_HEADER,
    SEQ_HEADER,
];

/// A refused message.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Letter {
    /// Names it among all others.
    pub id: String,
    /// The error queue, or the file, that it is in.
    pub place: String,
    /// The queue whose consumer refused it, or the way out: where a replay goes.
    pub queue: String,
    /// Its event type, or the routing key that it was first published with.
    #[serde(rename = "type")]
    pub event_type: String,
    /// Why it is here.
    pub reason: String,
    /// Since when, epoch milliseconds; `None` for messages that a foreign producer put
    /// here without a time.
    pub refused_at_ms: Option<i64>,
    /// The same, to read.
    pub refused_at: Option<String>,
    /// What became of it before.
    pub history: Vec<String>,
    /// The host that took it; empty for foreign messages.
    pub host: String,
    /// Its request there; 0 for foreign messages, and those of several documents.
    pub seq: u64,
    /// Its events' places in the request.
    pub indexes: String,
    /// The same of each document, by the lines of the body, where a message of several was
    /// refused whole.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub documents: Vec<Document>,
    /// The producer's id of the message.
    pub message_id: Option<String>,
    /// What the body is.
    pub content_type: String,
    /// The other headers.
    pub headers: BTreeMap<String, Value>,
    /// The body, where it is text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// The body in base64, where it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_base64: Option<String>,
}

impl Letter {
    /// A message of an error queue; `queue` is the consumer whose error queue it is.
    #[must_use]
    pub fn of_message(place: &str, queue: &str, message: &Message) -> Self {
        let headers = &message.headers;
        let text = |name: &str| headers.text(name).map(|text| text.into_owned());
        let made_at_ms = message.timestamp_s.and_then(|s| i64::try_from(s).ok());
        let made_at_ms = made_at_ms.and_then(|s| s.checked_mul(1000));
        let event_type = text(ROUTING_KEY_HEADER).unwrap_or_else(|| message.routing_key.clone());
        let content = [
            message.message_id.as_deref().unwrap_or_default().as_bytes(),
            b"\0",
            text(INDEXES_HEADER).unwrap_or_default().as_bytes(),
            b"\0",
            event_type.as_bytes(),
            b"\0",
            &message.body,
        ]
        .concat();
        let id = text(LETTER_HEADER).unwrap_or_else(|| derived_id(&content, 0));
        let seq = headers.int(SEQ_HEADER).and_then(|seq| seq.try_into().ok());
        Self {
            id: id.chars().filter(|c| *c != '-').take(ID_CHARS).collect(),
            queue: text(QUEUE_HEADER).unwrap_or_else(|| queue.to_owned()),
            event_type,
            reason: text(REASON_HEADER).unwrap_or_default(),
            history: headers.list(HISTORY_HEADER),
            host: text(HOST_HEADER).unwrap_or_default(),
            seq: seq.unwrap_or(0),
            indexes: text(INDEXES_HEADER).unwrap_or_default(),
            message_id: message.message_id.clone(),
            content_type: message.content_type.clone().unwrap_or_default(),
            documents: documents_of(&message.to_parcel()),
            headers: others(message.to_parcel()),
            ..Self::new(
                place,
                headers.int(REFUSED_AT_HEADER).or(made_at_ms),
                &message.body,
            )
        }
    }

    /// A letter of this host's file.
    #[must_use]
    pub fn of_kept(place: &str, kept: &Kept) -> Self {
        let letter = &kept.letter;
        let parcel = match &letter.destination {
            Destination::Message(parcel) => parcel.clone(),
            Destination::Table { .. } | Destination::Webhook { .. } | Destination::Nowhere => {
                Parcel::default()
            }
        };
        let history = parcel.headers.get(HISTORY_HEADER).and_then(Value::as_array);
        let history = history.into_iter().flatten().filter_map(Value::as_str);
        Self {
            id: kept.id.to_string(),
            queue: letter.way_out.clone(),
            event_type: letter.event_name.clone(),
            reason: letter.reason.clone(),
            history: history.map(str::to_owned).collect(),
            host: letter.host.clone(),
            seq: letter.seq,
            indexes: letter.indexes.clone(),
            message_id: parcel.message_id.clone(),
            content_type: letter.content_type.clone(),
            documents: documents_of(&parcel),
            headers: others(parcel),
            ..Self::new(place, Some(kept.set_aside_at_ms), &letter.body)
        }
    }

    fn new(place: &str, refused_at_ms: Option<i64>, body: &[u8]) -> Self {
        let text = std::str::from_utf8(body).ok().map(str::to_owned);
        Self {
            id: String::new(),
            place: place.to_owned(),
            queue: String::new(),
            event_type: String::new(),
            reason: String::new(),
            refused_at_ms,
            refused_at: refused_at_ms.map(history::time),
            history: Vec::new(),
            host: String::new(),
            seq: 0,
            indexes: String::new(),
            documents: Vec::new(),
            message_id: None,
            content_type: String::new(),
            headers: BTreeMap::new(),
            body_base64: text.is_none().then(|| STANDARD.encode(body)),
            body: text,
        }
    }
}

/// The documents that a header tells of; none where it cannot be read.
fn documents_of(parcel: &Parcel) -> Vec<Document> {
    let header = parcel.headers.get(DOCUMENTS_HEADER).and_then(Value::as_str);
    let documents = header.and_then(|header| documents::parse(header).ok());
    documents.unwrap_or_default()
}

/// Headers that no field has. Credentials that a producer sent are not shown.
fn others(parcel: Parcel) -> BTreeMap<String, Value> {
    let headers = parcel.headers.into_iter();
    headers
        .filter(|(name, value)| {
            let is_read = name == DOCUMENTS_HEADER
                && value
                    .as_str()
                    .is_some_and(|text| documents::parse(text).is_ok());
            !(is_read || OWN_HEADERS.contains(&name.as_str()))
        })
        .map(|(name, value)| {
            let is_secret = crate::event::webhook::is_credential(&name.to_ascii_lowercase());
            (name, if is_secret { "***".into() } else { value })
        })
        .collect()
}

/// Which letters are meant: those that every part that is set agrees to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Filter {
    /// Consumers' queues, ways out, or error queues.
    pub queues: Vec<String>,
    /// Event types, or first routing keys.
    pub types: Vec<String>,
    /// A part of the reason, in any case.
    pub reason: Option<String>,
    /// Refused at this time or later, epoch milliseconds.
    pub since_ms: Option<i64>,
    /// Ids.
    pub ids: Vec<String>,
}

impl Filter {
    /// Whether it means everything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a letter is meant.
    #[must_use]
    pub fn means(&self, letter: &Letter) -> bool {
        let among = |list: &[String], names: &[&str]| {
            list.is_empty() || list.iter().any(|one| names.contains(&one.as_str()))
        };
        let reason = self.reason.as_ref();
        among(&self.queues, &[&letter.queue, &letter.place])
            && among(&self.types, &[&letter.event_type])
            && among(&self.ids, &[&letter.id])
            && reason.is_none_or(|part| {
                let reason = letter.reason.to_lowercase();
                reason.contains(&part.to_lowercase())
            })
            && self
                .since_ms
                .is_none_or(|since| letter.refused_at_ms >= Some(since))
    }

    /// Whether a place can hold letters that are meant, as far as names tell.
    #[must_use]
    pub fn may_mean(&self, names: &[&str]) -> bool {
        self.queues.is_empty() || self.queues.iter().any(|one| names.contains(&one.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> Message {
        let mut message = Message {
            routing_key: "error.branch_event_q".into(),
            message_id: Some("m".into()),
            timestamp_s: Some(1_700_000_000),
            body: bytes::Bytes::from_static(b"{\"a\":1}"),
            ..Message::default()
        };
        let headers = &mut message.headers;
        headers.set(REASON_HEADER, "id: Missing");
        headers.set(ROUTING_KEY_HEADER, "INSTALL");
        headers.set("Authorization", "hunter2");
        headers.set("x-bb-os", "android");
        message
    }

    #[test]
    fn ids_are_the_same_at_each_look() {
        let letter = |message: &Message| Letter::of_message("p", "branch_event_q", message);
        let first = letter(&message());
        assert_eq!(first.id.len(), ID_CHARS);
        // What later attempts and looks add says nothing of what it is.
        let mut later = message();
        later.headers.set(RETRY_COUNT_HEADER, 2_i64);
        later.headers.set("x-delivery-count", 9_i64);
        later.headers.set(REASON_HEADER, "another");
        assert_eq!(letter(&later).id, first.id);
        // Two that are alike in everything are two letters once they were refused.
        let mut twin = message();
        twin.headers.set(LETTER_HEADER, "0f6c2d7a-11");
        assert_eq!(letter(&twin).id, "0f6c2d7a11");
        for change in [
            |m: &mut Message| m.message_id = Some("n".into()),
            |m: &mut Message| m.body = bytes::Bytes::from_static(b"{}"),
            |m: &mut Message| drop(m.headers.set(INDEXES_HEADER, "3")),
        ] {
            let mut other = message();
            change(&mut other);
            assert_ne!(letter(&other).id, first.id);
        }
    }

    #[test]
    fn a_letter_of_several_documents_says_whose_they_are() {
        let mut message = message();
        let entries = "7:0:5:0-2;9:1:6:3";
        message.headers.set(HOST_HEADER, "edge-1");
        message.headers.set(DOCUMENTS_HEADER, entries);
        let letter = Letter::of_message("p", "q", &message);
        let seqs: Vec<_> = letter.documents.iter().map(|d| d.seq.0).collect();
        assert_eq!((seqs, letter.seq), (vec![7, 9], 0));
        assert!(!letter.headers.contains_key(DOCUMENTS_HEADER));
        let json = serde_json::to_value(&letter).unwrap();
        let second = serde_json::json!({"seq": 9, "part": 1, "received_at_ms": 6, "indexes": "3"});
        assert_eq!(json["documents"][1], second);
        // One that cannot be read is shown as it is.
        message.headers.set(DOCUMENTS_HEADER, "7:0;x");
        let letter = Letter::of_message("p", "q", &message);
        assert_eq!(letter.headers[DOCUMENTS_HEADER], "7:0;x");
        assert!(letter.documents.is_empty());
    }

    #[test]
    fn credentials_and_bytes_that_are_no_text_are_not_printed_as_they_are() {
        let mut message = message();
        message.body = bytes::Bytes::from_static(b"\xff\x00");
        let letter = Letter::of_message("p", "q", &message);
        let text = serde_json::to_string(&letter).unwrap();
        assert!(!text.contains("hunter2"), "{text}");
        assert_eq!(letter.headers["x-bb-os"], "android");
        assert_eq!(
            (letter.body, letter.body_base64.as_deref()),
            (None, Some("/wA="))
        );
        assert_eq!(
            letter.refused_at.as_deref(),
            Some("2023-11-14T22:13:20.000Z")
        );
    }

    #[test]
    fn every_part_of_a_filter_must_agree() {
        let letter = Letter::of_message("branch_event_q_error", "branch_event_q", &message());
        let all = Filter::default();
        assert!(all.is_empty() && all.means(&letter));
        type Set = fn(&mut Filter);
        let yes: [Set; 6] = [
            |f| f.queues = vec!["x".into(), "branch_event_q".into()],
            |f| f.queues = vec!["branch_event_q_error".into()],
            |f| f.types = vec!["INSTALL".into()],
            |f| f.reason = Some("missing".into()),
            |f| f.since_ms = Some(1_700_000_000_000),
            |f| f.ids = Vec::new(),
        ];
        let no: [Set; 5] = [
            |f| f.queues = vec!["branch".into()],
            |f| f.types = vec!["install".into()],
            |f| f.reason = Some("type".into()),
            |f| f.since_ms = Some(1_700_000_000_001),
            |f| f.ids = vec!["x".into()],
        ];
        for set in yes {
            let mut filter = Filter::default();
            set(&mut filter);
            assert!(filter.means(&letter), "{filter:?}");
            for unset in no {
                let mut both = filter.clone();
                unset(&mut both);
                assert!(!both.means(&letter), "{both:?}");
            }
        }
        let since = Filter {
            since_ms: Some(0),
            ..Filter::default()
        };
        let mut timeless = letter;
        timeless.refused_at_ms = None;
        assert!(!since.means(&timeless), "nothing says that it is as new");
    }
}
