//! The pace of one way out: what may go now, and when the next may. Kept by its pump; the
//! invariants stand in `mod.rs`.

use super::{Lane, Pace, Settings, Told, WayPace, lock};
use std::time::{Duration, Instant};

/// Messages of a backlog that may wait for their confirm however slow all is.
pub const WINDOW_MIN: usize = 64;

/// Events a second that a backlog sends while the queues that fresh events go to are full.
pub const TRICKLE_RATE: f64 = 200.0;

/// A confirm that takes longer than this comes from a broker with too much to do: a fresh
/// message behind a backlog must not wait longer.
const CONFIRM_SLOW: Duration = Duration::from_millis(500);

/// How often the window of a backlog changes: some round trips, so that a change shows.
const STEP: Duration = Duration::from_millis(100);

/// How long after the last fresh record a backlog need not make way any more.
const FRESH_HOLD: Duration = Duration::from_secs(5);

/// Seconds of its rate that a bucket holds: bursts of a single read.
const BURST_S: f64 = 0.1;

/// The longest wait that is asked for: then the settings may be others.
const WAIT_MAX_S: f64 = 3600.0;

/// How long what was told holds when nothing is told any more: longer than any pause between two
/// words of what still is so.
const TOLD_HOLD: Duration = Duration::from_secs(5);

/// How much later what was told has to hold before it is told again.
const TOLD_STEP: Duration = Duration::from_secs(1);

/// Weight of the newest confirm in the latency that is shown and acted upon.
const LATENCY_WEIGHT: f64 = 0.05;

/// Events that may go at a rate. It may go into debt, by a message: that is not cut in two.
#[derive(Debug)]
struct Bucket {
    events: f64,
    at: Instant,
}

impl Bucket {
    fn new(now: Instant) -> Self {
        Self {
            events: 1.0,
            at: now,
        }
    }

    /// When the next may go, if not now.
    fn due(&mut self, rate: f64, now: Instant) -> Option<Instant> {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.events = (self.events + passed * rate).min((rate * BURST_S).max(1.0));
        self.at = self.at.max(now);
        // One that comes at once would come too early by rounding.
        let wait = (1e-6 - self.events).max(0.0) / rate;
        (self.events <= 0.0).then(|| now + Duration::from_secs_f64(wait.clamp(1e-3, WAIT_MAX_S)))
    }
}

/// The pace of one way out, kept by its pump.
#[derive(Debug)]
pub struct Pacer {
    pace: Pace,
    way: String,
    /// Messages that may wait for their confirm in all.
    window_max: usize,
    /// Those of a backlog, now.
    window: f64,
    stepped_at: Instant,
    latency_s: Option<f64>,
    all: Bucket,
    backlog: Bucket,
    trickle: Bucket,
    /// The last word of an overloaded sink that was acted upon.
    heeded: Option<Instant>,
    fresh_at: Option<Instant>,
    full: Option<String>,
    told: Told,
}

impl Pacer {
    /// A way out that has up to `window_max` messages on their way.
    #[must_use]
    pub fn new(pace: &Pace, way: &str, window_max: usize) -> Self {
        let now = Instant::now();
        Self {
            pace: pace.clone(),
            way: way.to_owned(),
            window_max,
            // Grows from the least: a broker that comes back has much to do.
            window: WINDOW_MIN as f64,
            stepped_at: now,
            latency_s: None,
            all: Bucket::new(now),
            backlog: Bucket::new(now),
            trickle: Bucket::new(now),
            heeded: None,
            fresh_at: None,
            full: None,
            told: Told::default(),
        }
    }

    fn window_end(&self) -> f64 {
        let share = self.pace.settings().backlog_share;
        (self.window_max as f64 * share).max(WINDOW_MIN as f64)
    }

    /// Messages of a backlog that may wait for their confirm.
    #[must_use]
    pub fn backlog_window(&self) -> usize {
        self.window.min(self.window_end()) as usize
    }

