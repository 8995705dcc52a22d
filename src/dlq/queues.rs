//! Letters in the broker's error queues. Called by `cli`, through `mod.rs`.
//!
//! # Invariants
//! - A letter is taken out of its error queue after the broker confirmed its copy in the
//!   queue that it goes to, or when it is purged (test
//!   `letters_are_replayed_once_and_the_others_stay`).
//! - A look has an end: each message is held once it was seen, and what is refused after the
//!   look began, such as by its own replays, is not of it. What was in the queue then is, whatever
//!   the clock said when it was refused (test `letters_of_a_clock_that_was_ahead_are_seen`).
//! - A copy over which the broker closes the channel is that letter's failure; the others are sent
//!   again on the next channel (test `a_letter_that_is_too_large_leaves_the_others_alone`).

use super::again::{again, to_queue};
use super::letter::{Filter, Letter};
use super::repaired::Repaired;
use super::{Act, DlqError, Report};
use crate::broker::{
    Broker, Browser, Depth, Held, Message, Outcome, PublishError, Publisher, Session,
};
use crate::clock::now_ms;
use crate::event::envelope::REFUSED_AT_HEADER;
use futures::stream::{FuturesUnordered, StreamExt as _};
use std::collections::BTreeSet;
use std::ops::ControlFlow;

/// Copies that wait for their confirm: hides the round trips, and bounds what a crash
/// leaves in two queues.
const WINDOW: usize = 128;

/// A letter that was delivered so often is put into its queue anew when it is looked at:
/// RabbitMQ 4 drops a message at the 20th delivery unless a policy says otherwise, and
/// each look is one.
const DELIVERIES_MAX: i64 = 10;

/// Messages beyond as many as were seen that may come while a look is under way: a queue
/// that fills faster than it is read has no end to wait for.
const NEWCOMERS_MAX: u64 = 1000;

/// How often one copy is sent where the broker closes the channel: it is told apart from the
/// others when it is sent again, and some of them may be such.
const TRIES_MAX: u32 = 5;

/// The header in which a quorum queue counts deliveries.
const DELIVERIES_HEADER: &str = "x-delivery-count";

/// An error queue and the consumer whose refusals it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorQueue {
    /// The error queue.
    pub name: String,
    /// The consumer's queue.
    pub queue: String,
}

/// The broker's error queues, over one session for looking and one for sending: an alarm
/// blocks what sends, and not what looks.
#[derive(Debug)]
pub struct Queues {
    look: Session,
    send: Option<(Session, Publisher)>,
    /// Counts the channels that were opened for sending.
    channel: u64,
    broker: Broker,
}

/// A copy of a letter.
struct Copy {
    id: String,
    held: Held,
    message: Message,
    /// Whether it is a replay, or a letter that was put into its own queue anew.
    is_replay: bool,
    /// How often it was sent, and on which channel last.
    tries: u32,
    channel: u64,
}

impl Copy {
    fn new(id: String, held: Held, message: Message, is_replay: bool) -> Self {
        Self {
            id,
            held,
            message,
            is_replay,
            tries: 0,
            channel: 0,
        }
    }
}

/// A copy on its way, and the broker's word on it.
struct Sent {
    copy: Copy,
    outcome: Result<Outcome, PublishError>,
}

impl Queues {
    /// Connects.
    ///
    /// # Errors
    /// [`DlqError::Connect`].
    pub async fn connect(broker: Broker) -> Result<Self, DlqError> {
        Ok(Self {
            look: broker.session().await?,
            send: None,
            channel: 0,
            broker,
        })
    }

    /// How many messages an error queue holds; `None` when there is none.
    ///
    /// # Errors
    /// [`DlqError::Browse`].
    pub async fn depth(&self, at: &ErrorQueue) -> Result<Option<Depth>, DlqError> {
        let Some(browser) = Browser::open(&self.look, &at.name).await? else {
            return Ok(None);
        };
        let depth = browser.depth();
        browser.close().await?;
        Ok(Some(depth))
    }

    /// Shows the letters that are meant, one after the other, until `show` has enough.
    ///
    /// # Errors
    /// What ended the look; what was shown is good.
    pub async fn look(
        &mut self,
        at: &ErrorQueue,
        filter: &Filter,
        mut show: impl FnMut(Letter) -> ControlFlow<()>,
    ) -> Result<Report, DlqError> {
        let mut work = Work::new(at, Report::of(&at.name));
        let Some(browser) = Browser::open(&self.look, &at.name).await? else {
            return Ok(work.report);
        };
        work.depth = browser.depth().messages.into();
        while let Some((message, held)) = browser.next().await? {
            let Some(letter) = work.seen(&message) else {
                // It stays held, so that it does not come by again.
                if work.is_flooded() {
                    break;
                }
                continue;
            };
            if work.renews(&message, &letter) {
                let message = to_queue(message, &at.name);
                let copy = Copy::new(letter.id.clone(), held, message, false);
                self.send(&mut work, &browser, copy).await?;
            }
            if filter.means(&letter) {
                work.report.matched += 1;
                if show(letter).is_break() {
                    break;
                }
            }
        }
        self.finish(&mut work, &browser).await?;
        browser.close().await?;
        Ok(work.report)
    }

