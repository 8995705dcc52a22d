//! The loop: read, publish with a window of confirms, move the cursor. Called by
//! `app`; the invariants stand in `mod.rs`.

use super::coalesce::Coalescing;
use super::depth::Watch;
use super::gather::Gather;
use super::held::Held;
use super::lanes::Lanes;
use super::outgoing::{ErrorRoute, NAME, Outgoing, Template};
use super::proof::{Look, Proof};
use super::sent::Sent;
use crate::broker::{Broker, Outcome, PublishError, PublishOptions, Publisher, Session, Setup};
use crate::dead_letters::{DeadLetter, DeadLetters};
use crate::event::webhook::Source;
use crate::journal::{Cursor, Journal, Reader};
use crate::pace::{Lane, Pace, Pacer};
use crate::retry::Backoff;
use crate::telemetry::{Metrics, News};
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::sync::watch::error::RecvError;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// What a forwarder needs.
#[derive(Debug, Clone)]
pub struct Options {
    /// Exchange of events.
    pub exchange: String,
    /// Where refused events go, one copy each.
    pub error_routes: Vec<ErrorRoute>,
    /// Exchange of each source's webhooks.
    pub webhooks: BTreeMap<Source, String>,
    /// How many documents a message may hold; looked at before each read.
    pub coalescing: watch::Receiver<Coalescing>,
    /// Messages that may wait for their confirm.
    pub confirm_window: usize,
    /// How long a confirm may take.
    pub confirm_timeout: Duration,
    /// How long a stop waits for confirms; looked at when it stops.
    pub grace: watch::Receiver<Duration>,
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
    /// How fast.
    pub pace: Pace,
    /// Settings.
    pub options: Options,
}

/// Why a session's pumping ended.
pub(super) enum End {
    Stopped,
    Lost(String),
}

/// What became of a message.
pub(super) struct Landed {
    pub(super) outgoing: Outgoing,
    pub(super) published: Instant,
    pub(super) result: Result<Outcome, PublishError>,
}

/// The state of one session.
pub(super) struct Run<'a> {
    pub(super) forwarder: &'a Forwarder,
    pub(super) template: Arc<Template>,
    pub(super) publisher: &'a Publisher,
    pub(super) session: &'a Session,
    pub(super) cursor: &'a Cursor,
    pub(super) lanes: Lanes,
    pub(super) pacer: Pacer,
    pub(super) backlog: Reader,
    /// Reads the fresh lane, while there is one.
    pub(super) fresh: Reader,
    /// When each lane was read, where messages are joined.
    pub(super) gather: Gather,
    /// Messages not published yet, of each lane.
    pub(super) ready: [VecDeque<Outgoing>; 2],
    /// Messages of the backlog among the published.
    pub(super) backlog_published: usize,
    /// What is kept of the published messages, and of those that wait for another try.
    pub(super) published: Sent,
    pub(super) waiting: Sent,
    /// While there is a fresh lane: how full the queues are that it goes to.
    pub(super) depth: Option<Watch>,
    /// Published messages, and nacked ones that wait for another try.
    pub(super) confirms: FuturesUnordered<BoxFuture<'static, Landed>>,
    pub(super) nacked: FuturesUnordered<BoxFuture<'static, Outgoing>>,
    /// What was said of a journal that cannot be read.
    pub(super) reading: News,
    /// When the topology was declared last.
    pub(super) declared: Instant,
    /// When the queues of an exchange were declared for the sake of what none of them took, and
    /// how long that took.
    pub(super) looked: BTreeMap<String, (Instant, Duration)>,
    /// Where a queue may be on one node: what was confirmed and does not count yet.
    pub(super) proof: Option<Proof>,
    /// What holds messages; of all sessions.
    pub(super) held: &'a mut Held,
}

impl Forwarder {
    /// The name of this way out's cursor.
    pub const CURSOR: &'static str = NAME;

