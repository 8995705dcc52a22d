//! How long what is joined may gather before it is read. Pure; called by `pump` and `reading`.
//!
//! A forwarder that keeps up with the door would find one request or two in each read, and join
//! nothing: the faster it is, the more messages the broker and the consumers had to take, until
//! they fall behind at a rate that joined messages leave them room for.
//!
//! # Invariants
//! - Only where messages are joined, and after a read: what comes to an idle forwarder goes at
//!   once (test `what_comes_alone_goes_at_once`).
//! - Nothing waits longer than [`GATHER_TIME`], or behind [`GATHER_REQUESTS`].

use crate::pace::Lane;
use std::time::Duration;
use tokio::time::Instant;

/// From one read to the next one. Of a consumer's batch, which waits for a second, it is little;
/// of small requests it gathers some hundred at the rates at which joining begins to matter.
const GATHER_TIME: Duration = Duration::from_millis(50);

/// Requests that are read without waiting: more than one read takes.
const GATHER_REQUESTS: u64 = 500;

/// When each lane was read last.
#[derive(Debug, Default)]
pub(super) struct Gather([Option<Instant>; 2]);

impl Gather {
    /// The lane was read.
    pub(super) fn read(&mut self, lane: Lane, now: Instant) {
        self.0[lane as usize] = Some(now);
    }

    /// When a lane that is so many requests behind may be read; `None` for now.
    pub(super) fn until(&self, lane: Lane, behind: u64, now: Instant) -> Option<Instant> {
        let until = self.0[lane as usize]? + GATHER_TIME;
        (behind < GATHER_REQUESTS && now < until).then_some(until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_alone_goes_at_once() {
        let now = Instant::now();
        let mut gather = Gather::default();
        assert_eq!(gather.until(Lane::Fresh, 1, now), None);
        gather.read(Lane::Fresh, now);
        let until = now + GATHER_TIME;
        for behind in [0, 1, GATHER_REQUESTS - 1] {
            assert_eq!(gather.until(Lane::Fresh, behind, now), Some(until));
            assert_eq!(gather.until(Lane::Fresh, behind, until), None);
            // Each lane for itself.
            assert_eq!(gather.until(Lane::Backlog, behind, now), None);
        }
        assert_eq!(gather.until(Lane::Fresh, GATHER_REQUESTS, now), None);
    }
}
