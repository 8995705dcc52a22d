//! Publishes what consumers hand back (retries, refusals) until the broker has
//! confirmed it. One session for all consumers of a host, apart from the sessions
//! that consume: an alarm blocks publishers only. Called by `worker`.
//!
//! # Invariants
//! - Returns after the confirm, or after the dead-letter store has it (when no
//!   queue takes it), or with `Stopped`.

use super::deliver::Stopped;
use crate::broker::{Broker, Message, Outcome, PublishOptions, Publisher, Session};
use crate::dead_letters::{DeadLetter, DeadLetters};
use crate::event::envelope::{HOST_HEADER, INDEXES_HEADER, ROUTING_KEY_HEADER, SEQ_HEADER};
use crate::event::parcel::{Destination, Parcel};
use crate::retry::Backoff;
use crate::telemetry::Metrics;
use std::sync::Arc;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

/// A session that publishes.
type Open = (Session, Arc<Publisher>);

/// A publisher that reconnects; shared by clones.
#[derive(Debug, Clone)]
pub struct SafePublisher {
    broker: Broker,
    open: Arc<Mutex<Option<Open>>>,
    dead_letters: DeadLetters,
    metrics: Metrics,
}

impl SafePublisher {
    /// Connects at the first use.
    #[must_use]
    pub fn new(broker: Broker, dead_letters: DeadLetters, metrics: Metrics) -> Self {
        Self {
            broker,
            open: Arc::new(Mutex::new(None)),
            dead_letters,
            metrics,
        }
    }

    /// Publishes until it is safe. `way_out` is the consumer's queue, for dead letters.
    pub(super) async fn publish(
        &self,
        way_out: &str,
        message: &Message,
        reason: &str,
        stop: &CancellationToken,
    ) -> Result<(), Stopped> {
        let mut backoff = Backoff::new();
        loop {
            let publisher = Box::pin(self.publisher(stop)).await?;
            let outcome = match publisher.publish(message).await {
                Ok(confirm) => confirm.await,
                Err(error) => Err(error),
            };
            match outcome {
                Ok(Outcome::Confirmed) => return Ok(()),
                Ok(Outcome::Unroutable { text, .. }) => {
                    let reason = format!("{reason}; and its error queue is not there: {text}");
                    return self.set_aside(way_out, message, &reason, stop).await;
                }
                Ok(Outcome::Nacked) => {
                    tracing::warn!(way_out, "broker did not take a message; trying again");
                }
                Err(error) if !error.is_retryable() => {
                    let reason = format!("{reason}; {error}");
                    return self.set_aside(way_out, message, &reason, stop).await;
                }
                Err(error) => {
                    tracing::info!(way_out, %error, "publishing again on a new session");
                    self.forget(&publisher).await;
                }
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.next()) => {}
                () = stop.cancelled() => return Err(Stopped),
            }
        }
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
        loop {
            let session = self.broker.connect_forever(stop.clone()).await;
            let session = session.ok_or(Stopped)?;
            match Publisher::open_with(&session, PublishOptions::default()).await {
                Ok(publisher) => {
                    let publisher = Arc::new(publisher);
                    *open = Some((session, Arc::clone(&publisher)));
                    return Ok(publisher);
                }
                Err(error) => {
                    tracing::info!(%error, "cannot open a channel; trying again");
                    session.close().await;
                    tokio::select! {
                        () = tokio::time::sleep(backoff.next()) => {}
                        () = stop.cancelled() => return Err(Stopped),
                    }
                }
            }
        }
    }

    /// Drops a publisher that lost its session, unless another took its place.
    async fn forget(&self, lost: &Arc<Publisher>) {
        let mut open = self.open.lock().await;
        let is_it = matches!(&*open, Some((_, publisher)) if Arc::ptr_eq(publisher, lost));
        if is_it && let Some((session, _)) = open.take() {
            session.close().await;
        }
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