    /// Pumps until `stop`; then waits for the confirms of what was published.
    pub async fn run(&self, cursor: Arc<Cursor>, stop: CancellationToken) {
        let mut backoff = Backoff::new();
        let mut news = News::default();
        let mut held = Held::default();
        // While the broker is away.
        let mut waiting = None;
        self.metrics.connected(NAME, false);
        self.metrics.trouble(NAME, "waits for the broker");
        // What keeps it away is the operator's to mend, such as a certificate.
        let away = |reason: &str| {
            self.metrics
                .trouble(NAME, &format!("the broker is away: {reason}"));
        };
        while let Some(session) = self
            .broker
            .connect_forever_telling(stop.clone(), away)
            .await
        {
            drop(waiting.take());
            let started = Instant::now();
            let is_failing = news.is_there();
            let running =
                Box::pin(self.run_session(&session, &cursor, (is_failing, &mut held), &stop));
            let over = |lasted| tracing::info!(failed_for = ?lasted, "forwarding works again");
            let end = news.watch(running, over).await;
            self.metrics.connected(NAME, false);
            let End::Lost(reason) = end else {
                session.close().await;
                break;
            };
            self.metrics.trouble(NAME, &reason);
            waiting = self.broker.lost(&session, &reason).await;
            session.close().await;
            if started.elapsed() > crate::retry::LONGEST {
                backoff.reset();
            }
            if waiting.is_none() && news.is_new(&reason) {
                tracing::warn!(%reason, "forwarding stopped, the broker is there; trying again");
            } else {
                tracing::debug!(%reason, "forwarding ended; trying again");
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
        (is_failing, held): (bool, &mut Held),
        stop: &CancellationToken,
    ) -> End {
        let found = match self.setup.declare(session).await {
            Ok(found) => found,
            Err(error) => return End::Lost(error.to_string()),
        };
        held.are_away(self.setup.topology(), &found.away, self.setup.binds());
        let proof = Proof::begin(&self.setup, session, found.alone.into_iter().collect());
        let declared = Instant::now();
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
        let (broker, next_seq) = (session.address(), cursor.next());
        if is_failing {
            tracing::debug!(broker, %next_seq, "forwarding");
        } else {
            tracing::info!(broker, %next_seq, "forwarding");
        }
        let mut pacer = Pacer::new(&self.pace, NAME, self.options.confirm_window);
        pacer.restart();
        // Before the look at the place, so that no move of it goes unseen.
        let moves = cursor.moves();
        let (next, ahead) = cursor.place();
        let mut run = Run {
            forwarder: self,
            template: Arc::new(Template {
                host: self.journal.host().clone(),
                exchange: self.options.exchange.clone(),
                error_routes: self.options.error_routes.clone(),
                webhooks: self.options.webhooks.clone(),
            }),
            publisher: &publisher,
            session,
            cursor,
            lanes: Lanes::new(next, &ahead),
            pacer,
            backlog: self.journal.reader(next),
            fresh: self.journal.reader(next),
            gather: Gather::default(),
            ready: [VecDeque::new(), VecDeque::new()],
            backlog_published: 0,
            published: Sent::default(),
            waiting: Sent::default(),
            depth: None,
            confirms: FuturesUnordered::new(),
            nacked: FuturesUnordered::new(),
            reading: News::default(),
            declared,
            looked: BTreeMap::new(),
            proof,
            held,
        };
        // Before the first look, so that nothing old goes in front of what is fresh.
        run.lead();
        let end = match run.pump(session, moves, stop).await {
            Ok(end) | Err(end) => end,
        };
        if matches!(end, End::Stopped) {
            let grace = *self.options.grace.borrow();
            run.settle(grace).await;
        }
        end
    }

    pub(super) async fn set_aside(
        &self,
        letter: &DeadLetter,
        stop: &CancellationToken,
    ) -> Result<(), End> {
        let kept = self.dead_letters.keep(letter, &self.metrics, stop).await;
        if kept { Ok(()) } else { Err(End::Stopped) }
    }
}

impl Run<'_> {
    async fn pump(
        &mut self,
        session: &Session,
        mut moves: watch::Receiver<u64>,
        stop: &CancellationToken,
    ) -> Result<End, End> {
        let mut settings = self.forwarder.pace.changes();
        loop {
            let due = self.publish_ready(stop).await?;
            let wants = [Lane::Fresh, Lane::Backlog].map(|lane| self.wants_more(lane));
            let gathers = [Lane::Fresh, Lane::Backlog].map(|lane| self.gathers(lane));
            let reads = [0, 1].map(|at| wants[at] && gathers[at].is_none());
            let gathered = [0, 1].into_iter().filter(|at| wants[*at]);
            let gathered = gathered.filter_map(|at| gathers[at]).min();
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
                    self.waiting.remove(again.message.body.len());
                    self.queue(again.lane).push_back(again);
                }
                more = self.fresh.wait(), if reads[0] => {
                    more.map_err(|_| End::Stopped)?;
                    self.read(Lane::Fresh, stop).await?;
                }
                more = self.backlog.wait(), if reads[1] => {
                    more.map_err(|_| End::Stopped)?;
                    self.read(Lane::Backlog, stop).await?;
                }
                () = sleep_until(gathered.unwrap_or_else(Instant::now)), if gathered.is_some() => {}
                () = sleep_until(due.map_or_else(Instant::now, Instant::from_std)), if due.is_some() => {}
                _ = settings.changed() => {}
                look = next(&mut self.proof) => match look {
                    Some(look) => self.prove(&look)?,
                    None => return Err(End::Lost("the look for queues ended".to_owned())),
                },
                full = changed(&mut self.depth) => match full {
                    Ok(full) => self.pacer.queue_is_full(full),
                    Err(_) => return Err(End::Lost("the look at the queues ended".to_owned())),
                },
            }
            if session.is_blocked() {
                self.pacer.restart();
            }
        }
    }

    pub(super) fn queue(&mut self, lane: Lane) -> &mut VecDeque<Outgoing> {
        &mut self.ready[lane as usize]
    }

    /// The lane that a lane's messages count as: without a lane for what is fresh, nothing
    /// makes way for anything.
    pub(super) fn counts_as(&self, lane: Lane) -> Lane {
        if self.lanes.leads() {
            lane
        } else {
            Lane::Fresh
        }
    }

    /// Publishes what may go now, fresh messages first; when to come again, if the pace says.
    async fn publish_ready(
        &mut self,
        stop: &CancellationToken,
    ) -> Result<Option<std::time::Instant>, End> {
        let window = self.forwarder.options.confirm_window;
        let mut due = None;
        while self.published.has_room(&Sent::default(), window) {
            let Some(lane) = self.next_lane() else { break };
            let events = self.queue(lane).front().map_or(0, Outgoing::events);
            due = self
                .pacer
                .admit(lane, events.max(1), Instant::now().into_std());
            if due.is_some() {
                break;
            }
            if let Some(outgoing) = self.queue(lane).pop_front()
                && let Some(outgoing) = self.unless_away(outgoing, stop).await?
            {
                self.publish(outgoing, stop).await?;
            }
        }
        Ok(due)
    }

    fn next_lane(&self) -> Option<Lane> {
        let [fresh, backlog] = &self.ready;
        if !fresh.is_empty() {
            return Some(Lane::Fresh);
        }
        let has_room = self.backlog_published < self.pacer.backlog_window();
        (has_room && !backlog.is_empty()).then_some(Lane::Backlog)
    }
}

/// The next look for queues that may be away, where there is one.
async fn next(proof: &mut Option<Proof>) -> Option<Look> {
    match proof {
        Some(proof) => proof.next().await,
        None => std::future::pending().await,
    }
}

/// The next word of the look at the queues, where there is one.
async fn changed(depth: &mut Option<Watch>) -> Result<Option<String>, RecvError> {
    match depth {
        Some(depth) => depth.changed().await,
        None => std::future::pending().await,
    }
}
