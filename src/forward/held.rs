//! Messages that the broker does not take now and that are tried again: how long each waits, and
//! what is said of it. Called by `landing` and `pump`; outlives sessions, so that nothing is said
//! again by each.
//!
//! # Invariants
//! - A message waits longer each time, and never longer than [`LONGEST`] (test
//!   `waits_grow_up_to_the_longest`).
//! - A destination that refuses messages, and a queue that is away, are said once, and once that
//!   they are over (test `what_refuses_is_said_once_and_once_that_it_is_over`).
//! - What goes to an exchange that a queue which is away is bound to goes nowhere else (test
//!   `a_queue_that_is_away_holds_what_goes_to_its_exchange`), until the queue is there with its
//!   bindings, which a broker that comes back restores after it (test
//!   `a_queue_whose_bindings_are_not_ours_is_back_at_the_second_look`).

use crate::broker::{Message, Topology};
use crate::retry::LONGEST;
use crate::telemetry::News;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// Wait before a message that the broker did not take is sent again: a full queue
/// needs time, and must not be hammered.
const FIRST_DELAY: Duration = Duration::from_secs(2);

/// Destinations that are told apart where they refuse messages: as many as there are types of
/// events, about. The keys of webhooks come from outside.
const DESTINATIONS_MAX: usize = 256;

/// How long a message waits that was tried so many times before. Another queue may have taken
/// it, and has it once more with each try.
pub(super) fn delay(tries: u32) -> Duration {
    let factor = 2_u32.saturating_pow(tries);
    FIRST_DELAY.saturating_mul(factor).min(LONGEST)
}

/// What holds messages.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// By exchange and key.
    refusing: BTreeMap<(String, String), News>,
    /// Queues that are there, on a node that is not.
    away: BTreeMap<String, Away>,
}

#[derive(Debug, Default)]
struct Away {
    said: News,
    /// When it was found there again, maybe without its bindings.
    seen: Option<Instant>,
}

/// How long after a queue a broker that comes back has restored its bindings, at the latest: it
/// needs some milliseconds for some hundreds.
const BINDINGS_AFTER: Duration = Duration::from_secs(2);

impl Held {
    /// Whether something is held, or would be.
    pub(super) fn is_any(&self) -> bool {
        !(self.refusing.is_empty() && self.away.is_empty())
    }

    /// Whether a queue is away.
    pub(super) fn is_away(&self) -> bool {
        !self.away.is_empty()
    }

    /// A queue did not take this message: whether that has to be said.
    pub(super) fn is_refused(&mut self, message: &Message) -> bool {
        let to = (message.exchange.clone(), message.routing_key.clone());
        if self.refusing.len() >= DESTINATIONS_MAX && !self.refusing.contains_key(&to) {
            return false;
        }
        self.refusing.entry(to).or_default().is_new("refused")
    }

    /// A message of this destination was taken, or went elsewhere: how long it was refused, if
    /// it was.
    pub(super) fn is_over(&mut self, message: &Message) -> Option<Duration> {
        if self.refusing.is_empty() {
            return None;
        }
        let to = (message.exchange.clone(), message.routing_key.clone());
        self.refusing.remove(&to)?.over()
    }

    /// Of the queues that were asked for these are away, and no others: says what is new of it.
    /// `bound`: the others have been bound since.
    pub(super) fn are_away(&mut self, asked: &Topology, queues: &[String], bound: bool) {
        let now = Instant::now();
        self.away.retain(|queue, away| {
            let is_asked = asked.queues.iter().any(|asked| asked.name == *queue);
            if !is_asked {
                return true;
            }
            if queues.contains(queue) {
                away.seen = None;
                return true;
            }
            let seen = *away.seen.get_or_insert(now);
            let is_back = bound || now.duration_since(seen) >= BINDINGS_AFTER;
            if is_back && let Some(lasted) = away.said.over() {
                tracing::info!(queue, away_for = ?lasted, "a queue's node is back");
            }
            !is_back
        });
        for queue in queues {
            let away = self.away.entry(queue.clone()).or_default();
            if away.said.is_new("away") {
                tracing::warn!(queue, "a queue's node is down; what is for it waits");
            }
        }
    }

