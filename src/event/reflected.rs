//! One `event.Event`: its own few fields, and the case that it has, as it came. Made by `batch`
//! (of protobuf) and `form` (of JSON); carried in groups and read by the handlers.
//!
//! # Invariants
//! - Nothing of an event is lost that this build does not know: neither of its own level nor of
//!   its case (test `an_event_is_what_the_library_makes_of_it`).
//! - It says what prost-reflect says of the same bytes, at a fraction of the cost: a reflected
//!   event looks at all 56 cases whenever one is set, and who hands an event on needs none of its
//!   case (the same test; fuzzed: `envelope`).
//! - Reading takes as long as there are bytes, however they are divided into fields (test
//!   `an_event_of_very_many_fields_is_read_at_once`).

use super::descriptor::{Case, schema};
use super::json;
use prost::bytes::{Buf, BufMut};
use prost::encoding::{self, DecodeContext, WireType};
use prost::{DecodeError, Message};
use prost_reflect::{DynamicMessage, UnknownField};
use std::borrow::Cow;
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
    /// In the order in which they came.
    unknown: Vec<UnknownField>,
}

/// The case of the oneof that an event has.
#[derive(Clone)]
pub struct Body {
    /// Which.
    pub case: &'static Case,
    form: Form,
}

#[derive(Clone)]
enum Form {
    /// Its field as it came, or its fields, if it came in parts: protobuf, not read any further.
    Encoded(Vec<u8>),
    /// As it was read of JSON.
    Read(DynamicMessage),
}

impl Body {
    /// Of a message that was read.
    pub(super) fn read(case: &'static Case, message: DynamicMessage) -> Self {
        let form = Form::Read(message);
        Self { case, form }
    }

    /// Its fields.
    ///
    /// # Errors
    /// When its bytes are no such message.
    pub fn message(&self) -> Result<Cow<'_, DynamicMessage>, DecodeError> {
        let encoded = match &self.form {
            Form::Encoded(encoded) => encoded,
            Form::Read(message) => return Ok(Cow::Borrowed(message)),
        };
        let mut message = DynamicMessage::new(self.case.message.clone());
        let mut from = &encoded[..];
        while !from.is_empty() {
            let (_, wire_type) = encoding::decode_key(&mut from)?;
            encoding::message::merge(wire_type, &mut message, &mut from, DecodeContext::default())?;
        }
        Ok(Cow::Owned(message))
    }

    /// An `event.Event` with this case alone.
    pub(super) fn field(&self) -> Cow<'_, [u8]> {
        match &self.form {
            Form::Encoded(encoded) => Cow::Borrowed(encoded),
            Form::Read(message) => Cow::Owned(field_of(self.case, message)),
        }
    }

    fn into_field(self) -> Vec<u8> {
        match self.form {
            Form::Encoded(encoded) => encoded,
            Form::Read(message) => field_of(self.case, &message),
        }
    }

    /// What was read already, if it was.
    pub(super) fn as_read(&self) -> Option<&DynamicMessage> {
        match &self.form {
            Form::Encoded(_) => None,
            Form::Read(message) => Some(message),
        }
    }
}

fn field_of(case: &Case, message: &DynamicMessage) -> Vec<u8> {
    let mut encoded = Vec::new();
    encoding::message::encode(case.number, message, &mut encoded);
    encoded
}

impl fmt::Debug for Body {
    /// Its fields alone: what its message can hold is in the .proto.
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.message() {
            Ok(message) => write!(to, "{} {{{message}}}", self.case.field),
            Err(error) => write!(to, "{} {{{error}}}", self.case.field),
        }
    }
}

