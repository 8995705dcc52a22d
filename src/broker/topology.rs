//! Exchanges, queues and bindings: made, or at least looked for.
//!
//! Called by the pumps after each connect, before they publish or subscribe, and by the
//! `check-config` and `schema` verbs.
//!
//! # Invariants
//! - What exists with other arguments is left as it is and used; the warning has the broker's own
//!   words about the difference (`a_classic_queue_where_quorum_is_wanted_is_used_with_a_warning`).
//! - Trouble with one object leaves the others alone (`one_refused_object_does_not_stop_the_others`);
//!   only the loss of the session, or a question that is not answered, ends the whole
//!   (`what_is_not_answered_is_not_taken_for_missing`). A queue of which nothing is answered while
//!   others are answered of is away (`a_queue_that_does_not_answer_is_away_and_the_others_are_declared`).
//! - `Passive` and `Off` change nothing at the broker (`passive_names_what_is_missing`).

use std::fmt;

use lapin::Channel;
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};

use super::message::short;
use super::session::{Session, SessionState, answer, is_silence};
use super::{NOT_FOUND, broker_reply};

/// The broker's code for something that exists with other properties.
const PRECONDITION_FAILED: u16 = 406;

/// What RabbitMQ says of a queue that is not there: "no queue 'q' in vhost '/'".
const NO_QUEUE: &str = "no queue '";

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

/// Makes or looks for everything in `topology`. Warnings are per object; the error means that the
/// session is gone, or not answered on.
pub async fn declare(
    session: &Session,
    topology: &Topology,
    mode: DeclareMode,
    queue_type: QueueType,
) -> Result<Vec<Warning>, TopologyError> {
    let mut declarer = Declarer {
        session,
        queue_type,
        channel: None,
        warnings: Vec::new(),
    };
    if mode == DeclareMode::Off {
        return Ok(declarer.warnings);
    }
    for exchange in &topology.exchanges {
        let is_there = declarer
            .object(
                &Object::Exchange(exchange.name.clone()),
                Some(exchange.kind),
                mode,
            )
            .await?;
        if is_there {
            session.refusals().found(&exchange.name);
        }
    }
    for queue in &topology.queues {
        let there = declarer
            .object(&Object::Queue(queue.name.clone()), None, mode)
            .await?;
        if there && mode == DeclareMode::Active {
            for Binding { exchange, key } in &queue.bindings {
                let (queue, exchange, key) = (queue.name.clone(), exchange.clone(), key.clone());
                let binding = Object::Binding {
                    queue,
                    exchange,
                    key,
                };
                declarer.attempt(&binding, None, false).await?;
            }
        }
    }
    Ok(declarer.warnings)
}

/// Whether the broker's word on an object is that it is there, on a node that is not.
fn is_away(object: &Object, text: &str) -> bool {
    matches!(object, Object::Queue(_)) && queue_is_away(text)
}

/// Whether the broker's word on a queue that it does not find is that it is there, and cannot be
/// had now: its node is down ("home node 'n' of durable queue 'q' in vhost '/' is down or
/// inaccessible" up to RabbitMQ 3.10, later "queue 'q' in vhost '/' process is stopped by
/// supervisor"), or its process does not answer or comes up (`rabbit_amqqueue:not_found`,
/// `absent` and `with`). Of all those that is not there is but this one text.
pub(super) fn queue_is_away(text: &str) -> bool {
    !text.contains(NO_QUEUE)
}

struct Declarer<'a> {
    session: &'a Session,
    queue_type: QueueType,
    /// A refusal closes the channel, and the next object needs a new one.
    channel: Option<Channel>,
    warnings: Vec<Warning>,
}

