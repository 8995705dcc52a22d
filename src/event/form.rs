//! An event in the JSON form that queues carry. Called by `json`, for batches.
//!
//! # Invariants
//! - What is written is what prost-reflect would write of the whole event (test
//!   `a_group_is_written_as_its_batch_would_be`), and what is read is what it would read: names
//!   that we do not write, null and what is there twice are left to it (`json::read_batch`).

use super::descriptor::{Case, schema};
use super::json::{self, EncodeError};
use super::reflected::{Body, Event, Own};
use prost_reflect::{DeserializeOptions, DynamicMessage, SerializeOptions};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, Visitor};
use std::fmt;

/// Adds an event's text.
pub(super) fn write(
    event: &Event,
    options: &SerializeOptions,
    to: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    to.push(b'{');
    for (at, (_, name, own)) in event.own().enumerate() {
        to.extend(if at > 0 { &b",\""[..] } else { b"\"" });
        to.extend(name.as_bytes());
        to.extend(b"\":");
        match own {
            Own::Text(text) => serde_json::to_writer(&mut *to, text)?,
            Own::Message(message) => json::write(message, options, to)?,
        }
    }
    to.push(b'}');
    Ok(())
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
                    if body.replace(Body { case, message }).is_some() {
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
