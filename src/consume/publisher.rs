//! Publishes what consumers hand back (retries, refusals) until the broker has
//! confirmed it. One session for all consumers of a host, apart from the sessions
//! that consume: an alarm blocks publishers only. Called by `worker`.
//!
//! # Invariants
//! - Returns after the confirm, or after the dead-letter store has it (when no
//!   queue takes it, and not because the queue's node is down), or with `Stopped`. What another
//!   queue is confirmed for does not count while the node of its own is down
//!   (tests/it/closed_channels.rs, `what_is_for_a_queue_whose_node_is_down_waits_for_it`).
//! - What keeps messages from the broker is said once for all that wait for it: its absence
//!   by `Broker`, all else here.

use super::deliver::Stopped;
use crate::broker::{
    Broker, DeclareMode, Message, Outcome, PublishError, PublishOptions, Publisher, Queue,
    QueueType, Session, Topology, Trouble, declare,
};
use crate::dead_letters::{DeadLetter, DeadLetters};
use crate::event::envelope::{HOST_HEADER, INDEXES_HEADER, ROUTING_KEY_HEADER, SEQ_HEADER};
use crate::event::parcel::{Destination, Parcel};
use crate::retry::Backoff;
use crate::telemetry::{Absence, Metrics, Waiter};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

/// What was wrong with a publisher.
enum Forgotten {
    /// Its session was lost; the broker counts as away while this is held.
    Session(Waiter),
    /// Its channel, while the session stood.
    Channel,
    /// Another has found it out already.
    Before,
}

/// When a look at a queue began, and whether the queue was away, where that was answered.
type Look = Option<(Instant, Option<bool>)>;

/// A session that publishes.
type Open = (Session, Arc<Publisher>);

/// A publisher that reconnects; shared by clones.
#[derive(Debug, Clone)]
pub struct SafePublisher {
    broker: Broker,
    open: Arc<Mutex<Option<Open>>>,
    /// The last look at each error queue.
    looks: Arc<Mutex<BTreeMap<String, Arc<Mutex<Look>>>>>,
    dead_letters: DeadLetters,
    metrics: Metrics,
    /// What is wrong while the broker is there.
    trouble: Absence,
}

impl SafePublisher {
    /// Connects at the first use.
    #[must_use]
    pub fn new(broker: Broker, dead_letters: DeadLetters, metrics: Metrics) -> Self {
        Self {
            broker,
            open: Arc::new(Mutex::new(None)),
            looks: Arc::default(),
            dead_letters,
            metrics,
            trouble: Absence::new(|lasted| {
                tracing::info!(failed_for = ?lasted, "the broker takes retries and refusals again");
            }),
        }
    }

