//! Letters in the broker's error queues. Called by `cli`, through `mod.rs`.
//!
//! # Invariants
//! - A letter is taken out of its error queue after the broker confirmed its copy in the
//!   queue that it goes to, or when it is purged (test
//!   `letters_are_replayed_once_and_the_others_stay`).
//! - A look has an end: each message is held once it was seen, and what is refused after the
//!   look began, such as by its own replays, is not of it.

use super::letter::{Filter, Letter};
use super::repaired::Repaired;
use super::{Act, DlqError, Report};
use crate::broker::{
    Broker, Browser, Confirm, Depth, Held, Message, Outcome, PublishError, Publisher, Session,
};
use crate::clock::now_ms;
use crate::event::envelope::{
    EARLIER_REASON_HEADER, HISTORY_HEADER, QUEUE_HEADER, REASON_HEADER, REFUSED_AT_HEADER,
    RETRY_COUNT_HEADER,
};
use crate::event::history;
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
    broker: Broker,
}

/// A copy on its way.
struct Sent {
    id: String,
    to: String,
    held: Held,
    outcome: Result<Outcome, PublishError>,
    /// Whether it is a replay, or a letter that was put into its own queue anew.
    is_replay: bool,
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
        while let Some((message, held)) = browser.next().await? {
            let Some(letter) = work.seen(&message) else {
                // It stays held, so that it does not come by again.
                if work.is_flooded() {
                    break;
                }
                continue;
            };
            if work.renews(&message, &letter) {
                let copy = to_queue(message, &at.name);
                self.send(&mut work, &browser, (letter.id.clone(), held, copy), false)
                    .await?;
            }
            if filter.means(&letter) {
                work.report.matched += 1;
                if show(letter).is_break() {
                    break;
                }
            }
        }
        work.finish(&browser).await?;
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
            work.report.matched += u64::from(is_meant);
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
                    let parts = (letter.id, held, copy);
                    self.send(work, &browser, parts, true).await?;
                }
                _ if work.renews(&message, &letter) => {
                    let copy = to_queue(message, &place);
                    let parts = (letter.id, held, copy);
                    self.send(work, &browser, parts, false).await?;
                }
                _ => {}
            }
        }
        work.finish(&browser).await?;
        Ok(browser.close().await?)
    }

    /// Sends one message, such as a letter of this host's file; the queue or exchange that
    /// does not take it says why.
    ///
    /// # Errors
    /// When it is unknown whether it arrived.
    pub async fn send_one(&mut self, message: &Message) -> Result<Result<(), String>, DlqError> {
        let publisher = self.publisher().await?;
        match publisher.publish(message).await?.await {
            Ok(outcome) => Ok(verdict(&outcome, &message.routing_key)),
            Err(error) if error.is_retryable() => Err(error.into()),
            Err(error) => Ok(Err(error.to_string())),
        }
    }

    async fn publisher(&mut self) -> Result<&Publisher, DlqError> {
        if self.send.is_none() {
            let session = self.broker.session().await?;
            let publisher = Publisher::open(&session).await?;
            self.send = Some((session, publisher));
        }
        let (_, publisher) = self.send.as_ref().expect("it was opened above");
        Ok(publisher)
    }

    async fn send(
        &mut self,
        work: &mut Work,
        browser: &Browser,
        (id, held, copy): (String, Held, Message),
        is_replay: bool,
    ) -> Result<(), DlqError> {
        while work.on_their_way.len() >= WINDOW {
            work.land(browser).await?;
        }
        let publisher = self.publisher().await?;
        let to = copy.routing_key.clone();
        let confirm: Result<Confirm, PublishError> = publisher.publish(&copy).await;
        work.on_their_way.push(Box::pin(async move {
            let outcome = match confirm {
                Ok(confirm) => confirm.await,
                Err(error) => Err(error),
            };
            Sent {
                id,
                to,
                held,
                outcome,
                is_replay,
            }
        }));
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
            passed_over: 0,
            renewed: BTreeSet::new(),
            on_their_way: FuturesUnordered::new(),
        }
    }

    /// The letter of a message; `None` for one that is not of this look.
    fn seen(&mut self, message: &Message) -> Option<Letter> {
        let letter = Letter::of_message(&self.at.name, &self.at.queue, message);
        let is_new = message.headers.int(REFUSED_AT_HEADER) > Some(self.began_ms);
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

    /// Takes the broker's word on one copy; only then is its original done with.
    async fn land(&mut self, browser: &Browser) -> Result<(), DlqError> {
        let Some(sent) = self.on_their_way.next().await else {
            return Ok(());
        };
        let verdict = match sent.outcome {
            Ok(outcome) => verdict(&outcome, &sent.to),
            Err(error) if error.is_retryable() => return Err(error.into()),
            Err(error) => Err(error.to_string()),
        };
        match verdict {
            Ok(()) => {
                browser.done(sent.held).await?;
                self.report.done += u64::from(sent.is_replay);
            }
            Err(reason) if sent.is_replay => self.report.fail(&sent.id, reason),
            Err(reason) => {
                tracing::warn!(
                    queue = self.at.name,
                    reason,
                    "a letter keeps its deliveries"
                );
            }
        }
        Ok(())
    }

    async fn finish(&mut self, browser: &Browser) -> Result<(), DlqError> {
        while !self.on_their_way.is_empty() {
            self.land(browser).await?;
        }
        let newcomers = self.passed_over.saturating_sub(self.renewed.len() as u64);
        if newcomers > 0 {
            tracing::warn!(
                queue = self.at.name,
                newcomers,
                "messages were refused while this looked; they are for the next look"
            );
        }
        Ok(())
    }
}

