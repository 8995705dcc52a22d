//! What comes to a worker: by a subscription of few messages, and once these have shown how large
//! they are by another of as many as fit into memory (`window`). Called by `worker`.
//!
//! # Invariants
//! - An acknowledgement goes to the subscription that a delivery came by: one of many would cover
//!   another's (test `a_tag_is_good_once_and_on_its_own_subscription` of the broker's).
//! - A subscription that is replaced is cancelled first; what came by it is worked off, and what
//!   the broker sent after its cancel goes back to the queue with its channel, at once
//!   (`a_cancelled_subscription_hands_out_what_came_and_gives_the_rest_back` of the broker's, and
//!   tests/it/consumers/replaced.rs). One at a time.
//! - However large messages are and however long the sink is away, what a worker holds is bounded
//!   (tests/it/consumers.rs, `large_messages_do_not_fill_the_memory`).

use super::window::Window;
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
    /// Messages that `now` may have.
    prefetch: u16,
    now: Subscription,
    /// What is worked off.
    before: Option<Before>,
}

#[derive(Debug)]
struct Before {
    subscription: Subscription,
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
        let prefetch = window.messages();
        Ok(Self {
            now: Subscription::open(&session, queue, prefetch, &consumer_tag).await?,
            before: None,
            queue: queue.to_owned(),
            session,
            consumer_tag,
            window,
            prefetch,
        })
    }

    /// The next delivery, however long it takes, or none when there is a window to follow; an
    /// error when a subscription ends that was not told to. May be dropped while it waits without
    /// losing a delivery.
    pub(super) async fn next(&mut self) -> Result<Option<Delivery>, ConsumeError> {
        let delivery = poll_fn(|cx| self.poll_next(cx)).await?;
        if let Some(delivery) = &delivery {
            self.window.came(delivery.message.bytes());
        }
        Ok(delivery)
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Delivery>, ConsumeError>> {
        // The older ones first: their channel is to be closed.
        if let Some(before) = &mut self.before
            && !before.has_ended
            && let Poll::Ready(next) = before.subscription.poll_next(cx)
        {
            before.has_ended = next.is_none();
            return Poll::Ready(next.transpose());
        }
        self.now.poll_next(cx).map(|next| match next {
            Some(next) => next.map(Some),
            None => Err(ConsumeError::Cancelled {
                queue: self.queue.clone(),
            }),
        })
    }

    /// Replaces the subscription by one of another width where the window says so, and closes the
    /// one before when nothing of it is left. To be called before [`Intake::next`], and after what
    /// is acknowledged.
    pub(super) async fn follow_window(&mut self) -> Result<(), ConsumeError> {
        let is_done = |before: &mut Before| {
            before.has_ended && before.subscription.acker().open_deliveries() == 0
        };
        if let Some(before) = self.before.take_if(is_done) {
            before.subscription.close().await;
        }
        let prefetch = self.window.messages();
        if prefetch == self.prefetch || self.before.is_some() {
            return Ok(());
        }
        self.now.cancel().await?;
        let tag = &self.consumer_tag;
        let next = Subscription::open(&self.session, &self.queue, prefetch, tag).await?;
        let former = std::mem::replace(&mut self.prefetch, prefetch);
        tracing::debug!(queue = self.queue, prefetch, former, "another prefetch");
        self.before = Some(Before {
            subscription: std::mem::replace(&mut self.now, next),
            has_ended: false,
        });
        Ok(())
    }

    /// Tells the broker that these are done.
    pub(super) async fn ack(&self, tags: &[Tag]) -> Result<(), SettleError> {
        let acker = self.now.acker();
        let (of_now, others): (Vec<Tag>, Vec<Tag>) =
            tags.iter().copied().partition(|tag| acker.is_of(*tag));
        if !of_now.is_empty() {
            acker.ack(&of_now).await?;
        }
        match &self.before {
            _ if others.is_empty() => Ok(()),
            Some(before) => before.subscription.acker().ack(&others).await,
            None => Err(SettleError::NotOpen(others.len())),
        }
    }

    /// Stops; what is not acknowledged goes back to the queue.
    pub(super) async fn close(self) {
        let before = async {
            if let Some(before) = self.before {
                before.subscription.close().await;
            }
        };
        tokio::join!(self.now.close(), before);
    }
}
