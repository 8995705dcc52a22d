//! What the service knows of itself, put together for whoever asks; and the looks, one a
//! second, that rates, forecasts and the page's picture are made of. Used by the routes in
//! `serve`, `switches` and `page`.
//!
//! # Invariants
//! - The looks are taken whether or not anyone can ask (test
//!   `the_page_is_there_without_the_socket`).
//! - A status answers within a second or so whatever a disk or a database does: letters
//!   that cannot be counted by then are left out.

use super::audit::Audit;
use super::forecast::{Forecast, Sample};
use super::history::{Health, History, Past, Point, WayPoint};
use super::request::{ReloadError, Reloaded};
use super::status::{Acks, Disk, Ledger, Part, Rates, State as ServiceState, Status};
use crate::clock::now_ms;
use crate::dead_letters::DeadLetters;
use crate::drill::Drill;
use crate::journal::{Journal, Pressure};
use crate::pace::Pace;
use crate::telemetry::{FOLLOWS_PANIC, Metrics};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::time::MissedTickBehavior;

/// How often the log's positions are looked at, for rates.
const SAMPLE_PERIOD: Duration = Duration::from_secs(1);

/// How long the dead letters may take to be counted: one that is being set aside holds the
/// file.
const COUNT_WAIT: Duration = Duration::from_secs(1);

/// What the routes need to know of the service.
#[derive(Clone)]
pub struct Options {
    /// The journal.
    pub journal: Journal,
    /// Its directory.
    pub data_dir: PathBuf,
    /// `journal.max_bytes`.
    pub max_bytes: u64,
    /// `journal.min_free_bytes`.
    pub min_free_bytes: u64,
    /// Whether the doors take requests, asked for each answer.
    pub serving: Arc<dyn Fn() -> Serving + Send + Sync>,
    /// Begins or ends a drain.
    pub drain: Arc<dyn Fn(bool) + Send + Sync>,
    /// Loads the configuration anew; may take as long as its file does.
    pub reload: Arc<dyn Fn() -> Result<Reloaded, ReloadError> + Send + Sync>,
    /// What could not be handed on.
    pub dead_letters: DeadLetters,
    /// How the parts do.
    pub metrics: Metrics,
    /// How fast the ways out go.
    pub pace: Pace,
    /// Plays outages, where that is allowed.
    pub drill: Drill,
    /// The parts of this host that status names: kind and name.
    pub parts: Vec<(&'static str, String)>,
}

/// The doors' part of the state.
#[derive(Debug, Clone, Copy)]
pub struct Serving {
    /// The doors are open; false while the service stops.
    pub open: bool,
    /// The operator's heartbeat switch is on.
    pub beat: bool,
    /// An operator drains the host.
    pub draining: bool,
    /// Requests that are neither durable nor refused yet.
    pub in_work: usize,
}

pub(super) struct App {
    pub(super) options: Options,
    pub(super) audit: Audit,
    started: Instant,
    started_at_ms: i64,
    forecast: Mutex<Forecast>,
    history: Mutex<History>,
}

/// Looks at the service, once a second for as long as it runs.
pub(super) async fn sample(app: Arc<App>) {
    let mut looks = tokio::time::interval(SAMPLE_PERIOD);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let app = Arc::clone(&app);
        // The journal may read its disk for it, and must not hold up others.
        if let Err(error) = tokio::task::spawn_blocking(move || app.look()).await {
            tracing::error!(target: FOLLOWS_PANIC, %error, "a look at the service failed");
        }
    }
}

/// What is wrong with several parts, in one line.
fn together<'a>(parts: impl Iterator<Item = &'a Part>) -> Health {
    let (mut all, mut ill, mut is_unconnected) = (0, 0, false);
    let mut text = None;
    for part in parts {
        all += 1;
        if let Some(trouble) = &part.trouble {
            ill += 1;
            text = text.or(Some(&trouble.text));
        } else if part.connected == Some(false) {
            is_unconnected = true;
        }
    }
    match text {
        Some(text) if all == 1 => Health::Ill(text.clone()),
        Some(text) => Health::Ill(format!("{ill} of {all}: {text}")),
        None if is_unconnected => Health::Unconnected,
        None => Health::Well,
    }
}

/// The page's lines: the door, each way out, all consumers together, each sink.
fn tracks(status: &Status) -> Vec<(String, Health)> {
    let door = match status.state {
        ServiceState::NotServing => Health::Ill(status.reasons.join("; ")),
        ServiceState::Draining => Health::Ill("an operator drains this host".to_owned()),
        _ => Health::Well,
    };
    let mut tracks = vec![("door".to_owned(), door)];
    let of = |kind| status.parts.iter().filter(move |part| part.kind == kind);
    let single = |part: &Part| (part.name.clone(), together(std::iter::once(part)));
    tracks.extend(of("way_out").map(single));
    if of("consumer").next().is_some() {
        tracks.push(("consumers".to_owned(), together(of("consumer"))));
    }
    // Without a broker, sinks are the ways out.
    let is_new = |part: &&Part| of("way_out").all(|way| way.name != part.name);
    tracks.extend(of("sink").filter(is_new).map(single));
    tracks
}

impl App {
    pub(super) fn new(options: Options) -> Self {
        let audit = Audit::new(&options.data_dir);
        Self {
            options,
            audit,
            started: Instant::now(),
            started_at_ms: now_ms(),
            forecast: Mutex::default(),
            history: Mutex::default(),
        }
    }

