//! The loop: read, publish with a window of confirms, move the cursor. Called by
//! `app`; the invariants stand in `mod.rs`.

use super::flight::Flight;
use super::outgoing::{ErrorRoute, NAME, Outgoing, Prepared, Template};
use crate::broker::{
    Broker, Confirm, Outcome, PublishError, PublishOptions, Publisher, Session, Setup,
};
use crate::clock::now_ms;
use crate::dead_letters::{DeadLetter, DeadLetters};
use crate::event::webhook::Source;
use crate::journal::{Cursor, Journal, Reader, Record};
use crate::retry::Backoff;
use crate::telemetry::Metrics;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Bytes of records taken from the journal at a time.
const READ_BYTES: usize = 1 << 20;

/// Requests that may be on their way or wait behind one that is: bounds memory and
/// what is sent again while one message is not taken for a long time.
const FLIGHT_MAX: usize = 100_000;

/// Wait before a message that the broker did not take is sent again: a full queue
/// needs time, and must not be hammered.
const NACK_DELAY: Duration = Duration::from_secs(2);

/// What a forwarder needs.
#[derive(Debug, Clone)]
pub struct Options {
    /// Exchange of events.
    pub exchange: String,
    /// Where refused events go, one copy each.
    pub error_routes: Vec<ErrorRoute>,
    /// Exchange of each source's webhooks.
    pub webhooks: BTreeMap<Source, String>,
    /// Messages that may wait for their confirm.
    pub confirm_window: usize,
    /// How long a confirm may take.
    pub confirm_timeout: Duration,
    /// How long a stop waits for confirms.
    pub grace: Duration,
}

/// The pump to RabbitMQ.
#[derive(Debug, Clone)]
pub struct Forwarder {
    /// Where records come from.
    pub journal: Journal,
    /// Where messages go.
    pub broker: Broker,
    /// Declares exchanges and queues.
    pub setup: Setup,
    /// The last resort.
    pub dead_letters: DeadLetters,
    /// For figures.
    pub metrics: Metrics,
    /// Settings.
    pub options: Options,
}

/// Why a session's pumping ended.
enum End {
    Stopped,
    Lost(String),
}

/// What became of a message.
struct Landed {
    outgoing: Outgoing,
    published: Instant,
    result: Result<Outcome, PublishError>,
}

/// The state of one session.
struct Run<'a> {
    forwarder: &'a Forwarder,
    template: Arc<Template>,
    publisher: &'a Publisher,
    cursor: &'a Cursor,
    reader: Reader,
    flight: Flight,
    /// Messages not published yet.
    ready: VecDeque<Outgoing>,
    /// Published messages, and nacked ones that wait for another try.
    confirms: FuturesUnordered<BoxFuture<'static, Landed>>,
    nacked: FuturesUnordered<BoxFuture<'static, Outgoing>>,
}

impl Forwarder {
    /// The name of this way out's cursor.
    pub const CURSOR: &'static str = NAME;

