//! Which events of a request travel together. Called by `split`, which makes the groups
//! of it.
//!
//! # Invariants
//! - Made before the first group is: a request that cannot be taken apart becomes no
//!   message and no row.
//! - Bounded: routes by the known types, [`UNKNOWN_TYPES_MAX`] and three reasons; what is
//!   kept between the looks is some bytes for each event, and few decoded events.

use super::batch::Pieces;
use super::descriptor::EventType;
use super::group::SharedHeader;
use super::limits::{
    DECODED_BYTES_MAX, DECODED_EVENTS_MAX, EVENTS_PER_MESSAGE_MAX, HEADER_COPIES_BYTES_MAX,
    HEADER_ROWS_FACTOR, MESSAGE_BYTES_SOFT_MAX, MESSAGE_ROWS_BYTES_SOFT_MAX, UNKNOWN_TYPES_MAX,
};
use super::reflected::Event;
use super::reject::Invalid;
use super::split::{DecodeError, SplitError};
use super::validate;
use prost::Message as _;
use std::sync::Arc;

/// Stands for several numbers of unknown types in a message's routing key: no field has
/// it. Each row has its event's own.
pub(super) const UNKNOWN_SEVERAL: EventType = EventType::Unknown(0);

/// What events have in common that travel together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Key {
    Type(EventType),
    /// All of a request that was refused at the door.
    Rejected,
    NoId,
    BadTimestamp,
}

/// A group to be.
#[derive(Debug)]
pub(super) struct Planned {
    pub(super) key: Key,
    /// Ascending places in the request.
    pub(super) indexes: Vec<u32>,
    /// For bad timestamps: the text that all of them have, as far as it is quoted.
    pub(super) timestamp: Option<String>,
    /// Its events' bytes in the request.
    encoded_bytes: usize,
}

/// A request as it was read.
#[derive(Debug)]
pub(super) struct Request<'a> {
    pub(super) header: Option<Arc<SharedHeader>>,
    /// The header's bytes in the larger of its forms.
    header_bytes: usize,
    bytes: usize,
    events: Vec<&'a [u8]>,
    /// The first events, as far as they are kept decoded.
    decoded: Vec<Option<Event>>,
    received_at_ms: i64,
    is_rejected: bool,
}

impl<'a> Request<'a> {
    /// Finds the header and the events.
    pub(super) fn read(
        bytes: &'a [u8],
        received_at_ms: i64,
        is_rejected: bool,
    ) -> Result<Self, DecodeError> {
        let pieces = Pieces::read(bytes)?;
        let header = pieces.header()?.zip(pieces.header);
        let header = header.map(|(fields, bytes)| Arc::new(SharedHeader::new(fields, bytes)));
        Ok(Self {
            header_bytes: header.as_ref().map_or(0, |header| header.bytes()),
            header,
            bytes: bytes.len(),
            events: pieces.events,
            decoded: Vec::new(),
            received_at_ms,
            is_rejected,
        })
    }

    /// The event at a place, as it is handed on.
    pub(super) fn take(&mut self, at: u32) -> Event {
        let at = at as usize;
        if let Some(event) = self.decoded.get_mut(at).and_then(Option::take) {
            return event;
        }
        let (event, _, _) = self
            .look(self.events[at])
            .expect("the plan decoded the same bytes");
        event
    }

    /// Decodes an event and says where it goes, with a bad timestamp's text.
    fn look(&self, bytes: &[u8]) -> Result<(Event, Key, Option<String>), DecodeError> {
        let mut event = Event::decode(bytes)?;
        if self.is_rejected {
            return Ok((event, Key::Rejected, None));
        }
        let (key, bad) = match validate::event(&event.id, &event.timestamp) {
            Ok(timestamp_ms) => {
                if timestamp_ms > self.received_at_ms {
                    event.timestamp = self.received_at_ms.to_string();
                }
                (Key::Type(EventType::of(&event)), None)
            }
            Err(Invalid::BadTimestamp(text)) => (Key::BadTimestamp, Some(text)),
            Err(_) => (Key::NoId, None),
        };
        Ok((event, key, bad))
    }

    fn header_error(&self) -> SplitError {
        SplitError::Header {
            header_bytes: self.header_bytes,
            events: self.events.len(),
        }
    }
}

/// Plans the groups of a request.
pub(super) fn make(request: &mut Request<'_>) -> Result<Vec<Planned>, SplitError> {
    let copies_max = request.bytes.saturating_mul(HEADER_ROWS_FACTOR);
    let copies = request.header_bytes.saturating_mul(request.events.len());
    if copies > copies_max.max(HEADER_COPIES_BYTES_MAX) {
        return Err(request.header_error());
    }
    let mut open: Vec<Planned> = Vec::new();
    let mut closed = Vec::new();
    let mut decoded_bytes = 0usize;
    for at in 0..request.events.len() {
        let bytes = request.events[at];
        let (event, key, timestamp) = request.look(bytes)?;
        let group = place(&mut open, key);
        let group = &mut open[group];
        group.push(at, bytes.len(), timestamp);
        if group.is_full(request.header_bytes) {
            let next = Planned::new(group.key.clone());
            closed.push(std::mem::replace(group, next));
        }
        let messages = open.len() + closed.len();
        let copies = request.header_bytes.saturating_mul(messages);
        if messages > 1 && copies > HEADER_COPIES_BYTES_MAX {
            return Err(request.header_error());
        }
        decoded_bytes = decoded_bytes.saturating_add(bytes.len());
        // From the first one on: the places in the list are those in the request.
        if at < DECODED_EVENTS_MAX && decoded_bytes <= DECODED_BYTES_MAX {
            request.decoded.push(Some(event));
        }
    }
    if request.is_rejected && request.events.is_empty() {
        return Ok(vec![Planned::new(Key::Rejected)]);
    }
    closed.extend(open.into_iter().filter(|group| !group.indexes.is_empty()));
    Ok(closed)
}

/// The open group of a key, or a new one.
fn place(open: &mut Vec<Planned>, key: Key) -> usize {
    if let Some(at) = open.iter().position(|group| group.key == key) {
        return at;
    }
    let is_unknown = |key: &Key| matches!(key, Key::Type(EventType::Unknown(_)));
    let several = Key::Type(UNKNOWN_SEVERAL);
    let key = if is_unknown(&key)
        && open.iter().filter(|group| is_unknown(&group.key)).count() >= UNKNOWN_TYPES_MAX
    {
        if let Some(at) = open.iter().position(|group| group.key == several) {
            return at;
        }
        several
    } else {
        key
    };
    open.push(Planned::new(key));
    open.len() - 1
}

impl Planned {
    fn new(key: Key) -> Self {
        Self {
            key,
            indexes: Vec::new(),
            timestamp: None,
            encoded_bytes: 0,
        }
    }

    fn push(&mut self, at: usize, encoded_bytes: usize, timestamp: Option<String>) {
        if self.indexes.is_empty() {
            self.timestamp = timestamp;
        } else if self.timestamp != timestamp {
            self.timestamp = None;
        }
        self.encoded_bytes += encoded_bytes;
        self.indexes.push(u32::try_from(at).unwrap_or(u32::MAX));
    }

    fn is_full(&self, header_bytes: usize) -> bool {
        let rows_bytes = header_bytes
            .saturating_mul(self.indexes.len())
            .saturating_add(self.encoded_bytes);
        self.indexes.len() >= EVENTS_PER_MESSAGE_MAX
            || self.encoded_bytes >= MESSAGE_BYTES_SOFT_MAX
            || rows_bytes >= MESSAGE_ROWS_BYTES_SOFT_MAX
    }
}
