//! How long to wait before the next attempt at something that failed.
//!
//! Called by every loop that reconnects or retries for ever (broker sessions, sinks). The
//! `backoff` crate is named in this file only, so that it can be replaced here.
//!
//! # Invariants
//! - A wait lies between [`SHORTEST`] and [`LONGEST`], and is jittered, so that hosts which lost
//!   the same broker do not come back in step (`waits_grow_with_jitter_and_stay_in_bounds`).
//! - It never gives up: there is no maximum elapsed time (same test).

use std::time::Duration;

use backoff::backoff::Backoff as _;
use backoff::{ExponentialBackoff, ExponentialBackoffBuilder};

/// No wait is shorter: a refused connection answers in microseconds, and must not become a storm.
pub const SHORTEST: Duration = Duration::from_millis(100);
/// No wait is longer: an operator who repaired the far end sees traffic again within this time.
pub const LONGEST: Duration = Duration::from_secs(15);
/// Each wait is spread this far around its middle value (0.5 = from half to one and a half).
const JITTER: f64 = 0.5;
/// Each middle value is this many times the one before.
const GROWTH: f64 = 2.0;

/// Exponential waits with jitter, from 100 ms to 15 s, without an end.
#[derive(Debug)]
pub struct Backoff(ExponentialBackoff);

impl Backoff {
    /// Starts at the shortest waits.
    #[must_use]
    pub fn new() -> Self {
        // The middle values are chosen so that the jitter around them reaches the bounds exactly.
        Self(
            ExponentialBackoffBuilder::new()
                .with_initial_interval(SHORTEST.div_f64(1.0 - JITTER))
                .with_max_interval(LONGEST.div_f64(1.0 + JITTER))
                .with_randomization_factor(JITTER)
                .with_multiplier(GROWTH)
                .with_max_elapsed_time(None)
                .build(),
        )
    }

    /// The time to wait before the next attempt; each call waits longer, up to [`LONGEST`].
    #[allow(clippy::should_implement_trait)] // it is not an iterator: it has no end
    pub fn next(&mut self) -> Duration {
        // Without a maximum elapsed time the crate always has a next wait.
        self.0
            .next_backoff()
            .unwrap_or(LONGEST)
            .clamp(SHORTEST, LONGEST)
    }

    /// Back to the shortest waits; to be called after a success.
    pub fn reset(&mut self) {
        self.0.reset();
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_with_jitter_and_stay_in_bounds() {
        let mut backoff = Backoff::new();
        let first: Vec<_> = (0..1_000)
            .map(|_| {
                backoff.reset();
                backoff.next()
            })
            .collect();
        assert!(
            first
                .iter()
                .all(|wait| (SHORTEST..=SHORTEST * 3).contains(wait))
        );
        assert!(first.iter().any(|wait| wait != &first[0]), "no jitter");
        let later: Vec<_> = (0..1_000).map(|_| backoff.next()).skip(20).collect();
        assert!(
            later
                .iter()
                .all(|wait| (LONGEST / 3..=LONGEST).contains(wait))
        );
        backoff.reset();
        assert!(backoff.next() <= SHORTEST * 3);
    }
}
