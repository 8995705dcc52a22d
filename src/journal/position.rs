//! What a cursor saves: how far a way out has delivered, what it has delivered ahead of
//! that, and what became of the events in both. Pure; called by `cursor`.
//!
//! # Invariants
//! - A record is counted once, however often it is delivered, and in whatever order (test
//!   `a_position_is_the_set_of_what_was_delivered`).
//! - The accounts of `ledger` are those of everything before `next`; each span ahead has
//!   its own, which join it when `next` gets there. So the accounts can be compared with
//!   the journal at one place, `next`, as if there were no spans.
//! - Bounded: at most [`AHEAD_MAX`] spans. A delivery that would make one more is not
//!   noted, and so is made again.

use crate::event::identity::Seq;
use crate::event::tally::Tally;
use serde::{Deserialize, Serialize};

/// Spans ahead of `next`: one for each time that fresh records went ahead of a backlog, and
/// one in work for the youngest. Sixteen fit the cursor's file with every type in each.
pub(super) const AHEAD_MAX: usize = 16;

/// A record that a way out is done with.
#[derive(Debug, Clone)]
pub struct Passed {
    /// Its sequence.
    pub seq: Seq,
    /// Its events.
    pub events: Tally,
    /// Those of them that were set aside in the dead letters.
    pub dead_lettered: Tally,
}

/// What became of the events that a way out has passed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// Handed on, with evidence.
    pub delivered: Tally,
    /// Set aside with a reason.
    pub dead_lettered: Tally,
    /// Passed over by an operator.
    pub purged: Tally,
    /// Could not be read back.
    pub lost: Tally,
}

impl Ledger {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> Tally {
        let mut total = self.delivered.clone();
        for part in [&self.dead_lettered, &self.purged, &self.lost] {
            total.merge(part);
        }
        total
    }

    fn merge(&mut self, other: &Self) {
        self.delivered.merge(&other.delivered);
        self.dead_lettered.merge(&other.dead_lettered);
        self.purged.merge(&other.purged);
        self.lost.merge(&other.lost);
    }

    fn count(&mut self, record: &Passed) {
        let delivered = record.events.minus(&record.dead_lettered);
        self.delivered.merge(&delivered);
        // Not more than there were: a copy of one event may be set aside twice.
        self.dead_lettered.merge(&record.events.minus(&delivered));
    }
}

/// A range of sequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// The first of them.
    pub first: Seq,
    /// The one after the last.
    pub end: Seq,
}

impl Span {
    /// How many they are.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.end.0.saturating_sub(self.first.0)
    }

    fn holds(&self, seq: Seq) -> bool {
        (self.first..self.end).contains(&seq)
    }
}

/// Delivered ahead of a backlog.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Ahead {
    span: Span,
    ledger: Ledger,
}

/// What is saved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Position {
    pub(super) next: Seq,
    /// Events accepted before this way out came to be; not its business.
    pub(super) since: Tally,
    /// Of the events before `next`.
    pub(super) ledger: Ledger,
    /// The losses before this sequence are in the ledger.
    pub(super) losses_through: Seq,
    /// In order, not touching, behind `next`.
    ahead: Vec<Ahead>,
}

impl Position {
    pub(super) fn new(next: Seq, since: &Tally) -> Self {
        Self {
            next,
            since: since.clone(),
            ledger: Ledger::default(),
            losses_through: Seq(0),
            ahead: Vec::new(),
        }
    }

    /// Whether it can be a saved one: in order, and within what a journal may hold.
    pub(super) fn is_plausible(&self) -> bool {
        let mut before = self.next;
        let spans = self.ahead.iter().all(|ahead| {
            let follows = before < ahead.span.first && ahead.span.first < ahead.span.end;
            before = ahead.span.end;
            follows
        });
        spans && before <= Seq::MAX && self.losses_through <= Seq::MAX
    }

    /// Events before `next`, as this way out has counted them.
    pub(super) fn accounted(&self) -> Tally {
        let mut total = self.since.clone();
        total.merge(&self.ledger.total());
        total
    }

    /// What became of all events that this way out has passed, those ahead, too.
    pub(super) fn all(&self) -> Ledger {
        let mut all = self.ledger.clone();
        for ahead in &self.ahead {
            all.merge(&ahead.ledger);
        }
        all
    }

    /// What was delivered ahead of `next`.
    pub(super) fn ahead(&self) -> Vec<Span> {
        self.ahead.iter().map(|ahead| ahead.span).collect()
    }

