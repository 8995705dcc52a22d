//! What comes to a worker: a first subscription of few messages, and a second one of as many as
//! fit into memory, once the first ones have shown how large they are (`window`). Called by
//! `worker`.
//!
//! # Invariants
//! - An acknowledgement goes to the subscription that a delivery came by: one of many would cover
//!   another's (test `a_tag_is_good_once_and_on_its_own_subscription` of the broker's).
//! - A second subscription that is too wide is cancelled; what came by it is worked off, and what
//!   the broker sent after its cancel goes back to the queue with its channel. Its successor is
//!   opened after that, so that the bound is one for both.
//! - However large messages are and however long the sink is away, what a worker holds is bounded
//!   (tests/it/consumers.rs, `large_messages_do_not_fill_the_memory`).

use super::window::{FIRST, Window};
use crate::broker::{ConsumeError, Delivery, Session, SettleError, Subscription, Tag};
use std::future::poll_fn;
use std::task::{Context, Poll};

/// Where a worker's messages come from.
#[derive(Debug)]
pub(super) struct Intake {
    session: Session,
    queue: String,
    consumer_tag: String,
    window: Window,
    first: Subscription,
    second: Option<Second>,
}

#[derive(Debug)]
struct Second {
    subscription: Subscription,
    prefetch: u16,
    is_cancelled: bool,
    has_ended: bool,
}

impl Intake {
    /// Starts to consume.
    pub(super) async fn open(
        session: Session,
        queue: &str,
        consumer_tag: String,
        window: Window,
    ) -> Result<Self, ConsumeError> {
        Ok(Self {
            first: Subscription::open(&session, queue, FIRST, &consumer_tag).await?,
            second: None,
            queue: queue.to_owned(),
            session,
            consumer_tag,
            window,
        })
    }

    /// The next delivery, however long it takes, or none when there is a window to follow; an
    /// error when a subscription ends that was not told to. May be dropped while it waits without
    /// losing a delivery.
    pub(super) async fn next(&mut self) -> Result<Option<Delivery>, ConsumeError> {
        let delivery = poll_fn(|cx| self.poll_next(cx)).await?;
        if let Some(delivery) = &delivery {
            self.window.came(delivery.message.body.len());
        }
        Ok(delivery)
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Delivery>, ConsumeError>> {
        let ended = |queue: &str| ConsumeError::Cancelled {
            queue: queue.to_owned(),
        };
        if let Poll::Ready(next) = self.first.poll_next(cx) {
            let next = next.unwrap_or_else(|| Err(ended(&self.queue)));
            return Poll::Ready(next.map(Some));
        }
        if let Some(second) = &mut self.second
            && !second.has_ended
            && let Poll::Ready(next) = second.subscription.poll_next(cx)
        {
            match next {
                Some(next) => return Poll::Ready(next.map(Some)),
                None if second.is_cancelled => second.has_ended = true,
                None => return Poll::Ready(Err(ended(&self.queue))),
            }
            return Poll::Ready(Ok(None));
        }
        Poll::Pending
    }

    /// Opens, cancels or closes the second subscription, as the window says. To be called before
    /// [`Intake::next`], and after what is acknowledged.
    pub(super) async fn follow_window(&mut self) -> Result<(), ConsumeError> {
        let further = self.window.further();
        match &mut self.second {
            None if further > 0 => {
                let tag = format!("{}-further", self.consumer_tag);
                let open = Subscription::open(&self.session, &self.queue, further, &tag);
                self.second = Some(Second {
                    subscription: open.await?,
                    prefetch: further,
                    is_cancelled: false,
                    has_ended: false,
                });
                tracing::debug!(queue = self.queue, further, "takes further messages");
            }
            Some(second) if second.prefetch != further && !second.is_cancelled => {
                second.subscription.cancel().await?;
                second.is_cancelled = true;
            }
            _ => {}
        }
        if let Some(second) = self.second.take_if(|second| {
            second.has_ended && second.subscription.acker().open_deliveries() == 0
        }) {
            second.subscription.close().await;
        }
        Ok(())
    }

    /// Tells the broker that these are done.
    pub(super) async fn ack(&self, tags: &[Tag]) -> Result<(), SettleError> {
        let acker = self.first.acker();
        let (of_first, others): (Vec<Tag>, Vec<Tag>) =
            tags.iter().copied().partition(|tag| acker.is_of(*tag));
        if !of_first.is_empty() {
            acker.ack(&of_first).await?;
        }
        match &self.second {
            _ if others.is_empty() => Ok(()),
            Some(second) => second.subscription.acker().ack(&others).await,
            None => Err(SettleError::NotOpen(others.len())),
        }
    }

    /// Stops; what is not acknowledged goes back to the queue.
    pub(super) async fn close(self) {
        let second = async {
            if let Some(second) = self.second {
                second.subscription.close().await;
            }
        };
        tokio::join!(self.first.close(), second);
    }
}
