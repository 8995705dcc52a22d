//! A look at a queue, message by message, of which none is taken but what is told to be.
//!
//! Called by `dlq`, for the operator's look into error queues.
//!
//! # Invariants
//! - What was looked at and not told to be done with is back in the queue when the look is
//!   over, however it ends (`a_look_takes_nothing_but_what_it_is_told_to`).
//! - A queue that has messages is never taken for an empty one: RabbitMQ says 0 messages and
//!   0 consumers of a quorum queue whose leader does not answer within 250 ms
//!   (rabbit_quorum_queue, `stat`), so that answer is not believed without a look.
//! - Nor is one for missing whose node is down, with its messages, be it that the broker says so or
//!   that it says nothing (tests/it/closed_channels.rs,
//!   `what_is_for_a_queue_whose_node_is_down_waits_for_it`; tests/it/broker/topology.rs,
//!   `a_queue_that_does_not_answer_is_away_and_the_others_are_declared`).
//! - A message is seen once in one look: it is held until the look is over.
//! - When a look was closed, the next one sees what it gave back: a quorum queue takes a
//!   moment for that (the same test).

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use lapin::Channel;
use lapin::options::{BasicAckOptions, BasicGetOptions, BasicNackOptions, QueueDeclareOptions};
use lapin::types::{FieldTable, ShortString};

use super::declare::queue_is_away;
use super::message::{Message, short};
use super::session::{Session, answer, is_silence};
use super::{CLOSE_LIMIT, NOT_FOUND, broker_reply};

/// How often a look that is being closed asks whether the queue has its messages again.
const BACK_POLL: Duration = Duration::from_millis(10);

/// Why a look ended. What it held goes back to the queue; to be tried again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("queue '{queue}' cannot be looked at: {reason}")]
pub struct BrowseError {
    /// The queue.
    pub queue: String,
    /// The broker's words, or the connection's.
    pub reason: String,
    /// Whether it is there, with its messages, on a node that is down.
    pub is_away: bool,
}

/// What is in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Depth {
    /// Messages that nobody holds; a busy broker may say fewer than there are.
    pub messages: u32,
    /// Consumers that take from it.
    pub consumers: u32,
}

/// What is in a queue; `None` when there is no such queue. A busy broker may say 0 and 0 of
/// a quorum queue that has messages.
///
/// # Errors
/// When the session is lost, the broker does not answer, or the queue's node is down.
pub async fn depth(session: &Session, queue: &str) -> Result<Option<Depth>, BrowseError> {
    let Some((channel, depth)) = enter(session, queue).await? else {
        return Ok(None);
    };
    if let Err(error) = answer(channel.close(200, "OK".into())).await {
        tracing::debug!(%error, "the channel of a look did not close");
    }
    Ok(Some(depth))
}

/// A channel, and what is in the queue; `None` when there is no such queue, and the broker
/// has closed the channel.
async fn enter(session: &Session, queue: &str) -> Result<Option<(Channel, Depth)>, BrowseError> {
    let failed = |reason: String| BrowseError {
        queue: queue.to_owned(),
        reason,
        is_away: false,
    };
    let channel = session.channel().await;
    let channel = channel.map_err(|error| failed(error.to_string()))?;
    let name = short("the queue", queue).map_err(failed)?;
    match ask(&channel, name).await {
        Ok(depth) => Ok(Some((channel, depth))),
        Err(error) => match broker_reply(&error) {
            Some((NOT_FOUND, text)) if queue_is_away(&text) => Err(BrowseError {
                is_away: true,
                ..failed(text)
            }),
            Some((NOT_FOUND, _)) => Ok(None),
            // As in `declare`: one whose process is gone, while all else is answered.
            None if is_silence(&error) => Err(BrowseError {
                is_away: session.channel().await.is_ok(),
                ..failed(error.to_string())
            }),
            _ => Err(failed(error.to_string())),
        },
    }
}

/// One look at one queue, on a channel of its own.
#[derive(Debug)]
pub struct Browser {
    queue: String,
    channel: Channel,
    depth: Depth,
    /// Messages that this look holds.
    holds: AtomicU32,
    /// One that was taken to see whether there are any.
    first: Mutex<Option<(Message, Held)>>,
}

/// Names a message that a look holds.
#[derive(Debug, PartialEq, Eq)]
pub struct Held(u64);