    /// Publishes until it is safe. `way_out` is the consumer's queue, for dead letters; `queue`
    /// the one that the message is for.
    pub(super) async fn publish(
        &self,
        way_out: &str,
        (message, queue): (&Message, &str),
        reason: &str,
        stop: &CancellationToken,
    ) -> Result<(), Stopped> {
        let mut backoff = Backoff::new();
        let mut troubled: Option<Waiter> = None;
        // While the broker is away.
        let mut waiting = None;
        let mut went_elsewhere = false;
        loop {
            let publisher = Box::pin(self.publisher(stop)).await?;
            drop(waiting.take());
            let began = Instant::now();
            let attempt = self.attempt(&publisher, (message, queue), &mut went_elsewhere);
            match attempt.await {
                Ok(None) => {
                    let reason =
                        format!("the node of queue {queue:?} is down, or says nothing of it");
                    self.say(&mut troubled, way_out, &reason, began);
                }
                Ok(Some(Outcome::Confirmed)) => {
                    self.trouble.worked();
                    return Ok(());
                }
                Ok(Some(Outcome::Unroutable { text, .. })) => {
                    self.trouble.worked();
                    let reason = format!("{reason}; and its error queue is not there: {text}");
                    return self.set_aside(way_out, message, &reason, stop).await;
                }
                Ok(Some(Outcome::Nacked)) => {
                    let reason = "it refused to store a message";
                    self.say(&mut troubled, way_out, reason, began);
                }
                Err(error) if !error.is_retryable() => {
                    let reason = format!("{reason}; {error}");
                    return self.set_aside(way_out, message, &reason, stop).await;
                }
                Err(error) => {
                    let reason = error.to_string();
                    match self.forget(&publisher, &reason).await {
                        Forgotten::Session(waiter) => waiting = Some(waiter),
                        Forgotten::Channel => self.say(&mut troubled, way_out, &reason, began),
                        Forgotten::Before => {}
                    }
                    tracing::debug!(way_out, %error, "publishing again on a new session");
                }
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.next()) => {}
                () = stop.cancelled() => return Err(Stopped),
            }
        }
    }

    /// Publishes once; `None` where it did not come into its queue, whose node is down.
    async fn attempt(
        &self,
        publisher: &Publisher,
        (message, queue): (&Message, &str),
        went_elsewhere: &mut bool,
    ) -> Result<Option<Outcome>, PublishError> {
        // Whoever else has it gets it once more, and not at each attempt.
        if *went_elsewhere && self.is_away(queue).await != Some(false) {
            return Ok(None);
        }
        let outcome = publisher.publish(message).await?.await?;
        let may_lack_it = match &outcome {
            // By the queue's own name it goes there or nowhere; by an exchange the broker confirms
            // it for any other queue that takes it.
            Outcome::Confirmed => !message.exchange.is_empty(),
            Outcome::Unroutable { .. } => true,
            Outcome::Nacked => false,
        };
        if !may_lack_it {
            return Ok(Some(outcome));
        }
        let is_confirmed = matches!(outcome, Outcome::Confirmed);
        // Where nothing is answered, a confirm is no proof; and what nobody takes would go nowhere
        // for as long.
        if self.is_away(queue).await.unwrap_or(is_confirmed) {
            *went_elsewhere = is_confirmed;
            return Ok(None);
        }
        Ok(Some(outcome))
    }

    /// Whether a queue is there, on a node that is not, by a look that began after this call;
    /// `None` where nothing is answered. All who ask meanwhile share one.
    async fn is_away(&self, queue: &str) -> Option<bool> {
        let asked = Instant::now();
        let look = {
            let mut looks = self.looks.lock().await;
            Arc::clone(looks.entry(queue.to_owned()).or_default())
        };
        let mut look = look.lock().await;
        if let Some((began, is_away)) = *look
            && began >= asked
        {
            return is_away;
        }
        let began = Instant::now();
        let is_away = self.look(queue).await;
        *look = Some((began, is_away));
        is_away
    }

    async fn look(&self, queue: &str) -> Option<bool> {
        let session = self.open.lock().await.as_ref()?.0.clone();
        let queue = Queue {
            name: queue.to_owned(),
            bindings: Vec::new(),
        };
        let topology = Topology {
            exchanges: Vec::new(),
            queues: vec![queue],
        };
        // The type says nothing where it is only looked for.
        let (mode, kind) = (DeclareMode::Passive, QueueType::Quorum);
        let warnings = declare(&session, &topology, mode, kind).await.ok()?;
        Some(warnings.iter().any(|w| w.trouble == Trouble::Away))
    }

    async fn publisher(&self, stop: &CancellationToken) -> Result<Arc<Publisher>, Stopped> {
        let mut open = self.open.lock().await;
        if let Some((_, publisher)) = &*open
            && publisher.is_open()
        {
            return Ok(Arc::clone(publisher));
        }
        *open = None;
        let mut backoff = Backoff::new();
        let mut troubled: Option<Waiter> = None;
        let mut waiting = None;
        loop {
            let session = self.broker.connect_forever(stop.clone()).await;
            let session = session.ok_or(Stopped)?;
            drop(waiting.take());
            let began = Instant::now();
            match Publisher::open_with(&session, PublishOptions::default()).await {
                Ok(publisher) => {
                    let publisher = Arc::new(publisher);
                    *open = Some((session, Arc::clone(&publisher)));
                    return Ok(publisher);
                }
                Err(error) => {
                    let reason = error.to_string();
                    waiting = self.broker.lost(&session, &reason).await;
                    if waiting.is_none() {
                        self.say(&mut troubled, "all", &reason, began);
                    }
                    session.close().await;
                    tokio::select! {
                        () = tokio::time::sleep(backoff.next()) => {}
                        () = stop.cancelled() => return Err(Stopped),
                    }
                }
            }
        }
    }

    /// Says what is wrong while the broker is there, once for all whom it keeps waiting.
    fn say(&self, troubled: &mut Option<Waiter>, way_out: &str, reason: &str, began: Instant) {
        let troubled = troubled.get_or_insert_with(|| self.trouble.wait());
        if troubled.is_new(reason, began) {
            tracing::warn!(
                way_out,
                reason,
                "the broker takes no retries and refusals; trying again"
            );
        } else {
            tracing::debug!(way_out, reason, "a message waits for the broker");
        }
    }

    /// Drops a publisher that lost its session, unless another took its place.
    async fn forget(&self, lost: &Arc<Publisher>, reason: &str) -> Forgotten {
        let session = {
            let mut open = self.open.lock().await;
            match &*open {
                Some((_, publisher)) if Arc::ptr_eq(publisher, lost) => open.take(),
                _ => None,
            }
        };
        let Some((session, _)) = session else {
            return Forgotten::Before;
        };
        let waiter = self.broker.lost(&session, reason).await;
        session.close().await;
        waiter.map_or(Forgotten::Channel, Forgotten::Session)
    }

    async fn set_aside(
        &self,
        way_out: &str,
        message: &Message,
        reason: &str,
        stop: &CancellationToken,
    ) -> Result<(), Stopped> {
        let text = |name: &str| message.headers.text(name).unwrap_or_default().into_owned();
        let letter = DeadLetter {
            way_out: way_out.to_owned(),
            event_name: text(ROUTING_KEY_HEADER),
            reason: reason.to_owned(),
            host: text(HOST_HEADER),
            seq: message
                .headers
                .int(SEQ_HEADER)
                .and_then(|seq| u64::try_from(seq).ok())
                .unwrap_or(0),
            indexes: text(INDEXES_HEADER),
            content_type: message.content_type.clone().unwrap_or_default(),
            body: message.body.to_vec(),
            // Back to the consumer, not to where its refusals go.
            destination: Destination::Message(Parcel {
                exchange: String::new(),
                routing_key: way_out.to_owned(),
                ..message.to_parcel()
            }),
        };
        let kept = self.dead_letters.keep(&letter, &self.metrics, stop).await;
        if kept { Ok(()) } else { Err(Stopped) }
    }

    /// Closes the session.
    pub async fn close(&self) {
        if let Some((session, _)) = self.open.lock().await.take() {
            session.close().await;
        }
    }
}
