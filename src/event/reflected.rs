//! One `event.Event`: its own few fields, and the case that it has, reflected. Made by `batch`
//! (of protobuf) and `form` (of JSON); carried in groups and read by the handlers.
//!
//! # Invariants
//! - Nothing of an event is lost that this build does not know: neither of its own level nor of
//!   its case (test `an_event_is_what_the_library_makes_of_it`).
//! - It says what prost-reflect says of the same bytes, at a fraction of the cost: a reflected
//!   event looks at all 56 cases whenever one is set (the same test; fuzzed: `envelope`).

use super::descriptor::{Case, schema};
use super::json;
use prost::bytes::{Buf, BufMut};
use prost::encoding::{self, DecodeContext, WireType};
use prost::{DecodeError, Message};
use prost_reflect::{DynamicMessage, UnknownField};
use std::fmt;

/// `Event.id`, `Event.timestamp` and `Event.currentURL`.
pub(super) const ID_FIELD: u32 = 4;
pub(super) const TIMESTAMP_FIELD: u32 = 5;
const URL_FIELD: u32 = 6;

/// An event that was read.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Event {
    /// The id, as its sender made it; empty where unset, as are the next two.
    pub id: String,
    /// When it happened, as its sender says it.
    pub timestamp: String,
    /// Where it happened, if it says so itself.
    pub current_url: String,
    /// What happened; `None` where this build knows no such type.
    pub body: Option<Body>,
    /// In the order of their numbers.
    unknown: Vec<UnknownField>,
}

/// The case of the oneof that an event has.
#[derive(Clone)]
pub struct Body {
    /// Which.
    pub case: &'static Case,
    /// Its fields.
    pub message: DynamicMessage,
}

impl fmt::Debug for Body {
    /// Its fields alone: what its message can hold is in the .proto.
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{} {{{}}}", self.case.field, self.message)
    }
}

impl PartialEq for Body {
    /// Of a case there is one in each copy of the schema.
    fn eq(&self, other: &Self) -> bool {
        self.case.number == other.case.number && self.message == other.message
    }
}

impl Body {
    /// Without a field that is set.
    pub(super) fn new(case: &'static Case) -> Self {
        let message = DynamicMessage::new(case.message.clone());
        Self { case, message }
    }
}

impl Event {
    /// One without fields that this build does not know.
    pub(super) fn new(
        id: String,
        timestamp: String,
        current_url: String,
        body: Option<Body>,
    ) -> Self {
        Self {
            id,
            timestamp,
            current_url,
            body,
            unknown: Vec::new(),
        }
    }

    /// The smallest number of its own fields that this build does not know: independent of their
    /// order on the wire.
    #[must_use]
    pub fn unknown_field(&self) -> Option<u32> {
        self.unknown.first().map(UnknownField::number)
    }

    /// Whether JSON carries all of it: see [`json::carries`].
    #[must_use]
    pub fn is_known(&self) -> bool {
        let is_known = |body: &Body| json::carries(&body.message);
        self.unknown.is_empty() && self.body.as_ref().is_none_or(is_known)
    }
}

