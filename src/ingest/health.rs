//! Whether this host takes requests: one truth for `/heartbeat/`, grpc.health.v1
//! and the ready gauge. Called by the doors, by `app` (ready, stopping) and by an
//! operator's PUT.
//!
//! # Invariants
//! - Serving = the operator's beat is on, the doors are open, no operator drains the host,
//!   and the journal is not fenced. Broker and sinks do not matter: the journal takes their place.
//! - `Watch` streams see every change of that.

use crate::journal::Journal;
use crate::telemetry::Metrics;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

/// How soon a fence shows in health.
const FENCE_POLL: Duration = Duration::from_millis(200);

/// The services that health answers for; the empty name is the whole server.
const SERVICES: [&str; 2] = ["", "event.EventService"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    beat: bool,
    open: bool,
    draining: bool,
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

    /// The operator's switch; whether that is a change.
    pub fn set_beat(&self, beat: bool) -> bool {
        self.state.send_if_modified(|state| {
            let before = std::mem::replace(&mut state.beat, beat);
            before != beat
        })
    }

    /// The doors are open, or about to close.
    pub fn set_open(&self, open: bool) {
        self.state.send_modify(|state| state.open = open);
    }

    /// Carries every change to grpc.health.v1 and the gauge, until cancelled.
    /// The last report is "not serving".
    pub async fn report(self, reporter: HealthReporter, metrics: Metrics, stop: CancellationToken) {
        let mut changes = self.state.subscribe();
        let mut reported = None;
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
                tracing::info!(serving, "health");
                reported = Some(serving);
            }
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
