//! An outage that is played: whether one is on, which, and until when. Begun by `admin`,
//! obeyed by `broker`, `sink` and, through `app`, the journal.
//!
//! # Invariants
//! - Only where `drill.allowed` is set; there is one at a time, and it ends by itself, also
//!   when whoever began it is gone (tests below).
//! - What is played is an absence: nothing is dropped or answered wrongly. A full disk makes
//!   the journal give its reserve back, which it makes again, as a real one does.

use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// The longest outage that can be played: a backlog that a staging host can hold.
pub const DURATION_MAX: Duration = Duration::from_secs(3600);

/// What is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outage {
    /// RabbitMQ: sessions are cut, and none is opened.
    BrokerDown,
    /// Every sink: nothing is written.
    SinkDown,
    /// Room on the disk: requests are refused, what is there is delivered.
    DiskFull,
}

/// Why none was begun.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// The configuration does not allow it.
    #[error("drills are not allowed on this host (drill.allowed)")]
    NotAllowed,
    /// One is on; to be tried again when it has ended.
    #[error("a drill is on already")]
    Busy,
    /// The time is out of bounds.
    #[error("a drill takes from 1 s to {DURATION_MAX:?}")]
    Duration,
}

#[derive(Debug, Clone, Copy)]
struct Running {
    outage: Outage,
    until: Instant,
}

#[derive(Debug)]
struct Shared {
    allowed: bool,
    running: watch::Sender<Option<Running>>,
}

/// The stage; shared by clones.
#[derive(Debug, Clone)]
pub struct Drill(Arc<Shared>);

impl Drill {
    /// Where drills are allowed, or not.
    #[must_use]
    pub fn new(allowed: bool) -> Self {
        Self(Arc::new(Shared {
            allowed,
            running: watch::Sender::new(None),
        }))
    }

    /// Whether they are.
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        self.0.allowed
    }

    /// Begins an outage.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start(&self, outage: Outage, duration: Duration) -> Result<(), StartError> {
        self.may_start(duration)?;
        let now = Instant::now();
        let begun = self.0.running.send_if_modified(|running| {
            let is_free = running.is_none_or(|running| running.until <= now);
            if is_free {
                let until = now + duration;
                *running = Some(Running { outage, until });
            }
            is_free
        });
        if begun { Ok(()) } else { Err(StartError::Busy) }
    }

    /// Whether one of this length could be begun now.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn may_start(&self, duration: Duration) -> Result<(), StartError> {
        if !self.0.allowed {
            return Err(StartError::NotAllowed);
        }
        if duration < Duration::from_secs(1) || duration > DURATION_MAX {
            return Err(StartError::Duration);
        }
        if self.now().is_some() {
            return Err(StartError::Busy);
        }
        Ok(())
    }

    /// The outage that is on, and how long it still is.
    #[must_use]
    pub fn now(&self) -> Option<(Outage, Duration)> {
        let running = (*self.0.running.borrow())?;
        let left = running.until.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some((running.outage, left))
    }

    /// Whether this one is on.
    #[must_use]
    pub fn is_on(&self, outage: Outage) -> bool {
        self.now().is_some_and(|(now, _)| now == outage)
    }

    /// Waits until an outage of this kind is on; for ever, if none ever is. Cancel-safe.
    pub async fn begun(&self, outage: Outage) {
        let mut changes = self.0.running.subscribe();
        while !self.is_on(outage) {
            if changes.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }
}

impl Default for Drill {
    fn default() -> Self {
        Self::new(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drill_has_to_be_allowed_and_ends_by_itself() {
        let minute = Duration::from_secs(60);
        let refused = Drill::default().start(Outage::SinkDown, minute);
        assert_eq!(refused, Err(StartError::NotAllowed));
        let drill = Drill::new(true);
        assert_eq!(drill.now(), None);
        for wrong in [Duration::ZERO, DURATION_MAX + minute] {
            let refused = drill.start(Outage::SinkDown, wrong);
            assert_eq!(refused, Err(StartError::Duration));
        }
        drill
            .start(Outage::SinkDown, Duration::from_secs(1))
            .unwrap();
        assert!(drill.is_on(Outage::SinkDown) && !drill.is_on(Outage::BrokerDown));
        let busy = drill.start(Outage::BrokerDown, minute);
        assert_eq!(busy, Err(StartError::Busy));
        std::thread::sleep(Duration::from_millis(1050));
        assert_eq!(drill.now(), None);
        drill.start(Outage::BrokerDown, minute).unwrap();
        assert!(drill.is_on(Outage::BrokerDown));
    }

    #[tokio::test]
    async fn who_waits_for_one_hears_of_it() {
        let drill = Drill::new(true);
        let other = drill.clone();
        let waiting = tokio::spawn(async move { other.begun(Outage::BrokerDown).await });
        tokio::task::yield_now().await;
        drill
            .start(Outage::BrokerDown, Duration::from_secs(5))
            .unwrap();
        waiting.await.unwrap();
    }
}
