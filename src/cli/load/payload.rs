//! Requests that are encoded ahead: what differs from call to call, ids and times, is put in
//! when a call is written to its connection. Made by `run`, sent by `wire`.
//!
//! # Invariants
//! - A call costs copies of bytes: nothing is looked up or encoded again.
//! - Every call is a valid `event.Events` with ids of its own, all types of the mix in turn,
//!   and events of about the size that was asked for (tests below).
//! - The same seed makes the same requests, but for the run's name and the times.

use super::plan::Plan;
use crate::app::arrivals::{RUN_CHARS, Sent};
use crate::event::descriptor::{name_of_case, schema};
use bytes::BufMut;
use prost::Message as _;
use prost::encoding::{self, WireType};
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value};
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};
use std::collections::HashMap;
use std::sync::Arc;

/// Requests that are made ahead at most: each type is in there often, with other content.
const REQUESTS_MAX: usize = 256;

/// Bytes of them: what a machine that sends has to spare.
const REQUESTS_BYTES_MAX: usize = 32 << 20;

/// Digits of an event's time, until the year 2286.
const TIME_BYTES: usize = 13;

/// Of `Events` and `Event`.
const HEADER_TAG: u32 = 4;
const EVENTS_TAG: u32 = 5;
const ID_TAG: u32 = 4;
const TIME_TAG: u32 = 5;
const URL_TAG: u32 = 6;

/// Before the text of an id or a time that is shorter than 128 bytes.
const KEY_AND_LENGTH: usize = 2;

/// Characters of a text that is made up: as short as in the field.
const TEXT_CHARS: std::ops::Range<usize> = 3..15;

/// How deep messages in messages are filled; no type has more.
const DEPTH_MAX: usize = 4;

/// One request, and where its ids are. The time of an event follows its id.
struct Encoded {
    bytes: Vec<u8>,
    ids: Vec<usize>,
}

/// The requests of a run.
pub(super) struct Requests {
    encoded: Vec<Encoded>,
    run: String,
}

/// A call that is about to be written.
#[derive(Clone)]
pub(super) struct Call {
    pub(super) requests: Arc<Requests>,
    pub(super) connection: usize,
    /// Its number on the connection.
    pub(super) number: usize,
    /// The time of its events.
    pub(super) now_ms: i64,
}

/// The name of a run: when it began, so that no two have the same, and some letters of the
/// seed's, for those that begin at the same time.
pub(super) fn run_name(seed: u64, began_us: u64) -> String {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    const TIME_CHARS: usize = 11;
    let mut random = StdRng::seed_from_u64(seed);
    let mut name = vec![b'0'; TIME_CHARS];
    let mut left = began_us;
    for digit in name.iter_mut().rev() {
        *digit = DIGITS[(left % 36) as usize];
        left /= 36;
    }
    let letters = RUN_CHARS - TIME_CHARS;
    name.extend((0..letters).map(|_| DIGITS[random.random_range(0..36)]));
    String::from_utf8_lossy(&name).into_owned()
}

impl Requests {
    /// Makes them, for a run of this name.
    pub(super) fn new(plan: &Plan, run: &str) -> Self {
        let mut maker = Maker {
            random: StdRng::seed_from_u64(plan.seed),
            event_bytes: plan.event_bytes,
        };
        let mut cases: Vec<_> = schema().event_of.fields().collect();
        cases.retain(|case| plan.types.contains(&name_of_case(case.name())));
        cases.shuffle(&mut maker.random);
        let request_bytes = plan.batch_events * plan.event_bytes;
        let count = (REQUESTS_BYTES_MAX / request_bytes).clamp(1, REQUESTS_MAX);
        let mut cases = cases.iter().cycle();
        let encoded = (0..count).map(|_| {
            let cases: Vec<_> = cases.by_ref().take(plan.batch_events).collect();
            maker.request(&cases)
        });
        Self {
            encoded: encoded.collect(),
            run: run.to_owned(),
        }
    }

    fn of(&self, call: &Call) -> &Encoded {
        // A prime, so that connections do not send the same at the same time.
        let at = call.connection * 7919 + call.number;
        &self.encoded[at % self.encoded.len()]
    }
}

impl Call {
    /// Bytes of its message.
    pub(super) fn bytes(&self) -> usize {
        self.requests.of(self).bytes.len()
    }