impl PartialEq for Body {
    fn eq(&self, other: &Self) -> bool {
        // Bytes say it at once, but where there are maps, whose entries have no order.
        let say_the_same = || matches!((self.message(), other.message()), (Ok(a), Ok(b)) if a == b);
        self.case.number == other.case.number && (self.field() == other.field() || say_the_same())
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

    /// With its case read, for who looks into it.
    ///
    /// # Errors
    /// When the case's bytes are no such message.
    pub(super) fn read(mut self) -> Result<Self, DecodeError> {
        if let Some(body) = &mut self.body {
            body.form = Form::Read(body.message()?.into_owned());
        }
        Ok(self)
    }

    /// The smallest number of its own fields that this build does not know: independent of their
    /// order on the wire.
    #[must_use]
    pub fn unknown_field(&self) -> Option<u32> {
        self.unknown.iter().map(UnknownField::number).min()
    }

    /// Whether JSON carries all of it: see [`json::carries`].
    #[must_use]
    pub fn is_known(&self) -> bool {
        let is_known = |body: &Body| body.message().is_ok_and(|m| json::carries(&m));
        self.unknown.is_empty() && self.body.as_ref().is_none_or(is_known)
    }
}

impl Event {
    /// Its texts that are set: number, name and value.
    pub(super) fn texts(&self) -> impl Iterator<Item = (u32, &'static str, &String)> {
        let all = [
            (ID_FIELD, "id", &self.id),
            (TIMESTAMP_FIELD, "timestamp", &self.timestamp),
            (URL_FIELD, "currentURL", &self.current_url),
        ];
        all.into_iter().filter(|(_, _, text)| !text.is_empty())
    }
}

/// As generated code would have it, but for the case, which stays as it came.
impl Message for Event {
    fn encode_raw(&self, to: &mut impl BufMut) {
        for (number, _, text) in self.texts() {
            encoding::string::encode(number, text, to);
        }
        if let Some(body) = &self.body {
            to.put_slice(&body.field());
        }
        self.unknown.iter().for_each(|field| field.encode(to));
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
            _ => {
                let Some(case) = schema().case(number) else {
                    let field = UnknownField::decode_value(number, wire_type, from, context)?;
                    self.unknown.push(field);
                    return Ok(());
                };
                let mut value = Vec::new();
                encoding::bytes::merge(wire_type, &mut value, from, context)?;
                // The same case again adds to it, another takes its place.
                let same = self.body.take().filter(|body| body.case.number == number);
                let mut encoded = same.map_or_else(Vec::new, Body::into_field);
                encoding::bytes::encode(number, &value, &mut encoded);
                let form = Form::Encoded(encoded);
                self.body = Some(Body { case, form });
                return Ok(());
            }
        };
        encoding::string::merge(wire_type, text, from, context)
    }

    fn encoded_len(&self) -> usize {
        let texts = self.texts();
        let texts = texts.map(|(number, _, text)| encoding::string::encoded_len(number, text));
        let body = self.body.iter().map(|body| body.field().len());
        let unknown = self.unknown.iter().map(UnknownField::encoded_len);
        texts.chain(body).chain(unknown).sum()
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::scan::FIELDS_MAX;
    use proptest::prelude::*;
    use std::time::{Duration, Instant};

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

    /// A sender chooses how many fields an event has, and in which order: none may cost more for
    /// those that stand before it.
    #[test]
    fn an_event_of_very_many_fields_is_read_at_once() {
        const LIMIT: Duration = Duration::from_secs(5);
        let fields = u32::try_from(FIELDS_MAX).unwrap();
        let numbers: [&dyn Fn(u32) -> u32; 3] = [&|_| 9, &|at| 9 + at % 2, &|at| fields + 100 - at];
        for (which, number) in numbers.into_iter().enumerate() {
            let mut bytes = Vec::new();
            for at in 0..fields {
                encoding::bytes::encode(number(at), &Vec::new(), &mut bytes);
            }
            let begun = Instant::now();
            let event = Event::decode(&bytes[..]).unwrap();
            assert_eq!(event.body.is_some(), which < 2);
            assert_eq!(event.unknown_field(), (which == 2).then_some(101));
            let encoded = event.encode_to_vec();
            assert_eq!(encoded.len() < bytes.len(), which == 1);
            assert!(begun.elapsed() < LIMIT, "{which}: {:?}", begun.elapsed());
        }
    }

    proptest! {
        #[test]
        fn an_event_is_what_the_library_makes_of_it(
            fields in proptest::collection::vec(field(), 0..6)
        ) {
            let bytes = fields.concat();
            let library = DynamicMessage::decode(schema().event.clone(), &bytes[..]);
            let event = Event::decode(&bytes[..]);
            let Ok(library) = library else {
                // What it does not like may be in a case, which is not looked into.
                let alone = fields.iter().map(|field| Event::decode(&field[..]));
                let (mut own, mut in_case) = (false, false);
                for event in alone {
                    own |= event.is_err();
                    let body = event.ok().and_then(|event| event.body);
                    in_case |= body.is_some_and(|body| body.message().is_err());
                }
                prop_assert_eq!(event.is_err(), own);
                prop_assert!(own || in_case);
                return Ok(());
            };
            let event = event.unwrap();
            let encoded = event.encode_to_vec();
            prop_assert_eq!(event.encoded_len(), encoded.len());
            let same = DynamicMessage::decode(schema().event.clone(), &encoded[..]).unwrap();
            prop_assert_eq!(same.encode_to_vec(), library.encode_to_vec());
            prop_assert_eq!(event.is_known(), json::carries(&library));
            let number = library.unknown_fields().map(UnknownField::number).min();
            prop_assert_eq!(event.unknown_field(), number);
            prop_assert_eq!(Event::decode(&encoded[..]).unwrap(), event);
        }
    }
}
