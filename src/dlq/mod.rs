//! The operator's look at what was refused: the error queues of the broker, and the dead
//! letters of this host; to send it again after a fix, or to give it up. Called by `cli`.
//!
//! # Invariants
//! - A letter leaves its place after the evidence that it is safe: the broker's confirm,
//!   the sink's commit (tests in tests/it/dlq).
//! - A replay keeps the message's id, its origin and its headers, and goes to the queue
//!   that refused it first, and to no other.
//! - Looking costs no letter, however often: one that the broker would soon count as
//!   delivered too often is put into the queue anew.
//! - One letter that cannot be sent leaves the others alone.

mod again;
mod letter;
mod local;
mod queues;
mod repaired;

pub use letter::{Filter, Letter};
pub use local::{DEAD_LETTERS, Local};
pub use queues::{ErrorQueue, Queues};
pub use repaired::{Repaired, RepairedError};

use crate::broker::{BrowseError, ConnectError, PublishError};
use crate::dead_letters::DeskError;
use crate::sink::OptionsError;
use serde::Serialize;
use std::collections::BTreeSet;

/// Letters that could not be sent and are named one by one; the rest are counted.
const FAILURES_MAX: usize = 20;

/// Why a place could not be looked at, or a change stopped half-way: what was not done is
/// where it was. Worth another try when the broker, the sink or the disk is back.
#[derive(Debug, thiserror::Error)]
pub enum DlqError {
    /// The broker is away.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// A queue cannot be looked at.
    #[error(transparent)]
    Browse(#[from] BrowseError),
    /// It is unknown whether the broker has a message; it was not taken from its place.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// The file of dead letters.
    #[error(transparent)]
    Desk(#[from] DeskError),
    /// A sink's section of the configuration cannot be used.
    #[error(transparent)]
    Sink(#[from] OptionsError),
    /// A sink is away.
    #[error("{sink} is away: {reason}")]
    SinkAway {
        /// The sink.
        sink: String,
        /// What it said.
        reason: String,
    },
}

/// What to do with letters that match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Only look.
    Look,
    /// Send them again.
    Replay,
    /// Give them up.
    Purge,
}

/// What became of the letters of one place.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The error queue, or the file.
    pub place: String,
    /// Letters that were looked at.
    pub seen: u64,
    /// Those that the filter meant.
    pub matched: u64,
    /// Those that were replayed or purged.
    pub done: u64,
    /// Those that could not be.
    pub failed: u64,
    /// Why, for the first of them.
    pub failures: Vec<Failure>,
    /// The ids of letters that were meant and have a mended body; as many as the operator's file
    /// has lines, at most, and never written out.
    #[serde(skip)]
    pub mended: BTreeSet<String>,
}

/// A letter that could not be sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// Its id.
    pub id: String,
    /// Why.
    pub reason: String,
}

impl Report {
    fn of(place: &str) -> Self {
        Self {
            place: place.to_owned(),
            ..Self::default()
        }
    }

    fn meant(&mut self, id: &str, is_mended: bool) {
        self.matched += 1;
        if is_mended {
            self.mended.insert(id.to_owned());
        }
    }

    fn fail(&mut self, id: &str, reason: impl ToString) {
        self.failed += 1;
        if self.failures.len() < FAILURES_MAX {
            self.failures.push(Failure {
                id: id.to_owned(),
                reason: reason.to_string(),
            });
        }
    }
}
