//! Messages to the broker, and its word on each: what counts, what is sent again, what goes
//! elsewhere, and how far the cursor moves. Called by `pump`; the invariants stand in `mod.rs`.
//!
//! A queue or a binding may be lost while the session stands. What no queue takes although this
//! host declares one for it goes elsewhere after that was declared anew, and not before (test
//! `a_lost_binding_is_made_anew_before_events_go_elsewhere`). Where such a queue is there and its
//! node is not, it waits (`held`; test `what_is_for_a_queue_whose_node_is_down_waits_for_it`), and
//! what others took meanwhile does not count (`proof`).

use super::held;
use super::outgoing::{NAME, Outgoing};
use super::proof::{Look, Proof};
use super::pump::{End, Landed, Run};
use crate::broker::{Confirm, Message, Outcome, Setup};
use crate::clock::now_ms;
use crate::event::identity::Seq;
use crate::journal::{Passed, Span};
use crate::pace::Lane;
use crate::retry::LONGEST;
use futures::stream::StreamExt as _;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How often the queues of an exchange are declared for the sake of what none of them takes: some
/// questions to the broker each time, which do not help where nothing is missing.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// How often everything is declared while a queue is away: some hundred questions each time.
const DECLARE_EVERY: Duration = Duration::from_secs(15);

/// How many times as long as a look took the next one waits, for [`LONGEST`] at most: nothing is
/// published meanwhile, and of a queue whose process is gone the broker may say nothing for as long
/// as it is asked.
const REST_OF_LOOK: u32 = 4;

/// What is known of the queues that no message of an exchange got into.
enum Sought {
    /// They were declared after it was published.
    Anew,
    /// They were declared just before that, and are so again after this time at the earliest.
    Later(Duration),
    /// This one is on a node that is down.
    Away(String),
    /// They are as this host declares them, which was seen to for this message, or are not its to
    /// declare.
    There,
}

