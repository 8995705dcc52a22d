//! How many events a client may send a second. Called by `callers`.
//!
//! # Invariants
//! - Over the seconds a client takes no more than its rate, whatever the sizes of requests (test
//!   `a_rate_is_kept_over_the_seconds` in `callers_tests`), and whatever the number of addresses
//!   of a client without a name (test `what_all_take_in_advance_is_bounded`).
//! - Of a client without a name, whom anybody may be, one address has half of the rate. What it
//!   takes in advance it waits for alone, and half of the rate pays for it: the other half is the
//!   others' (in `callers_tests`, `one_address_leaves_half_of_the_nameless_one_s_rate`).
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

/// The part of the rate that one address may have, and that pays for what addresses took in
/// advance.
const PART: f64 = 0.5;

/// What addresses may have taken in advance while one more may: what pays for it does so in this
/// time. Past it a request is taken where its address has all of it left.
const ADVANCE_MAX: Duration = Duration::from_secs(60);

/// What is left of a client's rate.
#[derive(Debug, Clone)]
pub(super) struct Rate {
    /// Events a second.
    rate: f64,
    all: Bucket,
    /// Of each address, where the client is anybody.
    by: Option<HashMap<Whose, Bucket>>,
    /// Events that addresses took in advance and that are not paid for; `all` lacks none of them.
    advance: f64,
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
            advance: 0.0,
            forgotten_at: now,
        }
    }

    /// Whether something of it is left for this sender, who wants so many, or after how long
    /// it is.
    pub(super) fn left(&mut self, whose: Whose, events: u64, now: Instant) -> Result<(), Duration> {
        self.refill(now);
        let mut wait = self.wait();
        let part = self.rate * PART;
        if let Some(by) = self.by.as_mut().filter(|_| is_address(whose)) {
            let mut own = part * BURST.as_secs_f64();
            if let Some(bucket) = by.get_mut(&whose) {
                bucket.refill(part, now);
                own = bucket.left;
                wait = wait.max(waited(-own, part));
            }
            let unpaid = self.advance - part * ADVANCE_MAX.as_secs_f64();
            if unpaid > 0.0 && events as f64 > own {
                wait = wait.max(waited(unpaid, part));
            }
        }
        wait.map_or(Ok(()), Err)
    }

    /// Takes so many of it, if need be in advance.
    pub(super) fn take(&mut self, whose: Whose, events: u64, now: Instant) {
        self.refill(now);
        let mut events = events as f64;
        let part = self.rate * PART;
        if let Some(bucket) = self.of_address(whose, now) {
            bucket.refill(part, now);
            let in_advance = (events - bucket.left.max(0.0)).max(0.0);
            bucket.left -= events;
            // The others do not lack them.
            self.advance += in_advance;
            events -= in_advance;
        }
        self.all.left -= events;
    }

    /// What an address has; `None` where it is none, or there is no room to remember it.
    fn of_address(&mut self, whose: Whose, now: Instant) -> Option<&mut Bucket> {
        let part = self.rate * PART;
        let by = self.by.as_mut().filter(|_| is_address(whose))?;
        if by.len() >= ADDRESSES_MAX && !by.contains_key(&whose) {
            // Not for each request: it looks at all of them, and sooner there are hardly others.
            if now.saturating_duration_since(self.forgotten_at) < BURST {
                return None;
            }
            self.forgotten_at = now;
            // Who has sent nothing for so long that all of its part is there is like one that
            // never did.
            by.retain(|_, bucket| {
                bucket.refill(part, now);
                bucket.left < part * BURST.as_secs_f64()
            });
            if by.len() >= ADDRESSES_MAX {
                return None;
            }
        }
        Some(by.entry(whose).or_insert_with(|| Bucket::full(part, now)))
    }

    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.all.at).as_secs_f64();
        let paid = self.advance.min(passed * self.rate * PART);
        self.advance -= paid;
        self.all.left -= paid;
        self.all.refill(self.rate, now);
    }

    /// Until something is left for all; `None` where it is.
    fn wait(&self) -> Option<Duration> {
        let lacking = -self.all.left;
        // While a part pays for what was taken in advance, the rest alone comes in.
        let rest = 1.0 - PART;
        let meanwhile = lacking.min(self.advance / PART * rest);
        waited(lacking + meanwhile * PART / rest, self.rate)
    }
}

/// How long so many events take to come at this rate; `None` where none are lacking.
fn waited(lacking: f64, rate: f64) -> Option<Duration> {
    let wait_s = (lacking / rate).clamp(0.0, WAIT_MAX.as_secs_f64());
    (lacking >= 0.0).then(|| Duration::from_secs_f64(wait_s))
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
        assert_eq!(rate.left(Whose::Client(0), 1, start), Err(WAIT_MAX));
    }

    #[test]
    fn what_all_take_in_advance_is_bounded() {
        let start = Instant::now();
        let (limit, seconds, burst) = (100, 600, 100);
        let mut rate = Rate::new(limit, true, start);
        let (mut many, mut few, mut refused) = (0, 0, 0);
        for ms in (0..seconds * 1000).step_by(25) {
            let now = start + Duration::from_millis(ms);
            let mut send = |from: u64, events: u64| {
                let whose = Whose::V6(from.into());
                let is_taken = rate.left(whose, events, now).is_ok();
                if is_taken {
                    rate.take(whose, events, now);
                }
                is_taken
            };
            // One of very many addresses sends much at once, and one sends 40 a second.
            many += if send(ms, 1000) { 1000 } else { 0 };
            match send(1 << 40, 1) {
                true => few += 1,
                false => refused += 1,
            }
        }
        let advance = limit / 2 * ADVANCE_MAX.as_secs() + 1000;
        assert!(
            many + few <= limit * seconds + burst + advance,
            "{many} {few}"
        );
        assert!(
            many > limit / 2 * seconds,
            "what pays for it is used: {many}"
        );
        // At the start two take more than is there, for a second each.
        assert!(refused <= 80, "{refused}");
    }

    #[test]
    fn how_long_to_wait_is_told() {
        let start = Instant::now();
        let mut rate = Rate::new(100, true, start);
        let (one, other, client) = (Whose::V6(1), Whose::V6(2), Whose::Client(0));
        rate.take(one, 150, start);
        assert_eq!(rate.left(one, 1, start), Err(Duration::from_secs(2)));
        assert_eq!(rate.left(other, 1, start), Ok(()));
        // 100 in advance are paid for in two seconds, in which 100 come; and then 50 in half a one.
        rate.take(client, 200, start);
        for whose in [other, client] {
            assert_eq!(rate.left(whose, 1, start), Err(Duration::from_millis(2500)));
            let before = start + Duration::from_millis(2499);
            assert!(rate.clone().left(whose, 1, before).is_err());
            let after = start + Duration::from_millis(2501);
            assert_eq!(rate.clone().left(whose, 1, after), Ok(()));
        }
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
        assert_eq!(rate.left(forgotten, 1, start), Err(WAIT_MAX));
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