    /// Whether a message of so many events may go now, which takes them; otherwise when to
    /// ask again.
    pub fn admit(&mut self, lane: Lane, events: u64, now: Instant) -> Option<Instant> {
        let Settings {
            max_rate,
            backlog_share,
        } = self.pace.settings();
        let makes_way = self.makes_way(now);
        let is_backlog = lane == Lane::Backlog;
        let rate = max_rate.map(|rate| f64::from(rate.max(1)));
        // Each bucket counts from when its rate holds: what went before is no debt.
        let shares = rate.filter(|_| is_backlog && self.fresh_at.is_some());
        let full = self.full.as_ref().filter(|_| is_backlog && makes_way);
        let mut due = rate.and_then(|rate| self.all.due(rate, now));
        if let Some(rate) = shares {
            due = due.max(self.backlog.due(rate * backlog_share, now));
        }
        let trickles = full.is_some();
        if trickles {
            due = due.max(self.trickle.due(TRICKLE_RATE, now));
        }
        if let Some(at) = due {
            let of_rate = |rate| format!("at most {rate} events a second (forward.max_rate)");
            self.tell(full.cloned().or_else(|| rate.map(of_rate)), now.max(at));
            return due;
        }
        let taken = events as f64;
        for (bucket, is_asked) in [
            (&mut self.all, rate.is_some()),
            (&mut self.backlog, shares.is_some()),
            (&mut self.trickle, trickles),
        ] {
            if is_asked {
                bucket.events -= taken;
            }
        }
        if !is_backlog {
            self.fresh_at = Some(now);
        }
        None
    }

    /// Whether something fresh goes beside the backlog.
    fn makes_way(&mut self, now: Instant) -> bool {
        self.fresh_at = self
            .fresh_at
            .filter(|at| now.saturating_duration_since(*at) < FRESH_HOLD);
        self.fresh_at.is_some()
    }

    /// The broker took so long to confirm a message.
    pub fn confirmed(&mut self, latency: Duration, now: Instant) {
        let newest = latency.as_secs_f64();
        let before = self.latency_s.unwrap_or(newest);
        self.latency_s = Some(before + (newest - before) * LATENCY_WEIGHT);
        if now.saturating_duration_since(self.stepped_at) < STEP {
            return;
        }
        self.stepped_at = now;
        let overload = self.pace.overload(now);
        // Where nothing fresh goes beside it there is nothing to make way for.
        let is_slow = self.latency_s > Some(CONFIRM_SLOW.as_secs_f64()) && self.makes_way(now);
        let mut slowed = None;
        if let Some((at, reason)) = overload {
            if self.heeded != Some(at) {
                self.heeded = Some(at);
                self.shrink(0.5);
            }
            slowed = Some(format!("the sink has too much to do: {reason}"));
        } else if is_slow {
            self.shrink(0.8);
            slowed = Some("the broker confirms slowly".to_owned());
        } else {
            self.window = (self.window * 1.1 + 1.0).min(self.window_end());
        }
        if slowed.is_none() && self.makes_way(now) {
            slowed.clone_from(&self.full);
        }
        self.tell(slowed, now);
    }

    fn shrink(&mut self, factor: f64) {
        let window = self.window.min(self.window_end());
        self.window = (window * factor).max(WINDOW_MIN as f64);
    }

    /// The broker has an alarm, or the connection is a new one: begin with little.
    pub fn restart(&mut self) {
        self.window = WINDOW_MIN as f64;
        self.latency_s = None;
        self.told = Told::default();
        lock(&self.pace.0.ways).insert(self.way.clone(), Told::default());
    }

    /// Which queue of those that fresh events go to is full, if any.
    pub fn queue_is_full(&mut self, which: Option<String>) {
        self.full = which;
    }

    /// Says how it goes, which is so until some time after `at`, where that has changed.
    fn tell(&mut self, slowed: Option<String>, at: Instant) {
        let latency_ms = self.latency_s.map(|s| (s * 1e4).round() / 10.0);
        let told = Told {
            until: slowed.is_some().then(|| at + TOLD_HOLD),
            pace: WayPace {
                confirm_latency_ms: latency_ms,
                slowed,
            },
        };
        let holds_longer = told.until > self.told.until.map(|until| until + TOLD_STEP);
        if told.pace != self.told.pace || holds_longer {
            self.told = told.clone();
            lock(&self.pace.0.ways).insert(self.way.clone(), told);
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
