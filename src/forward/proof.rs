//! Confirms that do not count yet: a broker confirms a message that some queue took, and says
//! nothing of a queue that is on a node which is down, to which it routes nothing for as long. So
//! where a queue is on one node, a confirm counts once a look that began after it has found all
//! such queues there. Called by `pump`.
//!
//! # Invariants
//! - What was confirmed while a queue was away does not count (tests
//!   `a_confirm_counts_once_a_later_look_finds_all_there`,
//!   `what_is_for_a_queue_whose_node_is_down_waits_for_it`).
//! - A queue that is away for less than [`LOOK_PERIOD`] may go unseen: a node needs longer to
//!   start.
//! - What cannot be asked proves nothing, and is said once.

use crate::broker::{Session, Setup};
use crate::event::identity::Seq;
use crate::telemetry::News;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// How often the queues are asked: a question for each that is on one node.
const LOOK_PERIOD: Duration = Duration::from_secs(1);

/// What a look found.
#[derive(Clone, Debug)]
pub(super) struct Look {
    /// When it began.
    pub(super) began: Instant,
    /// The queues whose node is down.
    pub(super) away: Vec<String>,
}

/// Looks at queues until it is dropped, and what waits for their word.
#[derive(Debug)]
pub(super) struct Proof {
    queues: Vec<String>,
    task: AbortHandle,
    looks: watch::Receiver<Option<Look>>,
    confirmed: Confirmed,
}

impl Drop for Proof {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proof {
    /// Looks at these queues; `None` where there is none that is on one node.
    pub(super) fn begin(setup: &Setup, session: &Session, queues: Vec<String>) -> Option<Self> {
        if queues.is_empty() {
            return None;
        }
        let names: Vec<&str> = queues.iter().map(String::as_str).collect();
        let (setup, session) = (setup.of_queues(&names), session.clone());
        let (sender, looks) = watch::channel(None);
        let looking = async move {
            let mut failing = News::default();
            loop {
                let began = Instant::now();
                match setup.away(&session).await {
                    Ok(away) => {
                        if let Some(lasted) = failing.over() {
                            tracing::info!(failed_for = ?lasted, "queues can be looked at again");
                        }
                        sender.send_replace(Some(Look { began, away }));
                    }
                    Err(error) if failing.is_new("look") => {
                        tracing::warn!(%error, "cannot look at queues; what they took does not count yet");
                    }
                    Err(error) => tracing::debug!(%error, "cannot look at queues yet"),
                }
                tokio::time::sleep(LOOK_PERIOD).await;
            }
        };
        Some(Self {
            queues,
            task: tokio::spawn(looking).abort_handle(),
            looks,
            confirmed: Confirmed::default(),
        })
    }

    /// Whether it looks at all of these.
    pub(super) fn looks_at(&self, queues: &[String]) -> bool {
        queues.iter().all(|queue| self.queues.contains(queue))
    }

    /// The next look; `None` when the task has ended by itself. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<Look> {
        loop {
            self.looks.changed().await.ok()?;
            let look = self.looks.borrow_and_update().clone();
            if look.is_some() {
                return look;
            }
        }
    }

    /// A message was confirmed just now; it carries something of these requests.
    pub(super) fn wait(&mut self, seqs: Vec<Seq>) {
        self.confirmed.add(Instant::now(), seqs);
    }

    /// Whether something waits.
    pub(super) fn is_waited_for(&self) -> bool {
        !self.confirmed.0.is_empty()
    }

    /// What a look that found all queues there proves.
    pub(super) fn proven(&mut self, look: &Look) -> Vec<Vec<Seq>> {
        self.confirmed.before(look.began)
    }
}

/// Messages in the order of their confirms: not more than what `reading` lets be on its way.
#[derive(Debug, Default)]
struct Confirmed(VecDeque<(Instant, Vec<Seq>)>);

impl Confirmed {
    fn add(&mut self, at: Instant, seqs: Vec<Seq>) {
        self.0.push_back((at, seqs));
    }

    /// Takes off those that were confirmed before a moment.
    fn before(&mut self, moment: Instant) -> Vec<Vec<Seq>> {
        let count = self.0.partition_point(|(at, _)| *at < moment);
        self.0.drain(..count).map(|(_, seqs)| seqs).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_confirm_counts_once_a_later_look_finds_all_there() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut confirmed = Confirmed::default();
        for (ms, seq) in [(1, 1), (5, 2), (5, 3), (9, 4)] {
            confirmed.add(at(ms), vec![Seq(seq)]);
        }
        assert!(confirmed.before(at(1)).is_empty(), "it began no later");
        assert_eq!(confirmed.before(at(5)), [[Seq(1)]]);
        assert_eq!(confirmed.before(at(9)), [[Seq(2)], [Seq(3)]]);
        assert_eq!(confirmed.before(at(10)), [[Seq(4)]]);
        assert!(confirmed.0.is_empty());
    }
}
