//! Signals, what systemd is told, and the phases of a stop. Called by `app::run` and, to
//! tell systemd, by `reload`.
//!
//! # Invariants
//! - Each phase asks systemd for the time that it may take, so that a longer
//!   `shutdown.grace` needs no other unit (test `systemd_hears_of_the_start_and_the_stop`).

use sd_notify::NotifyState;
use std::future::Future;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Exit code after a second signal: 128 + SIGINT, as shells have it.
const INTERRUPTED: i32 = 130;

/// What a phase may take beyond its grace, on a slow machine.
const SLACK: Duration = Duration::from_secs(10);

/// The signals that end the service.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(super) fn new() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }

    /// Waits for the first signal.
    pub(super) async fn first(&mut self) {
        let signal = self.next().await;
        tracing::info!(signal, "stopping");
    }

    /// From now on a signal ends the process at once; nothing acknowledged is lost
    /// by it.
    pub(super) fn exit_on_second(mut self) {
        tokio::spawn(async move {
            let signal = self.next().await;
            tracing::warn!(signal, "second signal: exiting at once");
            std::process::exit(INTERRUPTED);
        });
    }
}

/// SIGHUP, which ends the process no more from now on.
pub(super) fn hangup() -> std::io::Result<Signal> {
    signal(SignalKind::hangup())
}

/// Runs one phase of the stop within its time; what it leaves undone is delivered
/// again after the next start.
pub(super) async fn phase(name: &str, grace: Duration, work: impl Future<Output = ()>) {
    extend(grace);
    let started = tokio::time::Instant::now();
    match tokio::time::timeout(grace, work).await {
        Ok(()) => tracing::info!(phase = name, took = ?started.elapsed(), "stopped"),
        Err(_) => tracing::warn!(phase = name, ?grace, "did not stop in time; going on"),
    }
}

/// Asks systemd for time until the end of the next phase.
pub(super) fn extend(grace: Duration) {
    let usec = (grace + SLACK).as_micros();
    let usec = u32::try_from(usec).unwrap_or(u32::MAX);
    notify(&[NotifyState::ExtendTimeoutUsec(usec)]);
}

/// Tells systemd, if it started us, in one message.
pub(super) fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd was not told");
    }
}
