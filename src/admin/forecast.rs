//! How fast the log fills and empties, and how long acknowledgements take, from looks at its
//! positions and figures: one a second, for a minute back. Sampled by `app`, for status.
//!
//! # Invariants
//! - Nothing is forecast from less than a few seconds, and nothing that does not happen at
//!   the present rates: a log that does not grow is never full (tests below).
//! - Bounded: [`SAMPLES`] positions of each way out.

use super::status::{AckLatency, WayRate};
use std::collections::{BTreeMap, VecDeque};

/// Looks that are kept: a minute of them, so that a rate is steady enough to plan by.
pub(super) const SAMPLES: usize = 60;

/// Seconds that a rate needs at least.
const SPAN_MIN_S: f64 = 3.0;

/// One look.
#[derive(Debug, Clone, Default)]
pub(super) struct Sample {
    /// Seconds on a clock that does not jump.
    pub(super) at_s: f64,
    /// The sequence after the last durable request.
    pub(super) end_seq: u64,
    /// The log's bytes on the disk.
    pub(super) used_bytes: u64,
    /// Requests that each way out is done with, from the first sequence on.
    pub(super) passed_requests: BTreeMap<String, u64>,
    /// Acknowledgements since the start that took no longer than so many seconds, ascending;
    /// the last are all.
    pub(super) acks: Vec<(f64, u64)>,
}

/// What the looks say together.
#[derive(Debug, Default)]
pub(super) struct Forecast(VecDeque<Sample>);

impl Forecast {
    pub(super) fn add(&mut self, sample: Sample) {
        if self.0.len() == SAMPLES {
            self.0.pop_front();
        }
        self.0.push_back(sample);
    }

    /// The oldest and the newest look, and the seconds between, if they are enough.
    fn ends(&self) -> Option<(&Sample, &Sample, f64)> {
        let (first, last) = (self.0.front()?, self.0.back()?);
        let span_s = last.at_s - first.at_s;
        (span_s >= SPAN_MIN_S).then_some((first, last, span_s))
    }

    /// Requests that become durable in a second.
    pub(super) fn accepted_per_second(&self) -> Option<f64> {
        let (first, last, span_s) = self.ends()?;
        Some(last.end_seq.saturating_sub(first.end_seq) as f64 / span_s)
    }

    /// Bytes by which the log grows in a second; negative while it shrinks.
    pub(super) fn growth_bytes_per_second(&self) -> Option<f64> {
        let (first, last, span_s) = self.ends()?;
        Some((last.used_bytes as f64 - first.used_bytes as f64) / span_s)
    }

    /// Seconds until so many more bytes are used.
    pub(super) fn full_in_seconds(&self, room_bytes: u64) -> Option<u64> {
        let growth = self.growth_bytes_per_second()?;
        (growth >= 1.0).then_some((room_bytes as f64 / growth) as u64)
    }

    /// How long acknowledgements took, if any were made.
    pub(super) fn ack_latency(&self) -> Option<AckLatency> {
        let (first, last, _) = self.ends()?;
        let taken = |at: usize| {
            let before = first.acks.get(at).map_or(0, |(_, count)| *count);
            last.acks[at].1.saturating_sub(before)
        };
        let all = taken(last.acks.len().checked_sub(1)?);
        let within_ms = |share: f64| {
            let enough = (all as f64 * share).ceil() as u64;
            let at = (0..last.acks.len()).find(|at| taken(*at) >= enough)?;
            // All stand in the last, which has no bound of its own.
            let (seconds, _) = match last.acks[at] {
                (seconds, _) if seconds.is_infinite() => *last.acks.get(at.checked_sub(1)?)?,
                bound => bound,
            };
            Some(seconds * 1000.0)
        };
        (all > 0).then_some(AckLatency {
            p50_ms: within_ms(0.5)?,
            p99_ms: within_ms(0.99)?,
        })
    }

