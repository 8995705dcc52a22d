//! Acknowledging deliveries, or giving them back.
//!
//! Called by the consumer pump when a sink has committed a batch, and by `consume`.
//!
//! # Invariants
//! - Nothing is acknowledged but what was asked for: one acknowledgement covers many only where all
//!   older deliveries of the channel are among them or settled (`multiple_covers_only_what_was_asked`).
//! - Nothing is acknowledged twice, or on another channel, either of which the broker punishes by
//!   closing the channel (`a_tag_is_good_once_and_on_its_own_subscription`).

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use futures::future::try_join_all;
use lapin::Channel;
use lapin::options::{BasicAckOptions, BasicNackOptions};

use super::consume::Delivery;
use super::session::answer;

/// Why deliveries could not be settled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettleError {
    /// These were settled before, or belong to another subscription. Nothing was sent for them;
    /// the rest was settled. A defect of the caller, no retry helps.
    #[error("{0} deliveries are not open on this subscription")]
    NotOpen(usize),
    /// The channel is gone: the deliveries are, or will be, delivered again elsewhere. No retry
    /// helps; the work that was done for them may be done again.
    #[error("the deliveries go back to the queue: {0}")]
    Lost(String),
}

/// Names one delivery on its subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag {
    pub(super) subscription: u64,
    pub(super) number: u64,
}

#[cfg(test)]
impl Tag {
    /// Of no broker's delivery.
    pub(crate) fn of_test(number: u64) -> Self {
        Self {
            subscription: 0,
            number,
        }
    }
}

/// Settles deliveries of one subscription, from any task.
#[derive(Clone, Debug)]
pub struct Acker(pub(super) Arc<Open>);

#[derive(Debug)]
pub(super) struct Open {
    pub(super) subscription: u64,
    pub(super) channel: Channel,
    /// Numbers handed out and not settled; at most the prefetch.
    pub(super) numbers: Mutex<BTreeSet<u64>>,
}

impl Acker {
    pub(super) fn numbers(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        // A panic elsewhere leaves a set of numbers, no less.
        self.0
            .numbers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the broker that these are done. Returns when it is written to the socket; if that is
    /// then lost, they are delivered again.
    pub async fn ack(&self, tags: &[Tag]) -> Result<(), SettleError> {
        self.settle(tags, |open, numbers| {
            let (covered, single) = cover(open, &numbers);
            let covered = covered.into_iter().map(|number| (number, true));
            let all = covered.chain(single.into_iter().map(|number| (number, false)));
            all.map(|(number, multiple)| self.0.ack(number, multiple))
                .collect()
        })
        .await
    }

    /// Acknowledges whole deliveries.
    pub async fn ack_all(&self, deliveries: Vec<Delivery>) -> Result<(), SettleError> {
        let tags: Vec<_> = deliveries.iter().map(|delivery| delivery.tag).collect();
        self.ack(&tags).await
    }

    /// Gives deliveries back to the queue at once, to be delivered again, to anyone, marked as
    /// redelivered.
    pub async fn requeue(&self, tags: &[Tag]) -> Result<(), SettleError> {
        self.settle(tags, |_, numbers| {
            numbers
                .into_iter()
                .map(|number| self.0.requeue(number))
                .collect()
        })
        .await
    }

    /// Takes the numbers out of the open ones and queues their frames as one step, under the lock
    /// and without a point where it could be dropped: an acknowledgement of many that slipped in
    /// between would cover a delivery that is about to be given back, which is a loss.
    async fn settle(
        &self,
        tags: &[Tag],
        frames: impl Fn(&BTreeSet<u64>, Vec<u64>) -> Vec<Sending>,
    ) -> Result<(), SettleError> {
        let lost = |error: lapin::Error| SettleError::Lost(error.to_string());
        let (sent, strangers) = std::future::poll_fn(|cx| {
            let mut open = self.numbers();
            let (numbers, strangers) = self.take(&mut open, tags);
            let poll = |mut sending: Sending| match sending.as_mut().poll(cx) {
                // The first poll queues the frame; the future that is left waits for the write.
                Poll::Pending => sending,
                Poll::Ready(result) => Box::pin(std::future::ready(result)),
            };
            let sent: Vec<_> = frames(&open, numbers).into_iter().map(poll).collect();
            Poll::Ready((sent, strangers))
        })
        .await;
        answer(try_join_all(sent)).await.map_err(lost)?;
        if strangers > 0 {
            return Err(SettleError::NotOpen(strangers));
        }
        Ok(())
    }

    /// Whether a delivery came by this subscription.
    #[must_use]
    pub fn is_of(&self, tag: Tag) -> bool {
        tag.subscription == self.0.subscription
    }

    /// How many deliveries are handed out and not settled.
    #[must_use]
    pub fn open_deliveries(&self) -> usize {
        self.numbers().len()
    }

    /// Takes the numbers out of the open ones, in order; counts those that are not among them.
    fn take(&self, open: &mut BTreeSet<u64>, tags: &[Tag]) -> (Vec<u64>, usize) {
        let mut numbers: Vec<u64> = tags
            .iter()
            .filter(|tag| self.is_of(**tag) && open.remove(&tag.number))
            .map(|tag| tag.number)
            .collect();
        numbers.sort_unstable();
        let strangers = tags.len() - numbers.len();
        (numbers, strangers)
    }
}

/// One acknowledgement on its way to the socket.
type Sending = Pin<Box<dyn Future<Output = lapin::Result<()>> + Send>>;

impl Open {
    fn ack(&self, number: u64, multiple: bool) -> Sending {
        let channel = self.channel.clone();
        Box::pin(async move {
            channel
                .basic_ack(number, BasicAckOptions { multiple })
                .await
        })
    }

    fn requeue(&self, number: u64) -> Sending {
        let channel = self.channel.clone();
        let options = BasicNackOptions {
            multiple: false,
            requeue: true,
        };
        Box::pin(async move { channel.basic_nack(number, options).await })
    }
}

/// The highest number up to which all is settled or in `asked` (sorted), if it covers more than
/// one, and those of `asked` beyond it. `open` are the others.
fn cover(open: &BTreeSet<u64>, asked: &[u64]) -> (Option<u64>, Vec<u64>) {
    let before = match open.first() {
        Some(oldest) => asked.partition_point(|number| number < oldest),
        None => asked.len(),
    };
    if before < 2 {
        return (None, asked.to_vec());
    }
    (Some(asked[before - 1]), asked[before..].to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn multiple_covers_only_what_was_asked() {
        let open = |numbers: &[u64]| numbers.iter().copied().collect::<BTreeSet<_>>();
        assert_eq!(cover(&open(&[]), &[1, 2, 3]), (Some(3), vec![]));
        assert_eq!(cover(&open(&[9]), &[1, 2, 3]), (Some(3), vec![]));
        assert_eq!(cover(&open(&[3]), &[1, 2, 4, 5]), (Some(2), vec![4, 5]));
        assert_eq!(cover(&open(&[1]), &[2, 3]), (None, vec![2, 3]));
        assert_eq!(cover(&open(&[]), &[7]), (None, vec![7]));
        assert_eq!(cover(&open(&[2]), &[1, 3]), (None, vec![1, 3]));
    }
}