    /// The sequence after the last that this way out has passed: nothing before it may be
    /// given again.
    pub(super) fn reach(&self) -> Seq {
        self.ahead.last().map_or(self.next, |last| last.span.end)
    }

    /// [`Position::reach`], and the events before it that this way out has counted: there were
    /// as many, and those of what it has not passed.
    pub(super) fn furthest(&self) -> (Seq, Tally) {
        let mut total = self.since.clone();
        total.merge(&self.all().total());
        (self.reach(), total)
    }

    /// Events of what was delivered ahead, behind a sequence.
    pub(super) fn beyond(&self, seq: Seq) -> Tally {
        let mut beyond = Tally::default();
        let behind = self.ahead.iter().filter(|ahead| ahead.span.first >= seq);
        behind.for_each(|ahead| beyond.merge(&ahead.ledger.total()));
        beyond
    }

    pub(super) fn has_passed(&self, seq: Seq) -> bool {
        seq < self.next || self.ahead.iter().any(|ahead| ahead.span.holds(seq))
    }

    /// What is not delivered before `to`, in order.
    pub(super) fn gaps(&self, to: Seq) -> Vec<Span> {
        gaps(self.next, &self.ahead(), to)
    }

    /// Everything of `span` is delivered or set aside, as `passed` tells record by record,
    /// in order. What was counted before is not counted again. False: no room to note it.
    pub(super) fn deliver(&mut self, span: Span, passed: &[Passed]) -> bool {
        if span.first >= span.end {
            return true;
        }
        let mut ledger = Ledger::default();
        for record in passed {
            if !self.has_passed(record.seq) {
                ledger.count(record);
            }
        }
        if span.first <= self.next {
            self.ledger.merge(&ledger);
            self.pass(span.end);
            return true;
        }
        let touches = |ahead: &Ahead| ahead.span.first <= span.end && span.first <= ahead.span.end;
        if self.ahead.len() >= AHEAD_MAX && !self.ahead.iter().any(touches) {
            return false;
        }
        let mut joined = Ahead { span, ledger };
        self.ahead.retain(|ahead| {
            if touches(ahead) {
                joined.span.first = joined.span.first.min(ahead.span.first);
                joined.span.end = joined.span.end.max(ahead.span.end);
                joined.ledger.merge(&ahead.ledger);
                return false;
            }
            true
        });
        let at = self
            .ahead
            .partition_point(|ahead| ahead.span.first < joined.span.first);
        self.ahead.insert(at, joined);
        true
    }

    /// Nothing before `to` is to be delivered any more; `purged` was not.
    pub(super) fn skip(&mut self, to: Seq, purged: &Tally) {
        self.ledger.purged.merge(purged);
        self.pass(to);
    }

    /// Nothing before `to` can be read any more; before `to` the events `accepted` were
    /// accepted.
    pub(super) fn catch_up(&mut self, to: Seq, accepted: &Tally) {
        // What begins before `to` and ends behind it is delivered again from there.
        self.ahead.retain(|ahead| ahead.span.first >= to);
        let unaccounted = accepted.minus(&self.accounted());
        self.ledger.lost.merge(&unaccounted);
        self.losses_through = self.losses_through.max(to);
        self.pass(to);
    }

    /// Moves on, over what was delivered ahead, too.
    fn pass(&mut self, end: Seq) {
        self.next = self.next.max(end);
        while let Some(first) = self.ahead.first()
            && first.span.first <= self.next
        {
            self.next = self.next.max(first.span.end);
            self.ledger.merge(&first.ledger);
            self.ahead.remove(0);
        }
    }
}