fn verdict(outcome: &Outcome, to: &str) -> Result<(), String> {
    match outcome {
        Outcome::Confirmed => Ok(()),
        Outcome::Unroutable { text, .. } => Err(format!("nothing takes {to:?}: {text}")),
        Outcome::Nacked => Err(format!("the broker does not take it for {to:?} now")),
    }
}

fn to_queue(mut message: Message, queue: &str) -> Message {
    // The default exchange reaches the queue of this name, and no other.
    message.exchange = String::new();
    queue.clone_into(&mut message.routing_key);
    message
}

/// A letter as a message that was never tried, but for its history.
fn again(message: Message, from: &str, queue: &str) -> Message {
    let mut message = to_queue(message, queue);
    let headers = &mut message.headers;
    for name in [REASON_HEADER, REFUSED_AT_HEADER, QUEUE_HEADER] {
        headers.remove(name);
    }
    if let Some(earlier) = headers.remove(EARLIER_REASON_HEADER) {
        headers.set(REASON_HEADER, earlier);
    }
    headers.set(RETRY_COUNT_HEADER, 0_i64);
    let line = history::replayed(now_ms(), from, queue);
    headers.set(
        HISTORY_HEADER,
        history::with(headers.list(HISTORY_HEADER), line),
    );
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replay_is_as_it_came_but_for_its_history() {
        let mut came = Message {
            exchange: "e".into(),
            routing_key: "error.q".into(),
            message_id: Some("m".into()),
            body: bytes::Bytes::from_static(b"{}"),
            ..Message::default()
        };
        came.headers.set("x-bb-os", "android");
        came.headers.set(REASON_HEADER, "said by another host");
        let mut refused = came.clone();
        let headers = &mut refused.headers;
        for (name, value) in [
            (EARLIER_REASON_HEADER, "said by another host"),
            (REASON_HEADER, "too long"),
            (QUEUE_HEADER, "q"),
            (REFUSED_AT_HEADER, "5"),
            (RETRY_COUNT_HEADER, "3"),
        ] {
            headers.set(name, value);
        }
        let mut replayed = again(refused, "q_error", "q");
        assert_eq!(
            (replayed.exchange.as_str(), replayed.routing_key.as_str()),
            ("", "q")
        );
        let history = replayed.headers.list(HISTORY_HEADER);
        assert!(
            history[0].ends_with("replayed from q_error to q"),
            "{history:?}"
        );
        for name in [HISTORY_HEADER, RETRY_COUNT_HEADER] {
            replayed.headers.remove(name);
        }
        assert_eq!(replayed.headers, came.headers);
        assert_eq!(
            (replayed.message_id, replayed.body),
            (came.message_id, came.body)
        );
        // Without a reason from elsewhere there is none after the replay.
        let mut plain = Message::default();
        plain.headers.set(REASON_HEADER, "too long");
        assert_eq!(
            again(plain, "q_error", "q").headers.text(REASON_HEADER),
            None
        );
    }
}
