//! Several documents in one message: who each of them is, and where it ends. Written by
//! `forward` and read by the consumers, both through `broker::Message`, and by `dlq`.
//!
//! The body is NDJSON: each line is an `event.Events` in protobuf JSON, as it would be the body
//! of a message of its own, and nothing else. What such a message says of itself in four headers
//! stands in one here, for each line an entry `SEQ:PART:RECEIVED_AT_MS:INDEXES`, in their order:
//!
//! ```text
//! content type          application/x-ndjson; proto=event.Events
//! x-holdfast-host       c7fd34fb4c144c40868edb4dd667041e
//! x-holdfast-documents  120551:0:1764366052123:0-2;120552:1:1764366052130:1,4
//! ```
//!
//! # Invariants
//! - What is read is what was written (test `documents_survive_their_header_and_lines`), and
//!   nothing is guessed: an entry that is none, entries out of order, and a line more or less
//!   than entries are errors (test `what_does_not_agree_is_refused`).
//! - Bounded, whoever wrote it: [`DOCUMENTS_MAX`] entries in [`HEADER_BYTES_MAX`].

use super::identity::{Seq, parse_indexes};
use super::limits::EVENTS_PER_MESSAGE_MAX;
use serde::Serialize;
use std::fmt::Write as _;
use std::ops::Range;

/// Header: who the documents of a message are.
pub const DOCUMENTS_HEADER: &str = "x-holdfast-documents";

/// Content type of a message of several documents: NDJSON, each line protobuf JSON of an
/// `event.Events`.
pub const DOCUMENTS: &str = "application/x-ndjson; proto=event.Events";

/// Documents of one message. Its consumer keeps a row or more for each until all are
/// committed, and more make nothing faster: from some dozen on a broker works for bytes.
pub const DOCUMENTS_MAX: usize = 1000;

/// Bytes of the header. All headers must fit one frame (128 KiB, of which
/// `broker::Publisher` takes 100 KiB), and what consumers add to them takes some 20 KiB.
/// An entry has 30 bytes or so.
pub const HEADER_BYTES_MAX: usize = 64 << 10;

/// Why a message is not the documents that it says it is. To be refused whole: no attempt
/// helps, and which line is whose would be a guess.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DocumentsError {
    /// Only one of header and content type says that there are several.
    #[error("content type {0:?} and header {DOCUMENTS_HEADER} do not agree")]
    ContentType(String),
    /// It does not say who took them.
    #[error("documents of no host")]
    NoHost,
    /// The header is larger, or names more, than any message from here.
    #[error("{DOCUMENTS_HEADER} is too large: {0}")]
    TooLarge(String),
    /// An entry is none, or out of order.
    #[error("{DOCUMENTS_HEADER}: entry {at} is not one, or out of order: {text:?}")]
    Entry {
        /// Which, from 1.
        at: usize,
        /// What it is, cut.
        text: String,
    },
    /// There are more or fewer.
    #[error("{lines} lines, and {documents} documents in {DOCUMENTS_HEADER}")]
    Lines {
        /// Lines of the body.
        lines: usize,
        /// Entries of the header.
        documents: usize,
    },
    /// A line has more or fewer events than its entry has places.
    #[error("document {at} has {events} events, and {places} places in {DOCUMENTS_HEADER}")]
    Events {
        /// Which, from 1.
        at: usize,
        /// Events of the line.
        events: usize,
        /// Places of the entry.
        places: usize,
    },
}

/// Who a document is, on its host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Document {
    /// The request.
    pub seq: Seq,
    /// Which of the request's messages it would be alone.
    pub part: u32,
    /// When the request was received, epoch milliseconds.
    pub received_at_ms: i64,
    /// Its events' places in the request, as in the `x-holdfast-indexes` header.
    pub indexes: String,
}

impl Document {
    /// Adds its entry to those of a header.
    pub fn add_entry(&self, to: &mut String) {
        let Self {
            seq,
            part,
            received_at_ms,
            indexes,
        } = self;
        if !to.is_empty() {
            to.push(';');
        }
        write!(to, "{seq}:{part}:{received_at_ms}:{indexes}").expect("a text takes any more");
    }

