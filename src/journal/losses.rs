//! Which sequences could not be read back. Called by `survey` and `recovery`
//! (find), `reader` (finds while reading), and everyone who reports.
//!
//! # Invariants
//! - Ranges are exact, disjoint and counted once, however often they are found.

use crate::event::identity::Seq;
use serde::{Deserialize, Serialize};

/// Sequences of acknowledged records that cannot be read back. Without any (`first` is `end`)
/// it is a generation that may have held records, or more than it says, and nothing tells which.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// The generation that held them.
    pub generation: u64,
    /// The first lost sequence.
    pub first: Seq,
    /// The sequence after the last lost one.
    pub end: Seq,
}

impl Loss {
    /// How many records were lost.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.end.0.saturating_sub(self.first.0)
    }
}

/// All known losses, in order.
#[derive(Debug, Default)]
pub(super) struct Losses(Vec<Loss>);

impl Losses {
    /// Adds a range and gives the parts of it that were not known yet.
    pub(super) fn add(&mut self, loss: &Loss) -> Vec<Loss> {
        let mut new = Vec::new();
        let mut first = loss.first;
        for known in &self.0 {
            if known.end <= first || known.first >= loss.end {
                continue;
            }
            if known.first > first {
                new.push(Loss {
                    first,
                    end: known.first,
                    ..loss.clone()
                });
            }
            first = first.max(known.end);
        }
        if first < loss.end {
            new.push(Loss {
                first,
                ..loss.clone()
            });
        }
        self.0.extend(new.iter().cloned());
        self.0.sort_unstable_by_key(|known| known.first);
        new
    }

    /// Adds a generation of which nothing tells what it held from this place on, unless that is
    /// known from elsewhere; whether it is new.
    pub(super) fn add_unknown(&mut self, generation: u64, at: Seq) -> bool {
        let mut of_it = self.0.iter().filter(|known| known.generation == generation);
        let is_new = of_it.all(|known| known.records() > 0 && known.end <= at);
        if is_new {
            self.0.push(Loss {
                generation,
                first: at,
                end: at,
            });
            self.0.sort_unstable_by_key(|known| known.first);
        }
        is_new
    }

    /// An operator has removed the generation's files: its losses are history.
    pub(super) fn forget(&mut self, generation: u64) {
        self.0.retain(|known| known.generation != generation);
    }

    pub(super) fn list(&self) -> &[Loss] {
        &self.0
    }

    pub(super) fn records(&self) -> u64 {
        // Where nobody knows, it was one at least: alerts look at this figure.
        let records = self.0.iter().map(|loss| loss.records().max(1));
        records.fold(0, u64::saturating_add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn what_nobody_can_tell_is_told_once_and_forgotten_with_its_files() {
        let mut losses = Losses::default();
        let loss = Loss {
            generation: 2,
            first: Seq(5),
            end: Seq(9),
        };
        losses.add(&loss);
        assert!(!losses.add_unknown(2, Seq(5)), "it is known exactly");
        assert!(losses.add_unknown(2, Seq(9)), "more may be behind it");
        assert!(!losses.add_unknown(2, Seq(9)));
        assert_eq!((losses.list().len(), losses.records()), (2, 5));
        losses.forget(2);
        losses.add(&loss);
        assert!(losses.add_unknown(3, Seq(9)));
        assert!(!losses.add_unknown(3, Seq(20)));
        assert_eq!((losses.list().len(), losses.records()), (2, 5));
        losses.forget(3);
        assert_eq!(losses.list(), [loss]);
    }

    proptest! {
        #[test]
        fn every_lost_sequence_counts_once(ranges in proptest::collection::vec((1u64..60, 0u64..12), 0..20)) {
            let mut losses = Losses::default();
            let mut expected = BTreeSet::new();
            for (first, length) in ranges {
                let loss = Loss { generation: 1, first: Seq(first), end: Seq(first + length) };
                let new: u64 = losses.add(&loss).iter().map(Loss::records).sum();
                let before = expected.len();
                expected.extend(first..first + length);
                prop_assert_eq!(new as usize, expected.len() - before);
            }
            let listed: Vec<u64> = losses.list().iter().flat_map(|l| l.first.0..l.end.0).collect();
            prop_assert_eq!(listed, expected.into_iter().collect::<Vec<_>>());
        }
    }
}
