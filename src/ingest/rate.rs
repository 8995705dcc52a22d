//! How many events a client may send a second. Called by `callers`.
//!
//! # Invariants
//! - Over the seconds a client takes no more than its rate, whatever the sizes of requests (test
//!   `a_rate_is_kept_over_the_seconds` in `callers_tests`).
//! - Of a client without a name, whom anybody may be, one address has half of the rate, and what
//!   it takes in advance it waits for alone: what it floods is missing to no other (there,
//!   `one_address_leaves_half_of_the_nameless_one_s_rate`). So of many addresses each may exceed
//!   it by one request.
//! - What is remembered of addresses is bounded (test `addresses_are_forgotten_in_time`).

use crate::port::Whose;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How much of a second's rate may be saved up, so that batches need not be even.
const BURST: Duration = Duration::from_secs(1);

/// The longest wait that a client is told after it sent too much.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Addresses of which a share is remembered: those that sent within the last seconds, some 100
/// bytes each. Of more, only what all send together is bounded.
const ADDRESSES_MAX: usize = 65_536;

/// The part of the rate that one address may have.
const PART: f64 = 0.5;

/// What is left of a client's rate.
#[derive(Debug, Clone)]
pub(super) struct Rate {
    /// Events a second.
    rate: f64,
    all: Bucket,
    /// Of each address, where the client is anybody.
    by: Option<HashMap<Whose, Bucket>>,
    /// When addresses that have all of their part were forgotten, for want of room.
    forgotten_at: Instant,
}

/// Events that may still be taken; below zero they were taken in advance.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: f64,
    /// When it was so.
    at: Instant,
}

impl Rate {
    /// All of it is left. Each address has its own part, where `is_shared`.
    pub(super) fn new(rate: u64, is_shared: bool, now: Instant) -> Self {
        let rate = rate as f64;
        Self {
            rate,
            all: Bucket::full(rate, now),
            by: is_shared.then(HashMap::new),
            forgotten_at: now,
        }
    }

    /// Whether something of it is left for this sender, or after how long it is.
    pub(super) fn left(&mut self, whose: Whose, now: Instant) -> Result<(), Duration> {
        self.all.refill(self.rate, now);
        let mut wait = self.all.wait(self.rate);
        let part = self.rate * PART;
        let by = self.by.as_mut().filter(|_| is_address(whose));
        if let Some(bucket) = by.and_then(|by| by.get_mut(&whose)) {
            bucket.refill(part, now);
            wait = wait.max(bucket.wait(part));
        }
        wait.map_or(Ok(()), Err)
    }

    /// Takes so many of it, if need be in advance.
    pub(super) fn take(&mut self, whose: Whose, events: u64, now: Instant) {
        self.all.refill(self.rate, now);
        let part = self.rate * PART;
        // What others took in advance stays.
        let least = self.all.left.min(-part * BURST.as_secs_f64());
        self.all.left -= events as f64;
        let Some(by) = self.by.as_mut().filter(|_| is_address(whose)) else {
            return;
        };
        if by.len() >= ADDRESSES_MAX && !by.contains_key(&whose) {
            // Not for each request: it looks at all of them, and sooner there are hardly others.
            if now.saturating_duration_since(self.forgotten_at) < BURST {
                return;
            }
            self.forgotten_at = now;
            // Who has sent nothing for so long that all of its part is there is like one that
            // never did.
            by.retain(|_, bucket| {
                bucket.refill(part, now);
                bucket.left < part * BURST.as_secs_f64()
            });
            if by.len() >= ADDRESSES_MAX {
                return;
            }
        }
        let bucket = by.entry(whose).or_insert_with(|| Bucket::full(part, now));
        bucket.refill(part, now);
        bucket.left -= events as f64;
        // Its debt stands there, and the others' half is theirs.
        self.all.left = self.all.left.max(least);
    }
}

/// Whether this is nobody that has proved who it is.
fn is_address(whose: Whose) -> bool {
    !matches!(whose, Whose::Client(_))
}

impl Bucket {
    fn full(rate: f64, now: Instant) -> Self {
        Self {
            left: rate * BURST.as_secs_f64(),
            at: now,
        }
    }

    fn refill(&mut self, rate: f64, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.left = (self.left + passed * rate).min(rate * BURST.as_secs_f64());
        self.at = now;
    }

    /// Until when nothing is left; `None` where something is.
    fn wait(&self, rate: f64) -> Option<Duration> {
        let wait_s = (-self.left / rate).clamp(0.0, WAIT_MAX.as_secs_f64());
        (self.left <= 0.0).then(|| Duration::from_secs_f64(wait_s))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_address_takes_forgives_no_other_s_debt() {
        let start = Instant::now();
        let mut rate = Rate::new(10, true, start);
        rate.take(Whose::Client(0), 10_000, start);
        rate.take(Whose::V6(1), 7, start);
        assert_eq!(rate.left(Whose::Client(0), start), Err(WAIT_MAX));
    }

    #[test]
    fn addresses_are_forgotten_in_time() {
        let start = Instant::now();
        let mut rate = Rate::new(10, true, start);
        let host = |number: usize| Whose::V6(number as u128);
        let known = |rate: &Rate| rate.by.as_ref().map_or(0, HashMap::len);
        for number in 0..ADDRESSES_MAX + 1000 {
            rate.take(host(number), 6, start);
        }
        assert_eq!(known(&rate), ADDRESSES_MAX);
        // One that is not remembered is bounded by what all have.
        let forgotten = host(ADDRESSES_MAX + 500);
        assert_eq!(rate.left(forgotten, start), Err(WAIT_MAX));
        // What one took of its five is made good in six fifths of a second.
        let new = host(ADDRESSES_MAX + 1000);
        for (ms, expected) in [
            (900, ADDRESSES_MAX),
            (1100, ADDRESSES_MAX),
            (2000, ADDRESSES_MAX),
        ] {
            rate.take(new, 1, start + Duration::from_millis(ms));
            assert_eq!(known(&rate), expected, "{ms}");
        }
        rate.take(new, 1, start + Duration::from_millis(2200));
        assert_eq!(known(&rate), 1);
    }
}
