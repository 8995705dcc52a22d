//! One table's rows against what was sent. Called by `judge`; knows no database.
//!
//! # Invariants
//! - One bit for each event sent, however long the ids are, and [`NAMED_MAX`] names.

use super::sent::{Sent, State};
use fixedbitset::FixedBitSet;
use serde::Serialize;

/// Events of each kind that are named; the rest are counted.
pub const NAMED_MAX: usize = 5;

/// What was found in one table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Rows {
    /// Rows of the run, as readers see them.
    pub rows: u64,
    /// Acknowledged events without a row.
    pub missing: u64,
    /// The first of them, by connection and number.
    pub missing_ids: Vec<String>,
    /// Rows of events that have another one.
    pub twice: u64,
    /// The first of them.
    pub twice_ids: Vec<String>,
    /// Events with a row that were sent and not acknowledged: allowed.
    pub unknown: u64,
    /// Rows of this run's name that nobody sent.
    pub never_sent: u64,
    /// The first of them.
    pub never_sent_ids: Vec<String>,
}

impl Rows {
    /// Whether nothing is missing, twice or made up.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.missing == 0 && self.twice == 0 && self.never_sent == 0
    }
}

/// A comparison that takes one row after the other.
pub(super) struct Comparison<'a> {
    sent: &'a Sent,
    /// Events seen, by connection.
    seen: Vec<FixedBitSet>,
    found: Rows,
}

fn name(names: &mut Vec<String>, id: impl FnOnce() -> String) {
    if names.len() < NAMED_MAX {
        names.push(id());
    }
}

impl<'a> Comparison<'a> {
    pub(super) fn new(sent: &'a Sent) -> Self {
        let bits = |calls: &super::Calls| {
            FixedBitSet::with_capacity(calls.sent().saturating_mul(sent.batch_events))
        };
        Self {
            sent,
            seen: sent.connections.iter().map(bits).collect(),
            found: Rows::default(),
        }
    }

    pub(super) fn row(&mut self, id: &str) {
        let found = &mut self.found;
        found.rows += 1;
        let place = self.sent.place(id).map(|(connection, number)| {
            let state = self.sent.state(connection, number);
            (connection, number, state)
        });
        let (connection, number, state) = match place {
            Some(place) if place.2 != State::NeverSent => place,
            _ => {
                found.never_sent += 1;
                name(&mut found.never_sent_ids, || id.to_owned());
                return;
            }
        };
        let bit = usize::try_from(number).unwrap_or(usize::MAX);
        if self.seen[connection].put(bit) {
            found.twice += 1;
            name(&mut found.twice_ids, || id.to_owned());
        } else if state == State::Unknown {
            found.unknown += 1;
        }
    }

    /// What was found, and what was not.
    pub(super) fn rows(mut self) -> Rows {
        for (connection, seen) in self.seen.iter().enumerate() {
            for number in seen.zeroes().map(|bit| bit as u64) {
                if self.sent.state(connection, number) == State::Acked {
                    self.found.missing += 1;
                    name(&mut self.found.missing_ids, || {
                        self.sent.id(connection, number)
                    });
                }
            }
        }
        self.found
    }
}

#[cfg(test)]
mod tests {
    use super::super::sent::tests::sent;
    use super::*;

    /// Ids of all events of acknowledged calls.
    fn acked() -> Vec<String> {
        let sent = sent();
        let first = [3, 4, 5, 9, 10, 11].map(|number| sent.id(0, number));
        let second = [0, 1, 2].map(|number| sent.id(1, number));
        [first.as_slice(), second.as_slice()].concat()
    }

    fn compare(ids: &[String]) -> Rows {
        let sent = sent();
        let mut comparison = Comparison::new(&sent);
        ids.iter().for_each(|id| comparison.row(id));
        comparison.rows()
    }

    #[test]
    fn all_that_was_acknowledged_is_clean() {
        let mut ids = acked();
        ids.reverse();
        let expected = Rows {
            rows: 9,
            ..Rows::default()
        };
        assert_eq!(compare(&ids), expected);
        assert!(expected.is_clean());
    }

    #[test]
    fn what_is_missing_is_named_in_order() {
        let ids = acked();
        let found = compare(&ids[1..8]);
        assert_eq!(found.missing, 2);
        assert_eq!(found.missing_ids, [ids[0].clone(), ids[8].clone()]);
        assert!(!found.is_clean());
        // More than are named are counted.
        let found = compare(&ids[8..]);
        assert_eq!(found.missing, 8);
        assert_eq!(found.missing_ids, ids[..NAMED_MAX]);
    }

    #[test]
    fn what_is_there_twice_is_counted_row_by_row() {
        let mut ids = acked();
        ids.extend([ids[2].clone(), ids[2].clone()]);
        let found = compare(&ids);
        assert_eq!((found.rows, found.twice, found.missing), (11, 2, 0));
        assert_eq!(found.twice_ids, [ids[2].clone(), ids[2].clone()]);
        assert!(!found.is_clean());
    }

    #[test]
    fn what_was_not_acknowledged_may_be_there_once() {
        let sent = sent();
        let mut ids = acked();
        ids.extend([sent.id(0, 0), sent.id(0, 7)]);
        let found = compare(&ids);
        assert_eq!((found.unknown, found.twice), (2, 0));
        assert!(found.is_clean());
        // It is not there twice.
        ids.push(sent.id(0, 7));
        let found = compare(&ids);
        assert_eq!((found.unknown, found.twice), (2, 1));
        assert!(!found.is_clean());
    }

    #[test]
    fn what_nobody_sent_is_no_row_of_the_run() {
        let sent = sent();
        let strange = [sent.id(0, 12), sent.id(7, 0), sent.prefix() + "x"];
        for id in strange {
            let mut ids = acked();
            ids.push(id.clone());
            let found = compare(&ids);
            assert_eq!(found.never_sent, 1);
            assert_eq!(found.never_sent_ids, [id]);
            assert!(!found.is_clean());
        }
    }
}