    /// Pumps until `stop`; then waits for the confirms of what was published.
    pub async fn run(&self, cursor: Arc<Cursor>, stop: CancellationToken) {
        let mut backoff = Backoff::new();
        let mut failing = false;
        self.metrics.connected(NAME, false);
        self.metrics.trouble(NAME, "waits for the broker");
        while let Some(session) = self.broker.connect_forever(stop.clone()).await {
            let started = Instant::now();
            let end = self.run_session(&session, &cursor, &stop).await;
            self.metrics.connected(NAME, false);
            session.close().await;
            let End::Lost(reason) = end else {
                break;
            };
            if started.elapsed() > crate::retry::LONGEST {
                backoff.reset();
                failing = false;
            }
            self.metrics.trouble(NAME, &reason);
            if !failing {
                tracing::warn!(%reason, "forwarding lost the broker; the journal holds on");
                failing = true;
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.next()) => {}
                () = stop.cancelled() => break,
            }
        }
        tracing::debug!("forwarder stopped");
    }

    async fn run_session(
        &self,
        session: &Session,
        cursor: &Cursor,
        stop: &CancellationToken,
    ) -> End {
        if let Err(error) = self.setup.declare(session).await {
            return End::Lost(error.to_string());
        }
        let options = PublishOptions {
            confirm_timeout: self.options.confirm_timeout,
            window: u16::try_from(self.options.confirm_window).unwrap_or(u16::MAX),
            ..PublishOptions::default()
        };
        let publisher = match Publisher::open_with(session, options).await {
            Ok(publisher) => publisher,
            Err(error) => return End::Lost(error.to_string()),
        };
        self.metrics.connected(NAME, true);
        tracing::info!(broker = session.address(), next_seq = %cursor.next(), "forwarding");
        let mut run = Run {
            forwarder: self,
            template: Arc::new(Template {
                host: self.journal.host().clone(),
                exchange: self.options.exchange.clone(),
                error_routes: self.options.error_routes.clone(),
                webhooks: self.options.webhooks.clone(),
            }),
            publisher: &publisher,
            cursor,
            reader: self.journal.reader(cursor.next()),
            flight: Flight::default(),
            ready: VecDeque::new(),
            confirms: FuturesUnordered::new(),
            nacked: FuturesUnordered::new(),
        };
        let end = match run.pump(session, stop).await {
            Ok(end) | Err(end) => end,
        };
        if matches!(end, End::Stopped) {
            run.settle(self.options.grace).await;
        }
        end
    }

    async fn set_aside(&self, letter: &DeadLetter, stop: &CancellationToken) -> Result<(), End> {
        let kept = self.dead_letters.keep(letter, &self.metrics, stop).await;
        if kept { Ok(()) } else { Err(End::Stopped) }
    }
}

