//! Runs the workers of each consumer over reconnects, for as long as the service
//! runs. Called by `app`.
//!
//! # Invariants
//! - A consumer's queue, its error queue and their bindings are declared before anything
//!   is consumed, on every session.
//! - A worker that ends for any reason, a panic included, is logged, and its
//!   consumer starts again after a backoff; other consumers are not touched.
//! - A consumer is connected once the broker took all its workers, and after a failure once
//!   they held for longer than any wait between two tries; else each try would hide how long
//!   it is away (test `what_one_consumer_loses_is_its_own_line`).
//! - A consumer is not connected from when its session is lost, whatever its workers still wait
//!   for (tests/it/consumers.rs, `a_lost_session_shows_while_the_sink_is_away`).
//! - A queue that is gone is found and declared again, even where the broker does not say that
//!   it went (tests/it/consumers.rs, `a_queue_that_went_unsaid_is_found_and_made_again`).
//! - The loss of the broker is said once for all consumers (`Broker`); what one loses by
//!   itself is said once for each reason, and so is its end (tests
//!   `each_outage_is_one_warning_and_one_end`, `what_one_consumer_loses_is_its_own_line`).

use super::deliver::Target;
use super::handlers;
use super::launches;
use super::publisher::SafePublisher;
use super::worker::{End, Worker};
use crate::broker::{Broker, Session, Setup, depth};
use crate::config::Consumer;
use crate::pace::Pace;
use crate::retry::Backoff;
use crate::sink::Sink;
use crate::sink::schema::Table;
use crate::telemetry::{Metrics, News};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How often a consumer looks whether its queue is there: what is published meanwhile is lost to
/// it, and a look costs the broker next to nothing.
const LOOK_PERIOD: Duration = Duration::from_secs(10);

/// What all consumers of a host share.
#[derive(Debug, Clone)]
pub struct Consumers {
    /// The broker.
    pub broker: Broker,
    /// Declares what they need.
    pub setup: Setup,
    /// For retries and refusals.
    pub publisher: SafePublisher,
    /// For figures.
    pub metrics: Metrics,
    /// For handlers.
    pub context: handlers::Context,
    /// Who is told when a sink has too much to do.
    pub pace: Pace,
    /// Bytes of messages that one worker may hold until they are acknowledged, as reckoned from
    /// those that came; 8 messages it may hold in any case.
    pub prefetch_bytes: u64,
    /// The queues that launches come by, which accounts and profiles are looked up in.
    pub launch_queues: Arc<[String]>,
}

