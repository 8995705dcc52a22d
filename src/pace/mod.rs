//! How fast the log goes out: what an operator allows, and how a backlog makes way for what
//! is fresh. Called by the ways out (each has a [`Pacer`]), by whoever writes into a sink
//! (it says when a sink has too much to do), and by `admin` (sets and shows it).
//!
//! # Invariants
//! - Fresh records are held by `max_rate` alone. A backlog is held by its share of it and of
//!   the window, and by slow confirms, full queues, an alarm of the broker and an overloaded
//!   sink, but not stopped: a window of [`WINDOW_MIN`] messages, or [`TRICKLE_RATE`] events
//!   a second, stay. Only fresh events that take all of `max_rate` or of the window by
//!   themselves leave it nothing (tests in `tests`).
//! - What slows a way out is shown while it is so, and some seconds longer (test
//!   `what_slowed_a_way_out_is_not_shown_for_ever`).
//! - Nothing here decides what is delivered, only when.

mod pacer;

pub use pacer::{Pacer, TRICKLE_RATE, WINDOW_MIN};

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How long a backlog stays slow after a sink's last word of being overloaded: ClickHouse
/// needs some time to merge its parts.
const OVERLOAD_HOLD: Duration = Duration::from_secs(30);

/// What an operator sets; at run time, too.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Events a second that leave by one way out; `None`: as many as it takes.
    pub max_rate: Option<u32>,
    /// The part of that, and of the messages that wait for a confirm, that a backlog may
    /// take while fresh events go beside it: more than 0, at most 1.
    pub backlog_share: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_rate: None,
            backlog_share: 0.75,
        }
    }
}

/// Which records a message is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// What has just come.
    Fresh,
    /// What waits since the way out was away or slow.
    Backlog,
}

/// How a way out goes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct WayPace {
    /// How long the broker takes to confirm a message, in milliseconds, of late.
    pub confirm_latency_ms: Option<f64>,
    /// Why the backlog, or all, goes slower than it could.
    pub slowed: Option<String>,
}

/// Shared by all parts of a host.
#[derive(Debug, Clone)]
pub struct Pace(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    settings: watch::Sender<Settings>,
    overload: Mutex<Option<(Instant, String)>>,
    ways: Mutex<BTreeMap<String, Told>>,
}

/// What a way out said last.
#[derive(Debug, Clone, Default)]
struct Told {
    pace: WayPace,
    /// Until when what slows it holds, if something does: one that sends nothing any more, or is
    /// not slowed any more and says nothing of it, would leave it there.
    until: Option<Instant>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere leaves facts, no less.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pace {
    /// With these settings.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self(Arc::new(Shared {
            settings: watch::Sender::new(settings),
            overload: Mutex::new(None),
            ways: Mutex::new(BTreeMap::new()),
        }))
    }

    /// The settings now.
    #[must_use]
    pub fn settings(&self) -> Settings {
        *self.0.settings.borrow()
    }

    /// Changes them, for as long as the process lives.
    pub fn set(&self, settings: Settings) {
        self.0.settings.send_replace(settings);
    }

    /// Tells when they change.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<Settings> {
        self.0.settings.subscribe()
    }

    /// A sink says that it has too much to do.
    pub fn overloaded(&self, reason: &str) {
        *lock(&self.0.overload) = Some((Instant::now(), reason.to_owned()));
    }

    /// How the ways out go, by name.
    #[must_use]
    pub fn ways(&self) -> BTreeMap<String, WayPace> {
        self.ways_at(Instant::now())
    }

    fn ways_at(&self, now: Instant) -> BTreeMap<String, WayPace> {
        let of = |(way, told): (&String, &Told)| {
            let mut pace = told.pace.clone();
            pace.slowed = pace.slowed.filter(|_| told.until > Some(now));
            (way.clone(), pace)
        };
        lock(&self.0.ways).iter().map(of).collect()
    }

    fn overload(&self, now: Instant) -> Option<(Instant, String)> {
        lock(&self.0.overload)
            .clone()
            .filter(|(at, _)| now.saturating_duration_since(*at) < OVERLOAD_HOLD)
    }
}

impl Default for Pace {
    fn default() -> Self {
        Self::new(Settings::default())
    }
}
