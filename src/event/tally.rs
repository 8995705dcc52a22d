//! How many events of which type: what the ledger counts in. Made by `scan` (of a request, at
//! the door), carried and added by `journal`, and told by the pumps (what became of them).
//!
//! # Invariants
//! - Bounded: the known types, one for each source of webhooks, and three more. All unknown
//!   types count as one, so that a client cannot make a tally grow.

use super::descriptor::{EventType, NO_TYPE_NAME, name_of_case, schema};
use super::group::{Group, Route};
use super::reflected::Event;
use super::webhook::Source;
use prost_reflect::FieldDescriptor;
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Serialize, Serializer};
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// The name under which all types count that this build does not know.
pub const UNKNOWN_NAME: &str = "Unknown";

/// The name under which batches count that were refused and kept.
pub const REJECTED_NAME: &str = "(rejected batch)";

/// A type as the tally counts it: the field number of its case in the oneof.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TypeKey(u32);

impl TypeKey {
    /// An event whose oneof is unset.
    pub const NONE: Self = Self(0);
    /// An event of a type that this build does not know.
    pub const UNKNOWN: Self = Self(u32::MAX - 1);
    /// A batch that was refused and kept for diagnosis; counts as one.
    pub const REJECTED: Self = Self(u32::MAX);

    /// A webhook of this source; counts as one.
    #[must_use]
    pub fn webhook(source: Source) -> Self {
        Self(FIRST_WEBHOOK + source as u32)
    }

    /// The source that a webhook's type stands for.
    fn source(self) -> Option<Source> {
        let at = self.0.checked_sub(FIRST_WEBHOOK)?;
        Source::ALL.into_iter().find(|source| *source as u32 == at)
    }

    /// The type as events have it.
    #[must_use]
    pub fn of(event_type: &EventType) -> Self {
        match event_type {
            EventType::Known(name) => Self::of_name(name),
            EventType::Unknown(_) => Self::UNKNOWN,
            EventType::None => Self::NONE,
        }
    }

    /// The type of events that have this field of `event.Event`; `None` where it says nothing
    /// of a type.
    #[must_use]
    pub fn of_case(field: &FieldDescriptor) -> Option<Self> {
        let number = Some(field.number());
        let is_case = field.containing_oneof().as_ref() == Some(&schema().event_of);
        number.filter(|_| is_case).map(Self)
    }

    /// The type of a stored event name; unknown names are [`TypeKey::UNKNOWN`].
    #[must_use]
    pub fn of_name(name: &str) -> Self {
        match name {
            NO_TYPE_NAME => Self::NONE,
            REJECTED_NAME => Self::REJECTED,
            _ if name.starts_with("(webhook ") => Source::ALL
                .into_iter()
                .find(|source| source.event_name() == name)
                .map_or(Self::UNKNOWN, Self::webhook),
            _ => NAMES
                .iter()
                .find(|(_, known)| *known == name)
                .map_or(Self::UNKNOWN, |(number, _)| Self(*number)),
        }
    }

    /// Its name in metrics and listings.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NONE => NO_TYPE_NAME,
            Self::REJECTED => REJECTED_NAME,
            Self(number) => match self.source() {
                Some(source) => source.event_name(),
                None => NAMES.get(&number).map_or(UNKNOWN_NAME, String::as_str),
            },
        }
    }
}

/// Types of webhooks lie where no field number can: those end at 2^29 - 1.
const FIRST_WEBHOOK: u32 = 1 << 30;

/// Event names by field number.
static NAMES: LazyLock<BTreeMap<u32, String>> = LazyLock::new(|| {
    schema()
        .event_of
        .fields()
        .map(|case| (case.number(), name_of_case(case.name())))
        .collect()
});

/// Events by type.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Tally(BTreeMap<TypeKey, u64>);

impl Serialize for Tally {
    /// For people an object of names, for files the numbers.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let by_name = serializer.is_human_readable();
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, count) in &self.0 {
            if by_name {
                map.serialize_entry(key.name(), count)?;
            } else {
                map.serialize_entry(key, count)?;
            }
        }
        map.end()
    }
}

impl Tally {
    /// One refused batch.
    #[must_use]
    pub fn rejected() -> Self {
        let mut tally = Self::default();
        tally.add(TypeKey::REJECTED, 1);
        tally
    }

    /// One webhook.
    #[must_use]
    pub fn webhook(source: Source) -> Self {
        let mut tally = Self::default();
        tally.add(TypeKey::webhook(source), 1);
        tally
    }

    /// Counts events.
    #[must_use]
    pub fn of_events<'a>(events: impl IntoIterator<Item = &'a Event>) -> Self {
        let mut tally = Self::default();
        for event in events {
            tally.add(TypeKey::of(&EventType::of(event)), 1);
        }
        tally
    }

    /// Counts the events of a group.
    #[must_use]
    pub fn of_group(group: &Group) -> Self {
        match &group.route {
            Route::Type(event_type) => {
                let mut tally = Self::default();
                tally.add(TypeKey::of(event_type), group.events.len() as u64);
                tally
            }
            // Of any types.
            Route::Error(_) => Self::of_events(&group.events),
        }
    }

    /// Adds events of one type.
    pub fn add(&mut self, key: TypeKey, count: u64) {
        if count > 0 {
            let sum = self.0.entry(key).or_default();
            *sum = sum.saturating_add(count);
        }
    }

    /// Adds another tally.
    pub fn merge(&mut self, other: &Self) {
        for (key, count) in &other.0 {
            self.add(*key, *count);
        }
    }

    /// What is left without another tally; nothing goes below zero.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        let mut left = self.clone();
        for (key, count) in &other.0 {
            if let Some(mine) = left.0.get_mut(key) {
                *mine = mine.saturating_sub(*count);
            }
        }
        left.0.retain(|_, count| *count > 0);
        left
    }

    /// Events of one type.
    #[must_use]
    pub fn get(&self, key: TypeKey) -> u64 {
        self.0.get(&key).copied().unwrap_or(0)
    }

    /// Events of all types.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0
            .values()
            .fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Whether a count is at its end, and so may be wrong: nothing that it is part of adds
    /// up. Only a damaged file has such a count.
    #[must_use]
    pub fn is_saturated(&self) -> bool {
        self.0.values().any(|count| *count == u64::MAX)
    }

    /// Whether nothing is counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Types with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (TypeKey, u64)> + '_ {
        self.0.iter().map(|(key, count)| (*key, *count))
    }
}