impl Run<'_> {
    pub(super) async fn publish(
        &mut self,
        outgoing: Outgoing,
        stop: &CancellationToken,
    ) -> Result<(), End> {
        let published = Instant::now();
        let publish = self.publisher.publish(&outgoing.message);
        let result = tokio::select! {
            result = publish => result,
            () = stop.cancelled() => return Err(End::Stopped),
        };
        let confirm: Confirm = match result {
            Ok(confirm) => confirm,
            Err(error) => {
                let landed = Landed {
                    outgoing,
                    published,
                    result: Err(error),
                };
                return self.act(landed, stop).await;
            }
        };
        if outgoing.lane == Lane::Backlog {
            self.backlog_published += 1;
        }
        self.published.add(outgoing.message.body.len());
        self.confirms.push(Box::pin(async move {
            Landed {
                result: confirm.await,
                outgoing,
                published,
            }
        }));
        Ok(())
    }

    /// The broker's word on a published message has come.
    pub(super) async fn land(
        &mut self,
        landed: Landed,
        stop: &CancellationToken,
    ) -> Result<(), End> {
        if landed.outgoing.lane == Lane::Backlog {
            self.backlog_published = self.backlog_published.saturating_sub(1);
        }
        self.published.remove(landed.outgoing.message.body.len());
        self.act(landed, stop).await
    }

    /// Acts on the broker's word on a message.
    async fn act(&mut self, landed: Landed, stop: &CancellationToken) -> Result<(), End> {
        let Landed {
            mut outgoing,
            published,
            result,
        } = landed;
        let metrics = &self.forwarder.metrics;
        // All that a message carries is of one read, and so of one segment of the log.
        let seq = outgoing.seq();
        match result {
            Ok(Outcome::Confirmed) => {
                let latency = published.elapsed();
                metrics.confirmed(latency, outgoing.parts.len());
                self.is_taken(&outgoing);
                self.pacer.confirmed(latency, Instant::now().into_std());
                if let Some(proof) = &mut self.proof {
                    proof.wait(outgoing.parts.iter().map(|part| part.seq()).collect());
                } else {
                    self.done(&outgoing);
                }
                if self.held.is_away() && self.declared.elapsed() >= DECLARE_EVERY {
                    let setup = self.forwarder.setup.clone();
                    self.declare(&setup, stop).await?;
                    self.declared = Instant::now();
                }
            }
            Ok(Outcome::Nacked) => {
                metrics.forwarded("nacked");
                let Message {
                    exchange,
                    routing_key,
                    ..
                } = &outgoing.message;
                let trouble = format!("{exchange}/{routing_key} refuses messages");
                metrics.trouble(NAME, &trouble);
                if self.held.is_refused(&outgoing.message) {
                    tracing::warn!(
                        exchange,
                        routing_key,
                        "a queue refuses messages; trying again until it takes them"
                    );
                }
                self.hold(outgoing);
            }
            Ok(Outcome::Unroutable { text, .. }) => {
                metrics.forwarded("unroutable");
                match self.seek(&mut outgoing, published, stop).await? {
                    // It is stored nowhere, so nothing is there twice.
                    Sought::Anew => self.queue(outgoing.lane).push_back(outgoing),
                    Sought::Later(delay) => self.hold_for(delay, outgoing),
                    Sought::Away(queue) => {
                        let trouble = format!("the node of queue {queue:?} is down");
                        self.forwarder.metrics.trouble(NAME, &trouble);
                        self.hold(outgoing);
                    }
                    Sought::There => {
                        self.held.is_over(&outgoing.message);
                        for single in outgoing.apart() {
                            self.reroute(single, &text, stop).await?;
                        }
                    }
                }
            }
            Err(error) if error.is_retryable() => {
                metrics.forwarded("lost");
                return Err(End::Lost(error.to_string()));
            }
            Err(error) if outgoing.parts.len() > 1 => {
                metrics.forwarded("invalid");
                tracing::warn!(%seq, %error, "documents cannot go together, and go alone");
                let lane = outgoing.lane;
                self.queue(lane).extend(outgoing.apart());
            }
            Err(error) => {
                metrics.forwarded("invalid");
                self.give_up(&outgoing, &error.to_string(), stop).await?;
            }
        }
        self.advance(seq)
    }

    /// A message was taken: what it says of those that were refused.
    fn is_taken(&mut self, outgoing: &Outgoing) {
        let message = &outgoing.message;
        if let Some(lasted) = self.held.is_over(message) {
            let (exchange, routing_key) = (&message.exchange, &message.routing_key);
            tracing::info!(exchange, routing_key, refused_for = ?lasted, "messages are taken again");
        }
        // What holds others is a trouble still.
        if self.held.is_any() {
            self.forwarder.metrics.did(NAME);
        } else {
            self.forwarder.metrics.done(NAME);
        }
    }

    /// Keeps a message for another try.
    fn hold(&mut self, mut outgoing: Outgoing) {
        let delay = held::delay(outgoing.tries);
        outgoing.tries = outgoing.tries.saturating_add(1);
        outgoing.is_sought = false;
        self.hold_for(delay, outgoing);
    }

    fn hold_for(&mut self, delay: Duration, outgoing: Outgoing) {
        self.waiting.add(outgoing.message.body.len());
        self.nacked.push(Box::pin(async move {
            tokio::time::sleep(delay).await;
            outgoing
        }));
    }

    /// Looks for the queues that a message is for, which none of them took: once for each message
    /// and each time that it is held.
    async fn seek(
        &mut self,
        outgoing: &mut Outgoing,
        published: Instant,
        stop: &CancellationToken,
    ) -> Result<Sought, End> {
        let setup = &self.forwarder.setup;
        let exchange = &outgoing.message.exchange;
        let queues = setup.topology().queues.iter();
        let mut bindings = queues.flat_map(|queue| &queue.bindings);
        if !bindings.any(|binding| binding.exchange == *exchange) {
            return Ok(Sought::There);
        }
        let (mut looked, rest) = self.looked(exchange);
        if !outgoing.is_sought && published >= looked && looked.elapsed() >= rest {
            tracing::debug!(
                exchange,
                "no queue takes a message; looking for what is lost"
            );
            looked = self.look(exchange, stop).await?;
        }
        if let Some(queue) = self.held.away_of(setup.topology(), exchange) {
            return Ok(Sought::Away(queue.to_owned()));
        }
        if outgoing.is_sought {
            return Ok(Sought::There);
        }
        if published >= looked {
            return Ok(Sought::Later(rest.saturating_sub(looked.elapsed())));
        }
        outgoing.is_sought = true;
        Ok(Sought::Anew)
    }

    /// When the queues of an exchange were declared last, and how long after that they are again.
    fn looked(&self, exchange: &str) -> (Instant, Duration) {
        let Some((at, took)) = self.looked.get(exchange) else {
            return (self.declared, LOOK_EVERY);
        };
        let rest = (*took * REST_OF_LOOK).clamp(LOOK_EVERY, LONGEST);
        (self.declared.max(*at), rest)
    }

    /// Declares the queues of an exchange; since when they are.
    async fn look(&mut self, exchange: &str, stop: &CancellationToken) -> Result<Instant, End> {
        let setup = &self.forwarder.setup;
        let queues = setup.topology().queues.iter();
        let queues = queues.filter(|q| q.bindings.iter().any(|b| b.exchange == exchange));
        let queues: Vec<&str> = queues.map(|queue| queue.name.as_str()).collect();
        let began = Instant::now();
        self.declare(&setup.of_queues(&queues), stop).await?;
        let looked = (Instant::now(), began.elapsed());
        self.looked.insert(exchange.to_owned(), looked);
        Ok(looked.0)
    }

    async fn declare(&mut self, setup: &Setup, stop: &CancellationToken) -> Result<(), End> {
        let declared = tokio::select! {
            declared = setup.declare(self.session) => declared,
            () = stop.cancelled() => return Err(End::Stopped),
        };
        let found = declared.map_err(|error| End::Lost(error.to_string()))?;
        let new = found.away.iter().find(|queue| !self.held.knows(queue));
        let new = new.cloned();
        self.held
            .are_away(setup.topology(), &found.away, setup.binds());
        // What is on its way, or is confirmed and not counted, others may have taken.
        if let Some(queue) = new {
            return Err(End::Lost(format!("the node of queue {queue:?} is down")));
        }
        let alone: Vec<_> = found.alone.into_iter().collect();
        let is_known = |proof: &Proof| proof.looks_at(&alone);
        if !(alone.is_empty() || self.proof.as_ref().is_some_and(is_known)) {
            return Err(End::Lost("a queue was made anew, on one node".to_owned()));
        }
        Ok(())
    }

    /// Holds a message that is for an exchange of which a queue is away: the others would take it
    /// alone. Declares that one now and then, until it is back with its bindings.
    pub(super) async fn unless_away(
        &mut self,
        outgoing: Outgoing,
        stop: &CancellationToken,
    ) -> Result<Option<Outgoing>, End> {
        let topology = self.forwarder.setup.topology();
        let exchange = &outgoing.message.exchange;
        if self.held.away_of(topology, exchange).is_none() {
            return Ok(Some(outgoing));
        }
        let (looked, rest) = self.looked(exchange);
        if looked.elapsed() >= rest {
            self.look(exchange, stop).await?;
        }
        let Some(queue) = self.held.away_of(topology, exchange) else {
            return Ok(Some(outgoing));
        };
        let trouble = format!("the node of queue {queue:?} is down");
        self.forwarder.metrics.trouble(NAME, &trouble);
        self.hold(outgoing);
        Ok(None)
    }

    /// What a look for queues says of what was confirmed before it.
    pub(super) fn prove(&mut self, look: &Look) -> Result<(), End> {
        // What is known to be away was sent nothing since.
        if let Some(queue) = look.away.iter().find(|queue| !self.held.knows(queue)) {
            return Err(End::Lost(format!("the node of queue {queue:?} is down")));
        }
        let proven = self.proof.as_mut().map(|proof| proof.proven(look));
        for seqs in proven.into_iter().flatten() {
            for seq in &seqs {
                self.lanes.done(*seq);
            }
            // Of one read, as a message is.
            if let Some(seq) = seqs.first() {
                self.advance(*seq)?;
            }
        }
        Ok(())
    }

    /// All that a message carries counts.
    fn done(&mut self, outgoing: &Outgoing) {
        for part in &outgoing.parts {
            self.lanes.done(part.seq());
        }
    }

    /// Sets a message of one group aside.
    async fn give_up(
        &mut self,
        outgoing: &Outgoing,
        reason: &str,
        stop: &CancellationToken,
    ) -> Result<(), End> {
        let letter = self.template.letter_of(outgoing, reason);
        self.forwarder.set_aside(&letter, stop).await?;
        for part in &outgoing.parts {
            self.lanes
                .dead_lettered(part.seq(), part.group(), &part.events);
        }
        Ok(())
    }

    /// No queue takes a message of one group: to the error exchange with its reason; if
    /// nothing takes it there either, to the dead letters.
    async fn reroute(
        &mut self,
        outgoing: Outgoing,
        text: &str,
        stop: &CancellationToken,
    ) -> Result<(), End> {
        let message = &outgoing.message;
        let reason = format!(
            "no queue is bound for key {:?} on exchange {:?}: {text}",
            message.routing_key, message.exchange
        );
        let errors = self.template.errors(message, &reason);
        if outgoing.is_error || errors.is_empty() {
            return self.give_up(&outgoing, &reason, stop).await;
        }
        let seq = outgoing.seq();
        tracing::warn!(%seq, reason, "message is unroutable; to the error exchange");
        self.lanes.grow(seq, errors.len());
        self.queue(outgoing.lane)
            .extend(errors.into_iter().map(|message| Outgoing {
                message,
                is_error: true,
                tries: 0,
                is_sought: false,
                ..outgoing.clone()
            }));
        self.done(&outgoing);
        Ok(())
    }

    pub(super) fn advance(&mut self, seq: Seq) -> Result<(), End> {
        let taken = self.lanes.take(seq);
        self.note(taken)
    }

    pub(super) fn note(&mut self, taken: Option<(Span, Vec<Passed>)>) -> Result<(), End> {
        let Some((span, passed)) = taken else {
            return Ok(());
        };
        if !self.cursor.deliver(span, &passed) {
            // Not to be: a lane begins only where there is room for its span.
            return Err(End::Lost(
                "no room to note what was delivered ahead".to_owned(),
            ));
        }
        self.lanes.forget();
        self.forwarder.metrics.delivered(NAME, now_ms());
        Ok(())
    }

    /// Takes the confirms of what was published, for a while: what does not count
    /// by then is sent again after the next start.
    pub(super) async fn settle(&mut self, grace: Duration) {
        let until = Instant::now() + grace;
        while !self.confirms.is_empty() {
            match tokio::time::timeout_at(until, self.confirms.next()).await {
                Ok(Some(landed)) => {
                    if matches!(landed.result, Ok(Outcome::Confirmed)) {
                        let (latency, out) = (landed.published.elapsed(), landed.outgoing);
                        self.forwarder.metrics.confirmed(latency, out.parts.len());
                        if let Some(proof) = &mut self.proof {
                            proof.wait(out.parts.iter().map(|part| part.seq()).collect());
                            continue;
                        }
                        self.done(&out);
                        if self.advance(out.seq()).is_err() {
                            return;
                        }
                    }
                }
                Ok(None) | Err(_) => break,
            }
        }
        while let Some(proof) = self.proof.as_mut().filter(|proof| proof.is_waited_for()) {
            let look = tokio::time::timeout_at(until, proof.next()).await;
            let Ok(Some(look)) = look else { return };
            if self.prove(&look).is_err() {
                return;
            }
        }
    }
}
