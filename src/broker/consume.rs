//! Consuming one queue: deliveries out, acknowledgements back.
//!
//! Called by the consumer pump, one subscription per worker.
//!
//! # Invariants
//! - The end of the stream is never silent: a cancelled consumer (its queue was deleted), a closed
//!   channel or a lost session is an error; `None` comes only after that
//!   (`a_queue_deleted_under_its_consumer_is_an_error`).

use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use futures::StreamExt as _;
use lapin::Consumer;
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use tokio::time::timeout;

use super::message::{Message, short};
use super::session::{Session, answer};
use super::settle::{Acker, Open, Tag};
use super::{CLOSE_LIMIT, NOT_FOUND, broker_reply};

/// Numbers the subscriptions of this process, so that a tag can be told from another's.
static SUBSCRIPTIONS: AtomicU64 = AtomicU64::new(0);

/// Why a subscription could not be opened, or has ended. Its unacknowledged deliveries go back to
/// the queue.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConsumeError {
    /// The queue does not exist.
    #[error("queue '{queue}' does not exist: {reason}")]
    NoQueue {
        /// The queue.
        queue: String,
        /// The broker's words.
        reason: String,
    },
    /// The broker cancelled it: the queue was deleted, or lost its leader.
    #[error("the broker cancelled the consumer of queue '{queue}' (deleted?)")]
    Cancelled {
        /// The queue.
        queue: String,
    },
    /// The broker closed the channel (for instance as a delivery was held for longer than its
    /// `consumer_timeout`, 30 minutes by default), refused, or did not answer for this queue.
    #[error("the broker closed or refused the consumer of queue '{queue}': {reason}")]
    Refused {
        /// The queue.
        queue: String,
        /// The broker's words.
        reason: String,
    },
    /// The session is lost.
    #[error("the session was lost under the consumer of queue '{queue}': {reason}")]
    Lost {
        /// The queue.
        queue: String,
        /// What the connection said.
        reason: String,
    },
}

impl ConsumeError {
    /// Whether a new session is needed; else a new subscription on the same one is enough. Both
    /// are worth trying again with backoff.
    #[must_use]
    pub fn needs_session(&self) -> bool {
        matches!(self, Self::Lost { .. })
    }
}

/// One message from the queue, to be settled by its tag.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivery {
    /// The message, with the exchange and routing key it came by.
    pub message: Message,
    /// Whether it was delivered before, to anyone, and not acknowledged.
    pub redelivered: bool,
    /// For [`Acker`].
    pub tag: Tag,
}

/// One consumer on one queue, with a channel of its own. Dropping it gives everything that is
/// unacknowledged back to the queue, as [`Subscription::close`] does in an orderly way.
#[derive(Debug)]
pub struct Subscription {
    queue: String,
    consumer: Consumer,
    acker: Acker,
    session: Session,
    is_cancelled: bool,
    ended: bool,
}

