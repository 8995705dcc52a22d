//! Several documents in one message, and each of them as the message that it would be alone.
//! Called by `forward`, which joins what it sends and takes apart what no queue takes, and by
//! the consumers, which take apart what comes.
//!
//! # Invariants
//! - Joined and taken apart, each document is the message that it was: its body, its headers,
//!   its id and its time (test `joined_and_taken_apart_messages_are_as_they_were`).
//! - What does not agree within itself is an error, and nothing is guessed (tests here, and in
//!   `event::documents`).

use super::message::Message;
use crate::event::documents::{
    DOCUMENTS, DOCUMENTS_HEADER, Document, DocumentsError, is_documents, lines, message_id, parse,
};
use crate::event::envelope::{
    HOST_HEADER, INDEXES_HEADER, JSON, LETTER_HEADER, RECEIVED_HEADER, SEQ_HEADER,
};
use crate::event::identity::HostId;
use bytes::Bytes;

impl Message {
    /// One message of several of this host, to the same exchange under the same key, in the
    /// order of `singles`: each with who it is, which need not be told of it yet. A single one
    /// is told of it.
    #[must_use]
    pub fn join(host: &str, singles: Vec<(Document, Self)>) -> Option<Self> {
        let more = singles.len().checked_sub(1)?;
        let mut body = Vec::new();
        let mut entries = String::new();
        if more > 0 {
            let bytes = singles.iter().map(|(_, single)| single.body.len() + 1);
            body.reserve_exact(bytes.sum());
            for (document, single) in &singles {
                document.add_entry(&mut entries);
                body.extend_from_slice(&single.body);
                body.push(b'\n');
            }
        }
        let (document, mut joined) = singles.into_iter().next()?;
        joined.tell(host, &document);
        if more == 0 {
            return Some(joined);
        }
        for of_one in [SEQ_HEADER, INDEXES_HEADER, RECEIVED_HEADER] {
            joined.headers.remove(of_one);
        }
        joined.headers.set(DOCUMENTS_HEADER, entries);
        joined.message_id = joined.message_id.map(|id| format!("{id}+{more}"));
        joined.content_type = Some(DOCUMENTS.to_owned());
        joined.body = body.into();
        Some(joined)
    }

    /// Whether it says that it holds several documents: by its header, or its content type.
    #[must_use]
    pub fn has_documents(&self) -> bool {
        self.headers.get(DOCUMENTS_HEADER).is_some()
            || self.content_type.as_deref().is_some_and(is_documents)
    }

    /// Its documents, each as the message that it would be alone, with who it is.
    ///
    /// # Errors
    /// See [`DocumentsError`].
    pub fn documents(&self) -> Result<Vec<(Document, Self)>, DocumentsError> {
        let kind = self.content_type.as_deref().unwrap_or_default();
        let header = self.headers.text(DOCUMENTS_HEADER);
        let header = header.filter(|_| is_documents(kind));
        let header = header.ok_or_else(|| DocumentsError::ContentType(cut(kind)))?;
        let host = self.headers.text(HOST_HEADER);
        let host = host.and_then(|host| HostId::parse(&host).ok());
        let host = host.ok_or(DocumentsError::NoHost)?;
        let documents = parse(&header)?;
        let lines = lines(&self.body, documents.len())?;
        let mut common = Self {
            body: Bytes::new(),
            content_type: Some(JSON.to_owned()),
            message_id: None,
            ..self.clone()
        };
        // Two documents of a message that was refused whole are two letters.
        for of_all in [DOCUMENTS_HEADER, LETTER_HEADER] {
            common.headers.remove(of_all);
        }
        let of_line = |(document, line): (Document, _)| {
            let mut single = Self {
                body: self.body.slice(line),
                ..common.clone()
            };
            single.tell(host.as_str(), &document);
            (document, single)
        };
        Ok(documents.into_iter().zip(lines).map(of_line).collect())
    }

    /// Sets what tells where a message came from.
    pub fn tell(&mut self, host: &str, document: &Document) {
        let Document {
            seq,
            part,
            received_at_ms,
            indexes,
        } = document;
        let headers = &mut self.headers;
        headers.set(HOST_HEADER, host);
        headers.set(SEQ_HEADER, i64::try_from(seq.0).unwrap_or(i64::MAX));
        headers.set(INDEXES_HEADER, indexes.as_str());
        headers.set(RECEIVED_HEADER, *received_at_ms);
        self.message_id = Some(message_id(host, *seq, *part));
        self.timestamp_s = u64::try_from(received_at_ms / 1000).ok();
    }
}