    /// Replays or purges the letters that are meant: what was done, and what ended the work
    /// early, if anything did. What was not done is where it was. `to` is another queue
    /// than that which refused them.
    pub async fn change(
        &mut self,
        at: &ErrorQueue,
        filter: &Filter,
        act: Act,
        to: Option<&str>,
        repaired: &Repaired,
    ) -> (Report, Result<(), DlqError>) {
        let mut work = Work::new(at, Report::of(&at.name));
        let meant = (filter, act, to, repaired);
        let ended = self.change_all(&mut work, meant).await;
        (work.report, ended)
    }

    async fn change_all(
        &mut self,
        work: &mut Work,
        (filter, act, to, repaired): (&Filter, Act, Option<&str>, &Repaired),
    ) -> Result<(), DlqError> {
        let place = work.at.name.clone();
        let Some(browser) = Browser::open(&self.look, &place).await? else {
            return Ok(());
        };
        work.depth = browser.depth().messages.into();
        while let Some((message, held)) = browser.next().await? {
            let Some(letter) = work.seen(&message) else {
                // It stays held, so that it does not come by again.
                if work.is_flooded() {
                    break;
                }
                continue;
            };
            let body = repaired.body(&letter.id);
            let is_meant = filter.means(&letter) && (repaired.is_empty() || body.is_some());
            if is_meant {
                work.report.meant(&letter.id, body.is_some());
            }
            match (act, is_meant) {
                (Act::Purge, true) => {
                    browser.done(held).await?;
                    work.report.done += 1;
                }
                (Act::Replay, true) => {
                    let queue = to.unwrap_or(&letter.queue);
                    let mut copy = again(message, &place, queue);
                    if let Some(body) = body {
                        copy.body = body;
                    }
                    let copy = Copy::new(letter.id, held, copy, true);
                    self.send(work, &browser, copy).await?;
                }
                _ if work.renews(&message, &letter) => {
                    let copy = Copy::new(letter.id, held, to_queue(message, &place), false);
                    self.send(work, &browser, copy).await?;
                }
                _ => {}
            }
        }
        self.finish(work, &browser).await?;
        Ok(browser.close().await?)
    }

