//! How near the journal is to its bounds, and what that costs an append. Pure:
//! called by `capacity` with what it measured.
//!
//! Two measures, the worse counts: the journal's own bytes against
//! `journal.max_bytes`, and the file system's free bytes against
//! `journal.min_free_bytes`.
//!
//! # Invariants
//! - The level never falls when more is used or less is free (test
//!   `the_worse_of_both_measures_counts_and_more_use_never_lowers_the_level`).
//! - The wait is 0 up to the slow mark and grows evenly from there (test
//!   `the_wait_grows_evenly_from_the_slow_mark_to_the_refuse_mark`).
//! - A level that was reached is left only some way below its mark, so that it
//!   does not flap (test `a_level_is_left_only_some_way_below_its_mark`).

use std::time::Duration;

/// Used bytes, in percent of the bound, from which operators are warned: with the
/// default of 16 GiB about 5 GiB are left, an hour at 1.3 MB/s.
const USED_WARN_PERCENT: u64 = 70;

/// From which appends are slowed: clients that keep to the answers' pace bring less
/// while ways out catch up, and fewer are refused in the end.
const USED_SLOW_PERCENT: u64 = 85;

/// Free bytes, in percent of the floor, below which operators are warned.
const FREE_WARN_PERCENT: u64 = 200;

/// Below which appends are slowed.
const FREE_SLOW_PERCENT: u64 = 150;

/// How far below a mark a level is left again, in percent of the bound: more than
/// one generation's coming and going in a journal of default size.
const CLEARANCE_PERCENT: u64 = 2;

/// The wait at the refuse mark. A client with one call in flight comes down to five
/// calls a second; it stays far below the default deadline of 1 s.
const WAIT_MAX: Duration = Duration::from_millis(200);

/// How near the journal is to its bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Pressure {
    /// There is room.
    #[default]
    None,
    /// Room gets short; nothing is different for clients.
    Warn,
    /// Appends wait before they are taken.
    Slow,
    /// Appends are refused.
    Refuse,
}

impl Pressure {
    /// 0 to 3, for metrics.
    #[must_use]
    pub fn as_number(self) -> u64 {
        self as u64
    }

    /// The level's name, for logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Warn => "warn",
            Self::Slow => "slow",
            Self::Refuse => "refuse",
        }
    }
}

/// What was measured, with its bounds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Measure {
    pub(super) used_bytes: u64,
    pub(super) max_bytes: u64,
    pub(super) free_bytes: u64,
    pub(super) min_free_bytes: u64,
}

fn percent(bytes: u64, percent: u64) -> u64 {
    // Not exact above 2^64 / 200; a bound that large means "none".
    bytes.saturating_mul(percent) / 100
}

impl Measure {
    /// The level by the marks alone.
    pub(super) fn level(&self) -> Pressure {
        self.level_with(0)
    }

    /// The level after `before`: up at once, down only past the clearance.
    pub(super) fn level_after(&self, before: Pressure) -> Pressure {
        let now = self.level();
        if now >= before {
            now
        } else {
            self.level_with(CLEARANCE_PERCENT).min(before)
        }
    }

    /// The level as if so many percent of each bound were taken besides.
    fn level_with(&self, more_percent: u64) -> Pressure {
        let used = self
            .used_bytes
            .saturating_add(percent(self.max_bytes, more_percent));
        let free = self
            .free_bytes
            .saturating_sub(percent(self.min_free_bytes, more_percent));
        if used >= self.max_bytes || free < self.min_free_bytes {
            Pressure::Refuse
        } else if used >= percent(self.max_bytes, USED_SLOW_PERCENT)
            || free < percent(self.min_free_bytes, FREE_SLOW_PERCENT)
        {
            Pressure::Slow
        } else if used >= percent(self.max_bytes, USED_WARN_PERCENT)
            || free < percent(self.min_free_bytes, FREE_WARN_PERCENT)
        {
            Pressure::Warn
        } else {
            Pressure::None
        }
    }

    /// How long an append waits before it is queued.
    pub(super) fn wait(&self) -> Duration {
        let slow = percent(self.max_bytes, USED_SLOW_PERCENT);
        let by_use = share(self.used_bytes.saturating_sub(slow), self.max_bytes - slow);
        let slow = percent(self.min_free_bytes, FREE_SLOW_PERCENT);
        let by_free = share(
            slow.saturating_sub(self.free_bytes),
            slow.saturating_sub(self.min_free_bytes),
        );
        WAIT_MAX.mul_f64(by_use.max(by_free))
    }
}

