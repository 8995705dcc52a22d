//! An `event.Events` as its header and its events: what a message holds that was read, and the
//! pieces that messages are made of. Used by `plan`, `envelope` and the handlers' callers.
//!
//! # Invariants
//! - A header is of the generated type, which is read and written several times as fast as a
//!   reflected message; an event's case is reflected, so that nothing of it is lost that this
//!   build does not know.
//! - A batch is read whole: one with a case that is none is no batch (test
//!   `a_case_that_is_none_makes_no_batch`).
//! - What protobuf says of parts that come again holds: headers add up, events follow each other
//!   (test `what_comes_again_adds_up`).

use super::proto::Header;
use super::reflected::Event;
use super::split::DecodeError;
use super::tally::EVENTS_FIELD;
use prost::Message as _;
use prost::encoding::{DecodeContext, WireType, decode_key, skip_field};

/// `Events.header`.
const HEADER_FIELD: u32 = 4;

/// An `event.Events` that was read.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Batch {
    /// The header, if it has one.
    pub header: Option<Header>,
    /// The events.
    pub events: Vec<Event>,
}

/// The same, where it is.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'a> {
    /// The header, if there is one.
    pub header: Option<&'a Header>,
    /// The events.
    pub events: &'a [Event],
}

impl Batch {
    /// Decodes protobuf bytes.
    ///
    /// # Errors
    /// When they are not an `event.Events`.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let pieces = Pieces::read(bytes)?;
        let event = |bytes: &&[u8]| Event::decode(*bytes)?.read();
        let events: Result<Vec<_>, _> = pieces.events.iter().map(event).collect();
        Ok(Self {
            header: pieces.header()?,
            events: events?,
        })
    }

    /// Where its parts are.
    #[must_use]
    pub fn parts(&self) -> Parts<'_> {
        Parts {
            header: self.header.as_ref(),
            events: &self.events,
        }
    }
}

/// The bytes of an `event.Events`' header and events.
#[derive(Debug)]
pub(super) struct Pieces<'a> {
    /// Of all headers in it, one after the other: that is their sum.
    pub(super) header: Option<Vec<u8>>,
    pub(super) events: Vec<&'a [u8]>,
}

impl<'a> Pieces<'a> {
    /// Finds them.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut header: Option<Vec<u8>> = None;
        let mut events = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            let before = rest;
            let (number, wire_type) = decode_key(&mut rest)?;
            let key_bytes = before.len() - rest.len();
            // Checks it as well, so that what follows cannot reach beyond it.
            skip_field(wire_type, number, &mut rest, DecodeContext::default())?;
            if number != HEADER_FIELD && number != EVENTS_FIELD {
                continue;
            }
            prost::encoding::check_wire_type(WireType::LengthDelimited, wire_type)?;
            let mut value = &before[key_bytes..before.len() - rest.len()];
            prost::encoding::decode_varint(&mut value)?;
            if number == EVENTS_FIELD {
                events.push(value);
            } else {
                header.get_or_insert_default().extend(value);
            }
        }
        Ok(Self { header, events })
    }

    /// Decodes the header.
    pub(super) fn header(&self) -> Result<Option<Header>, DecodeError> {
        let decode = |bytes: &Vec<u8>| Header::decode(&bytes[..]);
        Ok(self.header.as_ref().map(decode).transpose()?)
    }
}

/// The protobuf bytes of an `event.Events` with this header and these events.
#[must_use]
pub fn encode<B: AsRef<[u8]>>(
    header: Option<&[u8]>,
    events: impl IntoIterator<Item = B>,
) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut field = |number: u32, value: &[u8]| {
        prost::encoding::encode_key(number, WireType::LengthDelimited, &mut bytes);
        prost::encoding::encode_varint(value.len() as u64, &mut bytes);
        bytes.extend(value);
    };
    if let Some(header) = header {
        field(HEADER_FIELD, header);
    }
    for event in events {
        field(EVENTS_FIELD, event.as_ref());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::proto::{self, Events};

    #[test]
    fn what_comes_again_adds_up() {
        let header = |device_id: &str, os: &str| Header {
            device_id: device_id.into(),
            os: os.into(),
            ..Header::default()
        };
        let event = |id: &str| proto::Event {
            id: id.into(),
            ..proto::Event::default()
        };
        let of = |header, events| Events {
            header: Some(header),
            events,
        };
        let one = of(header("d", "o"), vec![event("a"), event("b")]);
        let more = of(header("", "p"), vec![event("c")]);
        // And a field that this build does not know.
        let bytes = [
            one.encode_to_vec(),
            more.encode_to_vec(),
            b"\x9a\x06\x01x".to_vec(),
        ]
        .concat();
        let batch = Batch::decode(&bytes).unwrap();
        assert_eq!(batch.header, Some(header("d", "p")));
        assert_eq!(batch.events.len(), 3);
        let pieces = Pieces::read(&bytes).unwrap();
        let again = encode(pieces.header.as_deref(), &pieces.events);
        assert_eq!(Batch::decode(&again).unwrap(), batch);
        assert_eq!(
            Events::decode(&again[..]).unwrap(),
            Events::decode(&bytes[..]).unwrap()
        );
        assert_eq!(Batch::decode(b"").unwrap(), Batch::default());
    }

    #[test]
    fn a_case_that_is_none_makes_no_batch() {
        // A launch whose link is not UTF-8.
        let bytes = encode(None, [b"\x22\x01a\x4a\x03\x32\x01\xff"]);
        assert!(Events::decode(&bytes[..]).is_err());
        assert!(Batch::decode(&bytes).is_err());
    }
}