impl Subscription {
    /// Starts to consume. At most `prefetch` deliveries (at least 1) are unacknowledged at a time;
    /// they are held in memory.
    pub async fn open(
        session: &Session,
        queue: &str,
        prefetch: u16,
        consumer_tag: &str,
    ) -> Result<Self, ConsumeError> {
        let failed = |error: lapin::Error| failure(session, queue, &error);
        let name = |what, text| {
            short(what, text).map_err(|reason| ConsumeError::Refused {
                queue: queue.to_owned(),
                reason,
            })
        };
        let (at, tag) = (
            name("the queue", queue)?,
            name("the consumer tag", consumer_tag)?,
        );
        let channel = session.channel().await.map_err(failed)?;
        let options = BasicQosOptions { global: false };
        // Zero would mean no limit, and the queue's whole backlog in memory.
        answer(channel.basic_qos(prefetch.max(1), options))
            .await
            .map_err(failed)?;
        let consume = channel.basic_consume(
            at,
            tag,
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        let consumer = answer(consume).await.map_err(failed)?;
        let subscription = SUBSCRIPTIONS.fetch_add(1, Ordering::Relaxed);
        let acker = Acker(Arc::new(Open {
            subscription,
            channel,
            numbers: Mutex::default(),
        }));
        Ok(Self {
            queue: queue.to_owned(),
            consumer,
            acker,
            session: session.clone(),
            is_cancelled: false,
            ended: false,
        })
    }

    /// The next delivery, however long it takes; an error once when the subscription ends, then
    /// `None`. May be dropped while it waits without losing a delivery.
    pub async fn next(&mut self) -> Option<Result<Delivery, ConsumeError>> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// As [`Subscription::next`], for who waits for several.
    pub fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Delivery, ConsumeError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let error = match ready!(self.consumer.poll_next_unpin(cx)) {
            Some(Ok(delivery)) => {
                self.acker.numbers().insert(delivery.delivery_tag);
                let tag = Tag {
                    subscription: self.acker.0.subscription,
                    number: delivery.delivery_tag,
                };
                let message = Message::from_wire(
                    delivery.exchange,
                    delivery.routing_key,
                    &delivery.properties,
                    delivery.data,
                );
                return Poll::Ready(Some(Ok(Delivery {
                    message,
                    redelivered: delivery.redelivered,
                    tag,
                })));
            }
            Some(Err(error)) => failure(&self.session, &self.queue, &error),
            // lapin ends the stream without a word for a cancel by the broker, and for our close.
            None if !self.session.is_connected() => ConsumeError::Lost {
                queue: self.queue.clone(),
                reason: "the session was closed".to_owned(),
            },
            None if self.is_cancelled => {
                self.ended = true;
                return Poll::Ready(None);
            }
            None => ConsumeError::Cancelled {
                queue: self.queue.clone(),
            },
        };
        self.ended = true;
        Poll::Ready(Some(Err(error)))
    }

    /// What settles the deliveries.
    #[must_use]
    pub fn acker(&self) -> Acker {
        self.acker.clone()
    }

    /// Takes no further deliveries: what has come is handed out, and then `None`. What the broker
    /// sends after its answer goes back to the queue with [`Subscription::close`] only.
    pub async fn cancel(&mut self) -> Result<(), ConsumeError> {
        let channel = &self.acker.0.channel;
        let cancel = channel.basic_cancel(self.consumer.tag(), BasicCancelOptions::default());
        self.is_cancelled = true;
        let cancelled = answer(cancel).await;
        cancelled.map_err(|error| failure(&self.session, &self.queue, &error))
    }

    /// Stops, within 5 s: cancels the consumer, then closes the channel, by which the broker puts
    /// back whatever is not acknowledged.
    pub async fn close(self) {
        let channel = &self.acker.0.channel;
        let farewell = async {
            if !self.is_cancelled {
                channel
                    .basic_cancel(self.consumer.tag(), BasicCancelOptions::default())
                    .await?;
            }
            channel.close(200, "OK".into()).await
        };
        match timeout(CLOSE_LIMIT, farewell).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::debug!(queue = self.queue, %error, "the subscription was gone before it was closed")
            }
            Err(_) => tracing::debug!(queue = self.queue, "the broker did not answer the farewell"),
        }
    }
}

fn failure(session: &Session, queue: &str, error: &lapin::Error) -> ConsumeError {
    let queue = queue.to_owned();
    if !session.is_connected() {
        return ConsumeError::Lost {
            queue,
            reason: error.to_string(),
        };
    }
    match broker_reply(error) {
        Some((NOT_FOUND, reason)) => ConsumeError::NoQueue { queue, reason },
        Some((_, reason)) => ConsumeError::Refused { queue, reason },
        // Without an answer, though the session lives: one queue may be stuck (a quorum queue
        // without a leader), and the others on the session must not suffer for it. If it is the
        // connection after all, heartbeats will tell.
        None => ConsumeError::Refused {
            queue,
            reason: error.to_string(),
        },
    }
}