/// `part` of `whole`, from 0 to 1.
fn share(part: u64, whole: u64) -> f64 {
    if part == 0 {
        return 0.0;
    }
    (part as f64 / whole.max(1) as f64).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn used(used_bytes: u64) -> Measure {
        Measure {
            used_bytes,
            max_bytes: 1000,
            free_bytes: u64::MAX,
            min_free_bytes: 1000,
        }
    }

    fn free(free_bytes: u64) -> Measure {
        Measure {
            free_bytes,
            ..used(0)
        }
    }

    #[test]
    fn the_marks_are_where_they_are_documented() {
        for (bytes, level) in [
            (0, Pressure::None),
            (699, Pressure::None),
            (700, Pressure::Warn),
            (850, Pressure::Slow),
            (999, Pressure::Slow),
            (1000, Pressure::Refuse),
            (5000, Pressure::Refuse),
        ] {
            assert_eq!(used(bytes).level(), level, "{bytes} used");
        }
        for (bytes, level) in [
            (2000, Pressure::None),
            (1999, Pressure::Warn),
            (1499, Pressure::Slow),
            (1000, Pressure::Slow),
            (999, Pressure::Refuse),
            (0, Pressure::Refuse),
        ] {
            assert_eq!(free(bytes).level(), level, "{bytes} free");
        }
    }

    #[test]
    fn the_wait_grows_evenly_from_the_slow_mark_to_the_refuse_mark() {
        assert_eq!(used(850).wait(), Duration::ZERO);
        assert_eq!(used(925).wait(), WAIT_MAX / 2);
        assert_eq!(used(1000).wait(), WAIT_MAX);
        assert_eq!(used(9000).wait(), WAIT_MAX);
        assert_eq!(free(1500).wait(), Duration::ZERO);
        assert_eq!(free(1250).wait(), WAIT_MAX / 2);
        assert_eq!(free(1000).wait(), WAIT_MAX);
        assert_eq!(free(0).wait(), WAIT_MAX);
    }

    #[test]
    fn a_level_is_left_only_some_way_below_its_mark() {
        assert_eq!(used(999).level_after(Pressure::Refuse), Pressure::Refuse);
        assert_eq!(used(980).level_after(Pressure::Refuse), Pressure::Refuse);
        assert_eq!(used(979).level_after(Pressure::Refuse), Pressure::Slow);
        assert_eq!(used(699).level_after(Pressure::Warn), Pressure::Warn);
        assert_eq!(used(679).level_after(Pressure::Warn), Pressure::None);
        assert_eq!(free(1010).level_after(Pressure::Refuse), Pressure::Refuse);
        assert_eq!(free(1020).level_after(Pressure::Refuse), Pressure::Slow);
        // Several at once, and up without delay.
        assert_eq!(used(0).level_after(Pressure::Refuse), Pressure::None);
        assert_eq!(used(1000).level_after(Pressure::None), Pressure::Refuse);
        // Near the next mark, a fall is not a rise.
        assert_eq!(used(690).level_after(Pressure::Slow), Pressure::Warn);
    }

    #[test]
    fn bounds_at_the_ends_of_their_range_do_no_harm() {
        for bytes in [0, 1, u64::MAX / 2, u64::MAX] {
            for bound in [0, 1, u64::MAX / 2, u64::MAX] {
                let measure = Measure {
                    used_bytes: bytes,
                    max_bytes: bound,
                    free_bytes: bytes,
                    min_free_bytes: bound,
                };
                assert!(measure.wait() <= WAIT_MAX);
                assert!(measure.level_after(Pressure::Refuse) >= measure.level());
            }
        }
    }

    proptest! {
        #[test]
        fn the_worse_of_both_measures_counts_and_more_use_never_lowers_the_level(
            used_bytes in 0u64..3000, free_bytes in 0u64..3000, more in 0u64..500,
        ) {
            let both = Measure { free_bytes, ..used(used_bytes) };
            prop_assert_eq!(both.level(), used(used_bytes).level().max(free(free_bytes).level()));
            prop_assert_eq!(both.wait(), used(used_bytes).wait().max(free(free_bytes).wait()));
            let later = Measure {
                used_bytes: used_bytes + more,
                free_bytes: free_bytes.saturating_sub(more),
                ..both
            };
            prop_assert!(later.level() >= both.level());
            prop_assert!(later.wait() >= both.wait());
        }
    }
}
