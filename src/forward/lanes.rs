//! Which parts of the log are on their way: the backlog in order, and what is fresh ahead of
//! it. Pure; called by `pump`.
//!
//! ```text
//! delivered | backlog: being read | not read | read ahead | not read | fresh: being read
//! ----------^---------------------           ^ a segment             ^ the last segment
//!           the cursor
//! ```
//!
//! # Invariants
//! - Every request is in one segment, or in a gap that the backlog's reader has still before
//!   it: nothing is read twice, nothing is left out, wherever fresh segments begin (test
//!   `whatever_leads_everything_is_read_once_and_passed_at_last`).
//! - What was delivered ahead up to the log's end is led on from there (test
//!   `what_is_delivered_to_the_end_is_led_on`).
//! - A segment says that requests are passed over its contiguous prefix alone (`flight`).

use super::flight::Flight;
use crate::event::identity::Seq;
use crate::event::tally::Tally;
use crate::journal::{Passed, Span};

/// A part of the log that was read, or is being read.
#[derive(Debug)]
struct Segment {
    first: Seq,
    /// How far it was read.
    end: Seq,
    /// How far it is delivered.
    noted: Seq,
    flight: Flight,
}

impl Segment {
    fn new(span: Span) -> Self {
        Self {
            first: span.first,
            end: span.end,
            noted: span.end,
            flight: Flight::default(),
        }
    }

    /// Its requests up to `end` were read, or are lost.
    fn reach(&mut self, end: Seq) {
        self.end = self.end.max(end);
        self.flight.reach(self.end);
    }

    /// What is newly delivered.
    fn take(&mut self) -> Option<(Span, Vec<Passed>)> {
        let (mut end, passed) = self
            .flight
            .take_prefix()
            .unwrap_or((self.noted, Vec::new()));
        if self.flight.len() == 0 {
            // What was read last may be lost, and is passed with nothing to say of it.
            end = end.max(self.end);
        }
        if end <= self.noted {
            return None;
        }
        let first = std::mem::replace(&mut self.noted, end);
        Some((Span { first, end }, passed))
    }
}

/// All of them, in the order of the log.
#[derive(Debug)]
pub(super) struct Lanes {
    segments: Vec<Segment>,
    /// The segment that the backlog's reader extends.
    current: usize,
    /// Whether the last segment is a lane of its own, with its own reader.
    leads: bool,
}

impl Lanes {
    /// From a cursor: everything before `next` is delivered, and `ahead` is.
    pub(super) fn new(next: Seq, ahead: &[Span]) -> Self {
        let start = Span {
            first: next,
            end: next,
        };
        let spans = [&start].into_iter().chain(ahead);
        Self {
            segments: spans.map(|span| Segment::new(*span)).collect(),
            current: 0,
            leads: false,
        }
    }

    /// Whether fresh requests have a lane of their own.
    pub(super) fn leads(&self) -> bool {
        self.leads
    }

    /// Where the backlog's reader must stop: what comes there is read already.
    pub(super) fn limit(&self) -> Seq {
        let next = self.segments.get(self.current + 1);
        next.map_or(Seq(u64::MAX), |segment| segment.first)
    }

    /// Fresh requests get a lane, or a new one, that begins at `at`. What lies between the
    /// last one's end and there is left to the backlog. Where the last one ends there, or beyond,
    /// it goes on from its end. Returns where the lane's reader has to begin; none where it is
    /// that far already.
    pub(super) fn lead(&mut self, at: Seq) -> Option<Seq> {
        let last = self.segments.last().map(|last| last.end);
        let begins = match last.filter(|end| *end >= at) {
            Some(_) if self.leads || self.current + 1 >= self.segments.len() => return None,
            Some(end) => end,
            None => {
                self.segments
                    .push(Segment::new(Span { first: at, end: at }));
                at
            }
        };
        self.leads = true;
        Some(begins)
    }

    /// A request was read for the backlog, or for the fresh lane.
    pub(super) fn add(&mut self, fresh: bool, seq: Seq, parts: usize, events: Tally) {
        if let Some(segment) = self.reading(fresh) {
            segment.end = seq.next();
            segment.flight.add(seq, parts, events);
        }
    }

    fn reading(&mut self, fresh: bool) -> Option<&mut Segment> {
        if fresh {
            self.segments.last_mut()
        } else {
            self.segments.get_mut(self.current)
        }
    }

    /// A reader got to `end`; what was not added up to there is lost, and passed.
    pub(super) fn reach(&mut self, fresh: bool, end: Seq) {
        if let Some(segment) = self.reading(fresh) {
            segment.reach(end);
        }
    }

    /// Where the backlog's reader has to go on, if it has come to what is read already. When
    /// that is the fresh lane's place, there is no backlog any more, and one lane is left.
    pub(super) fn jump(&mut self) -> Option<Seq> {
        let mut to = None;
        while self.segments.get(self.current)?.end >= self.limit() {
            self.current += 1;
            to = self.segments.get(self.current).map(|segment| segment.end);
        }
        if self.current + 1 == self.segments.len() {
            self.leads = false;
        }
        to
    }

    fn at(&mut self, seq: Seq) -> Option<&mut Segment> {
        let after = self
            .segments
            .partition_point(|segment| segment.first <= seq);
        self.segments.get_mut(after.checked_sub(1)?)
    }

    /// See [`Flight::grow`].
    pub(super) fn grow(&mut self, seq: Seq, parts: usize) {
        if let Some(segment) = self.at(seq) {
            segment.flight.grow(seq, parts);
        }
    }

    /// See [`Flight::done`].
    pub(super) fn done(&mut self, seq: Seq) {
        if let Some(segment) = self.at(seq) {
            segment.flight.done(seq);
        }
    }

    /// See [`Flight::dead_lettered`].
    pub(super) fn dead_lettered(&mut self, seq: Seq, group: usize, events: &Tally) {
        if let Some(segment) = self.at(seq) {
            segment.flight.dead_lettered(seq, group, events);
        }
    }

    /// What is newly delivered of the segment that holds `seq`.
    pub(super) fn take(&mut self, seq: Seq) -> Option<(Span, Vec<Passed>)> {
        self.at(seq)?.take()
    }

    /// What is newly delivered of what a reader extends.
    pub(super) fn take_read(&mut self, fresh: bool) -> Option<(Span, Vec<Passed>)> {
        self.reading(fresh)?.take()
    }

    /// Forgets segments that are delivered and lie behind the backlog's reader.
    pub(super) fn forget(&mut self) {
        let done = |segment: &Segment| segment.flight.len() == 0;
        while self.current > 0 && self.segments.first().is_some_and(done) {
            self.segments.remove(0);
            self.current -= 1;
        }
    }

    /// Requests that were read and are not delivered: of the fresh lane, or of all else.
    pub(super) fn in_flight(&self, fresh: bool) -> usize {
        let last = self.segments.len() - 1;
        let segments = self.segments.iter().enumerate();
        segments
            .filter(|(at, _)| (self.leads && *at == last) == fresh)
            .map(|(_, segment)| segment.flight.len())
            .sum()
    }
}

#[cfg(test)]
#[path = "lanes_tests.rs"]
mod tests;
