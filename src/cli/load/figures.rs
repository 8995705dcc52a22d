//! What is counted and timed of a run. Filled by `drive`, shown by `render`.
//!
//! # Invariants
//! - The warm-up is in no figure but its own.
//! - Latencies are of acknowledged calls alone: a fast refusal is no fast answer. In an open
//!   loop they contain the wait before the call, see `drive`.

use super::drive::Answer;
use hdrhistogram::Histogram;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// The longest latency that is told apart, in microseconds: longer than any run.
const LATENCY_MAX_US: u64 = 25 * 3600 * 1_000_000;

/// Decimal digits of a latency that are kept.
const LATENCY_DIGITS: u8 = 3;

/// The percentiles that are told.
pub(super) const PERCENTILES: [(&str, f64); 4] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)];

/// Characters of a refusal's message that are kept.
const MESSAGE_CHARS: usize = 200;

/// Refused calls of one code.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) calls: u64,
    /// What the first one was told.
    pub(super) message: String,
}

/// Counts and times.
#[derive(Debug)]
pub(super) struct Figures {
    counts_from: Instant,
    latency_us: Histogram<u64>,
    pub(super) acked_calls: u64,
    pub(super) acked_bytes: u64,
    /// By code, of which there are few.
    pub(super) refused: BTreeMap<&'static str, Refused>,
    pub(super) warm_up_calls: u64,
    /// When the last acknowledgement came, also one of the warm-up.
    pub(super) last_ack: Option<Instant>,
    last_counted_ack: Option<Instant>,
    /// Calls of an open loop that were due, and not sent when the time was up.
    pub(super) due_not_sent_calls: u64,
    /// The run ended because no more events can be remembered.
    pub(super) is_full: bool,
}

/// A latency, and how many calls took longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Percentile {
    pub(super) name: &'static str,
    pub(super) us: u64,
    pub(super) calls_above: u64,
}

impl Figures {
    /// Figures that count from a moment on.
    pub(super) fn new(counts_from: Instant) -> Self {
        let latency_us = Histogram::new_with_bounds(1, LATENCY_MAX_US, LATENCY_DIGITS);
        Self {
            counts_from,
            latency_us: latency_us.expect("the bounds are those that the library takes"),
            acked_calls: 0,
            acked_bytes: 0,
            refused: BTreeMap::new(),
            warm_up_calls: 0,
            last_ack: None,
            last_counted_ack: None,
            due_not_sent_calls: 0,
            is_full: false,
        }
    }

    /// Notes the answer to a call; one of the warm-up has no latency.
    pub(super) fn note(
        &mut self,
        now: Instant,
        latency: Option<Duration>,
        bytes: u64,
        answer: Answer,
    ) {
        // Answers are noted in about the order in which they come.
        let is_acked = answer == Answer::Acked;
        if is_acked {
            self.last_ack = self.last_ack.max(Some(now));
        }
        let Some(latency) = latency else {
            self.warm_up_calls += 1;
            return;
        };
        match answer {
            Answer::Acked => {
                self.acked_calls += 1;
                self.acked_bytes += bytes;
                self.last_counted_ack = self.last_counted_ack.max(Some(now));
                let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
                self.latency_us.saturating_record(us);
            }
            Answer::Refused { code, message } => {
                let refused = self.refused.entry(code).or_insert_with(|| Refused {
                    calls: 0,
                    message: message.chars().take(MESSAGE_CHARS).collect(),
                });
                refused.calls += 1;
            }
        }
    }

    /// From the end of the warm-up until the last call that counts was acknowledged.
    pub(super) fn measured(&self) -> Duration {
        self.last_counted_ack.map_or(Duration::ZERO, |last| {
            last.saturating_duration_since(self.counts_from)
        })
    }

    pub(super) fn percentiles(&self) -> Vec<Percentile> {
        let above = |us| {
            let up_to = self.latency_us.count_between(0, us);
            self.latency_us.len().saturating_sub(up_to)
        };
        let told = PERCENTILES.iter().map(|(name, part)| {
            let us = self.latency_us.value_at_quantile(*part);
            (*name, us)
        });
        let told = told.chain([("max", self.latency_us.max())]);
        told.map(|(name, us)| Percentile {
            name,
            us,
            calls_above: above(us),
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_say_how_many_calls_are_above_them() {
        let now = Instant::now();
        let mut figures = Figures::new(now);
        for ms in 1..=1000 {
            let latency = Duration::from_millis(ms);
            figures.note(now + latency, Some(latency), 100, Answer::Acked);
        }
        let told = figures.percentiles();
        let names: Vec<_> = told.iter().map(|told| told.name).collect();
        assert_eq!(names, ["p50", "p90", "p99", "p99.9", "max"]);
        for (told, (us, above)) in told.iter().zip([
            (500_000, 500),
            (900_000, 100),
            (990_000, 10),
            (999_000, 1),
            (1_000_000, 0),
        ]) {
            // Three digits are kept.
            assert!(told.us.abs_diff(us) <= us / 500, "{told:?}");
            assert!(told.calls_above.abs_diff(above) <= 1, "{told:?}");
        }
        assert_eq!(told[4].calls_above, 0);
        assert_eq!(figures.measured(), Duration::from_secs(1));
        assert_eq!((figures.acked_calls, figures.acked_bytes), (1000, 100_000));
    }

    #[test]
    fn the_warm_up_is_in_no_figure_but_its_own() {
        let now = Instant::now();
        let mut figures = Figures::new(now);
        figures.note(now, None, 100, Answer::Acked);
        let refused = Answer::Refused {
            code: "UNAVAILABLE",
            message: "away".to_owned(),
        };
        figures.note(now, None, 100, refused);
        assert_eq!((figures.warm_up_calls, figures.acked_calls), (2, 0));
        assert!(figures.refused.is_empty() && figures.percentiles()[4].us == 0);
        assert_eq!(figures.measured(), Duration::ZERO);
        // But it may be the last that was acknowledged.
        assert_eq!(figures.last_ack, Some(now));
    }

    #[test]
    fn refusals_are_counted_by_code_and_are_no_latencies() {
        let now = Instant::now();
        let mut figures = Figures::new(now);
        for (code, message) in [
            ("UNAVAILABLE", "first"),
            ("UNAVAILABLE", "second"),
            ("RESOURCE_EXHAUSTED", &"x".repeat(1000)),
        ] {
            let message = message.to_owned();
            let latency = Some(Duration::from_secs(1));
            figures.note(now, latency, 100, Answer::Refused { code, message });
        }
        assert_eq!(figures.refused["UNAVAILABLE"].calls, 2);
        assert_eq!(figures.refused["UNAVAILABLE"].message, "first");
        let long = &figures.refused["RESOURCE_EXHAUSTED"];
        assert_eq!((long.calls, long.message.len()), (1, MESSAGE_CHARS));
        assert_eq!((figures.acked_calls, figures.acked_bytes), (0, 0));
        assert_eq!(figures.percentiles()[4].us, 0);
        assert_eq!(figures.last_ack, None);
    }
}