    /// Whether it is known that this queue is away.
    pub(super) fn knows(&self, queue: &str) -> bool {
        self.away.contains_key(queue)
    }

    /// A queue that is away and takes something of this exchange.
    pub(super) fn away_of<'t>(&self, topology: &'t Topology, exchange: &str) -> Option<&'t str> {
        let mut queues = topology.queues.iter();
        let found = queues.find(|queue| {
            let mut bindings = queue.bindings.iter();
            self.away.contains_key(&queue.name) && bindings.any(|b| b.exchange == exchange)
        });
        found.map(|queue| queue.name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::{Binding, Queue};

    fn to(exchange: &str, key: &str) -> Message {
        Message {
            exchange: exchange.to_owned(),
            routing_key: key.to_owned(),
            ..Message::default()
        }
    }

    #[test]
    fn waits_grow_up_to_the_longest() {
        let waits: Vec<u64> = (0..5).map(|tries| delay(tries).as_secs()).collect();
        assert_eq!(waits, [2, 4, 8, 15, 15]);
        assert_eq!(delay(u32::MAX), LONGEST);
    }

    #[test]
    fn what_refuses_is_said_once_and_once_that_it_is_over() {
        let mut held = Held::default();
        assert_eq!((held.is_any(), held.is_over(&to("e", "k"))), (false, None));
        let said = |held: &mut Held| (0..3).filter(|_| held.is_refused(&to("e", "k"))).count();
        assert_eq!(said(&mut held), 1);
        assert!(held.is_refused(&to("e", "other")));
        assert_eq!(held.is_over(&to("e", "none")), None);
        assert!(held.is_over(&to("e", "k")).is_some() && held.is_any());
        assert_eq!(held.is_over(&to("e", "k")), None);
        assert_eq!(said(&mut held), 1, "it began anew");
        for at in 0..2 * DESTINATIONS_MAX {
            let _ = held.is_refused(&to("e", &format!("{at}")));
        }
        assert_eq!(held.refusing.len(), DESTINATIONS_MAX);
    }

    #[test]
    fn a_queue_that_is_away_holds_what_goes_to_its_exchange() {
        let queue = |name: &str, exchange: &str| Queue {
            name: name.to_owned(),
            bindings: vec![Binding {
                exchange: exchange.to_owned(),
                key: "*".to_owned(),
            }],
        };
        let topology = Topology {
            exchanges: vec![],
            queues: vec![queue("a_q", "a"), queue("b_q", "b"), queue("b2_q", "b")],
        };
        let mut held = Held::default();
        assert_eq!(held.away_of(&topology, "b"), None);
        held.are_away(&topology, &["b2_q".to_owned()], true);
        assert!(held.is_any() && held.is_away() && held.knows("b2_q"));
        assert_eq!(held.away_of(&topology, "b"), Some("b2_q"));
        assert_eq!(held.away_of(&topology, "a"), None);
        let other = Topology {
            exchanges: vec![],
            queues: vec![queue("a_q", "a")],
        };
        held.are_away(&other, &[], true);
        assert!(held.is_away(), "nobody asked");
        held.are_away(&topology, &[], true);
        assert_eq!(held.away_of(&topology, "b"), None);
        assert!(!held.is_any());
    }

    #[tokio::test(start_paused = true)]
    async fn a_queue_whose_bindings_are_not_ours_is_back_at_the_second_look() {
        let topology = Topology {
            exchanges: vec![],
            queues: vec![Queue {
                name: "q".to_owned(),
                bindings: vec![],
            }],
        };
        let away = ["q".to_owned()];
        let mut held = Held::default();
        held.are_away(&topology, &away, false);
        held.are_away(&topology, &[], false);
        tokio::time::advance(BINDINGS_AFTER / 2).await;
        held.are_away(&topology, &[], false);
        assert!(held.is_away(), "it is just back");
        held.are_away(&topology, &away, false);
        tokio::time::advance(BINDINGS_AFTER).await;
        held.are_away(&topology, &[], false);
        assert!(held.is_away(), "it was away again");
        tokio::time::advance(BINDINGS_AFTER).await;
        held.are_away(&topology, &[], false);
        assert!(!held.is_away());
    }
}
