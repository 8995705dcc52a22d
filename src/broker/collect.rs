//! The task that collects the confirms of one publisher.
//!
//! Called by `publish` only, which starts one per channel.
//!
//! # Invariants
//! - Every publish that was started is followed to its end here, whether or not its caller still
//!   waits: a confirm that nobody polls may hold the returned message of another
//!   (`dropped_publishes_do_not_confuse_the_others`).
//! - A round ends only when everything that had completed when its last completion was seen has
//!   been seen too, which is what `returns` builds on
//!   (`a_thousand_in_flight_are_told_apart_from_the_unroutable_among_them`).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use lapin::Confirmation;
use lapin::message::BasicReturnMessage;
use tokio::sync::{Notify, OwnedSemaphorePermit, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::broker_reply;
use super::message::publish_number;
use super::publish::{Flight, Outcome, PublishError, lost};
use super::returns::{Completion, Matcher, Returned};
use super::session::Session;

/// The confirm limit is looked at this often within itself: a tenth of inaccuracy is enough.
const LOOKS_PER_LIMIT: u32 = 10;

/// A publish on its way from the caller to the collector.
pub(super) struct Entry {
    pub(super) number: u64,
    pub(super) flight: Flight,
    pub(super) outcome: oneshot::Sender<Result<Outcome, PublishError>>,
    pub(super) permit: OwnedSemaphorePermit,
}

/// What the lock protects: the next number and the publishes not yet collected. Bounded by the
/// publisher's window, as each entry holds a permit of it.
#[derive(Default)]
pub(super) struct Started {
    pub(super) next: u64,
    pub(super) entries: Vec<Entry>,
}

/// Where the callers leave their publishes.
#[derive(Default)]
pub(super) struct Inbox {
    started: Mutex<Started>,
    pub(super) wake: Notify,
}

impl std::fmt::Debug for Inbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inbox").finish_non_exhaustive()
    }
}

impl Inbox {
    pub(super) fn lock(&self) -> MutexGuard<'_, Started> {
        // A panic in a caller leaves the state whole: number and entry change together.
        self.started.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Waiting {
    outcome: oneshot::Sender<Result<Outcome, PublishError>>,
    since: Instant,
    /// Gives the place in the window back when it is dropped.
    _permit: OwnedSemaphorePermit,
}

type Landing =
    std::pin::Pin<Box<dyn Future<Output = (u64, u64, lapin::Result<Confirmation>)> + Send>>;

/// Follows the publishes of one channel to their outcomes.
pub(super) struct Collector {
    inbox: Arc<Inbox>,
    session: Session,
    limit: Duration,
    flying: FuturesUnordered<Landing>,
    waiting: BTreeMap<u64, Waiting>,
    matcher: Matcher,
    round: u64,
    landed: u64,
}

/// Remembers whether it was woken, to tell "nothing is ready" from "stopped for a breath".
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Collector {
    pub(super) fn new(inbox: Arc<Inbox>, session: Session, limit: Duration) -> Self {
        Self {
            inbox,
            session,
            limit,
            flying: FuturesUnordered::new(),
            waiting: BTreeMap::new(),
            matcher: Matcher::default(),
            round: 0,
            landed: 0,
        }
    }

    /// Runs until the publisher aborts it.
    pub(super) async fn run(mut self) {
        let mut look = interval((self.limit / LOOKS_PER_LIMIT).max(Duration::from_millis(1)));
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let first = tokio::select! {
                landed = self.flying.next(), if !self.flying.is_empty() => landed,
                () = self.inbox.wake.notified() => None,
                _ = look.tick() => {
                    self.expire();
                    None
                }
            };
            self.round += 1;
            let (landed, quiet) = self.drain(first);
            self.settle(landed, quiet);
        }
    }

