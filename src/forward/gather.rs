//! How long what is joined may gather before it is read. Pure; called by `pump` and `reading`.
//!
//! A forwarder that keeps up with the door would find one request or two in each read, and join
//! nothing: the faster it is, the more messages the broker and the consumers had to take, until
//! they fall behind at a rate that joined messages leave them room for.
//!
//! # Invariants
//! - Only where messages are joined, and after a read: what comes to an idle forwarder goes at
//!   once (test `what_comes_alone_goes_at_once`).
//! - Nothing waits longer than [`GATHER_TIME`], and nothing after a full read, behind which
//!   more may wait, however few and large (test `after_a_full_read_nothing_waits`).

use crate::pace::Lane;
use std::time::Duration;
use tokio::time::Instant;

/// From one read to the next one. Of a consumer's batch, which waits for a second, it is little;
/// of small requests it gathers some hundred at the rates at which joining begins to matter.
const GATHER_TIME: Duration = Duration::from_millis(50);

/// When each lane was read last, where it was not a full read.
#[derive(Debug, Default)]
pub(super) struct Gather([Option<Instant>; 2]);

impl Gather {
    /// The lane was read.
    pub(super) fn read(&mut self, lane: Lane, is_full: bool, now: Instant) {
        self.0[lane as usize] = (!is_full).then_some(now);
    }

    /// When a lane may be read; `None` for now.
    pub(super) fn until(&self, lane: Lane, now: Instant) -> Option<Instant> {
        let until = self.0[lane as usize]? + GATHER_TIME;
        (now < until).then_some(until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_alone_goes_at_once() {
        let now = Instant::now();
        let mut gather = Gather::default();
        assert_eq!(gather.until(Lane::Fresh, now), None);
        gather.read(Lane::Fresh, false, now);
        let until = now + GATHER_TIME;
        assert_eq!(gather.until(Lane::Fresh, now), Some(until));
        assert_eq!(gather.until(Lane::Fresh, until), None);
        // Each lane for itself.
        assert_eq!(gather.until(Lane::Backlog, now), None);
    }

    #[test]
    fn after_a_full_read_nothing_waits() {
        let now = Instant::now();
        let mut gather = Gather::default();
        gather.read(Lane::Backlog, false, now);
        gather.read(Lane::Backlog, true, now);
        assert_eq!(gather.until(Lane::Backlog, now), None);
    }
}