    /// Writes the message.
    pub(super) fn write(&self, to: &mut impl BufMut) {
        let Encoded { bytes, ids } = self.requests.of(self);
        let prefix = Sent::prefix_of(&self.requests.run, self.connection);
        let first = (self.number * ids.len()) as u64;
        let mut time = [0; TIME_BYTES];
        digits(self.now_ms.unsigned_abs(), &mut time);
        let mut written = 0;
        let mut number = vec![0; Sent::ID_BYTES - prefix.len()];
        for (at, id) in ids.iter().enumerate() {
            to.put_slice(&bytes[written..*id]);
            to.put_slice(prefix.as_bytes());
            digits(first + at as u64, &mut number);
            to.put_slice(&number);
            let time_at = id + Sent::ID_BYTES + KEY_AND_LENGTH;
            to.put_slice(&bytes[id + Sent::ID_BYTES..time_at]);
            to.put_slice(&time);
            written = time_at + TIME_BYTES;
        }
        to.put_slice(&bytes[written..]);
    }
}

/// Decimal digits with leading zeros.
fn digits(mut number: u64, to: &mut [u8]) {
    for digit in to.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// Makes content up.
struct Maker {
    random: StdRng,
    event_bytes: usize,
}

impl Maker {
    fn request(&mut self, cases: &[&FieldDescriptor]) -> Encoded {
        let mut bytes = Vec::new();
        let header = self.header().encode_to_vec();
        encoding::bytes::encode(HEADER_TAG, &header, &mut bytes);
        let mut ids = Vec::with_capacity(cases.len());
        for case in cases {
            let event = self.event(case);
            encoding::bytes::encode(EVENTS_TAG, &event, &mut bytes);
            ids.push(bytes.len() - event.len() + KEY_AND_LENGTH);
        }
        Encoded { bytes, ids }
    }

    fn event(&mut self, case: &FieldDescriptor) -> Vec<u8> {
        let mut event = Vec::with_capacity(self.event_bytes);
        // First, so that it is known where they are.
        encoding::string::encode(ID_TAG, &"0".repeat(Sent::ID_BYTES), &mut event);
        encoding::string::encode(TIME_TAG, &"0".repeat(TIME_BYTES), &mut event);
        let mut body = Vec::new();
        if let Kind::Message(descriptor) = case.kind() {
            let room = self.event_bytes.saturating_sub(event.len());
            body = self.fill(&descriptor, room, 0).encode_to_vec();
        }
        encoding::bytes::encode(case.number(), &body, &mut event);
        // Some of the rest is its key and length.
        let rest = self.event_bytes.saturating_sub(event.len() + 3);
        if rest > 0 {
            let url = self.url(rest);
            encoding::encode_key(URL_TAG, WireType::LengthDelimited, &mut event);
            encoding::encode_varint(url.len() as u64, &mut event);
            event.put_slice(url.as_bytes());
        }
        event
    }

    /// Fills fields of a message until its bytes are used up.
    fn fill(&mut self, of: &MessageDescriptor, room: usize, depth: usize) -> DynamicMessage {
        let mut message = DynamicMessage::new(of.clone());
        let mut fields: Vec<_> = of.fields().collect();
        fields.shuffle(&mut self.random);
        for field in fields {
            let used = message.encoded_len();
            let Some(value) = self.value(&field, room.saturating_sub(used), depth) else {
                continue;
            };
            message.set_field(&field, value);
            if message.encoded_len() > room {
                message.clear_field(&field);
            }
        }
        message
    }

    fn value(&mut self, field: &FieldDescriptor, room: usize, depth: usize) -> Option<Value> {
        if field.is_map() {
            // One entry: several would be in another order each time.
            let entry = (MapKey::String(self.text()), Value::String(self.text()));
            return Some(Value::Map(HashMap::from([entry])));
        }
        let value = match field.kind() {
            Kind::Message(_) if depth >= DEPTH_MAX => return None,
            Kind::Message(of) => Value::Message(self.fill(&of, room.saturating_sub(3), depth + 1)),
            Kind::String => Value::String(self.text()),
            Kind::Int64 => Value::I64(self.random.random_range(1..1_000_000_000)),
            Kind::Int32 => Value::I32(self.random.random_range(1..1_000_000)),
            Kind::Float => Value::F32(self.random.random_range(1_u16..10_000).into()),
            Kind::Double => Value::F64(self.random.random_range(1_u16..10_000).into()),
            Kind::Bool => Value::Bool(true),
            // A type that is new keeps its zero there.
            _ => return None,
        };
        Some(if field.is_list() {
            Value::List(vec![value])
        } else {
            value
        })
    }

    fn text(&mut self) -> String {
        let chars = self.random.random_range(TEXT_CHARS);
        self.letters(chars)
    }

    fn letters(&mut self, chars: usize) -> String {
        let letter = |_| char::from(self.random.random_range(b'a'..=b'z'));
        (0..chars).map(letter).collect()
    }

    /// An address of so many bytes, or as many letters where it is too short for one.
    fn url(&mut self, bytes: usize) -> String {
        const BASE: &str = "https://load.example/p/";
        match bytes.checked_sub(BASE.len()) {
            Some(rest) => format!("{BASE}{}", self.letters(rest)),
            None => self.letters(bytes),
        }
    }

    fn header(&mut self) -> crate::event::proto::Header {
        crate::event::proto::Header {
            session_id: self.text(),
            bb_device_id: self.random.random_range(1..1_000_000_000),
            user_id: self.random.random_range(1..1_000_000_000),
            device_id: format!("holdfast-load-{}", self.letters(6)),
            client_id: self.text(),
            channel: "load".to_owned(),
            os: "linux".to_owned(),
            client_type: "load".to_owned(),
            app_language: "en".to_owned(),
            app_version: env!("CARGO_PKG_VERSION").to_owned(),
            merchant_id: self.text(),
            utm_source: self.text(),
            utm_medium: self.text(),
            utm_campaign: self.text(),
            ..crate::event::proto::Header::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::tests::plan;
    use super::*;
    use crate::event::descriptor::event_names;
    use crate::event::group::Route;
    use crate::event::proto::Events;
    use crate::event::split;
    use std::collections::{BTreeMap, HashSet};

    const NOW_MS: i64 = 1_764_000_000_123;

    fn calls(plan: &Plan, connections: usize, calls: usize) -> Vec<Vec<u8>> {
        let requests = Arc::new(Requests::new(plan, "abcdefghij012345"));
        let each = (0..connections).flat_map(|c| (0..calls).map(move |n| (c, n)));
        each.map(|(connection, number)| {
            let call = Call {
                requests: Arc::clone(&requests),
                connection,
                number,
                now_ms: NOW_MS,
            };
            let mut bytes = Vec::new();
            call.write(&mut bytes);
            assert_eq!(bytes.len(), call.bytes());
            bytes
        })
        .collect()
    }

    #[test]
    fn every_call_is_valid_and_has_ids_of_its_own() {
        let mut seen = HashSet::new();
        let mut types: BTreeMap<String, usize> = BTreeMap::new();
        for (at, bytes) in calls(&plan(), 3, 100).iter().enumerate() {
            let batch = Events::decode(&bytes[..]).unwrap();
            assert!(!batch.header.unwrap().device_id.is_empty());
            for (index, event) in batch.events.iter().enumerate() {
                let (connection, number) = (at / 100, at % 100 * 10 + index);
                let id = format!("abcdefghij012345-{connection:04}-{number:010}");
                assert_eq!(event.id, id);
                assert_eq!(event.timestamp, NOW_MS.to_string());
                assert!(seen.insert(event.id.clone()));
            }
            for group in split::split(bytes, NOW_MS, None).unwrap() {
                let Route::Type(event_type) = &group.route else {
                    panic!("{:?} is refused", group.route);
                };
                *types.entry(event_type.name()).or_default() += group.indexes.len();
            }
        }
        assert_eq!(seen.len(), 3000);
        assert_eq!(types.len(), event_names().len());
        assert!(types.values().all(|count| *count > 20), "{types:?}");
    }

    #[test]
    fn events_are_about_as_large_as_they_shall_be() {
        for event_bytes in [64, 100, 300, 2000, 100_000] {
            let plan = Plan {
                event_bytes,
                ..plan()
            };
            for bytes in calls(&plan, 1, 60) {
                for event in Events::decode(&bytes[..]).unwrap().events {
                    let is = event.encoded_len();
                    let near = event_bytes.saturating_sub(4)..=event_bytes + 8;
                    assert!(near.contains(&is), "{is} for {event_bytes}");
                }
            }
        }
    }

    #[test]
    fn a_mix_has_the_types_that_it_names() {
        let plan = Plan {
            types: vec!["TestEvent".to_owned(), "SessionIdChangeEvent".to_owned()],
            ..plan()
        };
        for bytes in calls(&plan, 1, 5) {
            let groups: Vec<_> = split::split(&bytes, NOW_MS, None).unwrap().collect();
            let names = groups.iter().map(|group| match &group.route {
                Route::Type(event_type) => event_type.name(),
                Route::Error(reason) => panic!("{reason}"),
            });
            assert_eq!(names.collect::<HashSet<_>>().len(), 2);
        }
    }

    #[test]
    fn a_seed_makes_the_same_again_and_names_differ() {
        let again = |seed| calls(&Plan { seed, ..plan() }, 1, 20);
        assert_eq!(again(7), again(7));
        assert_ne!(again(7), again(8));
        let name = run_name(7, 1_764_000_000_123_456);
        assert_eq!(name.len(), RUN_CHARS);
        assert_eq!(name, run_name(7, 1_764_000_000_123_456));
        assert_ne!(name, run_name(7, 1_764_000_000_123_457));
        assert_ne!(name, run_name(8, 1_764_000_000_123_456));
    }
}