    /// Everything that has landed by now, and whether nothing is left in the air. Ends after a
    /// whole pass that found nothing: at that point, whatever landed before the last one we saw
    /// has been seen.
    #[allow(clippy::type_complexity)]
    fn drain(
        &mut self,
        first: Option<(u64, u64, lapin::Result<Confirmation>)>,
    ) -> (Vec<(u64, u64, lapin::Result<Confirmation>)>, bool) {
        let flag = Arc::new(Flag(AtomicBool::new(false)));
        let waker = Waker::from(flag.clone());
        let mut cx = Context::from_waker(&waker);
        let mut landed: Vec<_> = first.into_iter().collect();
        loop {
            let before = landed.len();
            let (entries, started) = {
                let mut inbox = self.inbox.lock();
                (std::mem::take(&mut inbox.entries), inbox.next)
            };
            let fresh = entries.len();
            entries.into_iter().for_each(|entry| self.take(entry));
            loop {
                flag.0.store(false, Ordering::SeqCst);
                match self.flying.poll_next_unpin(&mut cx) {
                    Poll::Ready(Some(one)) => landed.push(one),
                    Poll::Ready(None) => break,
                    // Without a wake-up in between, nothing was ready.
                    Poll::Pending if !flag.0.load(Ordering::SeqCst) => break,
                    Poll::Pending => {}
                }
            }
            if fresh == 0 && landed.len() == before {
                let quiet = self.landed + landed.len() as u64 == started;
                return (landed, quiet);
            }
        }
    }

    fn take(&mut self, entry: Entry) {
        let Entry {
            number,
            flight,
            outcome,
            permit,
        } = entry;
        let round = self.round;
        let since = Instant::now();
        self.waiting.insert(
            number,
            Waiting {
                outcome,
                since,
                _permit: permit,
            },
        );
        self.flying
            .push(Box::pin(async move { (number, round, flight.await) }));
    }

    fn settle(&mut self, landed: Vec<(u64, u64, lapin::Result<Confirmation>)>, quiet: bool) {
        if landed.is_empty() {
            return;
        }
        self.landed += landed.len() as u64;
        let mut completions = Vec::with_capacity(landed.len());
        for (number, entered, result) in landed {
            let (acked, message) = match result {
                Ok(Confirmation::Ack(message)) => (true, message),
                Ok(Confirmation::Nack(message)) => (false, message),
                Ok(Confirmation::NotRequested) => {
                    self.tell(number, Err(lost("the channel is not in confirm mode")));
                    continue;
                }
                Err(error) => {
                    self.learn(&error);
                    self.tell(number, Err(lost(error)));
                    continue;
                }
            };
            let took = match message.as_ref().map(returned) {
                None => None,
                Some(Some(message)) => Some(message),
                Some(None) => {
                    // Not one of ours by its header, so nothing in flight can be told from it.
                    self.lose_all("the broker returned a message without its number");
                    return;
                }
            };
            completions.push(Completion {
                number,
                entered,
                acked,
                took,
            });
        }
        for (number, outcome) in self.matcher.settle(self.round, completions, quiet) {
            self.tell(number, Ok(outcome));
        }
    }

    /// All that was in flight is lost with the channel; what it was closed over shall not end the
    /// next one, too.
    fn learn(&self, error: &lapin::Error) {
        if let Some((code, text)) = broker_reply(error) {
            let now = std::time::Instant::now();
            self.session.refusals().learn(code, &text, now);
        }
    }

    fn tell(&mut self, number: u64, word: Result<Outcome, PublishError>) {
        if let Some(waiting) = self.waiting.remove(&number) {
            // The caller may have dropped its end; then nobody wants to know.
            waiting.outcome.send(word).ok();
        }
    }

    fn lose_all(&mut self, reason: &str) {
        tracing::error!(reason, "every publish in flight counts as lost");
        for (_, waiting) in std::mem::take(&mut self.waiting) {
            waiting.outcome.send(Err(lost(reason))).ok();
        }
    }

    /// Ends the wait for confirms that are overdue. Under an alarm all clocks start anew: the
    /// broker reads nothing then, and heartbeats watch over the connection.
    fn expire(&mut self) {
        let now = Instant::now();
        if self.session.is_blocked() {
            self.waiting
                .values_mut()
                .for_each(|waiting| waiting.since = now);
            return;
        }
        while let Some(oldest) = self.waiting.first_entry()
            && now.duration_since(oldest.get().since) > self.limit
        {
            let reason = lost(format!("not confirmed within {:?}", self.limit));
            oldest.remove().outcome.send(Err(reason)).ok();
        }
    }
}

fn returned(message: &BasicReturnMessage) -> Option<Returned> {
    Some(Returned {
        number: publish_number(&message.delivery.properties)?,
        code: message.reply_code,
        text: message.reply_text.to_string(),
    })
}
