//! What a load generator sent and was acknowledged: ids that can be counted, and one bit for
//! each call. Filled by `cli::load`, read by the comparison; kept in a file between the two
//! where they are made on different hosts.
//!
//! # Invariants
//! - An id is `RUN-CONNECTION-NUMBER`, always of [`Sent::ID_BYTES`] bytes, and stands for one
//!   event alone (test `ids_are_of_one_length_and_read_back`).
//! - A call is acknowledged, or unknown (it was refused, or nobody answered), or was never
//!   sent (test `a_call_has_three_states`).
//! - A saved record reads back as it was, and a damaged one is refused (test
//!   `a_record_reads_back_and_a_damaged_one_does_not`).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fixedbitset::FixedBitSet;
use serde::{Deserialize, Serialize};

/// Characters of a run's name.
pub const RUN_CHARS: usize = 16;

/// Events of one run: their bits take 64 MiB for each sink when they are compared.
pub const EVENTS_MAX: u64 = 1 << 29;

/// Digits of a connection in an id.
const CONNECTION_DIGITS: usize = 4;

/// Digits of an event in an id.
const NUMBER_DIGITS: usize = 10;

/// What is known of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Its call was acknowledged: it must be there.
    Acked,
    /// Its call was sent, and refused or not answered: it may be there.
    Unknown,
    /// Nobody sent it.
    NeverSent,
}

/// The calls of one connection, which have numbers from 0.
#[derive(Debug, Clone, Default)]
pub struct Calls {
    sent: usize,
    acked: FixedBitSet,
}

impl Calls {
    /// How many were sent.
    #[must_use]
    pub fn sent(&self) -> usize {
        self.sent
    }

    /// Gives the next call its number; it counts as sent.
    pub fn send(&mut self) -> usize {
        self.sent += 1;
        self.sent - 1
    }

    /// Notes that a call was acknowledged.
    pub fn acknowledge(&mut self, call: usize) {
        self.acked.grow_and_insert(call);
    }

    fn state(&self, call: usize) -> State {
        if call >= self.sent {
            State::NeverSent
        } else if self.acked.contains(call) {
            State::Acked
        } else {
            State::Unknown
        }
    }

    fn acked_calls(&self) -> usize {
        self.acked.count_ones(..)
    }
}

/// What one run sent.
#[derive(Debug, Clone)]
pub struct Sent {
    /// Its name, of [`RUN_CHARS`] of `a-z 0-9`.
    pub run: String,
    /// Events of each call.
    pub batch_events: usize,
    /// When its first event was made, epoch milliseconds.
    pub from_ms: i64,
    /// When its last event was made, epoch milliseconds.
    pub until_ms: i64,
    /// Each connection.
    pub connections: Vec<Calls>,
}