    /// How a way out does.
    pub(super) fn way(&self, name: &str) -> Option<WayRate> {
        let (first, last, span_s) = self.ends()?;
        let (from, to) = (
            *first.passed_requests.get(name)?,
            *last.passed_requests.get(name)?,
        );
        let delivered = to.saturating_sub(from) as f64 / span_s;
        let pending = last.end_seq.saturating_sub(to);
        let gain = delivered - self.accepted_per_second()?;
        let empty_in_seconds = match pending {
            0 => Some(0),
            // Slower than one request a minute is no progress.
            _ if gain * 60.0 < 1.0 => None,
            pending => Some((pending as f64 / gain) as u64),
        };
        Some(WayRate {
            requests_per_second: delivered,
            empty_in_seconds,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at_s: f64, end_seq: u64, next: u64, used_bytes: u64) -> Sample {
        Sample {
            at_s,
            end_seq,
            used_bytes,
            passed_requests: BTreeMap::from([("w".to_owned(), next)]),
            acks: Vec::new(),
        }
    }

    #[test]
    fn acknowledgements_are_as_slow_as_those_of_the_last_minute() {
        let look = |at_s, counts: [u64; 3]| Sample {
            acks: [0.5, 1.0, f64::INFINITY].into_iter().zip(counts).collect(),
            ..sample(at_s, 0, 0, 0)
        };
        let latency = |before, after| {
            let mut forecast = Forecast::default();
            forecast.add(look(0.0, before));
            assert_eq!(forecast.ack_latency(), None, "one look says nothing");
            forecast.add(look(10.0, after));
            let latency = forecast.ack_latency();
            latency.map(|latency| (latency.p50_ms, latency.p99_ms))
        };
        assert_eq!(latency([7, 7, 7], [7, 7, 7]), None, "none were made");
        assert_eq!(latency([0, 0, 0], [99, 100, 100]), Some((500.0, 500.0)));
        assert_eq!(latency([0, 0, 0], [98, 100, 100]), Some((500.0, 1000.0)));
        // What was before does not count, and the slowest of all have no bound of their own.
        let much = 1_000_000;
        let before = [much, much, much];
        let after = [much, much + 1, much + 100];
        assert_eq!(latency(before, after), Some((1000.0, 1000.0)));
    }

    #[test]
    fn a_backlog_that_shrinks_has_an_end_and_one_that_grows_has_none() {
        let mut forecast = Forecast::default();
        forecast.add(sample(0.0, 1000, 100, 5000));
        assert_eq!(forecast.way("w"), None, "one look says nothing");
        forecast.add(sample(10.0, 1100, 300, 6000));
        assert_eq!(forecast.accepted_per_second(), Some(10.0));
        let way = forecast.way("w").unwrap();
        assert_eq!(way.requests_per_second, 20.0);
        // 800 pending, 10 more delivered than accepted in a second.
        assert_eq!(way.empty_in_seconds, Some(80));
        assert_eq!(forecast.full_in_seconds(1000), Some(10));
        assert_eq!(forecast.way("other"), None);
        let mut stuck = Forecast::default();
        stuck.add(sample(0.0, 1000, 100, 5000));
        stuck.add(sample(10.0, 1100, 100, 4000));
        assert_eq!(stuck.way("w").unwrap().empty_in_seconds, None);
        assert_eq!(stuck.full_in_seconds(1000), None, "it shrinks");
        let mut idle = Forecast::default();
        idle.add(sample(0.0, 7, 7, 0));
        idle.add(sample(5.0, 7, 7, 0));
        assert_eq!(idle.way("w").unwrap().empty_in_seconds, Some(0));
    }

    #[test]
    fn old_looks_are_forgotten() {
        let mut forecast = Forecast::default();
        for at in 0..200 {
            let end = if at < 150 { 0 } else { (at - 149) * 5 };
            forecast.add(sample(at as f64, end, 0, 0));
        }
        assert_eq!(forecast.0.len(), SAMPLES);
        let rate = forecast.accepted_per_second().unwrap();
        assert!((4.0..5.0).contains(&rate), "{rate}");
    }
}
