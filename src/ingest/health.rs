//! Whether this host takes requests: one truth for `/heartbeat/`, grpc.health.v1
//! and the ready gauge. Called by the doors, by `app` (ready, stopping) and by an
//! operator's PUT.
//!
//! # Invariants
//! - Serving = the operator's beat is on, the doors are open, no operator drains the host,
//!   and the journal is not fenced. Broker and sinks do not matter: the journal takes their place.
//! - `Watch` streams see every change of that.
//! - However often somebody switches, the log has a line a second, and the last state
//!   (tests/it/http.rs, `the_heartbeat_is_switched_by_whom_the_configuration_lets`).

use crate::journal::Journal;
use crate::telemetry::Metrics;
use std::net::IpAddr;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

/// How soon a fence shows in health.
const FENCE_POLL: Duration = Duration::from_millis(200);

/// How far apart lines of the log about it are: who may switch it may do so without end.
const LINE_PERIOD: Duration = Duration::from_secs(1);

/// The services that health answers for; the empty name is the whole server.
const SERVICES: [&str; 2] = ["", "event.EventService"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    beat: bool,
    open: bool,
    draining: bool,
    /// How often the beat was switched, and from where the last time.
    switches: u64,
    switched_from: Option<IpAddr>,
}

/// What the log has of it.
#[derive(Debug, Default)]
struct Said {
    serving: Option<bool>,
    switches: u64,
    at: Option<Instant>,
}

impl Said {
    /// Says what is new: at most once in [`LINE_PERIOD`], and the last time in any case.
    fn say(&mut self, state: State, serving: bool, is_last: bool) {
        let is_early = self.at.is_some_and(|at| at.elapsed() < LINE_PERIOD);
        let switches = state.switches - self.switches;
        let is_new = switches > 0 || self.serving != Some(serving);
        if (is_early && !is_last) || !is_new {
            return;
        }
        if switches > 0 {
            let beat = state.beat;
            let from = state.switched_from;
            let from = from.map_or_else(String::new, |from| from.to_string());
            tracing::warn!(beat, from, switches, "the heartbeat was switched");
        }
        if self.serving != Some(serving) {
            tracing::info!(serving, "health");
        }
        *self = Self {
            serving: Some(serving),
            switches: state.switches,
            at: Some(Instant::now()),
        };
    }
}

/// The state, shared by clones.
#[derive(Debug, Clone)]
pub struct Health {
    state: watch::Sender<State>,
    journal: Journal,
}

impl Health {
    /// Starts with the beat on and the doors closed.
    #[must_use]
    pub fn new(journal: Journal) -> Self {
        let state = State {
            beat: true,
            open: false,
            draining: false,
            switches: 0,
            switched_from: None,
        };
        Self {
            state: watch::Sender::new(state),
            journal,
        }
    }

    /// Whether requests are taken.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        let State {
            beat,
            open,
            draining,
            ..
        } = *self.state.borrow();
        beat && open && !draining && self.journal.stats().fence.is_none()
    }

    /// Whether the operator's switch is on.
    #[must_use]
    pub fn beat(&self) -> bool {
        self.state.borrow().beat
    }

    /// Whether the doors are open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.state.borrow().open
    }

    /// Whether an operator drains this host: the doors refuse everything.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.state.borrow().draining
    }

    /// An operator drains this host, or takes that back.
    pub fn set_draining(&self, draining: bool) {
        self.state.send_modify(|state| state.draining = draining);
    }

    /// The operator's switch, and from where.
    pub fn set_beat(&self, beat: bool, from: Option<IpAddr>) {
        self.state.send_if_modified(|state| {
            let is_change = state.beat != beat;
            if is_change {
                state.beat = beat;
                state.switches += 1;
                state.switched_from = from;
            }
            is_change
        });
    }

    /// The doors are open, or about to close.
    pub fn set_open(&self, open: bool) {
        self.state.send_modify(|state| state.open = open);
    }

    /// Carries every change to grpc.health.v1, the gauge and the log, until cancelled.
    /// The last report is "not serving".
    pub async fn report(self, reporter: HealthReporter, metrics: Metrics, stop: CancellationToken) {
        let mut changes = self.state.subscribe();
        let mut reported = None;
        let mut said = Said::default();
        loop {
            let stopping = stop.is_cancelled();
            let serving = self.is_serving() && !stopping;
            if reported != Some(serving) {
                let status = if serving {
                    ServingStatus::Serving
                } else {
                    ServingStatus::NotServing
                };
                for service in SERVICES {
                    reporter.set_service_status(service, status).await;
                }
                metrics.ready(serving);
                reported = Some(serving);
            }
            let state = *self.state.borrow();
            said.say(state, serving, stopping);
            if stopping {
                return;
            }
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(FENCE_POLL) => {}
                () = stop.cancelled() => {}
            }
        }
    }
}