/// A file that is no record of a run.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// It is no such document.
    #[error("not a record of a run: {0}")]
    Json(#[from] serde_json::Error),
    /// Its bits are no base64.
    #[error("not a record of a run: {0}")]
    Bits(#[from] base64::DecodeError),
    /// It says what cannot be.
    #[error("not a record of a run: {0}")]
    Odd(&'static str),
}

/// The form of a record in a file.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    holdfast_load: u32,
    run: String,
    batch_events: usize,
    from_ms: i64,
    until_ms: i64,
    connections: Vec<RecordedCalls>,
}

#[derive(Debug, Serialize, Deserialize)]
struct RecordedCalls {
    sent: usize,
    /// Bits of acknowledged calls, little endian, base64.
    acked: String,
}

/// The version of that form.
const FORM: u32 = 1;

impl Sent {
    /// Bytes of an id; the tables in the field take 55.
    pub const ID_BYTES: usize = RUN_CHARS + 1 + CONNECTION_DIGITS + 1 + NUMBER_DIGITS;

    /// How ids of the run begin.
    #[must_use]
    pub fn prefix(&self) -> String {
        format!("{}-", self.run)
    }

    /// How ids of a connection begin; ten digits follow.
    #[must_use]
    pub fn prefix_of(run: &str, connection: usize) -> String {
        format!("{run}-{connection:0CONNECTION_DIGITS$}-")
    }

    /// The id of an event.
    #[must_use]
    pub fn id(&self, connection: usize, number: u64) -> String {
        let prefix = Self::prefix_of(&self.run, connection);
        format!("{prefix}{number:0NUMBER_DIGITS$}")
    }

    /// Connection and number of an event of this run.
    #[must_use]
    pub fn place(&self, id: &str) -> Option<(usize, u64)> {
        let rest = id.strip_prefix(self.run.as_str())?.strip_prefix('-')?;
        let (connection, number) = rest.split_once('-')?;
        let is_number = |text: &str, digits: usize| {
            text.len() == digits && text.bytes().all(|b| b.is_ascii_digit())
        };
        if !is_number(connection, CONNECTION_DIGITS) || !is_number(number, NUMBER_DIGITS) {
            return None;
        }
        Some((connection.parse().ok()?, number.parse().ok()?))
    }

    /// What is known of an event.
    #[must_use]
    pub fn state(&self, connection: usize, number: u64) -> State {
        let call = usize::try_from(number).unwrap_or(usize::MAX) / self.batch_events;
        let calls = self.connections.get(connection);
        calls.map_or(State::NeverSent, |calls| calls.state(call))
    }

    fn events(&self, calls: impl Fn(&Calls) -> usize) -> u64 {
        let calls: usize = self.connections.iter().map(calls).sum();
        (calls * self.batch_events) as u64
    }

    /// Events that were acknowledged.
    #[must_use]
    pub fn acked_events(&self) -> u64 {
        self.events(Calls::acked_calls)
    }

    /// Events that were sent, and not acknowledged.
    #[must_use]
    pub fn unknown_events(&self) -> u64 {
        self.events(Calls::sent) - self.acked_events()
    }

    /// The record as a document.
    ///
    /// # Errors
    /// Only what a serializer may say.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        let calls = self.connections.iter().map(|calls| {
            let blocks = calls.acked.as_slice().iter();
            let bytes: Vec<u8> = blocks.flat_map(|block| block.to_le_bytes()).collect();
            RecordedCalls {
                sent: calls.sent,
                acked: STANDARD.encode(bytes),
            }
        });
        serde_json::to_string(&Record {
            holdfast_load: FORM,
            run: self.run.clone(),
            batch_events: self.batch_events,
            from_ms: self.from_ms,
            until_ms: self.until_ms,
            connections: calls.collect(),
        })
    }

    /// Reads a record.
    ///
    /// # Errors
    /// When it is none, or says what cannot be.
    pub fn from_json(text: &[u8]) -> Result<Self, RecordError> {
        let record: Record = serde_json::from_slice(text)?;
        let is_name =
            record.run.len() == RUN_CHARS && record.run.bytes().all(|b| b.is_ascii_alphanumeric());
        let times = (0..i64::MAX / 4).contains(&record.from_ms)
            && (record.from_ms..i64::MAX / 4).contains(&record.until_ms);
        let calls = record.connections.iter().map(|calls| calls.sent as u64);
        let events = calls.fold(0_u64, u64::saturating_add);
        let events = events.saturating_mul(record.batch_events as u64);
        for (is_so, odd) in [
            (events <= EVENTS_MAX, "more events than a run has"),
            (record.holdfast_load == FORM, "of another version"),
            (is_name, "an odd name"),
            (record.batch_events > 0, "calls without events"),
            (times, "odd times"),
        ] {
            if !is_so {
                return Err(RecordError::Odd(odd));
            }
        }
        let connections = record.connections.into_iter().map(|calls| {
            let bytes = STANDARD.decode(calls.acked)?;
            let mut acked = FixedBitSet::with_capacity(bytes.len() * 8);
            for (at, byte) in bytes.iter().enumerate() {
                let bits = (0..8).filter(|bit| byte & (1 << bit) != 0);
                bits.for_each(|bit| acked.insert(at * 8 + bit));
            }
            if acked.maximum().is_some_and(|last| last >= calls.sent) {
                return Err(RecordError::Odd("acknowledged and never sent"));
            }
            Ok(Calls {
                sent: calls.sent,
                acked,
            })
        });
        Ok(Self {
            run: record.run,
            batch_events: record.batch_events,
            from_ms: record.from_ms,
            until_ms: record.until_ms,
            connections: connections.collect::<Result<_, RecordError>>()?,
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Two connections with three events a call: the second and the fourth call of the first
    /// one are acknowledged of four, and the only one of the second one.
    pub(in crate::app::arrivals) fn sent() -> Sent {
        let mut first = Calls::default();
        for call in 0..4 {
            assert_eq!(first.send(), call);
        }
        first.acknowledge(3);
        first.acknowledge(1);
        let mut second = Calls::default();
        let call = second.send();
        second.acknowledge(call);
        Sent {
            run: "abcdefghij012345".to_owned(),
            batch_events: 3,
            from_ms: 1_700_000_000_000,
            until_ms: 1_700_000_001_000,
            connections: vec![first, second],
        }
    }

    #[test]
    fn ids_are_of_one_length_and_read_back() {
        let sent = sent();
        for (connection, number) in [(0, 0), (1, 5), (255, 9_999_999_999)] {
            let id = sent.id(connection, number);
            assert_eq!(id.len(), Sent::ID_BYTES, "{id}");
            assert!(id.len() <= 55 && id.starts_with(&sent.prefix()));
            assert_eq!(sent.place(&id), Some((connection, number)));
        }
        for other in [
            "",
            "abcdefghij012345",
            "abcdefghij012345-",
            "abcdefghij012345-0001-00000000",
            "abcdefghij012345-0001-00000000001",
            "abcdefghij012345-1-0000000001",
            "abcdefghij012345-0001-000000000x",
            "abcdefghij012345-+001-0000000001",
            "bbcdefghij012345-0001-0000000001",
            "ABCDEFGHIJ012345-0001-0000000001",
        ] {
            assert_eq!(sent.place(other), None, "{other}");
        }
    }

    #[test]
    fn a_call_has_three_states() {
        let sent = sent();
        let states: Vec<_> = (0..13).map(|number| sent.state(0, number)).collect();
        let expected = [
            [State::Unknown; 3],
            [State::Acked; 3],
            [State::Unknown; 3],
            [State::Acked; 3],
        ];
        assert_eq!(states[..12], expected.concat());
        assert_eq!(states[12], State::NeverSent);
        assert_eq!(sent.state(1, 2), State::Acked);
        assert_eq!(sent.state(1, 3), State::NeverSent);
        assert_eq!(sent.state(2, 0), State::NeverSent);
        assert_eq!(sent.acked_events(), 9);
        assert_eq!(sent.unknown_events(), 6);
    }

    #[test]
    fn a_record_reads_back_and_a_damaged_one_does_not() {
        let mut sent = sent();
        let many = &mut sent.connections[1];
        for _ in 0..1000 {
            let call = many.send();
            if call.is_multiple_of(3) {
                many.acknowledge(call);
            }
        }
        let text = sent.to_json().unwrap();
        let back = Sent::from_json(text.as_bytes()).unwrap();
        assert_eq!(back.acked_events(), sent.acked_events());
        assert_eq!(back.unknown_events(), sent.unknown_events());
        for (connection, events) in [(0, 15), (1, 3100)] {
            for number in 0..events {
                let state = back.state(connection, number);
                assert_eq!(state, sent.state(connection, number));
            }
        }
        for (from, to) in [
            ("\"holdfast_load\":1", "\"holdfast_load\":2"),
            ("\"batch_events\":3", "\"batch_events\":0"),
            ("\"sent\":4", "\"sent\":3"),
            ("\"sent\":4", "\"sent\":999999999999"),
            ("\"run\":\"abc", "\"run\":\"ab%"),
            ("\"until_ms\":17", "\"until_ms\":16"),
            ("\"acked\":\"", "\"acked\":\"!"),
            ("{", "["),
        ] {
            let damaged = text.replacen(from, to, 1);
            assert_ne!(damaged, text);
            assert!(Sent::from_json(damaged.as_bytes()).is_err(), "{from}");
        }
    }
}