/// `Events.events`.
pub(super) const EVENTS_FIELD: u32 = 5;

/// The type of an encoded `event.Event`, as `EventType::of` has it: a known case
/// wins (the last one on the wire), then any unknown field.
pub(super) fn type_of(event: &[u8]) -> TypeKey {
    let mut key = TypeKey::NONE;
    let mut wire = Wire(event);
    while let Some((number, _)) = wire.field() {
        if NAMES.contains_key(&number) {
            key = TypeKey(number);
        } else if key == TypeKey::NONE && schema().event.get_field(number).is_none() {
            key = TypeKey::UNKNOWN;
        }
    }
    key
}

/// Fields of an encoded protobuf message, one after the other
/// (protobuf.dev/programming-guides/encoding).
pub(super) struct Wire<'a>(pub(super) &'a [u8]);

impl<'a> Wire<'a> {
    /// The next field's number, and its bytes where it is length-delimited.
    pub(super) fn field(&mut self) -> Option<(u32, Option<&'a [u8]>)> {
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).ok()?;
        let value = match tag & 7 {
            0 => {
                self.varint()?;
                None
            }
            1 => self.take(8).map(|_| None)?,
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Some(self.take(length)?)
            }
            5 => self.take(4).map(|_| None)?,
            3 => self.skip_group().map(|()| None)?,
            _ => return None,
        };
        Some((number, value))
    }

    /// Skips a group (deprecated, but valid in fields that this build does not
    /// know) and those within it. No recursion: the depth is the sender's choice.
    fn skip_group(&mut self) -> Option<()> {
        let mut depth = 1usize;
        while depth > 0 {
            match self.varint()? & 7 {
                0 => {
                    self.varint()?;
                }
                1 => {
                    self.take(8)?;
                }
                2 => {
                    let length = usize::try_from(self.varint()?).ok()?;
                    self.take(length)?;
                }
                3 => depth += 1,
                4 => depth -= 1,
                5 => {
                    self.take(4)?;
                }
                _ => return None,
            }
        }
        Some(())
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let byte = self.take(1)?[0];
            if shift < 64 {
                value |= u64::from(byte & 0x7f) << shift;
            }
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(counts: &[(TypeKey, u64)]) -> Tally {
        let mut tally = Tally::default();
        for (key, count) in counts {
            tally.add(*key, *count);
        }
        tally
    }

    #[test]
    fn tallies_add_and_subtract() {
        let mut a = of(&[(TypeKey(9), 2), (TypeKey(10), 1), (TypeKey::NONE, 1)]);
        assert_eq!(a.total(), 4);
        assert_eq!(a.get(TypeKey::of_name("LaunchEvent")), 2);
        assert_eq!(a.get(TypeKey::NONE), 1);
        let b = a.clone();
        a.merge(&b);
        assert_eq!(a.minus(&b), b);
        assert!(b.minus(&a).is_empty());
        let json = serde_json::to_string(&b).unwrap();
        assert_eq!(json, r#"{"<nil>":1,"LaunchEvent":2,"PageOpenedEvent":1}"#);
    }

    #[test]
    fn a_count_at_its_end_says_so() {
        let mut tally = Tally::default();
        tally.add(TypeKey::NONE, u64::MAX - 1);
        tally.add(TypeKey::UNKNOWN, 1);
        assert!(!tally.is_saturated());
        assert_eq!(tally.total(), u64::MAX);
        tally.merge(&tally.clone());
        assert!(tally.is_saturated());
        assert_eq!(tally.get(TypeKey::NONE), u64::MAX);
        assert_eq!(tally.total(), u64::MAX);
    }

    #[test]
    fn webhooks_have_types_of_their_own() {
        for source in Source::ALL {
            let key = TypeKey::webhook(source);
            assert_eq!(key.name(), source.event_name());
            assert_eq!(TypeKey::of_name(key.name()), key);
            assert_eq!(Tally::webhook(source).get(key), 1);
        }
        assert_eq!(TypeKey::of_name("(webhook x)"), TypeKey::UNKNOWN);
    }

    #[test]
    fn a_tally_survives_its_file_form() {
        let tally = of(&[(TypeKey(9), 1), (TypeKey::UNKNOWN, 1), (TypeKey::NONE, 1)]);
        let config = bincode::config::standard();
        let bytes = bincode::serde::encode_to_vec(&tally, config).unwrap();
        let (back, _): (Tally, usize) = bincode::serde::decode_from_slice(&bytes, config).unwrap();
        assert_eq!(back, tally);
    }
}