    /// What its entry has in a header at most, with what divides it from the next one.
    #[must_use]
    pub fn entry_bytes_max(&self) -> usize {
        const NUMBERS: usize = "18446744073709551615:4294967295:-9223372036854775808:;".len();
        NUMBERS + self.indexes.len()
    }

    /// The events that its entry has places for.
    #[must_use]
    pub fn places(&self) -> usize {
        parse_indexes(&self.indexes, EVENTS_PER_MESSAGE_MAX).map_or(0, |places| places.len())
    }

    fn read(entry: &str) -> Option<Self> {
        let mut parts = entry.split(':');
        let mut next = || parts.next();
        let seq = Seq(number(next()?)?);
        let part = number(next()?)?;
        let received_at_ms = number(next()?)?;
        let indexes = next()?;
        let places = parse_indexes(indexes, EVENTS_PER_MESSAGE_MAX)?;
        let is_real = (Seq::FIRST..=Seq::MAX).contains(&seq)
            && !places.is_empty()
            && places.is_sorted_by(|one, other| one < other);
        (is_real && parts.next().is_none()).then(|| Self {
            seq,
            part,
            received_at_ms,
            indexes: indexes.to_owned(),
        })
    }

    fn place(&self) -> (Seq, u32) {
        (self.seq, self.part)
    }
}

/// Digits as we write them: no plus sign, which the parser of numbers takes.
fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    (!text.starts_with('+')).then(|| text.parse().ok())?
}

/// The id of a message: of this part of this request.
#[must_use]
pub fn message_id(host: &str, seq: Seq, part: u32) -> String {
    format!("{host}-{seq}-{part}")
}

/// Whether a content type is that of several documents, however it is spelt.
#[must_use]
pub fn is_documents(content_type: &str) -> bool {
    let plain = |text: &str| {
        let chars = text.chars().filter(|c| !c.is_whitespace() && *c != '"');
        chars.collect::<String>().to_ascii_lowercase()
    };
    plain(content_type) == plain(DOCUMENTS)
}

/// The entries of a header.
///
/// # Errors
/// See [`DocumentsError`].
pub fn parse(header: &str) -> Result<Vec<Document>, DocumentsError> {
    if header.len() > HEADER_BYTES_MAX {
        return Err(DocumentsError::TooLarge(format!("{} bytes", header.len())));
    }
    let mut documents: Vec<Document> = Vec::new();
    for entry in header.split(';') {
        if documents.len() == DOCUMENTS_MAX {
            let text = format!("more than {DOCUMENTS_MAX} documents");
            return Err(DocumentsError::TooLarge(text));
        }
        let read = Document::read(entry);
        let read = read.filter(|read| {
            let last = documents.last();
            last.is_none_or(|last| last.place() < read.place())
        });
        let Some(read) = read else {
            let text = entry.chars().take(100).collect();
            let at = documents.len() + 1;
            return Err(DocumentsError::Entry { at, text });
        };
        documents.push(read);
    }
    Ok(documents)
}