impl Run<'_> {
    async fn pump(&mut self, session: &Session, stop: &CancellationToken) -> Result<End, End> {
        let window = self.forwarder.options.confirm_window;
        let mut moves = self.cursor.moves();
        loop {
            while self.confirms.len() < window
                && let Some(outgoing) = self.ready.pop_front()
            {
                self.publish(outgoing, stop).await?;
            }
            let wants_more = self.ready.is_empty()
                && self.confirms.len() + self.nacked.len() < window
                && self.flight.len() < FLIGHT_MAX;
            tokio::select! {
                () = stop.cancelled() => return Ok(End::Stopped),
                _ = moves.changed() => {
                    return Err(End::Lost("an operator moved the cursor".to_owned()));
                }
                () = session.closed() => {
                    return Err(End::Lost("the connection closed".to_owned()));
                }
                Some(landed) = self.confirms.next(), if !self.confirms.is_empty() => {
                    self.land(landed, stop).await?;
                }
                Some(again) = self.nacked.next(), if !self.nacked.is_empty() => {
                    self.ready.push_back(again);
                }
                more = self.reader.wait(), if wants_more => {
                    more.map_err(|_| End::Stopped)?;
                    self.read(stop).await?;
                }
            }
        }
    }

    async fn read(&mut self, stop: &CancellationToken) -> Result<(), End> {
        let records = match self.reader.read(READ_BYTES).await {
            Ok(records) => records,
            Err(error) => {
                tracing::error!(%error, "cannot read the journal; trying again");
                tokio::time::sleep(crate::retry::SHORTEST).await;
                return Ok(());
            }
        };
        let template = Arc::clone(&self.template);
        // Encoding a read's worth of events takes milliseconds.
        let work = tokio::task::spawn_blocking(move || prepare(&template, &records));
        let prepared = work
            .await
            .map_err(|error| End::Lost(format!("prepare messages: {error}")))?;
        for record in prepared {
            let parts = record.messages.len() + record.letters.len();
            self.flight.add(record.seq, parts, record.events);
            self.ready.extend(record.messages);
            for (group, events, letter) in record.letters {
                self.forwarder.set_aside(&letter, stop).await?;
                self.flight.dead_lettered(record.seq, group, &events);
            }
        }
        if self.flight.len() == 0 {
            // Everything before the reader's place is done with, or was lost.
            self.cursor.advance(self.reader.position(), &[]);
        }
        self.flight.reach(self.reader.position());
        self.advance();
        Ok(())
    }

    async fn publish(&mut self, outgoing: Outgoing, stop: &CancellationToken) -> Result<(), End> {
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
                return self.land(landed, stop).await;
            }
        };
        self.confirms.push(Box::pin(async move {
            Landed {
                result: confirm.await,
                outgoing,
                published,
            }
        }));
        Ok(())
    }

    /// Acts on the broker's word on a message.
    async fn land(&mut self, landed: Landed, stop: &CancellationToken) -> Result<(), End> {
        let Landed {
            outgoing,
            published,
            result,
        } = landed;
        let metrics = &self.forwarder.metrics;
        match result {
            Ok(Outcome::Confirmed) => {
                metrics.confirmed(published.elapsed());
                metrics.done(NAME);
                self.flight.done(outgoing.seq);
            }
            Ok(Outcome::Nacked) => {
                metrics.forwarded("nacked");
                self.nacked.push(Box::pin(async move {
                    tokio::time::sleep(NACK_DELAY).await;
                    outgoing
                }));
            }
            Ok(Outcome::Unroutable { text, .. }) => {
                metrics.forwarded("unroutable");
                self.reroute(outgoing, &text, stop).await?;
            }
            Err(error) if error.is_retryable() => {
                metrics.forwarded("lost");
                return Err(End::Lost(error.to_string()));
            }
            Err(error) => {
                metrics.forwarded("invalid");
                let letter = self.template.letter_of(&outgoing, &error.to_string());
                self.forwarder.set_aside(&letter, stop).await?;
                self.flight
                    .dead_lettered(outgoing.seq, outgoing.group, &outgoing.events);
            }
        }
        self.advance();
        Ok(())
    }

    /// No queue takes a message: to the error exchange with its reason; if nothing
    /// takes it there either, to the dead letters.
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
            let letter = self.template.letter_of(&outgoing, &reason);
            self.forwarder.set_aside(&letter, stop).await?;
            self.flight
                .dead_lettered(outgoing.seq, outgoing.group, &outgoing.events);
        } else {
            tracing::warn!(seq = %outgoing.seq, reason, "message is unroutable; to the error exchange");
            self.flight.grow(outgoing.seq, errors.len());
            self.ready
                .extend(errors.into_iter().map(|message| Outgoing {
                    message,
                    is_error: true,
                    ..outgoing.clone()
                }));
            self.flight.done(outgoing.seq);
        }
        Ok(())
    }

    fn advance(&mut self) {
        if let Some((next, passed)) = self.flight.take_prefix() {
            self.cursor.advance(next, &passed);
            self.forwarder.metrics.delivered(NAME, now_ms());
        }
    }

    /// Takes the confirms of what was published, for a while: what does not count
    /// by then is sent again after the next start.
    async fn settle(&mut self, grace: Duration) {
        let until = Instant::now() + grace;
        while !self.confirms.is_empty() {
            match tokio::time::timeout_at(until, self.confirms.next()).await {
                Ok(Some(landed)) => {
                    if matches!(landed.result, Ok(Outcome::Confirmed)) {
                        self.forwarder.metrics.confirmed(landed.published.elapsed());
                        self.flight.done(landed.outgoing.seq);
                        self.advance();
                    }
                }
                Ok(None) | Err(_) => return,
            }
        }
    }
}

fn prepare(template: &Template, records: &[Record]) -> Vec<Prepared> {
    records
        .iter()
        .map(|record| template.prepare(record))
        .collect()
}
