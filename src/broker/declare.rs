//! Makes exchanges, queues and bindings, or at least looks for them.
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
//!   others are answered of is away (`a_queue_that_does_not_answer_is_away_and_the_others_are_declared`),
//!   and once that is known all such queues together hold up the others for [`SILENT_LIMIT`], and
//!   now and then for [`ANSWER_LIMIT`].
//! - `Passive` and `Off` change nothing at the broker (`passive_names_what_is_missing`).

use std::time::Duration;

use lapin::Channel;
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};

use super::message::short;
use super::session::{Session, SessionState, answer, answer_within, is_silence};
use super::topology::{
    Binding, DeclareMode, ExchangeKind, Object, Queue, QueueType, Topology, TopologyError, Trouble,
    Warning,
};
use super::{ANSWER_LIMIT, NOT_FOUND, broker_reply};

/// The broker's code for something that exists with other properties.
const PRECONDITION_FAILED: u16 = 406;

/// How long the broker has for its word on a queue while it says nothing of some, and answers of
/// others: each question may wait as long as the broker does for a process that is not there, a
/// minute, and a host has some dozens of queues.
const SILENT_LIMIT: Duration = Duration::from_secs(2);

/// Every so many times of silence it has [`ANSWER_LIMIT`] again.
const PATIENT_EVERY: u32 = 8;

/// What RabbitMQ says of a queue that is not there: "no queue 'q' in vhost '/'".
const NO_QUEUE: &str = "no queue '";

/// Makes or looks for everything in `topology`. Warnings are per object; the error means that the
/// session is gone, or not answered on.
pub async fn declare(
    session: &Session,
    topology: &Topology,
    mode: DeclareMode,
    queue_type: QueueType,
) -> Result<Vec<Warning>, TopologyError> {
    let mut declarer = Declarer::new(session, queue_type);
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
    let queues = topology.queues.iter();
    let (silent, others): (Vec<_>, Vec<_>) =
        queues.partition(|queue| session.silence(&queue.name) > 0);
    // Side by side: each may take as long as the broker has for it.
    let asked = silent.into_iter().map(|queue| async move {
        let mut alone = Declarer::new(session, queue_type);
        alone.queue(queue, mode).await?;
        Ok(alone.warnings)
    });
    for warnings in futures::future::try_join_all(asked).await? {
        declarer.warnings.extend(warnings);
    }
    for queue in others {
        declarer.queue(queue, mode).await?;
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
    /// The broker said nothing of one of them.
    met_silence: bool,
}

impl<'a> Declarer<'a> {
    fn new(session: &'a Session, queue_type: QueueType) -> Self {
        Self {
            session,
            queue_type,
            channel: None,
            warnings: Vec::new(),
            met_silence: false,
        }
    }

    /// Sees to a queue and its bindings.
    async fn queue(&mut self, queue: &Queue, mode: DeclareMode) -> Result<(), TopologyError> {
        let object = Object::Queue(queue.name.clone());
        let there = self.object(&object, None, mode).await?;
        if !there || mode != DeclareMode::Active {
            return Ok(());
        }
        for Binding { exchange, key } in &queue.bindings {
            let (queue, exchange, key) = (queue.name.clone(), exchange.clone(), key.clone());
            let binding = Object::Binding {
                queue,
                exchange,
                key,
            };
            self.attempt(&binding, None, false).await?;
        }
        Ok(())
    }

    fn note_silence(&mut self, object: &Object, is_silent: bool) {
        if let Object::Queue(queue) = object {
            self.session.note_silence(queue, is_silent);
            self.met_silence |= is_silent;
        }
    }

    /// How long the broker has for its word on a queue.
    fn limit(&self, queue: &str) -> Duration {
        let silence = self.session.silence(queue);
        // Now and then there is all the time for it: it may just be slow.
        let is_patient =
            silence.is_multiple_of(PATIENT_EVERY) && (silence > 0 || !self.met_silence);
        if is_patient {
            ANSWER_LIMIT
        } else {
            SILENT_LIMIT
        }
    }

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
                self.note_silence(object, false);
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
                    self.note_silence(object, true);
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
                let (limit, name) = (self.limit(name), short("its name", name)?);
                answer_within(limit, channel.queue_declare(name, options, arguments))
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