    /// Sends one message, such as a letter of this host's file; the queue or exchange that
    /// does not take it says why.
    ///
    /// # Errors
    /// When it is unknown whether it arrived.
    pub async fn send_one(&mut self, message: &Message) -> Result<Result<(), String>, DlqError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let publisher = self.publisher().await?;
            let outcome = match publisher.publish(message).await {
                Ok(confirm) => confirm.await,
                Err(error) => Err(error),
            };
            match outcome {
                Ok(outcome) => return Ok(verdict(&outcome, &message.routing_key)),
                Err(error) if !error.is_retryable() => return Ok(Err(error.to_string())),
                Err(error) if !self.may_go_on(tries, self.channel) => return Err(error.into()),
                Err(error) => tracing::debug!(%error, "sent again on another channel"),
            }
        }
    }

    /// Whether what is lost can be sent again: the broker closed the channel that it was sent on,
    /// and the session stands.
    fn may_go_on(&self, tries: u32, channel: u64) -> bool {
        let is_channel_alone = |(session, publisher): &(Session, Publisher)| {
            session.is_connected() && (channel < self.channel || !publisher.is_open())
        };
        tries < TRIES_MAX && self.send.as_ref().is_some_and(is_channel_alone)
    }

    async fn publisher(&mut self) -> Result<&Publisher, DlqError> {
        let (session, before) = match self.send.take() {
            Some((session, publisher)) => (session, Some(publisher)),
            None => (self.broker.session().await?, None),
        };
        let publisher = match before.filter(Publisher::is_open) {
            Some(publisher) => publisher,
            None => {
                self.channel += 1;
                Publisher::open(&session).await?
            }
        };
        let (_, publisher) = self.send.insert((session, publisher));
        Ok(publisher)
    }

    async fn send(
        &mut self,
        work: &mut Work,
        browser: &Browser,
        copy: Copy,
    ) -> Result<(), DlqError> {
        while work.on_their_way.len() >= WINDOW {
            self.land(work, browser).await?;
        }
        self.start(work, copy).await
    }

    async fn start(&mut self, work: &mut Work, mut copy: Copy) -> Result<(), DlqError> {
        copy.tries += 1;
        let publisher = self.publisher().await?;
        let confirm = publisher.publish(&copy.message).await;
        copy.channel = self.channel;
        work.on_their_way.push(Box::pin(async move {
            let outcome = match confirm {
                Ok(confirm) => confirm.await,
                Err(error) => Err(error),
            };
            Sent { copy, outcome }
        }));
        Ok(())
    }

    /// Takes the broker's word on one copy; only then is its original done with.
    async fn land(&mut self, work: &mut Work, browser: &Browser) -> Result<(), DlqError> {
        let Some(Sent { copy, outcome }) = work.on_their_way.next().await else {
            return Ok(());
        };
        let verdict = match outcome {
            Ok(outcome) => verdict(&outcome, &copy.message.routing_key),
            Err(error) if !error.is_retryable() => Err(error.to_string()),
            Err(error) => {
                if !self.may_go_on(copy.tries, copy.channel) {
                    return Err(error.into());
                }
                return self.start(work, copy).await;
            }
        };
        match verdict {
            Ok(()) => {
                browser.done(copy.held).await?;
                work.report.done += u64::from(copy.is_replay);
            }
            Err(reason) if copy.is_replay => work.report.fail(&copy.id, reason),
            Err(reason) => {
                let queue = &work.at.name;
                tracing::warn!(queue, reason, "a letter keeps its deliveries");
            }
        }
        Ok(())
    }

    async fn finish(&mut self, work: &mut Work, browser: &Browser) -> Result<(), DlqError> {
        while !work.on_their_way.is_empty() {
            self.land(work, browser).await?;
        }
        work.say_newcomers();
        Ok(())
    }

    /// Closes both sessions.
    pub async fn close(self) {
        if let Some((session, publisher)) = self.send {
            drop(publisher);
            session.close().await;
        }
        self.look.close().await;
    }
}

/// What goes on at one error queue.
struct Work {
    at: ErrorQueue,
    report: Report,
    began_ms: i64,
    /// Messages that were in the queue when the look began, and that came since.
    depth: u64,
    came: u64,
    /// Messages that are not of this look.
    passed_over: u64,
    /// Letters that were put into the queue anew, and come by again.
    renewed: BTreeSet<String>,
    on_their_way: FuturesUnordered<futures::future::BoxFuture<'static, Sent>>,
}

impl Work {
    fn new(at: &ErrorQueue, report: Report) -> Self {
        Self {
            at: at.clone(),
            report,
            began_ms: now_ms(),
            depth: 0,
            came: 0,
            passed_over: 0,
            renewed: BTreeSet::new(),
            on_their_way: FuturesUnordered::new(),
        }
    }

    /// The letter of a message; `None` for one that is not of this look.
    fn seen(&mut self, message: &Message) -> Option<Letter> {
        let letter = Letter::of_message(&self.at.name, &self.at.queue, message);
        self.came += 1;
        // What comes first was there before: its time is of a clock that was ahead of this one.
        let is_new =
            self.came > self.depth && message.headers.int(REFUSED_AT_HEADER) > Some(self.began_ms);
        if is_new || self.renewed.contains(&letter.id) {
            self.passed_over += 1;
            return None;
        }
        self.report.seen += 1;
        Some(letter)
    }

    /// Whether messages come faster than they are looked at.
    fn is_flooded(&self) -> bool {
        self.passed_over > self.report.seen + NEWCOMERS_MAX
    }

    /// Whether a letter was delivered so often that another few looks could cost it.
    fn renews(&mut self, message: &Message, letter: &Letter) -> bool {
        let deliveries = message.headers.int(DELIVERIES_HEADER);
        let is_worn = deliveries.is_some_and(|count| count >= DELIVERIES_MAX);
        is_worn && self.renewed.insert(letter.id.clone())
    }

    fn say_newcomers(&self) {
        let newcomers = self.passed_over.saturating_sub(self.renewed.len() as u64);
        if newcomers > 0 {
            tracing::warn!(
                queue = self.at.name,
                newcomers,
                "messages were refused while this looked; they are for the next look"
            );
        }
    }
}

fn verdict(outcome: &Outcome, to: &str) -> Result<(), String> {
    match outcome {
        Outcome::Confirmed => Ok(()),
        Outcome::Unroutable { text, .. } => Err(format!("nothing takes {to:?}: {text}")),
        Outcome::Nacked => Err(format!("the broker does not take it for {to:?} now")),
    }
}
