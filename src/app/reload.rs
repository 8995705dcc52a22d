//! Loads the configuration anew while the service runs: on SIGHUP, and for the admin
//! socket. Called by `app::run`.
//!
//! # Invariants
//! - A configuration with a mistake changes nothing (test
//!   `a_wrong_file_changes_nothing_and_names_its_mistakes`).
//! - One reload at a time. A SIGHUP that comes meanwhile is answered by one more, which reads
//!   what is there then (test `a_signal_during_a_reload_is_answered_after_it`).
//! - What is in force is what the answers are measured against: a key that needs a restart
//!   is named by each reload until then (test `what_waits_is_named_until_it_is_taken_back`).
//! - Once a stop has begun nothing is taken over any more (test
//!   `a_stop_has_the_grace_of_the_last_reload_and_ends_them`).

use super::doors::Partners;
use super::pumps::coalescing;
use super::shutdown::notify;
use crate::admin::{ReloadError, Reloaded};
use crate::config::{self, Config, changed_keys};
use crate::forward::Coalescing;
use crate::ingest::Callers;
use crate::pace::Pace;
use crate::telemetry::FOLLOWS_PANIC;
use crate::telemetry::log::{Filter, Level};
use sd_notify::NotifyState;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::signal::unix::Signal;
use tokio::sync::watch;

/// How the configuration was loaded, and is again.
#[derive(Debug)]
pub struct Source {
    /// The file, as it was named; `None`: variables alone.
    pub file: Option<PathBuf>,
    /// The level of the log that was started by it.
    pub level: Level,
}

/// What a reload changes, beside the level of the log.
#[derive(Debug)]
pub(super) struct Live {
    /// How fast the log goes out.
    pub(super) pace: Pace,
    /// How much one message may hold.
    pub(super) coalescing: watch::Sender<Coalescing>,
    /// Whether the doors keep what is incomplete.
    pub(super) keep_rejected: Arc<AtomicBool>,
    /// Who may send.
    pub(super) callers: Callers,
    /// What partners' webhooks must show.
    pub(super) partners: Partners,
}

/// Loads anew.
#[derive(Debug)]
pub(super) struct Reloader {
    source: Source,
    live: Live,
    /// Held for a whole reload, also while a file does not answer.
    turn: Mutex<()>,
    /// Held for a moment, so that a stop never waits for a file.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// What the service works by: as it was started, with what reloads took over.
    in_force: Config,
    stops: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere leaves a configuration that was checked, no less.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes over what can change while the service runs; all else needs a restart. This is the
/// only list of it.
fn take_over(in_force: &mut Config, new: &Config) {
    in_force.log.level.clone_from(&new.log.level);
    in_force.forward = new.forward.clone();
    in_force.ingest.keep_rejected = new.ingest.keep_rejected;
    in_force.client.clone_from(&new.client);
    in_force.webhooks.take_proofs(&new.webhooks);
    in_force.shutdown.grace = new.shutdown.grace;
}

/// Reloads at each signal, until it is dropped.
pub(super) async fn on(mut hangup: Signal, reloader: Arc<Reloader>) {
    // Signals during a reload leave a mark that the next look finds.
    while hangup.recv().await.is_some() {
        tracing::info!("SIGHUP: the configuration is loaded anew");
        let reloader = Arc::clone(&reloader);
        // What came of it is in the log, which is all that a signal has for an answer.
        let done = tokio::task::spawn_blocking(move || drop(reloader.reload()));
        if let Err(error) = done.await {
            tracing::error!(target: FOLLOWS_PANIC, %error, "a reload ended early");
        }
    }
}

impl Reloader {
    /// Of a service that was started with this.
    pub(super) fn new(source: Source, started_with: Config, live: Live) -> Self {
        Self {
            source,
            live,
            turn: Mutex::new(()),
            state: Mutex::new(State {
                in_force: started_with,
                stops: false,
            }),
        }
    }

    /// Loads the configuration as it was loaded at the start, takes over what can change,
    /// and tells the log and systemd. Waits for the file, and for a reload in work.
    ///
    /// # Errors
    /// See [`ReloadError`]; nothing has changed then.
    pub(super) fn reload(&self) -> Result<Reloaded, ReloadError> {
        let _turn = lock(&self.turn);
        // The time of the reload is a part of its message, and systemd wants both or none.
        let begins = NotifyState::monotonic_usec_now().map(|now| vec![NotifyState::Reloading, now]);
        if !self.tell(&begins.unwrap_or_default()) {
            return Err(ReloadError::Stopping);
        }
        let loaded = config::load(self.source.file.as_deref());
        let loaded = loaded.and_then(|new| super::check(&new).map(|_| new));
        let result = loaded
            .map_err(ReloadError::from)
            .and_then(|new| self.apply(&new));
        match &result {
            Ok(Reloaded {
                applied,
                needs_restart,
            }) => tracing::info!(?applied, ?needs_restart, "configuration reloaded"),
            Err(error) => tracing::error!(%error, "configuration not reloaded"),
        }
        // Before the caller has its answer: `systemctl reload` ends with the command, and
        // systemd must not find the service in the middle of it then.
        self.tell(&[NotifyState::Ready]);
        result
    }

    /// From now on nothing changes any more; how long each phase of the stop may take.
    pub(super) fn end(&self) -> Duration {
        let mut state = lock(&self.state);
        state.stops = true;
        state.in_force.shutdown.grace.get()
    }

    /// Tells systemd, unless the service stops: then that is the last that it heard. Whether
    /// it was told.
    fn tell(&self, states: &[NotifyState<'_>]) -> bool {
        let state = lock(&self.state);
        if !state.stops {
            notify(states);
        }
        !state.stops
    }

    fn apply(&self, new: &Config) -> Result<Reloaded, ReloadError> {
        let wrong = |error: &dyn std::fmt::Display| config::Errors(vec![error.to_string()]);
        // All that can fail comes before the first change.
        let filter = Filter::parse(&new.log.level).map_err(|error| wrong(&error))?;
        let mut state = lock(&self.state);
        if state.stops {
            return Err(ReloadError::Stopping);
        }
        let mut before = state.in_force.clone();
        // An operator may have changed it since.
        before.forward = before.forward.at(self.live.pace.settings());
        let mut after = before.clone();
        take_over(&mut after, new);
        let keys = |old, new| changed_keys(old, new).map_err(|error| wrong(&error));
        let reloaded = Reloaded {
            applied: keys(&before, &after)?,
            needs_restart: keys(&after, new)?,
        };
        self.source.level.set(filter);
        self.live.pace.set(after.forward.settings());
        self.live.coalescing.send_replace(coalescing(&after));
        let keep_rejected = after.ingest.keep_rejected;
        self.live
            .keep_rejected
            .store(keep_rejected, Ordering::Relaxed);
        self.live.callers.replace(&after.client);
        self.live.partners.replace(&after);
        state.in_force = after;
        Ok(reloaded)
    }
}

#[cfg(test)]
#[path = "reload_tests.rs"]
mod tests;
