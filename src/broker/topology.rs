//! Exchanges, queues and bindings, and what may be wrong with one of them; `declare` makes them.
//!
//! Called by the pumps and by the `check-config` and `schema` verbs.

use std::fmt;

/// How an exchange routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExchangeKind {
    /// By pattern of the key.
    Topic,
    /// By equal key.
    Direct,
    /// To all queues.
    Fanout,
    /// By headers.
    Headers,
}

/// A durable exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// Its name.
    pub name: String,
    /// How it routes.
    pub kind: ExchangeKind,
}

/// What a queue takes from an exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The exchange's name.
    pub exchange: String,
    /// The key, or for a topic exchange the pattern.
    pub key: String,
}

/// A durable queue with its bindings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Its name.
    pub name: String,
    /// Where its messages come from.
    pub bindings: Vec<Binding>,
}

/// What a pump needs at the broker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topology {
    /// Made first.
    pub exchanges: Vec<Exchange>,
    /// Made after the exchanges, each with its bindings.
    pub queues: Vec<Queue>,
}

/// How much is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeclareMode {
    /// Make what is missing, and all bindings.
    Active,
    /// Only look whether exchanges and queues exist; AMQP has no way to look at bindings.
    Passive,
    /// Nothing.
    Off,
}

/// The type of queues that are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueType {
    /// Replicated over the cluster.
    Quorum,
    /// On one node.
    Classic,
}

/// What a warning is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// An exchange, by name.
    Exchange(String),
    /// A queue, by name.
    Queue(String),
    /// A queue's binding.
    Binding {
        /// The queue.
        queue: String,
        /// The exchange.
        exchange: String,
        /// The key.
        key: String,
    },
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exchange(name) => write!(f, "exchange '{name}'"),
            Self::Queue(name) => write!(f, "queue '{name}'"),
            Self::Binding {
                queue,
                exchange,
                key,
            } => {
                write!(
                    f,
                    "binding of queue '{queue}' to exchange '{exchange}' with key '{key}'"
                )
            }
        }
    }
}

/// What is wrong with an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It exists with other properties, and is used as it is.
    Differs,
    /// It does not exist (or, for a binding, an end of it does not).
    Missing,
    /// It is a durable queue on a node that is down: it is back with its node, and until then
    /// nothing is routed to it.
    Away,
    /// The broker refused, took too long, or cannot carry the name.
    Failed,
}

/// Something an operator should know about one object. All others were seen to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{object}: {detail}")]
pub struct Warning {
    /// What it is about.
    pub object: Object,
    /// The kind of trouble.
    pub trouble: Trouble,
    /// The broker's own words.
    pub detail: String,
}

impl Warning {
    /// Whether the object can be used all the same.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.trouble == Trouble::Differs
    }
}

/// The session was lost in between. To be tried again on the next one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the broker was lost while {object} was declared: {reason}")]
pub struct TopologyError {
    /// Where it stopped.
    pub object: String,
    /// What the connection said.
    pub reason: String,
}
