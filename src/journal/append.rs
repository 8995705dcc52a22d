//! A request on its way to the writer, and the slot for its answer. Called by
//! `handle` (makes them) and `writer` (answers).
//!
//! # Invariants
//! - Every request is answered once: one that is dropped says `Closed`.
//! - The memory that a request holds is counted until it is answered.

use super::error::AppendError;
use super::record::Encoded;
use crate::event::identity::Seq;
use crate::event::tally::Tally;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// What the writer is told.
pub(super) enum Command {
    /// Make a request durable.
    Append(Append),
    /// Look after what time brings: an aged generation, a manifest that is behind.
    Tick,
}

/// A request on its way to the disk.
pub(super) struct Append {
    pub(super) record: Encoded,
    pub(super) received_at_ms: i64,
    pub(super) events: Tally,
    pub(super) reply: Reply,
}

/// The caller's slot. Dropped without an answer (a panic, a shutdown), it says
/// so: nobody waits for ever.
pub(super) struct Reply {
    sender: Option<oneshot::Sender<Result<Seq, AppendError>>>,
    /// Memory that the request holds until it is answered.
    _bytes: OwnedSemaphorePermit,
}

impl Reply {
    pub(super) fn new(
        sender: oneshot::Sender<Result<Seq, AppendError>>,
        bytes: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            sender: Some(sender),
            _bytes: bytes,
        }
    }

    /// Whether the caller gave up.
    pub(super) fn is_abandoned(&self) -> bool {
        self.sender.as_ref().is_none_or(oneshot::Sender::is_closed)
    }

    pub(super) fn send(mut self, result: Result<Seq, AppendError>) {
        if let Some(sender) = self.sender.take() {
            // A caller that gave up has dropped its end; it was told "deadline".
            drop(sender.send(result));
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some(sender) = self.sender.take() {
            drop(sender.send(Err(AppendError::Closed)));
        }
    }
}