/// What lies between `next` and `to`, and in no span.
pub(super) fn gaps(next: Seq, ahead: &[Span], to: Seq) -> Vec<Span> {
    let mut gaps = Vec::new();
    let mut first = next;
    let end = Span { first: to, end: to };
    for span in ahead.iter().chain([&end]) {
        let end = span.first.min(to);
        if first < end {
            gaps.push(Span { first, end });
        }
        first = first.max(span.end);
    }
    gaps
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_position_that_no_journal_holds_is_told() {
        let span = |first, end| Ahead {
            span: Span {
                first: Seq(first),
                end: Seq(end),
            },
            ledger: Ledger::default(),
        };
        let position = |next, ahead: Vec<Ahead>| Position {
            ahead,
            ..Position::new(Seq(next), &Tally::default())
        };
        assert!(position(5, vec![span(7, 9), span(10, 1 << 62)]).is_plausible());
        for bad in [
            position(u64::MAX, vec![]),
            position(5, vec![span(5, 9)]),
            position(5, vec![span(9, 9)]),
            position(5, vec![span(7, 9), span(9, 12)]),
            position(5, vec![span(10, 12), span(7, 9)]),
            position(5, vec![span(7, u64::MAX)]),
            Position {
                losses_through: Seq(u64::MAX),
                ..position(5, vec![])
            },
        ] {
            assert!(!bad.is_plausible(), "{bad:?}");
        }
    }

    fn passed(seqs: std::ops::Range<u64>) -> Vec<Passed> {
        let one = |seq| Passed {
            seq: Seq(seq),
            events: Tally::rejected(),
            dead_lettered: Tally::default(),
        };
        seqs.map(one).collect()
    }

    fn span(first: u64, end: u64) -> Span {
        Span {
            first: Seq(first),
            end: Seq(end),
        }
    }

    proptest! {
        #[test]
        fn a_position_is_the_set_of_what_was_delivered(
            steps in proptest::collection::vec((1u64..80, 0u64..12, any::<bool>()), 1..40)
        ) {
            let mut position = Position::new(Seq(1), &Tally::default());
            let (mut set, mut purged) = (BTreeSet::new(), 0);
            for (first, length, skip) in steps {
                let end = first + length;
                if skip {
                    let left: u64 = position.gaps(Seq(end)).iter().map(Span::requests).sum();
                    let mut events = Tally::default();
                    for _ in 0..left {
                        events.merge(&Tally::rejected());
                    }
                    prop_assert_eq!(left, (1..end).filter(|seq| !set.contains(seq)).count() as u64);
                    position.skip(Seq(end), &events);
                    purged += left;
                    set.extend(1..end);
                } else {
                    let touches = |s: &Span| s.first.0 <= end && first <= s.end.0;
                    let spans = position.ahead();
                    let fits = first <= position.next.0
                        || spans.len() < AHEAD_MAX
                        || spans.iter().any(touches);
                    let noted = position.deliver(span(first, end), &passed(first..end));
                    prop_assert_eq!(noted, fits || length == 0);
                    if fits {
                        set.extend(first..end);
                    }
                }
                prop_assert!((1..100).all(|seq| position.has_passed(Seq(seq)) == set.contains(&seq)));
                let all = position.all();
                prop_assert_eq!(all.purged.total(), purged);
                prop_assert_eq!(all.total().total(), set.len() as u64);
                prop_assert_eq!(position.accounted().total(), position.next.0 - 1);
                let spans = position.ahead();
                prop_assert!(spans.len() <= AHEAD_MAX);
                let mut end = position.next;
                for span in spans {
                    prop_assert!(end < span.first && span.first < span.end);
                    end = span.end;
                }
                prop_assert_eq!(end, position.reach());
            }
        }
    }

    #[test]
    fn the_largest_position_fits_its_file() {
        let mut every = Tally::default();
        for number in (0..=10_000)
            .chain((1 << 30)..((1 << 30) + 16))
            .chain([u32::MAX, u32::MAX - 1])
        {
            let bytes = bincode::serde::encode_to_vec(number, bincode::config::standard()).unwrap();
            let (key, _) =
                bincode::serde::decode_from_slice(&bytes, bincode::config::standard()).unwrap();
            let name = crate::event::tally::TypeKey::name(key);
            if crate::event::tally::TypeKey::of_name(name) == key {
                every.add(key, u64::MAX / 64);
            }
        }
        assert!(every.iter().count() > 60);
        let ledger = Ledger {
            delivered: every.clone(),
            dead_lettered: every.clone(),
            purged: every.clone(),
            lost: every.clone(),
        };
        let mut position = Position::new(Seq(1 << 60), &every);
        position.ledger = ledger;
        for at in 0..AHEAD_MAX as u64 + 3 {
            let first = (1 << 61) + 10 * at;
            let _full = position.deliver(
                span(first, first + 5),
                &[Passed {
                    seq: Seq(first),
                    events: every.clone(),
                    // Both kinds of each type.
                    dead_lettered: {
                        let mut half = Tally::default();
                        for (key, count) in every.iter() {
                            half.add(key, count / 2);
                        }
                        half
                    },
                }],
            );
        }
        assert_eq!(position.ahead().len(), AHEAD_MAX);
        let bytes = bincode::serde::encode_to_vec(&position, bincode::config::standard()).unwrap();
        assert!(
            bytes.len() < super::super::slots::SLOT_BYTES - 64,
            "{}",
            bytes.len()
        );
    }
}