impl Consumers {
    /// Runs one consumer into its table until `stop`.
    pub async fn run(
        &self,
        consumer: Consumer,
        table: &'static Table,
        sink: Arc<dyn Sink>,
        stop: CancellationToken,
    ) {
        let worker = Worker {
            target: Target {
                sink,
                table,
                namespace: consumer.namespace.clone(),
                who: consumer.queue.clone(),
                metrics: self.metrics.clone(),
                pace: self.pace.clone(),
            },
            publisher: self.publisher.clone(),
            context: self.context.clone(),
            prefetch_bytes: self.prefetch_bytes,
            arrived: None,
            consumer: Arc::new(consumer),
        };
        let queue = worker.consumer.queue.clone();
        let mut backoff = Backoff::new();
        let mut news = News::default();
        // While the broker is away.
        let mut waiting = None;
        while !stop.is_cancelled() {
            self.metrics.connected(&queue, false);
            if !news.is_there() {
                self.metrics.trouble(&queue, "waits for the broker");
            }
            let Some(session) = self.broker.connect_forever(stop.clone()).await else {
                break;
            };
            drop(waiting.take());
            let started = tokio::time::Instant::now();
            let proof = match news.is_there() {
                true => crate::retry::LONGEST,
                false => Duration::ZERO,
            };
            let running = Box::pin(self.run_workers(&worker, (&session, proof), &stop));
            let over = |lasted| tracing::info!(queue, failed_for = ?lasted, "consumer works again");
            let end = news.watch(running, over).await;
            self.metrics.connected(&queue, false);
            let End::Lost(reason) = end else {
                session.close().await;
                break;
            };
            self.metrics.trouble(&queue, &reason);
            waiting = self.broker.lost(&session, &reason).await;
            session.close().await;
            if started.elapsed() > crate::retry::LONGEST {
                backoff.reset();
            }
            if waiting.is_none() && news.is_new(&reason) {
                tracing::warn!(
                    queue,
                    reason,
                    "consumer failed, the broker is there; trying again"
                );
            } else {
                tracing::debug!(queue, reason, "consumer ended; trying again");
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.next()) => {}
                () = stop.cancelled() => break,
            }
        }
        tracing::debug!(queue, "consumer stopped");
    }

    /// Runs all workers until the first of them ends; they are connected once all have held
    /// for `proof`.
    async fn run_workers(
        &self,
        worker: &Worker,
        (session, proof): (&Session, Duration),
        stop: &CancellationToken,
    ) -> End {
        let consumer = &worker.consumer;
        let needed = [consumer.queue.as_str(), &consumer.error_queue];
        if let Err(error) = self.setup.of_queues(&needed).declare(session).await {
            return End::Lost(error.to_string());
        }
        // Cancelled when the service stops, or when one worker ended.
        let round = stop.child_token();
        // A permit from each worker that the broker lets consume.
        let opened = Arc::new(Semaphore::new(0));
        let mut workers = JoinSet::new();
        let mut worker = worker.clone();
        let sink = worker.target.sink.name();
        let (has_arrived, arrived) = watch::channel(false);
        let watching = async {
            if consumer.handler.looks_up() {
                let queues = &self.launch_queues;
                launches::watch(session, queues, (&self.metrics, sink), has_arrived).await;
            }
        };
        if consumer.handler.looks_up() {
            worker.arrived = Some(arrived);
        }
        for number in 0..consumer.workers {
            let (worker, session) = (worker.clone(), session.clone());
            let (round, opened) = (round.clone(), opened.clone());
            workers.spawn(async move { worker.run(session, number, (round, opened)).await });
        }
        let all = u32::try_from(consumer.workers).unwrap_or(u32::MAX);
        let holds = async {
            // It is never closed.
            let _permits = opened.acquire_many(all).await;
            tokio::time::sleep(proof).await;
        };
        let gone = gone(session, &consumer.queue);
        let closed = session.closed();
        tokio::pin!(holds, gone, watching, closed);
        let (mut watches, mut is_closed) = (true, false);
        let (mut is_connected, mut first) = (false, None);
        loop {
            tokio::select! {
                biased;
                ended = workers.join_next() => {
                    let Some(ended) = ended else { break };
                    let end = ended.unwrap_or_else(|error| End::Lost(error.to_string()));
                    first.get_or_insert(end);
                    round.cancel();
                }
                () = &mut gone, if first.is_none() => {
                    first = Some(End::Lost(format!("queue {:?} is gone", consumer.queue)));
                    round.cancel();
                }
                () = &mut watching, if watches => watches = false,
                // A worker that holds a batch for a sink that is away notices it after that.
                () = &mut closed, if !is_closed => {
                    is_closed = true;
                    self.metrics.connected(&consumer.queue, false);
                    self.metrics.trouble(&consumer.queue, "the connection closed");
                }
                () = &mut holds, if !is_connected && !is_closed && first.is_none() => {
                    is_connected = true;
                    self.metrics.connected(&consumer.queue, true);
                }
            }
        }
        first.unwrap_or(End::Stopped)
    }
}

/// Returns once the queue is gone. The broker tells its consumers, as a rule; a cluster of RabbitMQ
/// 3.10 was seen to delete a quorum queue without a word, and they would wait for ever.
async fn gone(session: &Session, queue: &str) {
    loop {
        tokio::time::sleep(LOOK_PERIOD).await;
        match depth(session, queue).await {
            Ok(None) => return,
            Ok(Some(_)) => {}
            // It comes back with its node, and without its consumers.
            Err(error) if error.is_away => return,
            Err(error) => tracing::debug!(queue, %error, "cannot look for the queue"),
        }
    }
}