    fn history(&self) -> MutexGuard<'_, History> {
        // A panic elsewhere leaves a list of looks, no less.
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the service started, epoch milliseconds.
    pub(super) fn started_at_ms(&self) -> i64 {
        self.started_at_ms
    }

    /// How long ago that is, on a clock that does not jump.
    pub(super) fn up_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// What the page draws.
    pub(super) fn past(&self, is_coarse: bool, after_up_ms: Option<u64>) -> Past {
        self.history().past(is_coarse, after_up_ms)
    }

    fn look(&self) {
        let status = self.status();
        let passed = status.ledger.ways.iter();
        let passed = passed.map(|way| (way.way.clone(), way.next_seq + way.ahead_requests));
        self.forecast().add(Sample {
            at_s: self.started.elapsed().as_secs_f64(),
            end_seq: status.next_seq,
            used_bytes: status.disk.used_bytes,
            passed_requests: passed.collect(),
            acks: self.options.metrics.ack_counts(),
        });
        let point = |way: &super::status::Way| WayPoint {
            delivered: way.total().delivered,
            pending: way.pending_events,
        };
        let ways = status.ledger.ways.iter();
        let accepted = status.ledger.accepted.iter().flat_map(BTreeMap::values);
        let point = Point {
            up_ms: self.up_ms(),
            accepted: accepted.sum(),
            used_bytes: status.disk.used_bytes,
            ways: ways.map(|way| (way.way.clone(), point(way))).collect(),
        };
        self.history().look(point, tracks(&status));
    }

    /// The status with what takes a moment to find out.
    pub(super) async fn whole_status(self: Arc<Self>) -> Result<Status, tokio::task::JoinError> {
        let letters = self.options.dead_letters.clone();
        let counted = tokio::time::timeout(COUNT_WAIT, letters.waiting()).await;
        let counted = match counted {
            Ok(Ok(waiting)) => Some(waiting),
            Ok(Err(error)) => {
                tracing::debug!(%error, "the dead letters are not counted");
                None
            }
            Err(_) => None,
        };
        let mut status = tokio::task::spawn_blocking(move || self.status()).await?;
        status.dead_letters = counted;
        Ok(status)
    }

    fn forecast(&self) -> MutexGuard<'_, Forecast> {
        // A panic elsewhere leaves a list of looks, no less.
        self.forecast.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn parts(&self) -> Vec<Part> {
        let vitals = self.options.metrics.vitals();
        let parts = self.options.parts.iter();
        parts
            .map(|(kind, name)| Part::new(kind, name, vitals.get(name)))
            .collect()
    }

    fn rates(&self, room_bytes: u64) -> Option<Rates> {
        let forecast = self.forecast();
        Some(Rates {
            accepted_requests_per_second: forecast.accepted_per_second()?,
            growth_bytes_per_second: forecast.growth_bytes_per_second()?,
            full_in_seconds: forecast.full_in_seconds(room_bytes),
        })
    }

    pub(super) fn status(&self) -> Status {
        let journal = &self.options.journal;
        let stats = journal.stats();
        let serving = (self.options.serving)();
        let (max_bytes, min_free_bytes) = (self.options.max_bytes, self.options.min_free_bytes);
        let mut reasons = Vec::new();
        if let Some(fence) = &stats.fence {
            reasons.push(format!("the log is fenced until a restart: {fence}"));
        }
        if stats.used_bytes >= max_bytes {
            reasons.push("the log holds as much as it may (journal.max_bytes)".to_owned());
        }
        if stats.free_bytes < min_free_bytes {
            reasons.push("the disk is low (journal.min_free_bytes)".to_owned());
        }
        if reasons.is_empty() && stats.pressure == Pressure::Refuse {
            reasons.push("a write found the disk full, whatever its free bytes say".to_owned());
        }
        if !serving.beat {
            reasons.push("the heartbeat was switched off (PUT /heartbeat/)".to_owned());
        }
        let state = match (serving.open, serving.draining, reasons.is_empty()) {
            (false, _, _) => ServiceState::Stopping,
            (true, true, _) => ServiceState::Draining,
            (true, false, true) => ServiceState::Serving,
            (true, false, false) => ServiceState::NotServing,
        };
        let mut ledger = Ledger::new(&journal.ledger(), stats.durable_end_seq.0);
        let mut paces = self.options.pace.ways();
        for way in &mut ledger.ways {
            way.rate = self.forecast().way(&way.way);
            way.pace = paces.remove(&way.way);
        }
        // Whichever bound comes first.
        let room_bytes = max_bytes
            .saturating_sub(stats.used_bytes)
            .min(stats.free_bytes.saturating_sub(min_free_bytes));
        Status {
            rates: self.rates(room_bytes),
            acks: Some(Acks {
                latency: self.forecast().ack_latency(),
                expired_requests: stats.expired_appends,
            }),
            parts: self.parts(),
            state,
            reasons,
            in_work: Some(serving.in_work as u64),
            version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            pid: Some(std::process::id()),
            up_seconds: Some(self.started.elapsed().as_secs()),
            host: Some(journal.host().as_str().to_owned()),
            data_dir: self.options.data_dir.display().to_string(),
            disk: Disk {
                used_bytes: stats.used_bytes,
                max_bytes: Some(max_bytes),
                free_bytes: Some(stats.free_bytes),
                min_free_bytes: Some(min_free_bytes),
            },
            generations: stats.generations as u64,
            oldest_seq: stats.oldest_seq.0,
            next_seq: stats.durable_end_seq.0,
            losses: Some(journal.losses()),
            ledger,
            dead_letters: None,
        }
    }
}