impl Declarer<'_> {
    /// Sees to one exchange or queue; says whether it is there.
    async fn object(
        &mut self,
        object: &Object,
        kind: Option<ExchangeKind>,
        mode: DeclareMode,
    ) -> Result<bool, TopologyError> {
        let passive = mode == DeclareMode::Passive;
        let there = self.attempt(object, kind, passive).await?;
        let differs = self.warnings.last().is_some_and(|warning| {
            warning.object == *object && warning.trouble == Trouble::Differs
        });
        // It differs; whether it can be used shows when it is looked up as it is.
        Ok(there || (differs && self.attempt(object, kind, true).await?))
    }

    /// One question about one object; a refusal becomes a warning and `false`.
    async fn attempt(
        &mut self,
        object: &Object,
        kind: Option<ExchangeKind>,
        passive: bool,
    ) -> Result<bool, TopologyError> {
        let lost = |error: lapin::Error| TopologyError {
            object: object.to_string(),
            reason: error.to_string(),
        };
        let channel = match self.channel.take() {
            Some(channel) => channel,
            None => self.session.channel().await.map_err(lost)?,
        };
        let (trouble, detail) = match self.ask(&channel, object, kind, passive).await {
            Ok(Ok(())) => {
                self.channel = Some(channel);
                return Ok(true);
            }
            Err(name) => {
                self.channel = Some(channel);
                (Trouble::Failed, name)
            }
            // Without a session nothing is known about the object.
            Ok(Err(error)) if self.session.state() == SessionState::Closed => {
                return Err(lost(error));
            }
            Ok(Err(error)) => match broker_reply(&error) {
                Some((NOT_FOUND, text)) if is_away(object, &text) => (Trouble::Away, text),
                Some((NOT_FOUND, text)) => (Trouble::Missing, text),
                Some((PRECONDITION_FAILED, text)) if !passive => (Trouble::Differs, text),
                Some((_, text)) => (Trouble::Failed, text),
                // RabbitMQ waits for the process of a queue for longer than we do; one whose node
                // was killed has none. All others are to be had meanwhile, where it answers at all.
                None if is_silence(&error) && matches!(object, Object::Queue(_)) => {
                    self.channel = Some(self.session.channel().await.map_err(lost)?);
                    (Trouble::Away, error.to_string())
                }
                // Nor without an answer, and what is not asked again would be missing for as long
                // as the session stands.
                None => return Err(lost(error)),
            },
        };
        self.warnings.push(Warning {
            object: object.clone(),
            trouble,
            detail,
        });
        Ok(false)
    }

    /// The outer error is a name that AMQP cannot carry.
    async fn ask(
        &self,
        channel: &Channel,
        object: &Object,
        kind: Option<ExchangeKind>,
        passive: bool,
    ) -> Result<lapin::Result<()>, String> {
        let none = FieldTable::default();
        Ok(match object {
            Object::Exchange(name) => {
                let options = ExchangeDeclareOptions {
                    passive,
                    durable: true,
                    ..Default::default()
                };
                let kind = match kind {
                    Some(ExchangeKind::Direct) => lapin::ExchangeKind::Direct,
                    Some(ExchangeKind::Fanout) => lapin::ExchangeKind::Fanout,
                    Some(ExchangeKind::Headers) => lapin::ExchangeKind::Headers,
                    Some(ExchangeKind::Topic) | None => lapin::ExchangeKind::Topic,
                };
                let name = short("its name", name)?;
                answer(channel.exchange_declare(name, kind, options, none)).await
            }
            Object::Queue(name) => {
                let options = QueueDeclareOptions {
                    passive,
                    durable: true,
                    ..Default::default()
                };
                let mut arguments = none;
                let kind = match self.queue_type {
                    QueueType::Quorum => "quorum",
                    QueueType::Classic => "classic",
                };
                arguments.insert("x-queue-type".into(), AMQPValue::LongString(kind.into()));
                let name = short("its name", name)?;
                answer(channel.queue_declare(name, options, arguments))
                    .await
                    .map(|_| ())
            }
            Object::Binding {
                queue,
                exchange,
                key,
            } => {
                let (queue, exchange) =
                    (short("the queue", queue)?, short("the exchange", exchange)?);
                let (key, options) = (short("the key", key)?, QueueBindOptions::default());
                answer(channel.queue_bind(queue, exchange, key, options, none)).await
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_whose_node_is_down_is_away_and_not_missing() {
        let queue = Object::Queue("q".to_owned());
        let text = "NOT_FOUND - home node 'rabbit@b' of durable queue 'q' in vhost '/' is down or inaccessible";
        for text in [
            text,
            "NOT_FOUND - queue 'q' in vhost '/' process is stopped by supervisor",
            "NOT_FOUND - queue 'q' in vhost '/' has crashed and failed to restart",
            "NOT_FOUND - failed to perform operation on queue 'q' in vhost '/' due to timeout",
        ] {
            assert!(is_away(&queue, text), "{text}");
        }
        assert!(!is_away(&queue, "NOT_FOUND - no queue 'q' in vhost '/'"));
        assert!(!is_away(&Object::Exchange("q".to_owned()), text));
        let warning = Warning {
            object: queue,
            trouble: Trouble::Away,
            detail: text.to_owned(),
        };
        assert!(!warning.is_usable());
    }
}
