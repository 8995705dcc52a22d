//! Publishing with confirms: nothing counts as delivered but the broker's own word.
//!
//! Called by the forwarder and by the consumers, for retries and errors. The task behind it is in
//! this file too: it owns lapin's futures, so that a caller may drop its own at any point.
//!
//! # Invariants
//! - [`Outcome::Confirmed`] means: the channel is in confirm mode, the message is mandatory and
//!   persistent, the broker acknowledged it, and did not return it
//!   (`a_thousand_in_flight_are_told_apart_from_the_unroutable_among_them`).
//! - Publishes are numbered, and handed to lapin, under one lock: lapin numbers a publish and
//!   queues its frames in two steps, and two callers between them would swap confirms
//!   (`concurrent_publishers_on_one_channel_get_their_own_confirms`).
//! - Every publish ends: when the session is lost, after the write limit, or after the confirm
//!   limit; time under an alarm does not count (`a_frozen_broker_...`, `a_blocked_connection_...`).
//! - At most `window` publishes wait for their confirm (`publishing_waits_for_the_window`).
//! - What the broker refuses by closing the channel costs one channel, and is told apart on the
//!   next (`refusals`).

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{Channel, Confirmation};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::AbortHandle;

use super::collect::{Collector, Entry, Inbox};
use super::message::{Message, short};
use super::session::{Session, answer};

/// The encoded headers of a message must fit in one frame (128 KiB by default) with its other
/// properties; the broker ends the whole connection over a larger one.
const MAX_HEADER_BYTES: usize = 100 * 1024;

/// What the other properties of a message may take of a frame: some strings of at most 255 bytes,
/// and the number of the publish.
const OTHER_PROPERTIES_BYTES: usize = 4 * 1024;

/// How many bytes the headers of a message may take where a frame has at most so many; 0 is
/// without a limit.
fn max_header_bytes(frame_max: u32) -> usize {
    let frame = match usize::try_from(frame_max) {
        Ok(0) | Err(_) => return MAX_HEADER_BYTES,
        Ok(frame) => frame,
    };
    // The least frame of AMQP is no larger than that, and has room for something.
    let left = frame.saturating_sub(OTHER_PROPERTIES_BYTES).max(frame / 2);
    left.min(MAX_HEADER_BYTES)
}

/// Limits of one publisher.
#[derive(Clone, Debug)]
pub struct PublishOptions {
    /// How long the broker may take to confirm a message that was written.
    pub confirm_timeout: Duration,
    /// How long it may take to write a message to the socket.
    pub write_timeout: Duration,
    /// How many publishes may wait for their confirm; [`Publisher::publish`] waits beyond. Bounds
    /// memory, and how much is sent again after a lost connection.
    pub window: u16,
    /// The largest body in bytes. The broker ends the channel over a larger one than its own
    /// `max_message_size` (128 MiB in 3.x, 16 MiB in 4.x), and all others in flight with it; that
    /// one counts from then on where it is smaller.
    pub max_body: usize,
}

impl Default for PublishOptions {
    fn default() -> Self {
        Self {
            confirm_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(30),
            window: 1_000,
            max_body: 128 * 1024 * 1024,
        }
    }
}

/// What the broker said about one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is on every queue it was routed to, on disk, on a majority of a quorum queue's nodes.
    Confirmed,
    /// No queue is bound for it, or its exchange is not there or not for us; it is not stored
    /// anywhere.
    Unroutable {
        /// AMQP's code, 312 for "no route", 404 and 403 for the exchange.
        code: u16,
        /// The broker's words.
        text: String,
    },
    /// The broker could not take it (an internal error, a queue at its limit that rejects).
    Nacked,
}

/// Why there is no outcome.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// AMQP cannot carry this message; it was not sent, and never can be.
    #[error("the message cannot be published: {0}")]
    Invalid(String),
    /// It is unknown whether the broker has the message. To be sent again on a new session; the
    /// far end may then have it twice.
    #[error("no word from the broker: {0}")]
    Lost(String),
}

impl PublishError {
    /// Whether sending the same message again, on a new session, can help.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Lost(_))
    }
}

/// The broker's word on one message, when it comes. May be dropped; the message is on its way.
#[derive(Debug)]
pub struct Confirm(oneshot::Receiver<Result<Outcome, PublishError>>);

impl Confirm {
    /// Of what needs no word from the broker.
    fn known(outcome: Outcome) -> Self {
        let (tell, told) = oneshot::channel();
        // The other end is here.
        tell.send(Ok(outcome)).ok();
        Self(told)
    }
}

impl Future for Confirm {
    type Output = Result<Outcome, PublishError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let word = std::task::ready!(Pin::new(&mut self.0).poll(cx));
        Poll::Ready(word.unwrap_or_else(|_| Err(lost("the publisher was dropped"))))
    }
}

/// Publishes on one channel. Dropping it ends the wait of every [`Confirm`] with `Lost`.
#[derive(Debug)]
pub struct Publisher {
    channel: Channel,
    session: Session,
    options: PublishOptions,
    window: Arc<Semaphore>,
    inbox: Arc<Inbox>,
    collector: AbortHandle,
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.collector.abort();
    }
}

pub(super) fn lost(reason: impl ToString) -> PublishError {
    PublishError::Lost(reason.to_string())
}

impl Publisher {
    /// Opens a channel in confirm mode, with the default limits.
    pub async fn open(session: &Session) -> Result<Self, PublishError> {
        Self::open_with(session, PublishOptions::default()).await
    }

