//! A host's topology with the way it is made: declared on every new session before
//! anything else. Called by the pumps; made by `app`.
//!
//! # Invariants
//! - A consumer declares its own part alone: all of it for each of some dozens of
//!   consumers would be thousands of questions to a broker that has just come up (test
//!   `a_part_has_what_its_queues_need`).

use super::declare::declare;
use super::session::Session;
use super::topology::{DeclareMode, Object, QueueType, Topology, TopologyError, Trouble, Warning};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

/// What is known of queues that were declared.
#[derive(Debug, Default)]
pub struct Declared {
    /// Those that are away with their nodes.
    pub away: Vec<String>,
    /// Those that may be on one node: not made here as quorum queues, or different.
    pub alone: BTreeSet<String>,
}

/// Declares a host's exchanges and queues; shared by clones.
#[derive(Debug, Clone)]
pub struct Setup {
    topology: Arc<Topology>,
    mode: DeclareMode,
    queue_type: QueueType,
    /// Warnings that were logged: each is said once, not at every reconnect.
    said: Arc<Mutex<BTreeSet<String>>>,
}

impl Setup {
    /// A topology and who makes it.
    #[must_use]
    pub fn new(topology: Topology, mode: DeclareMode, queue_type: QueueType) -> Self {
        Self {
            topology: Arc::new(topology),
            mode,
            queue_type,
            said: Arc::new(Mutex::new(BTreeSet::new())),
        }
    }

    /// The part of it that some queues need: them, and the exchanges that they are bound
    /// to. Warnings that were said for the whole are not said again.
    #[must_use]
    pub fn of_queues(&self, names: &[&str]) -> Self {
        let queues = self.topology.queues.iter();
        let queues: Vec<_> = queues
            .filter(|queue| names.contains(&queue.name.as_str()))
            .cloned()
            .collect();
        let bound = |name: &str| {
            let mut bindings = queues.iter().flat_map(|queue| &queue.bindings);
            bindings.any(|binding| binding.exchange == name)
        };
        let exchanges = self.topology.exchanges.iter();
        let exchanges = exchanges.filter(|e| bound(&e.name)).cloned().collect();
        Self {
            topology: Arc::new(Topology { exchanges, queues }),
            ..self.clone()
        }
    }

    /// What is declared.
    #[must_use]
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Declares everything on a session; differences are logged once. Queues that are away the
    /// caller has to say: they come and go.
    ///
    /// # Errors
    /// When the session is lost or nothing can be declared; worth another try.
    pub async fn declare(&self, session: &Session) -> Result<Declared, TopologyError> {
        let warnings = declare(session, &self.topology, self.mode, self.queue_type).await?;
        let mut declared = Declared {
            away: Vec::new(),
            alone: self.alone(),
        };
        for warning in warnings {
            match (warning.trouble, &warning.object) {
                (Trouble::Away, Object::Queue(name)) => {
                    tracing::debug!("{warning}");
                    declared.away.push(name.clone());
                    declared.alone.insert(name.clone());
                }
                (Trouble::Differs, Object::Queue(name)) => {
                    declared.alone.insert(name.clone());
                    self.say(&warning);
                }
                _ => self.say(&warning),
            }
        }
        Ok(declared)
    }

    /// Which of its queues may be on one node, by what is asked for: all that are not made here as
    /// quorum queues. None where nothing may be asked.
    fn alone(&self) -> BTreeSet<String> {
        let all = match (self.mode, self.queue_type) {
            (DeclareMode::Off, _) | (DeclareMode::Active, QueueType::Quorum) => {
                return BTreeSet::new();
            }
            (DeclareMode::Active, QueueType::Classic) | (DeclareMode::Passive, _) => {
                self.topology.queues.iter()
            }
        };
        all.map(|queue| queue.name.clone()).collect()
    }

    /// Whether a queue that it has declared has its bindings.
    #[must_use]
    pub fn binds(&self) -> bool {
        self.mode == DeclareMode::Active
    }

    /// Which of its queues are away with their nodes; changes nothing, and says nothing.
    ///
    /// # Errors
    /// When the session is lost or nothing can be asked; worth another try.
    pub async fn away(&self, session: &Session) -> Result<Vec<String>, TopologyError> {
        let asked = Topology {
            exchanges: Vec::new(),
            queues: self.topology.queues.clone(),
        };
        let warnings = declare(session, &asked, DeclareMode::Passive, self.queue_type).await?;
        let away =
            warnings
                .into_iter()
                .filter_map(|warning| match (warning.trouble, warning.object) {
                    (Trouble::Away, Object::Queue(name)) => Some(name),
                    _ => None,
                });
        Ok(away.collect())
    }

    fn say(&self, warning: &Warning) {
        let text = warning.to_string();
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.insert(text.clone()) {
            tracing::warn!("{text}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::topology::{Binding, Exchange, ExchangeKind, Queue};
    use super::*;

    #[test]
    fn a_part_has_what_its_queues_need() {
        let exchange = |name: &str| Exchange {
            name: name.into(),
            kind: ExchangeKind::Topic,
        };
        let queue = |name: &str, exchange: &str| Queue {
            name: name.into(),
            bindings: vec![Binding {
                exchange: exchange.into(),
                key: "k".into(),
            }],
        };
        let all = Topology {
            exchanges: vec![exchange("a"), exchange("b"), exchange("unbound")],
            queues: vec![queue("q", "a"), queue("q_error", "b"), queue("other", "a")],
        };
        let setup = Setup::new(all.clone(), DeclareMode::Active, QueueType::Quorum);
        let part = setup.of_queues(&["q", "q_error"]);
        assert_eq!(part.topology().queues, all.queues[..2]);
        assert_eq!(part.topology().exchanges, all.exchanges[..2]);
        let one = setup.of_queues(&["other"]);
        assert_eq!(one.topology().exchanges, all.exchanges[..1]);
    }
}
