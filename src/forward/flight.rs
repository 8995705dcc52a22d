//! Which requests are on their way, and how far the cursor may move. Pure; called
//! by `pump`.

use crate::event::identity::Seq;
use std::collections::VecDeque;

/// Requests in sequence order with the parts that do not count yet.
#[derive(Debug, Default)]
pub(super) struct Flight {
    requests: VecDeque<(Seq, usize)>,
}

impl Flight {
    /// Adds a request with its number of parts (messages and letters).
    pub(super) fn add(&mut self, seq: Seq, parts: usize) {
        debug_assert!(self.requests.back().is_none_or(|(last, _)| *last < seq));
        self.requests.push_back((seq, parts));
    }

    /// More parts for a request that is not done: they replace one that was returned.
    pub(super) fn grow(&mut self, seq: Seq, parts: usize) {
        if let Some(at) = self.find(seq) {
            self.requests[at].1 += parts;
        }
    }

    /// One part of a request counts.
    pub(super) fn done(&mut self, seq: Seq) {
        if let Some(at) = self.find(seq) {
            self.requests[at].1 = self.requests[at].1.saturating_sub(1);
        }
    }

    fn find(&self, seq: Seq) -> Option<usize> {
        self.requests
            .binary_search_by_key(&seq, |(seq, _)| *seq)
            .ok()
    }

    /// Takes the prefix of requests that count wholly off; the sequence after it.
    pub(super) fn take_prefix(&mut self) -> Option<Seq> {
        let mut next = None;
        while let Some((seq, 0)) = self.requests.front() {
            next = Some(seq.next());
            self.requests.pop_front();
        }
        next
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
            flight.add(Seq(seq), parts);
        }
        assert_eq!(flight.take_prefix(), None);
        flight.done(Seq(6));
        flight.done(Seq(9));
        assert_eq!(flight.take_prefix(), None);
        flight.done(Seq(5));
        assert_eq!(flight.take_prefix(), Some(Seq(6)));
        flight.grow(Seq(6), 1);
        flight.done(Seq(6));
        assert_eq!(flight.take_prefix(), None);
        flight.done(Seq(6));
        assert_eq!(flight.take_prefix(), Some(Seq(10)));
        assert_eq!(flight.len(), 0);
    }

    proptest! {
        #[test]
        fn nothing_undelivered_is_ever_passed(parts in proptest::collection::vec(0usize..4, 1..40), order in any::<u64>()) {
            let mut flight = Flight::default();
            let mut open: Vec<u64> = Vec::new();
            for (seq, parts) in (1..).zip(&parts) {
                flight.add(Seq(seq), *parts);
                open.extend(std::iter::repeat_n(seq, *parts));
            }
            let mut state = order;
            let mut cursor = Seq(1);
            while !open.is_empty() {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                let seq = open.swap_remove((state >> 33) as usize % open.len());
                flight.done(Seq(seq));
                cursor = flight.take_prefix().unwrap_or(cursor);
                prop_assert!(open.iter().all(|&left| left >= cursor.0));
            }
            cursor = flight.take_prefix().unwrap_or(cursor);
            prop_assert_eq!(cursor, Seq(parts.len() as u64 + 1));
        }
    }
}
