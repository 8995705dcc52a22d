//! Which requests are on their way, how far the cursor may move, and what became
//! of the events before it. Pure; called by `pump`.
//!
//! # Invariants
//! - The cursor moves over a request once all its parts count: confirmed by the
//!   broker, or set aside in the dead letters (test
//!   `nothing_undelivered_is_ever_passed`).

use crate::event::identity::Seq;
use crate::event::tally::Tally;
use crate::journal::Passed;
use std::collections::{BTreeMap, VecDeque};

/// Requests in sequence order with the parts that do not count yet.
#[derive(Debug, Default)]
pub(super) struct Flight {
    requests: VecDeque<Request>,
}

#[derive(Debug)]
struct Request {
    seq: Seq,
    /// Messages and letters that do not count yet.
    open: usize,
    events: Tally,
    /// Groups of which a copy was set aside, with their events.
    dead_lettered: BTreeMap<usize, Tally>,
}

impl Flight {
    /// Adds a request with its number of parts (messages and letters).
    pub(super) fn add(&mut self, seq: Seq, open: usize, events: Tally) {
        debug_assert!(self.requests.back().is_none_or(|last| last.seq < seq));
        self.requests.push_back(Request {
            seq,
            open,
            events,
            dead_lettered: BTreeMap::new(),
        });
    }

    /// The journal has nothing more before `next`: what is missing up to there was
    /// lost, and the cursor may pass it.
    pub(super) fn reach(&mut self, next: Seq) {
        let Some(last) = next.0.checked_sub(1).map(Seq) else {
            return;
        };
        if self.requests.back().is_some_and(|back| back.seq < last) {
            self.add(last, 0, Tally::default());
        }
    }

    /// More parts for a request that is not done: they replace one that was returned.
    pub(super) fn grow(&mut self, seq: Seq, parts: usize) {
        if let Some(request) = self.find(seq) {
            request.open += parts;
        }
    }

    /// One part of a request counts.
    pub(super) fn done(&mut self, seq: Seq) {
        if let Some(request) = self.find(seq) {
            request.open = request.open.saturating_sub(1);
        }
    }

    /// One part of a request was set aside, and counts: the events of its `group`.
    pub(super) fn dead_lettered(&mut self, seq: Seq, group: usize, events: &Tally) {
        if let Some(request) = self.find(seq) {
            request.dead_lettered.insert(group, events.clone());
        }
        self.done(seq);
    }

    fn find(&mut self, seq: Seq) -> Option<&mut Request> {
        let at = self
            .requests
            .binary_search_by_key(&seq, |request| request.seq)
            .ok()?;
        self.requests.get_mut(at)
    }

    /// Takes the prefix of requests that count wholly off: the sequence after it,
    /// and the requests.
    pub(super) fn take_prefix(&mut self) -> Option<(Seq, Vec<Passed>)> {
        let mut passed = Vec::new();
        while let Some(request) = self.requests.pop_front_if(|request| request.open == 0) {
            let mut dead_lettered = Tally::default();
            for events in request.dead_lettered.values() {
                dead_lettered.merge(events);
            }
            passed.push(Passed {
                seq: request.seq,
                events: request.events,
                dead_lettered,
            });
        }
        let next = passed.last()?.seq.next();
        Some((next, passed))
    }

    /// Requests that the cursor has not passed.
    pub(super) fn len(&self) -> usize {
        self.requests.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_cursor_moves_over_the_contiguous_prefix() {
        let mut flight = Flight::default();
        for (seq, parts) in [(5, 1), (6, 2), (7, 0), (9, 1)] {
            flight.add(Seq(seq), parts, Tally::rejected());
        }
        let next = |flight: &mut Flight| flight.take_prefix().map(|(next, _)| next);
        assert_eq!(next(&mut flight), None);
        flight.done(Seq(6));
        flight.done(Seq(9));
        assert_eq!(next(&mut flight), None);
        flight.done(Seq(5));
        assert_eq!(next(&mut flight), Some(Seq(6)));
        flight.grow(Seq(6), 1);
        flight.done(Seq(6));
        assert_eq!(next(&mut flight), None);
        flight.done(Seq(6));
        assert_eq!(next(&mut flight), Some(Seq(10)));
        assert_eq!(flight.len(), 0);
    }

    #[test]
    fn events_set_aside_twice_count_once_and_gaps_are_passed() {
        let mut flight = Flight::default();
        let events = Tally::rejected();
        flight.add(Seq(5), 2, events.clone());
        flight.reach(Seq(6));
        assert_eq!(flight.len(), 1, "nothing is missing");
        flight.reach(Seq(9));
        flight.dead_lettered(Seq(5), 0, &events);
        assert!(flight.take_prefix().is_none());
        flight.dead_lettered(Seq(5), 0, &events);
        let (next, passed) = flight.take_prefix().unwrap();
        assert_eq!(next, Seq(9));
        assert_eq!(passed[0].dead_lettered, events);
        assert!(passed[1].events.is_empty());
    }

    proptest! {
        #[test]
        fn nothing_undelivered_is_ever_passed(parts in proptest::collection::vec(0usize..4, 1..40), order in any::<u64>()) {
            let mut flight = Flight::default();
            let mut open: Vec<u64> = Vec::new();
            for (seq, parts) in (1..).zip(&parts) {
                flight.add(Seq(seq), *parts, Tally::default());
                open.extend(std::iter::repeat_n(seq, *parts));
            }
            let mut state = order;
            let mut cursor = Seq(1);
            while !open.is_empty() {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                let seq = open.swap_remove((state >> 33) as usize % open.len());
                flight.done(Seq(seq));
                cursor = flight.take_prefix().map_or(cursor, |(next, _)| next);
                prop_assert!(open.iter().all(|&left| left >= cursor.0));
            }
            cursor = flight.take_prefix().map_or(cursor, |(next, _)| next);
            prop_assert_eq!(cursor, Seq(parts.len() as u64 + 1));
        }
    }
}
