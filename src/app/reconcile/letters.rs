//! The events that are in this host's dead letters, by the way out that set them aside.
//! Called by `reconcile`.
//!
//! # Invariants
//! - A letter of one way out explains nothing of another's (test
//!   `reconcile_names_exactly_what_is_missing_and_what_is_extra`).
//! - A letter that was given up stays known. One that was sent again does not: then its rows
//!   are there, or missing.
//! - Bounded by the range that is looked at, and by [`LETTERS_MAX`].

use super::ReconcileError;
use super::log::Log;
use crate::dead_letters::{Desk, State};
use std::collections::{HashMap, HashSet};
use std::path::Path;

/// Events in dead letters that are looked at: bounds memory; so many have a cause that comes
/// before any reconciliation.
const LETTERS_MAX: usize = 1_000_000;

/// Events of one request in a letter.
const LETTER_EVENTS_MAX: usize = 1 << 20;

/// A request and the event's place in it.
pub(super) type At = (u64, u32);

/// What became of the events of one way out's letters.
#[derive(Debug, Default)]
struct OfWay {
    waiting: HashSet<At>,
    purged: HashSet<At>,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Letters {
    ways: HashMap<String, OfWay>,
}

impl Letters {
    /// Those of the events in the log's range.
    pub(super) async fn read(data_dir: &Path, log: &Log) -> Result<Self, ReconcileError> {
        let mut letters = Self::default();
        let Some(desk) = Desk::open(data_dir) else {
            return Ok(letters);
        };
        let failed = |error: &dyn std::fmt::Display| ReconcileError::Letters(error.to_string());
        let mut after = 0;
        let mut count = 0;
        loop {
            let page = desk.unsent(after).await.map_err(|error| failed(&error))?;
            let Some(last) = page.last() else { break };
            after = last.0.id;
            for (kept, state) in &page {
                let letter = &kept.letter;
                if letter.host != log.host {
                    continue;
                }
                let span = log.span;
                let places = letter.places(LETTER_EVENTS_MAX).into_iter();
                let places = places.filter(|(seq, _)| (span.first.0..span.end.0).contains(seq));
                let of_way = letters.ways.entry(letter.way_out.clone()).or_default();
                let set = match state {
                    State::Purged => &mut of_way.purged,
                    State::Waiting | State::Replayed => &mut of_way.waiting,
                };
                for (seq, indexes) in places {
                    count += indexes.len();
                    set.extend(indexes.into_iter().map(|index| (seq, index)));
                }
            }
            if count > LETTERS_MAX {
                return Err(failed(&format!(
                    "more than {LETTERS_MAX} events of the range are there"
                )));
            }
        }
        desk.close().await;
        Ok(letters)
    }

    /// Whether the event waits in a letter of one of these.
    pub(super) fn waits(&self, ways: &[String], at: At) -> bool {
        self.of(ways).any(|way| way.waiting.contains(&at))
    }

    /// Whether an operator gave it up in a letter of one of these.
    pub(super) fn is_purged(&self, ways: &[String], at: At) -> bool {
        self.of(ways).any(|way| way.purged.contains(&at))
    }

    fn of<'a>(&'a self, ways: &'a [String]) -> impl Iterator<Item = &'a OfWay> {
        ways.iter().filter_map(|way| self.ways.get(way))
    }
}
