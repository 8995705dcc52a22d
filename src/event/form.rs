//! An event in the JSON form that queues carry. Called by `json`, for batches.
//!
//! # Invariants
//! - What is written is what prost-reflect would write of the whole event (tests
//!   `a_group_is_written_as_its_batch_would_be`, `every_case_is_written_as_the_library_would`;
//!   fuzzed: `envelope`), and what is read is what it would read: names that we do not write, null
//!   and what is there twice are left to it (`json::read_batch`).
//! - An event is the same text each time: the entries of its maps are in order (test
//!   `the_entries_of_a_map_are_in_order`).

use super::descriptor::{Case, schema};
use super::json::{self, EncodeError};
use super::proto;
use super::reflected::{Body, Event};
use prost::Message as _;
use prost_reflect::{DeserializeOptions, DynamicMessage, SerializeOptions, Value};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, Visitor};
use serde::{Deserialize, Serialize as _};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::{fmt, io};

/// Adds an event's text.
pub(super) fn write(
    event: &Event,
    options: &SerializeOptions,
    to: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    to.push(b'{');
    let begun = to.len();
    for (_, name, text) in event.texts() {
        add_key(name, begun, to);
        serde_json::to_writer(&mut *to, text)?;
    }
    if let Some(body) = &event.body {
        let at = to.len();
        if write_generated(body, to).is_some() {
            // An object with the case alone: what stands before it is of the same.
            if at > begun {
                to[at] = b',';
            } else {
                to.remove(at);
            }
            return Ok(());
        }
        to.truncate(at);
        add_key(&body.case.field, begun, to);
        let message = body.message()?;
        let at = to.len();
        json::write(&message, options, to)?;
        if has_entries(&message) {
            let text = to.split_off(at);
            write_in_order(serde_json::from_slice(&text)?, to)?;
        }
    }
    to.push(b'}');
    Ok(())
}

/// Whether a message has a map of several entries somewhere: the library writes them in any order.
fn has_entries(message: &DynamicMessage) -> bool {
    fn of_value(value: &Value) -> bool {
        match value {
            Value::Map(map) => map.len() > 1 || map.values().any(of_value),
            Value::Message(message) => has_entries(message),
            Value::List(list) => list.iter().any(of_value),
            _ => false,
        }
    }
    message.fields().any(|(_, value)| of_value(value))
}

/// Adds JSON with all of its keys in order, and its values as they are written.
fn write_in_order(text: &RawValue, to: &mut Vec<u8>) -> serde_json::Result<()> {
    let (open, close) = match text.get().as_bytes().first() {
        Some(b'{') => (b'{', b'}'),
        Some(b'[') => (b'[', b']'),
        _ => {
            to.extend(text.get().as_bytes());
            return Ok(());
        }
    };
    let begun = to.len();
    if open == b'{' {
        let fields: BTreeMap<String, &RawValue> = serde_json::from_str(text.get())?;
        for (name, value) in fields {
            to.push(b',');
            serde_json::to_writer(&mut *to, &name)?;
            to.push(b':');
            write_in_order(value, to)?;
        }
    } else {
        let values: Vec<&RawValue> = serde_json::from_str(text.get())?;
        for value in values {
            to.push(b',');
            write_in_order(value, to)?;
        }
    }
    // In the place of the first comma.
    if to.len() == begun {
        to.push(open);
    } else {
        to[begun] = open;
    }
    to.push(close);
    Ok(())
}

fn add_key(name: &str, begun: usize, to: &mut Vec<u8>) {
    let comma = if to.len() > begun { &b",\""[..] } else { b"\"" };
    to.extend(comma);
    to.extend(name.as_bytes());
    to.extend(b"\":");
}

/// Adds the text of an event with this case alone, by generated code; `None` where that is not
/// for it to write: it was read already, or holds what JSON has no number for.
fn write_generated(body: &Body, to: &mut Vec<u8>) -> Option<()> {
    if body.as_read().is_some() {
        return None;
    }
    let event = proto::Event::decode(&*body.field()).ok()?;
    let mut serializer = serde_json::Serializer::with_formatter(to, NoNull);
    event.serialize(&mut serializer).ok()
}

/// Floats that are not finite would be null.
struct NoNull;

impl serde_json::ser::Formatter for NoNull {
    fn write_null<W: ?Sized + io::Write>(&mut self, _: &mut W) -> io::Result<()> {
        Err(io::ErrorKind::InvalidData.into())
    }
}

impl<'de> Deserialize<'de> for Event {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(EventVisitor)
    }
}

struct EventVisitor;

