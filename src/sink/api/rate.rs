//! How often an API is called: evenly, at most so many times a second, and not at all
//! while it asked for a pause. Shared by all workers. Called by `mod`.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// Turns that may be saved up: calls of a tenth of a second may come at once.
const BURST: Duration = Duration::from_millis(100);

/// The pace of calls.
#[derive(Debug)]
pub(super) struct Rate {
    interval: Duration,
    /// When the next call may be made.
    next: Mutex<Option<Instant>>,
}

impl Rate {
    /// At most `per_second` calls; 0 counts as 1.
    pub(super) fn new(per_second: u32) -> Self {
        Self {
            interval: Duration::from_secs(1) / per_second.max(1),
            next: Mutex::new(None),
        }
    }

    /// Waits for a turn. Cancel-safe: a turn that is not waited for is lost.
    pub(super) async fn turn(&self) {
        let at = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let earliest = now.checked_sub(BURST).unwrap_or(now);
            let at = next.unwrap_or(earliest).max(earliest);
            *next = Some(at + self.interval);
            at
        };
        sleep_until(at).await;
    }

    /// No calls for so long.
    pub(super) fn pause(&self, wait: Duration) {
        let until = Instant::now() + wait;
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        *next = Some(next.map_or(until, |next| next.max(until)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn calls_are_paced_and_paused() {
        let rate = Rate::new(10);
        let start = Instant::now();
        for _ in 0..21 {
            rate.turn().await;
        }
        let took = start.elapsed();
        assert!(
            (Duration::from_millis(1800)..Duration::from_millis(2100)).contains(&took),
            "{took:?}"
        );
        rate.pause(Duration::from_secs(30));
        let start = Instant::now();
        rate.turn().await;
        assert!(start.elapsed() >= Duration::from_millis(29_900));
    }
}