impl Browser {
    /// Begins a look; `None` when there is no such queue.
    pub async fn open(session: &Session, queue: &str) -> Result<Option<Self>, BrowseError> {
        let Some((channel, depth)) = enter(session, queue).await? else {
            return Ok(None);
        };
        let mut browser = Self {
            queue: queue.to_owned(),
            channel,
            depth,
            holds: AtomicU32::new(0),
            first: Mutex::default(),
        };
        browser.probe().await?;
        Ok(Some(browser))
    }

    /// Looks whether a queue that is said to be empty is so.
    async fn probe(&mut self) -> Result<(), BrowseError> {
        if self.depth.messages > 0 || self.depth.consumers > 0 {
            return Ok(());
        }
        let Some(first) = self.get().await? else {
            return Ok(());
        };
        let name = self.name()?;
        let rest = ask(&self.channel, name).await;
        let rest = rest.map_err(|error| self.failed(&error))?;
        self.depth.messages = rest.messages.saturating_add(1);
        *self.first.lock().unwrap_or_else(PoisonError::into_inner) = Some(first);
        Ok(())
    }

    fn name(&self) -> Result<ShortString, BrowseError> {
        short("the queue", &self.queue).map_err(|reason| BrowseError {
            queue: self.queue.clone(),
            reason,
            is_away: false,
        })
    }

    /// What was in the queue when the look began.
    #[must_use]
    pub fn depth(&self) -> Depth {
        self.depth
    }

    fn failed(&self, error: &lapin::Error) -> BrowseError {
        BrowseError {
            queue: self.queue.clone(),
            reason: error.to_string(),
            is_away: false,
        }
    }

    /// The next message that nobody holds; `None` when there is none.
    pub async fn next(&self) -> Result<Option<(Message, Held)>, BrowseError> {
        let first = self
            .first
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        match first {
            Some(first) => Ok(Some(first)),
            None => self.get().await,
        }
    }

    async fn get(&self) -> Result<Option<(Message, Held)>, BrowseError> {
        let name = self.name()?;
        let got = answer(self.channel.basic_get(name, BasicGetOptions::default()));
        let Some(got) = got.await.map_err(|error| self.failed(&error))? else {
            return Ok(None);
        };
        self.holds.fetch_add(1, Ordering::Relaxed);
        let delivery = got.delivery;
        let message = Message::from_wire(
            delivery.exchange,
            delivery.routing_key,
            &delivery.properties,
            delivery.data,
        );
        Ok(Some((message, Held(delivery.delivery_tag))))
    }

    /// Takes a message out of the queue for good: it is safe elsewhere, or given up.
    pub async fn done(&self, held: Held) -> Result<(), BrowseError> {
        let ack = self
            .channel
            .basic_ack(held.0, BasicAckOptions { multiple: false });
        answer(ack).await.map_err(|error| self.failed(&error))?;
        self.holds.fetch_sub(1, Ordering::Relaxed);
        Ok(())
    }

    /// Ends the look, within 5 s: everything that is still held goes back. So it does when
    /// the look is dropped, or its session lost, only later.
    pub async fn close(self) -> Result<(), BrowseError> {
        let options = BasicNackOptions {
            multiple: true,
            requeue: true,
        };
        let farewell = async {
            // 0 with `multiple` is all of the channel's.
            self.channel.basic_nack(0, options).await?;
            self.back().await;
            self.channel.close(200, "OK".into()).await
        };
        match tokio::time::timeout(CLOSE_LIMIT, farewell).await {
            Ok(done) => done.map_err(|error| self.failed(&error)),
            Err(_) => Err(BrowseError {
                queue: self.queue.clone(),
                reason: "the broker did not answer the farewell".to_owned(),
                is_away: false,
            }),
        }
    }

    /// Waits until the queue shows what was given back, unless others take from it.
    async fn back(&self) {
        let holds = self.holds.load(Ordering::Relaxed);
        while let Ok(name) = short("the queue", &self.queue)
            && let Ok(depth) = ask(&self.channel, name).await
            && depth.messages < holds
            && depth.consumers == 0
        {
            tokio::time::sleep(BACK_POLL).await;
        }
    }
}

async fn ask(channel: &Channel, queue: ShortString) -> lapin::Result<Depth> {
    let options = QueueDeclareOptions {
        passive: true,
        ..Default::default()
    };
    let asked = channel.queue_declare(queue, options, FieldTable::default());
    let found = answer(asked).await?;
    Ok(Depth {
        messages: found.message_count(),
        consumers: found.consumer_count(),
    })
}