    /// Opens a channel in confirm mode. The error is always `Lost`: nothing else can go wrong on
    /// a healthy session.
    pub async fn open_with(
        session: &Session,
        options: PublishOptions,
    ) -> Result<Self, PublishError> {
        let channel = session.channel().await.map_err(lost)?;
        answer(channel.confirm_select(ConfirmSelectOptions::default()))
            .await
            .map_err(lost)?;
        let inbox = Arc::new(Inbox::default());
        let collector = Collector::new(inbox.clone(), session.clone(), options.confirm_timeout);
        Ok(Self {
            channel,
            session: session.clone(),
            window: Arc::new(Semaphore::new(options.window.max(1).into())),
            options,
            inbox,
            collector: tokio::spawn(collector.run()).abort_handle(),
        })
    }

    /// Whether the channel is open; once it is not, everything ends with `Lost`.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.channel.status().connected()
    }

    /// Sends one message: waits for room in the window, then until it is written to the socket.
    /// When it returns an error, or is dropped, the message may have been sent all the same.
    pub async fn publish(&self, message: &Message) -> Result<Confirm, PublishError> {
        let to = self.check(message)?;
        let refusals = self.session.refusals();
        let refused = refusals.refused(&message.exchange, &message.routing_key, Instant::now());
        if let Some((code, text)) = refused {
            // Sent, it would end this channel with all that is in flight.
            return Ok(Confirm::known(Outcome::Unroutable { code, text }));
        }
        // Ends: each confirm in the window has its own limit, and gives its place back.
        let permit = self.window.clone().acquire_owned().await.map_err(lost)?;
        let (written, confirm) = self.start(message, to, permit).await?;
        let write = self
            .session
            .patiently(self.options.write_timeout, written)
            .await;
        match write {
            Some(Ok(())) => Ok(confirm),
            // The collector has dropped its end: what it learned is in the confirm.
            Some(Err(_)) => Err(match confirm.await {
                Err(error) => error,
                Ok(_) => lost("the publish ended early"),
            }),
            None => Err(lost(format!(
                "not written within {:?}",
                self.options.write_timeout
            ))),
        }
    }

    /// Numbers the message and puts its frames into lapin's queue, as one step under the lock,
    /// with no point in between where a dropped caller could leave a half-known publish behind.
    async fn start(
        &self,
        message: &Message,
        to: (ShortString, ShortString),
        permit: OwnedSemaphorePermit,
    ) -> Result<(oneshot::Receiver<()>, Confirm), PublishError> {
        let (channel, body) = (self.channel.clone(), message.body.clone());
        let mut once = Some((channel, to, body, permit));
        std::future::poll_fn(|cx| {
            let mut inbox = self.inbox.lock();
            let number = inbox.next;
            let properties = message
                .to_properties(number)
                .map_err(PublishError::Invalid)?;
            let (tell_written, written) = oneshot::channel();
            let (tell_outcome, outcome) = oneshot::channel();
            let (channel, (exchange, key), body, permit) = once
                .take()
                .expect("this closure is ready at once, and so is called once");
            let mut flight: Flight = Box::pin(async move {
                let options = BasicPublishOptions {
                    mandatory: true,
                    immediate: false,
                };
                let confirm = channel
                    .basic_publish(exchange, key, options, &body, properties)
                    .await?;
                // The caller may have gone; then nobody wants to know.
                tell_written.send(()).ok();
                confirm.await
            });
            // The first poll queues the frames. Whatever it returns belongs to the collector.
            let early = match flight.as_mut().poll(cx) {
                Poll::Ready(result) => Some(result),
                Poll::Pending => None,
            };
            inbox.next += 1;
            inbox.entries.push(Entry {
                number,
                flight: early.map_or(flight, |result| Box::pin(std::future::ready(result))),
                outcome: tell_outcome,
                permit,
            });
            drop(inbox);
            self.inbox.wake.notify_one();
            Poll::Ready(Ok((written, Confirm(outcome))))
        })
        .await
    }

    /// Where it goes, if it can be sent at all.
    fn check(&self, message: &Message) -> Result<(ShortString, ShortString), PublishError> {
        let exchange = short("the exchange", &message.exchange).map_err(PublishError::Invalid)?;
        let key = short("the routing key", &message.routing_key).map_err(PublishError::Invalid)?;
        let taken = self.session.refusals().max_body(Instant::now());
        let most = taken.map_or(self.options.max_body, |most| {
            most.min(self.options.max_body)
        });
        let is = message.body.len();
        if is > most {
            return Err(PublishError::Invalid(format!(
                "{is} bytes of body, at most {most}"
            )));
        }
        let headers = message.headers.encoded_len();
        let most = max_header_bytes(self.session.frame_max());
        if headers > most {
            let text = format!("{headers} bytes of headers, at most {most}");
            return Err(PublishError::Invalid(text));
        }
        Ok((exchange, key))
    }
}

/// One publish from its frames to its confirmation.
pub(super) type Flight = Pin<Box<dyn Future<Output = lapin::Result<Confirmation>> + Send>>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_fit_into_the_frames_that_were_agreed_upon() {
        for (frame_max, most) in [
            (0, MAX_HEADER_BYTES),
            (128 << 10, MAX_HEADER_BYTES),
            (32 << 10, 28 << 10),
            (8 << 10, 4 << 10),
            (4 << 10, 2 << 10),
        ] {
            assert_eq!(max_header_bytes(frame_max), most, "{frame_max}");
        }
    }
}