impl<'de> Visitor<'de> for EventVisitor {
    type Value = Event;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("an event")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Event, A::Error> {
        let (mut id, mut timestamp, mut url, mut body) = (None, None, None, None);
        while let Some(key) = map.next_key()? {
            let slot = match key {
                Key::Id => &mut id,
                Key::Timestamp => &mut timestamp,
                Key::Url => &mut url,
                Key::Case(case) => {
                    let message = map.next_value_seed(OfCase(case))?;
                    if body.replace(Body::read(case, message)).is_some() {
                        return Err(A::Error::custom("several cases"));
                    }
                    continue;
                }
            };
            if slot.replace(map.next_value::<String>()?).is_some() {
                return Err(A::Error::custom("twice"));
            }
        }
        Ok(Event::new(
            id.unwrap_or_default(),
            timestamp.unwrap_or_default(),
            url.unwrap_or_default(),
            body,
        ))
    }
}

enum Key {
    Id,
    Timestamp,
    Url,
    Case(&'static Case),
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_identifier(KeyVisitor)
    }
}

struct KeyVisitor;

impl Visitor<'_> for KeyVisitor {
    type Value = Key;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("a field of an event")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Key, E> {
        match name {
            "id" => Ok(Key::Id),
            "timestamp" => Ok(Key::Timestamp),
            "currentURL" => Ok(Key::Url),
            _ => {
                let case = schema().case_of_field(name).map(Key::Case);
                case.ok_or_else(|| E::custom("no such field"))
            }
        }
    }
}

struct OfCase(&'static Case);

impl<'de> DeserializeSeed<'de> for OfCase {
    type Value = DynamicMessage;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<DynamicMessage, D::Error> {
        let options = DeserializeOptions::new().deny_unknown_fields(true);
        DynamicMessage::deserialize_with_options(self.0.message.clone(), from, &options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost_reflect::{Kind, MapKey, MessageDescriptor};
    use std::collections::HashMap;

    /// A message whose fields all say something; floats what they are given.
    fn filled(of: &MessageDescriptor, float: f32) -> DynamicMessage {
        let mut message = DynamicMessage::new(of.clone());
        for field in of.fields() {
            let number = field.number();
            let one = match field.kind() {
                Kind::String => Value::String(format!("\u{1}\"\\é{}", field.name())),
                Kind::Int64 => Value::I64(i64::MIN + i64::from(number)),
                Kind::Int32 => Value::I32(-i32::try_from(number).unwrap()),
                Kind::Bool => Value::Bool(true),
                Kind::Float => Value::F32(float),
                Kind::Message(of) if !field.is_map() => Value::Message(filled(&of, float)),
                Kind::Message(_) => Value::String("value".to_owned()),
                other => panic!("{}: a kind that no field had: {other:?}", field.full_name()),
            };
            let value = if field.is_map() {
                Value::Map(HashMap::from([(MapKey::String("key".to_owned()), one)]))
            } else if field.is_list() {
                Value::List(vec![one.clone(), one])
            } else {
                one
            };
            message.set_field(&field, value);
        }
        message
    }

    /// In both forms in which an event can be; each time it is read its maps are others.
    #[test]
    fn the_entries_of_a_map_are_in_order() {
        let entries: Vec<_> = (0..8).map(|n| format!("\"k{n}\":\"\\\"{n}\"")).collect();
        let text = format!(
            "{{\"id\":\"e\",\"widgetViewEvent\":{{\"recoInfo\":{{\"recoInfoKV\":{{{}}}}}}}}}",
            entries.join(",")
        );
        for _ in 0..20 {
            let read: Event = serde_json::from_str(&text).unwrap();
            let encoded = Event::decode(&read.encode_to_vec()[..]).unwrap();
            for event in [read, encoded] {
                let again = json::encode_event(&event).unwrap();
                assert_eq!(String::from_utf8(again).unwrap(), text);
            }
        }
    }

    #[test]
    fn every_case_is_written_as_the_library_would() {
        let event_type = &schema().event;
        let mut generated = 0;
        for field in schema().event_of.fields() {
            let Kind::Message(of) = field.kind() else {
                panic!("{}", field.full_name());
            };
            let empty = DynamicMessage::new(of.clone());
            let floats = [499.99, f32::MAX, -0.0, f32::NAN, f32::NEG_INFINITY];
            let all = floats.map(|float| filled(&of, float));
            for message in std::iter::once(empty).chain(all) {
                for id in ["", "\"a\u{7f}"] {
                    let mut library = DynamicMessage::new(event_type.clone());
                    library.set_field_by_name("id", Value::String(id.to_owned()));
                    library.set_field(&field, Value::Message(message.clone()));
                    let event = Event::decode(&library.encode_to_vec()[..]).unwrap();
                    let text = json::encode_event(&event).unwrap();
                    let same = json::encode(&library).unwrap();
                    let value = |text: &[u8]| -> serde_json::Value {
                        serde_json::from_slice(text).unwrap()
                    };
                    assert_eq!(value(&text), value(&same), "{}", field.name());
                    generated +=
                        u32::from(write_generated(&event.body.unwrap(), &mut Vec::new()).is_some());
                }
            }
        }
        // Most have no float.
        assert!(generated > 56 * 8, "{generated}");
    }
}
