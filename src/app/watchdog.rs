//! Tells systemd's watchdog that the service gets on, for as long as it does. Called by
//! `app::run`.
//!
//! A ping leaves only after every part that nothing works without went round once more
//! since the last ping: the runtime ran a task, the journal's writer took a command, its
//! keeper tidied. What stands still for the whole limit hangs, and systemd replaces the
//! process, which loses nothing that was acknowledged.
//!
//! A fenced journal, a full disk, a broker or a database that is away are no hangs: the
//! threads go round, and what is durable is delivered meanwhile. A restart by the watchdog
//! would cut that off and, on a disk that stays broken, do so for ever; a fence is for a
//! person, whom health tells.
//!
//! # Invariants
//! - No ping while one part stands still (test `a_part_that_stands_still_ends_the_pings`;
//!   with the real disk: `a_hung_disk_ends_the_pings_and_a_fence_does_not`).
//! - It pings through the phases of a stop, which together may take longer than its limit.

use crate::journal::Journal;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// Looks within the limit: a ping that is late by some of them is still in time.
const LOOKS: u32 = 6;

/// Says how often a part went round.
type Count = Box<dyn Fn() -> u64 + Send>;

/// A part, and when it went round last.
struct Part {
    name: &'static str,
    count: Count,
    seen: u64,
    at_ping: u64,
    moved: Instant,
    is_named: bool,
}

impl Part {
    fn new(name: &'static str, count: impl Fn() -> u64 + Send + 'static) -> Self {
        let seen = count();
        Self {
            name,
            count: Box::new(count),
            seen,
            at_ping: seen,
            moved: Instant::now(),
            is_named: false,
        }
    }

    /// Looks at it; it is named in the log, once, when half of the limit is over.
    fn look(&mut self, limit: Duration) {
        let count = (self.count)();
        if count != self.seen {
            if self.is_named {
                let stood = self.moved.elapsed();
                tracing::warn!(part = self.name, ?stood, "goes on");
            }
            (self.seen, self.moved, self.is_named) = (count, Instant::now(), false);
        } else if !self.is_named && self.moved.elapsed() >= limit / 2 {
            let stands = self.moved.elapsed();
            tracing::error!(
                part = self.name,
                ?stands,
                ?limit,
                "stands still; if it does for the whole limit, systemd restarts the service"
            );
            self.is_named = true;
        }
    }
}

/// The thread that pings; ends when dropped.
pub(super) struct Watchdog {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    /// Starts where systemd asks for pings. Call it on the runtime that is watched.
    pub(super) fn start(journal: &Journal) -> std::io::Result<Option<Self>> {
        let Some(limit) = sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero()) else {
            return Ok(None);
        };
        let (writer, keeper) = (journal.clone(), journal.clone());
        let parts = vec![
            runtime(Handle::current()),
            Part::new("journal writer", move || writer.turns().writer),
            Part::new("journal keeper", move || keeper.turns().keeper),
        ];
        let (stop, stopped) = mpsc::channel();
        let ping = || super::shutdown::notify(&[sd_notify::NotifyState::Watchdog]);
        // A thread of its own: it says what stands still when the runtime cannot.
        let thread = std::thread::Builder::new()
            .name("watchdog".to_owned())
            .spawn(move || watch(parts, limit, &stopped, ping))?;
        tracing::info!(?limit, "watchdog");
        Ok(Some(Self {
            stop: Some(stop),
            thread: Some(thread),
        }))
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!(target: crate::telemetry::FOLLOWS_PANIC, "the watchdog had panicked");
        }
    }
}

/// The runtime, as a part: each look hands it a task, unless it still has one.
fn runtime(handle: Handle) -> Part {
    let ran = Arc::new(AtomicU64::new(0));
    let asked = AtomicU64::new(0);
    Part::new("runtime", move || {
        let count = ran.load(Ordering::Relaxed);
        if asked.load(Ordering::Relaxed) == count {
            asked.store(count + 1, Ordering::Relaxed);
            let ran = Arc::clone(&ran);
            handle.spawn(async move { ran.fetch_add(1, Ordering::Relaxed) });
        }
        count
    })
}

fn watch(mut parts: Vec<Part>, limit: Duration, stopped: &Receiver<()>, mut ping: impl FnMut()) {
    while stopped.recv_timeout(limit / LOOKS) == Err(RecvTimeoutError::Timeout) {
        for part in &mut parts {
            part.look(limit);
        }
        if parts.iter().all(|part| part.seen != part.at_ping) {
            ping();
            for part in &mut parts {
                part.at_ping = part.seen;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_millis(300);

    /// Watches parts that go round by themselves, and one more; the pings in a time.
    struct Watched {
        pings: Arc<AtomicU64>,
        _stop: mpsc::Sender<()>,
    }

    impl Watched {
        fn start(part: Part) -> Self {
            let turns = AtomicU64::new(0);
            let other = Part::new("other", move || turns.fetch_add(1, Ordering::Relaxed));
            let pings = Arc::new(AtomicU64::new(0));
            let (stop, stopped) = mpsc::channel();
            let count = Arc::clone(&pings);
            std::thread::spawn(move || {
                watch(vec![other, part], LIMIT, &stopped, || {
                    count.fetch_add(1, Ordering::Relaxed);
                });
            });
            Self { pings, _stop: stop }
        }

        fn pings(&self, time: Duration) -> u64 {
            let before = self.pings.load(Ordering::Relaxed);
            std::thread::sleep(time);
            self.pings.load(Ordering::Relaxed) - before
        }
    }

    #[test]
    fn a_part_that_stands_still_ends_the_pings() {
        let turns = Arc::new(AtomicU64::new(0));
        let stands = Arc::new(AtomicU64::new(0));
        let (count, still) = (Arc::clone(&turns), Arc::clone(&stands));
        let watched = Watched::start(Part::new("part", move || {
            let step = 1 - still.load(Ordering::Relaxed);
            count.fetch_add(step, Ordering::Relaxed)
        }));
        assert!(watched.pings(LIMIT * 3) >= 3, "it goes round");
        stands.store(1, Ordering::Relaxed);
        // The look that is under way may still be one of the good ones.
        watched.pings(LIMIT / 2);
        assert_eq!(watched.pings(LIMIT * 2), 0, "it stands still");
        stands.store(0, Ordering::Relaxed);
        assert!(watched.pings(LIMIT * 3) >= 3, "it goes on");
    }

    #[test]
    fn a_runtime_that_is_blocked_ends_the_pings() {
        let workers = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .build()
            .unwrap();
        let watched = Watched::start(runtime(workers.handle().clone()));
        assert!(watched.pings(LIMIT * 3) >= 3, "it runs tasks");
        let (free, blocked) = mpsc::channel::<()>();
        workers.spawn(async move { assert!(blocked.recv().is_err()) });
        watched.pings(LIMIT / 2);
        assert_eq!(watched.pings(LIMIT * 2), 0, "its only worker is blocked");
        drop(free);
        assert!(watched.pings(LIMIT * 3) >= 3, "it goes on");
    }
}