/// Foreign text goes into a reason.
fn cut(text: &str) -> String {
    text.chars().take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::identity::Seq;
    use proptest::prelude::*;

    fn single(seq: u64, part: u32, indexes: &str, body: &str) -> (Document, Message) {
        let document = Document {
            seq: Seq(seq),
            part,
            received_at_ms: 1_700_000_000_000 + i64::try_from(seq).unwrap(),
            indexes: indexes.to_owned(),
        };
        let mut message = Message {
            exchange: "grpc_event.tx".into(),
            routing_key: "LaunchEvent".into(),
            content_type: Some(JSON.into()),
            body: body.to_owned().into(),
            ..Message::default()
        };
        message.tell("edge-1", &document);
        (document, message)
    }

    fn joined() -> Message {
        let singles = [
            single(7, 0, "0-2", r#"{"a":1}"#),
            single(7, 1, "3", "{}"),
            single(9, 0, "0", "[]"),
        ];
        Message::join("edge-1", singles.into()).unwrap()
    }

    proptest! {
        #[test]
        fn joined_and_taken_apart_messages_are_as_they_were(
            bodies in proptest::collection::vec("[^\n]{1,80}", 1..50),
            step in 1..1000u64,
        ) {
            let singles: Vec<_> = bodies.iter().zip(1..).map(|(body, at)| {
                single(at * step, u32::try_from(at % 3).unwrap(), "0-4,9", body)
            }).collect();
            let joined = Message::join("edge-1", singles.clone()).unwrap();
            prop_assert_eq!(joined.has_documents(), singles.len() > 1);
            if singles.len() == 1 {
                prop_assert_eq!(&joined, &singles[0].1);
            } else {
                prop_assert_eq!(joined.documents(), Ok(singles));
            }
        }
    }

    #[test]
    fn a_joined_message_says_what_it_is_and_nothing_of_one_document() {
        let joined = joined();
        assert_eq!(joined.message_id.as_deref(), Some("edge-1-7-0+2"));
        assert_eq!(joined.timestamp_s, Some(1_700_000_000));
        assert_eq!(joined.body, "{\"a\":1}\n{}\n[]\n");
        assert_eq!(joined.content_type.as_deref(), Some(DOCUMENTS));
        let names: Vec<_> = joined.headers.iter().map(|(name, _)| name).collect();
        assert_eq!(names, [DOCUMENTS_HEADER, HOST_HEADER]);
        assert_eq!(
            joined.headers.text(DOCUMENTS_HEADER).unwrap(),
            "7:0:1700000000007:0-2;7:1:1700000000007:3;9:0:1700000000009:0"
        );
        assert_eq!(Message::join("edge-1", Vec::new()), None);
    }

    #[test]
    fn other_headers_go_with_each_document_but_for_the_letter() {
        let mut joined = joined();
        joined.headers.set("x-bb-os", "ios");
        joined.headers.set(LETTER_HEADER, "of the whole");
        for (_, single) in joined.documents().unwrap() {
            assert_eq!(single.headers.text("x-bb-os").unwrap(), "ios");
            assert_eq!(single.headers.text(LETTER_HEADER), None);
            assert!(!single.has_documents());
        }
    }

    #[test]
    fn what_does_not_agree_with_itself_is_not_taken_apart() {
        type Change = fn(&mut Message);
        let changes: [(Change, &str); 8] = [
            (|m| m.body = Bytes::from_static(b"{}\n{}\n"), "2 lines"),
            (|m| m.body = Bytes::new(), "0 lines"),
            (|m| drop(m.headers.remove(DOCUMENTS_HEADER)), "do not agree"),
            (|m| m.content_type = Some(JSON.into()), "do not agree"),
            (|m| m.content_type = None, "do not agree"),
            (|m| drop(m.headers.remove(HOST_HEADER)), "no host"),
            (|m| drop(m.headers.set(HOST_HEADER, "a b")), "no host"),
            (
                |m| drop(m.headers.set(DOCUMENTS_HEADER, "7:0:1:0;x")),
                "entry 2",
            ),
        ];
        for (change, said) in changes {
            let mut message = joined();
            change(&mut message);
            assert!(message.has_documents(), "{said}");
            let error = message.documents().unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
        // A foreign producer's NDJSON is whatever it always was.
        let foreign = Message {
            content_type: Some("application/x-ndjson".into()),
            ..Message::default()
        };
        assert!(!foreign.has_documents());
    }
}
