//! What is journaled: one request with what the door knew about it.
//!
//! Bytes of a record, before it is cut into parts for blocks:
//! ```text
//! u32 LE   length of the meta
//! meta     bincode 2 (standard configuration) of `Meta`
//! content  the request's bytes, verbatim
//! ```

use super::codec;
use crate::event::identity::{Seq, format_index_range};
use crate::event::tally::Tally;
use crate::event::webhook::Source;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// What a record's content is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// An `event.Events` that was accepted.
    Dispatch,
    /// An `event.Events` that was refused, kept for diagnosis.
    Rejected,
    /// A webhook that was accepted, as [`crate::event::webhook::Stored`] has it.
    Webhook(Source),
}

/// A request to be made durable.
#[derive(Debug, Clone)]
pub struct NewRecord {
    /// What it is.
    pub kind: Kind,
    /// When the door received it, epoch milliseconds.
    pub received_at_ms: i64,
    /// Why it was refused, for [`Kind::Rejected`].
    pub reason: Option<String>,
    /// Its events by type, for the ledger.
    pub events: Tally,
    /// Its bytes, verbatim.
    pub content: Bytes,
}

/// A durable request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its sequence on this host.
    pub seq: Seq,
    /// What it is.
    pub kind: Kind,
    /// When the door received it, epoch milliseconds.
    pub received_at_ms: i64,
    /// Why it was refused, for [`Kind::Rejected`].
    pub reason: Option<String>,
    /// Its events by type, for the ledger.
    pub events: Tally,
    /// Its bytes, verbatim.
    pub content: Bytes,
}

/// What a record's head may claim: a reason of a thousand characters, and a count for each
/// type.
const META_BYTES_MAX: usize = 1 << 20;

/// A record's head, written of what others hold and read as its own.
#[derive(Serialize, Deserialize)]
struct Meta<Reason, Events> {
    kind: Kind,
    received_at_ms: i64,
    reason: Option<Reason>,
    events: Events,
}

/// A record's bytes: those before the content, and the content, which nobody has copied.
#[derive(Debug, Clone)]
pub(super) struct Encoded {
    pub(super) head: Vec<u8>,
    pub(super) content: Bytes,
}

impl Encoded {
    pub(super) fn len(&self) -> usize {
        self.head.len() + self.content.len()
    }

    /// All of it in one piece.
    pub(super) fn concat(&self) -> Vec<u8> {
        [self.head.as_slice(), &self.content].concat()
    }
}

/// Bytes that are not a record.
#[derive(Debug, thiserror::Error)]
#[error("not a record: {0}")]
pub(super) struct DecodeError(String);

impl NewRecord {
    /// The record's bytes.
    pub(super) fn encode(&self) -> Encoded {
        let meta = Meta {
            kind: self.kind,
            received_at_ms: self.received_at_ms,
            reason: self.reason.as_deref(),
            events: &self.events,
        };
        let meta = codec::encode(&meta).expect("plain numbers and text always encode");
        let length = u32::try_from(meta.len()).unwrap_or(u32::MAX);
        Encoded {
            head: [&length.to_le_bytes(), meta.as_slice()].concat(),
            content: self.content.clone(),
        }
    }
}

impl Record {
    /// The places of all of its events, as in the `x-holdfast-indexes` header, for who sets it
    /// aside whole. Of a refused request they are not counted: empty.
    #[must_use]
    pub fn indexes(&self) -> String {
        match self.kind {
            Kind::Dispatch => {
                let events = usize::try_from(self.events.total()).unwrap_or(usize::MAX);
                format_index_range(events)
            }
            Kind::Webhook(_) => format_index_range(1),
            Kind::Rejected => String::new(),
        }
    }

    /// Reads what [`NewRecord::encode`] wrote.
    pub(super) fn decode(seq: Seq, bytes: &Bytes) -> Result<Self, DecodeError> {
        let short = || DecodeError("too short".into());
        let meta_len = bytes.first_chunk::<4>().ok_or_else(short)?;
        let meta_end = 4 + u32::from_le_bytes(*meta_len) as usize;
        let meta = bytes.get(4..meta_end).ok_or_else(short)?;
        let decoded = codec::decode_within::<Meta<String, Tally>, META_BYTES_MAX>(meta);
        let (meta, used) = decoded.map_err(|error| DecodeError(error.to_string()))?;
        if used != meta_end - 4 {
            return Err(DecodeError("meta has bytes left over".into()));
        }
        Ok(Self {
            seq,
            kind: meta.kind,
            received_at_ms: meta.received_at_ms,
            reason: meta.reason,
            events: meta.events,
            content: bytes.slice(meta_end..),
        })
    }
}
