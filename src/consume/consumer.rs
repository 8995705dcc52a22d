//! Runs the workers of each consumer over reconnects, for as long as the service
//! runs. Called by `app`.
//!
//! # Invariants
//! - A consumer's queue, its error queue and their bindings are declared before anything
//!   is consumed, on every session.
//! - A worker that ends for any reason, a panic included, is logged, and its
//!   consumer starts again after a backoff; other consumers are not touched.

use super::deliver::Target;
use super::handlers;
use super::publisher::SafePublisher;
use super::worker::{End, Worker};
use crate::broker::{Broker, Session, Setup};
use crate::config::Consumer;
use crate::pace::Pace;
use crate::retry::Backoff;
use crate::sink::Sink;
use crate::sink::schema::Table;
use crate::telemetry::Metrics;
use std::sync::Arc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

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
            consumer: Arc::new(consumer),
        };
        let queue = worker.consumer.queue.clone();
        let mut backoff = Backoff::new();
        let mut failing = false;
        while !stop.is_cancelled() {
            self.metrics.connected(&queue, false);
            if !failing {
                self.metrics.trouble(&queue, "waits for the broker");
            }
            let Some(session) = self.broker.connect_forever(stop.clone()).await else {
                break;
            };
            let started = tokio::time::Instant::now();
            let end = self.run_workers(&worker, &session, &stop).await;
            self.metrics.connected(&queue, false);
            session.close().await;
            let End::Lost(reason) = end else {
                break;
            };
            if started.elapsed() > crate::retry::LONGEST {
                backoff.reset();
                failing = false;
            }
            self.metrics.trouble(&queue, &reason);
            if !failing {
                tracing::warn!(queue, reason, "consumer lost the broker; reconnecting");
                failing = true;
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.next()) => {}
                () = stop.cancelled() => break,
            }
        }
        tracing::debug!(queue, "consumer stopped");
    }

    async fn run_workers(
        &self,
        worker: &Worker,
        session: &Session,
        stop: &CancellationToken,
    ) -> End {
        let consumer = &worker.consumer;
        let needed = [consumer.queue.as_str(), &consumer.error_queue];
        if let Err(error) = self.setup.of_queues(&needed).declare(session).await {
            return End::Lost(error.to_string());
        }
        self.metrics.connected(&consumer.queue, true);
        // Cancelled when the service stops, or when one worker ended.
        let round = stop.child_token();
        let mut workers = JoinSet::new();
        for number in 0..consumer.workers {
            let (worker, session, round) = (worker.clone(), session.clone(), round.clone());
            workers.spawn(async move { worker.run(session, number, round).await });
        }
        let mut first = None;
        while let Some(ended) = workers.join_next().await {
            let end = ended.unwrap_or_else(|error| End::Lost(error.to_string()));
            first.get_or_insert(end);
            round.cancel();
        }
        first.unwrap_or(End::Stopped)
    }
}