/// A field of an event's own level that is set.
pub(super) enum Own<'a> {
    Text(&'a String),
    Message(&'a DynamicMessage),
}

impl Event {
    /// Its fields that are set and that this build knows: number, name and value, in the order
    /// of the numbers.
    pub(super) fn own(&self) -> impl Iterator<Item = (u32, &'static str, Own<'_>)> {
        let texts = [
            (ID_FIELD, "id", &self.id),
            (TIMESTAMP_FIELD, "timestamp", &self.timestamp),
            (URL_FIELD, "currentURL", &self.current_url),
        ];
        let texts = texts.into_iter().filter(|(_, _, text)| !text.is_empty());
        let body = self.body.as_ref().map(|body| {
            let message = Own::Message(&body.message);
            (body.case.number, body.case.field.as_str(), message)
        });
        texts
            .map(|(number, name, text)| (number, name, Own::Text(text)))
            .chain(body)
    }
}

/// As generated code would have it, but for the case.
impl Message for Event {
    fn encode_raw(&self, to: &mut impl BufMut) {
        let mut unknown = &self.unknown[..];
        for (number, _, own) in self.own() {
            let before = unknown.partition_point(|field| field.number() < number);
            let (before, after) = unknown.split_at(before);
            before.iter().for_each(|field| field.encode(to));
            unknown = after;
            match own {
                Own::Text(text) => encoding::string::encode(number, text, to),
                Own::Message(message) => encoding::message::encode(number, message, to),
            }
        }
        unknown.iter().for_each(|field| field.encode(to));
    }

    fn merge_field(
        &mut self,
        number: u32,
        wire_type: WireType,
        from: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        let text = match number {
            ID_FIELD => &mut self.id,
            TIMESTAMP_FIELD => &mut self.timestamp,
            URL_FIELD => &mut self.current_url,
            _ => return self.merge_other(number, wire_type, from, context),
        };
        encoding::string::merge(wire_type, text, from, context)
    }

    fn encoded_len(&self) -> usize {
        let own = self.own().map(|(number, _, own)| match own {
            Own::Text(text) => encoding::string::encoded_len(number, text),
            Own::Message(message) => encoding::message::encoded_len(number, message),
        });
        let unknown = self.unknown.iter().map(UnknownField::encoded_len);
        own.chain(unknown).sum()
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

impl Event {
    fn merge_other(
        &mut self,
        number: u32,
        wire_type: WireType,
        from: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        let Some(case) = schema().case(number) else {
            let field = UnknownField::decode_value(number, wire_type, from, context)?;
            let at = self.unknown.partition_point(|f| f.number() <= number);
            self.unknown.insert(at, field);
            return Ok(());
        };
        // The same case again adds to it, another takes its place.
        let same = self.body.take().filter(|body| body.case.number == number);
        let body = self.body.insert(same.unwrap_or_else(|| Body::new(case)));
        encoding::message::merge(wire_type, &mut body.message, from, context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A field of an event or of its case, by number: some known, some not.
    fn field() -> impl Strategy<Value = Vec<u8>> {
        let number = prop_oneof![1u32..12, 60u32..67, Just(200)];
        let inner = proptest::collection::vec((4u32..9, "[a-z]{0,3}"), 0..3);
        let text = inner.prop_map(|inner| {
            let mut bytes = Vec::new();
            for (number, text) in inner {
                encoding::string::encode(number, &text, &mut bytes);
            }
            bytes
        });
        let value = prop_oneof![
            4 => text.prop_map(|bytes| (WireType::LengthDelimited, bytes)),
            1 => any::<[u8; 8]>().prop_map(|bytes| (WireType::SixtyFourBit, bytes.into())),
            1 => (0u8..0x80).prop_map(|byte| (WireType::Varint, vec![byte])),
        ];
        (number, value).prop_map(|(number, (wire_type, value))| {
            let mut bytes = Vec::new();
            encoding::encode_key(number, wire_type, &mut bytes);
            if wire_type == WireType::LengthDelimited {
                encoding::encode_varint(value.len() as u64, &mut bytes);
            }
            bytes.extend(value);
            bytes
        })
    }

    proptest! {
        #[test]
        fn an_event_is_what_the_library_makes_of_it(
            fields in proptest::collection::vec(field(), 0..6)
        ) {
            let bytes = fields.concat();
            let library = DynamicMessage::decode(schema().event.clone(), &bytes[..]);
            let event = Event::decode(&bytes[..]);
            prop_assert_eq!(event.is_ok(), library.is_ok());
            if let (Ok(event), Ok(library)) = (event, library) {
                prop_assert_eq!(event.encode_to_vec(), library.encode_to_vec());
                prop_assert_eq!(event.encoded_len(), library.encoded_len());
                prop_assert_eq!(event.is_known(), json::carries(&library));
                let number = library.unknown_fields().map(UnknownField::number).min();
                prop_assert_eq!(event.unknown_field(), number);
                let again = Event::decode(&event.encode_to_vec()[..]).unwrap();
                prop_assert_eq!(again.encode_to_vec(), event.encode_to_vec());
            }
        }
    }
}