/// Where each of so many documents stands in a body.
///
/// # Errors
/// [`DocumentsError::Lines`].
pub fn lines(body: &[u8], documents: usize) -> Result<Vec<Range<usize>>, DocumentsError> {
    let mut ranges = Vec::with_capacity(documents.min(DOCUMENTS_MAX));
    let mut begins = 0;
    let mut lines = 0;
    while begins < body.len() {
        let rest = &body[begins..];
        let length = rest.iter().position(|byte| *byte == b'\n');
        let ends = begins + length.unwrap_or(rest.len());
        lines += 1;
        if ranges.len() < documents {
            ranges.push(begins..ends);
        }
        begins = ends + 1;
    }
    if lines == documents {
        Ok(ranges)
    } else {
        Err(DocumentsError::Lines { lines, documents })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::identity::format_indexes;
    use proptest::prelude::*;

    fn document() -> impl Strategy<Value = (u64, u32, i64, Vec<u32>)> {
        let places = proptest::collection::btree_set(0u32..100_000, 1..40);
        let places = places.prop_map(|set| set.into_iter().collect());
        (1..1000u64, 0..200u32, any::<i64>(), places)
    }

    fn text(documents: &[Document]) -> String {
        let mut entries = String::new();
        for document in documents {
            let before = entries.len();
            document.add_entry(&mut entries);
            assert!(entries.len() - before <= document.entry_bytes_max());
        }
        entries
    }

    proptest! {
        #[test]
        fn documents_survive_their_header_and_lines(
            made in proptest::collection::vec(document(), 1..60),
            bodies in proptest::collection::vec("[^\n]{0,40}", 60),
        ) {
            let mut seq = 0;
            let documents: Vec<_> = made.iter().map(|(step, part, received_at_ms, places)| {
                seq += step;
                Document {
                    seq: Seq(seq),
                    part: *part,
                    received_at_ms: *received_at_ms,
                    indexes: format_indexes(places),
                }
            }).collect();
            prop_assert_eq!(&parse(&text(&documents)), &Ok(documents.clone()));
            for (document, (_, _, _, places)) in documents.iter().zip(&made) {
                prop_assert_eq!(document.places(), places.len());
            }
            let bodies = &bodies[..documents.len()];
            let body: String = bodies.iter().map(|line| format!("{line}\n")).collect();
            let found = lines(body.as_bytes(), documents.len()).unwrap();
            for (range, line) in found.into_iter().zip(bodies) {
                prop_assert_eq!(&body[range], line);
            }
        }

        #[test]
        fn whatever_a_header_says_its_documents_are_written_again_as_they_were(header in "[0-9:;,+ -]{0,60}") {
            if let Ok(documents) = parse(&header) {
                prop_assert_eq!(parse(&text(&documents)), Ok(documents));
            }
        }
    }

    #[test]
    fn what_does_not_agree_is_refused() {
        assert!(parse("1:0:5:0;1:1:5:1-2;2:0:-5:0").is_ok());
        for bad in [
            "",
            "1:0:5:0;",
            "1:0:5",
            "1:0:5:0:0",
            "0:0:5:0",
            "+1:0:5:0",
            "1:-1:5:0",
            "1:0::0",
            "1:0:5:",
            "1:0:5:3,1",
            "1:0:5:0-500",
            "9223372036854775807:0:5:0",
            // Twice, or in another order than that of the log.
            "1:0:5:0;1:0:5:1",
            "2:0:5:0;1:0:5:0",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        let many = |count: usize| {
            let entries: Vec<_> = (1..=count).map(|seq| format!("{seq}:0:5:0")).collect();
            parse(&entries.join(";")).map(|documents| documents.len())
        };
        assert_eq!(many(DOCUMENTS_MAX), Ok(DOCUMENTS_MAX));
        assert!(matches!(
            many(DOCUMENTS_MAX + 1),
            Err(DocumentsError::TooLarge(_))
        ));
        let large = format!("1:0:5:{}", "0,".repeat(HEADER_BYTES_MAX / 2));
        assert!(matches!(parse(&large), Err(DocumentsError::TooLarge(_))));
        for (body, documents, fits) in [
            ("{}\n{}\n", 2, true),
            // The last line may be without its end.
            ("{}\n{}", 2, true),
            ("{}\n\n{}\n", 2, false),
            ("{}\n{}\n\n", 2, false),
            ("\n{}\n", 2, true),
            ("{}\n", 2, false),
            ("{}\n{}\n{}\n", 2, false),
            ("", 1, false),
        ] {
            let found = lines(body.as_bytes(), documents);
            assert_eq!(found.is_ok(), fits, "{body:?}: {found:?}");
        }
    }

    #[test]
    fn the_content_type_is_known_however_it_is_spelt() {
        for same in [
            DOCUMENTS,
            "application/x-ndjson;proto=event.Events",
            "Application/X-NDJSON; proto=\"event.Events\"",
        ] {
            assert!(is_documents(same), "{same}");
        }
        for other in [
            "",
            "application/json",
            "application/x-ndjson",
            "application/x-ndjson; proto=event.Event",
        ] {
            assert!(!is_documents(other), "{other}");
        }
    }
}
