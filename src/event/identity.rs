//! Who an event is: the host that took it, the request's sequence there, and its
//! place in the request. Minted once at the journal and carried to the row, so
//! that a redelivery is recognised and a host's rows can be counted by range.

use std::fmt;
use std::sync::OnceLock;
use uuid::Uuid;

/// Names this host for ever; made once and kept in the data directory.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostId(String);

/// A text that is not a host id.
#[derive(Debug, thiserror::Error)]
#[error("not a host id: {0:?} (1 to 64 of a-z A-Z 0-9 . _ -)")]
pub struct InvalidHostId(String);

impl HostId {
    /// Makes a new id that no other host has.
    #[must_use]
    pub fn generate() -> Self {
        Self(Uuid::new_v4().simple().to_string())
    }

    /// Reads an id.
    ///
    /// # Errors
    /// When the text is empty, longer than 64, or has other characters than
    /// `a-z A-Z 0-9 . _ -`: it becomes part of message ids and headers.
    pub fn parse(text: &str) -> Result<Self, InvalidHostId> {
        let fits = (1..=64).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        if fits {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidHostId(text.to_owned()))
        }
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A request's number in its host's journal: from 1, never given twice. Numbers are
/// left out only where a write failed, and were acknowledged to nobody then.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct Seq(pub u64);

impl Seq {
    /// The first sequence of a journal.
    pub const FIRST: Self = Self(1);

    /// The largest sequence that a file is believed to have. No host gets there, and what
    /// comes after it can still be counted.
    pub const MAX: Self = Self(1 << 62);

    /// The sequence after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where a row came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The host whose journal took the request.
    pub host: String,
    /// The request's sequence there.
    pub seq: u64,
    /// The event's place in the request, from 0.
    pub index: u32,
}

/// What things without an id came in. It is read through once for all of their ids, and
/// only if there are any: its sender chooses how large it is and how many they are.
#[derive(Debug)]
pub struct Content<'a> {
    bytes: &'a [u8],
    digest: OnceLock<Uuid>,
}

impl<'a> Content<'a> {
    /// Of these bytes.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            digest: OnceLock::new(),
        }
    }

    /// An id for something that came without one: the same content and place give
    /// the same id, so that a redelivery cannot duplicate.
    #[must_use]
    pub fn derived_id(&self, index: usize) -> String {
        let digest = || Uuid::new_v5(&Uuid::NAMESPACE_OID, self.bytes);
        let digest = self.digest.get_or_init(digest);
        Uuid::new_v5(digest, &index.to_be_bytes()).to_string()
    }
}

/// The id of one thing; see [`Content::derived_id`].
#[must_use]
pub fn derived_id(content: &[u8], index: usize) -> String {
    Content::new(content).derived_id(index)
}

/// Writes indexes in the compact form of the `x-holdfast-indexes` header:
/// `0-3,7,9-10`. The input is ascending.
#[must_use]
pub fn format_indexes(indexes: &[u32]) -> String {
    let mut text = String::new();
    let mut at = 0;
    while at < indexes.len() {
        let first = indexes[at];
        let mut last = first;
        while at + 1 < indexes.len() && last.checked_add(1) == Some(indexes[at + 1]) {
            at += 1;
            last = indexes[at];
        }
        at += 1;
        if !text.is_empty() {
            text.push(',');
        }
        if first == last {
            text.push_str(&first.to_string());
        } else {
            text.push_str(&format!("{first}-{last}"));
        }
    }
    text
}

/// All indexes of a request with this many events, in the form of [`format_indexes`].
#[must_use]
pub fn format_index_range(events: usize) -> String {
    match events {
        0 => String::new(),
        1 => "0".to_owned(),
        _ => format!("0-{}", events - 1),
    }
}

/// Reads what [`format_indexes`] wrote; `None` when it is not that form or names
/// more than `count_max` indexes.
#[must_use]
pub fn parse_indexes(text: &str, count_max: usize) -> Option<Vec<u32>> {
    let mut indexes = Vec::new();
    if text.is_empty() {
        return Some(indexes);
    }
    for part in text.split(',') {
        let (first, last) = match part.split_once('-') {
            Some((first, last)) => (first.parse::<u32>().ok()?, last.parse::<u32>().ok()?),
            None => {
                let one = part.parse::<u32>().ok()?;
                (one, one)
            }
        };
        if last < first || (last - first) as usize >= count_max {
            return None;
        }
        indexes.extend(first..=last);
        if indexes.len() > count_max {
            return None;
        }
    }
    Some(indexes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn indexes_survive_their_header(set in proptest::collection::btree_set(0u32..5000, 0..300)) {
            let indexes: Vec<u32> = set.into_iter().collect();
            let text = format_indexes(&indexes);
            prop_assert_eq!(parse_indexes(&text, 300), Some(indexes));
        }
    }

    #[test]
    fn the_last_indexes_have_their_form() {
        for indexes in [
            vec![u32::MAX],
            vec![0, u32::MAX],
            vec![7, u32::MAX - 1, u32::MAX],
        ] {
            let text = format_indexes(&indexes);
            assert_eq!(parse_indexes(&text, 3), Some(indexes), "{text}");
        }
        // A damaged list may have the same place twice.
        assert_eq!(
            format_indexes(&[u32::MAX, u32::MAX]),
            "4294967295,4294967295"
        );
        for events in 0..3 {
            let all: Vec<u32> = (0..events).collect();
            assert_eq!(format_index_range(events as usize), format_indexes(&all));
        }
    }

    #[test]
    fn hostile_indexes_are_refused() {
        for text in ["a", "1-", "5-1", "0-4294967295", "1,,2", "-"] {
            assert_eq!(parse_indexes(text, 1000), None, "{text}");
        }
    }

    #[test]
    fn host_ids_are_checked() {
        assert!(HostId::parse("edge-1.example").is_ok());
        for bad in ["", "a b", "ü", &"x".repeat(65)] {
            assert!(HostId::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn derived_ids_are_stable_and_differ_by_place() {
        assert_eq!(derived_id(b"x", 0), derived_id(b"x", 0));
        assert_ne!(derived_id(b"x", 0), derived_id(b"x", 1));
    }
}
