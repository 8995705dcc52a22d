//! The ways out: forwarder and consumers with a broker, one pump for each sink
//! without. Called by `app::run`.

use super::setup::{
    broker, consumers, error_routes, launch_queues, sinks, tables, takers, topology,
    webhook_exchanges,
};
use crate::config::{Config, Consumer, SinkKind};
use crate::consume::handlers::{Bots, Context};
use crate::consume::{Consumers, Direct, SafePublisher, Taker};
use crate::dead_letters::DeadLetters;
use crate::drill::Drill;
use crate::forward::{self, Coalescing, Forwarder};
use crate::journal::Journal;
use crate::pace::Pace;
use crate::retry::Backoff;
use crate::sink::schema::Table;
use crate::sink::{Drilled, Sink, absence};
use crate::telemetry::{FOLLOWS_PANIC, Metrics, News, SinkAway};
use anyhow::Context as _;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How often sinks do their upkeep; daily partitions are made a week ahead.
const MAINTENANCE_PERIOD: Duration = Duration::from_secs(3600);

/// The configured sinks.
type Sinks = BTreeMap<SinkKind, Arc<dyn Sink>>;

/// The consumers of this host, each with its table.
type Declared = Vec<(Consumer, &'static Table)>;

/// The running ways out.
pub(super) struct Pumps {
    tasks: JoinSet<()>,
    stop: CancellationToken,
    publisher: Option<SafePublisher>,
    sinks: Vec<Arc<dyn Sink>>,
    /// How long the forwarder waits for confirms at its stop.
    grace: watch::Sender<Duration>,
}

impl Pumps {
    /// Makes the cursors and starts everything that delivers.
    pub(super) fn start(
        config: &Config,
        journal: &Journal,
        dead_letters: &DeadLetters,
        metrics: &Metrics,
        (pace, drill, coalescing): (&Pace, &Drill, watch::Receiver<Coalescing>),
    ) -> anyhow::Result<Self> {
        let mut pumps = Self {
            tasks: JoinSet::new(),
            stop: CancellationToken::new(),
            publisher: None,
            sinks: Vec::new(),
            grace: watch::Sender::new(share(config.shutdown.grace.get())),
        };
        let mut sinks = sinks(config)?;
        if drill.is_allowed() {
            for sink in sinks.values_mut() {
                *sink = Arc::new(Drilled::new(Arc::clone(sink), drill.clone()));
            }
        }
        pumps.sinks = sinks.values().cloned().collect();
        let consumers = consumers(config);
        let takers = takers(config);
        for (&kind, sink) in sinks.iter().filter(|(kind, _)| kind.takes_rows()) {
            let (sink, create) = (Arc::clone(sink), config.schema.create_missing);
            let tables = tables(config, &consumers, &takers, kind);
            let metrics = metrics.clone();
            metrics.sink(sink.name());
            pumps.spawn("schema", move |stop| {
                let (sink, metrics) = (Arc::clone(&sink), metrics.clone());
                prepare_sink(sink, tables.clone(), create, metrics, stop)
            });
        }
        if config.rabbitmq.is_some() {
            let parts = (&sinks, consumers, pace, drill, coalescing);
            pumps.start_brokered(config, journal, dead_letters, metrics, parts)?;
        } else {
            let takers: Arc<[Taker]> = takers.into();
            for (_, sink) in sinks.into_iter().filter(|(kind, _)| kind.takes_rows()) {
                let cursor = journal.cursor(sink.name())?;
                let direct = Direct {
                    journal: journal.clone(),
                    sink,
                    dead_letters: dead_letters.clone(),
                    metrics: metrics.clone(),
                    takers: Arc::clone(&takers),
                    context: handler_context(config)?,
                    pace: pace.clone(),
                };
                pumps.spawn(direct.sink.name(), move |stop| {
                    let (direct, cursor) = (direct.clone(), Arc::clone(&cursor));
                    async move { direct.run(cursor, stop).await }
                });
            }
        }
        warn_of_unused_cursors(config, journal);
        Ok(pumps)
    }

    fn start_brokered(
        &mut self,
        config: &Config,
        journal: &Journal,
        dead_letters: &DeadLetters,
        metrics: &Metrics,
        (sinks, declared, pace, drill, coalescing): (
            &Sinks,
            Declared,
            &Pace,
            &Drill,
            watch::Receiver<Coalescing>,
        ),
    ) -> anyhow::Result<()> {
        let section = config.rabbitmq.clone().unwrap_or_default();
        let broker = broker(config, &format!("holdfast {}", journal.host()));
        let broker = broker.context("rabbitmq.urls")?;
        let broker = broker.context("[rabbitmq] is missing")?;
        let broker = broker.with_drill(drill.clone());
        let setup = topology(config);
        let forwarder = Forwarder {
            journal: journal.clone(),
            broker: broker.clone(),
            setup: setup.clone(),
            dead_letters: dead_letters.clone(),
            metrics: metrics.clone(),
            pace: pace.clone(),
            options: forward::Options {
                exchange: section.exchange,
                error_routes: error_routes(config),
                webhooks: webhook_exchanges(config),
                coalescing,
                confirm_window: section.confirm_window,
                confirm_timeout: section.confirm_timeout.get(),
                grace: self.grace.subscribe(),
            },
        };
        let cursor = journal.cursor(Forwarder::CURSOR)?;
        metrics.connected(Forwarder::CURSOR, false);
        self.spawn("forwarder", move |stop| {
            let (forwarder, cursor) = (forwarder.clone(), Arc::clone(&cursor));
            async move { Box::pin(forwarder.run(cursor, stop)).await }
        });
        let workers: usize = declared
            .iter()
            .filter(|(consumer, _)| sinks.contains_key(&consumer.sink))
            .map(|(consumer, _)| consumer.workers)
            .sum();
        let publisher = SafePublisher::new(broker.clone(), dead_letters.clone(), metrics.clone());
        let consumers = Consumers {
            broker,
            setup,
            publisher: publisher.clone(),
            metrics: metrics.clone(),
            context: handler_context(config)?,
            pace: pace.clone(),
            prefetch_bytes: section.prefetch_bytes.bytes() / workers.max(1) as u64,
            launch_queues: launch_queues(config),
        };
        self.publisher = Some(publisher);
        for (consumer, table) in declared {
            let Some(sink) = sinks.get(&consumer.sink) else {
                continue;
            };
            let (consumers, sink) = (consumers.clone(), Arc::clone(sink));
            metrics.sink(sink.name());
            metrics.consumer(&consumer.queue);
            let name = consumer.queue.clone();
            self.spawn(&name, move |stop| {
                let (consumers, consumer) = (consumers.clone(), consumer.clone());
                let sink = Arc::clone(&sink);
                async move { Box::pin(consumers.run(consumer, table, sink, stop)).await }
            });
        }
        Ok(())
    }

    /// Runs a task until the stop; started again if it panics.
    fn spawn<F, T>(&mut self, name: &str, make: F)
    where
        F: Fn(CancellationToken) -> T + Send + 'static,
        T: Future<Output = ()> + Send + 'static,
    {
        let (name, stop) = (name.to_owned(), self.stop.clone());
        self.tasks.spawn(async move {
            let mut backoff = Backoff::new();
            while let Err(error) = tokio::spawn(make(stop.clone())).await {
                if stop.is_cancelled() {
                    return;
                }
                tracing::error!(
                    target: FOLLOWS_PANIC, task = name, %error,
                    "task failed; starting it again"
                );
                tokio::select! {
                    () = tokio::time::sleep(backoff.next()) => {}
                    () = stop.cancelled() => return,
                }
            }
        });
    }

    /// Stops the ways out: each finishes what it has in hand.
    pub(super) async fn stop(mut self, grace: Duration) {
        self.grace.send_replace(share(grace));
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
        if let Some(publisher) = &self.publisher {
            publisher.close().await;
        }
        for sink in &self.sinks {
            sink.close().await;
        }
    }
}

/// How much one message to the broker may hold.
pub(super) fn coalescing(config: &Config) -> Coalescing {
    Coalescing {
        documents: config.forward.documents_per_message,
        bytes: config.forward.message_bytes.in_memory(),
    }
}

/// The part of a phase that the forwarder may wait for confirms.
fn share(grace: Duration) -> Duration {
    grace / 2
}

/// What handlers lean on.
fn handler_context(config: &Config) -> anyhow::Result<Context> {
    let clicks = &config.clicks;
    let addresses = clicks.all_bot_ips().map_err(anyhow::Error::msg)?;
    let bots = Bots::new(clicks.bot_referers.clone(), addresses, clicks.per_day_max);
    Ok(Context {
        bots: Arc::new(bots),
    })
}

/// Creates what the sink lacks, as soon as it answers, then keeps it up.
async fn prepare_sink(
    sink: Arc<dyn Sink>,
    tables: Vec<&'static Table>,
    create: bool,
    metrics: Metrics,
    stop: CancellationToken,
) {
    if !create {
        return;
    }
    let mut backoff = Backoff::new();
    let mut away: Option<SinkAway> = None;
    loop {
        let began = Instant::now();
        let Err(error) = sink.create_missing(&tables).await else {
            break;
        };
        let kind = absence::kind(&error.reason, false, "schema");
        let away = away.get_or_insert_with(|| metrics.sink_away(sink.name(), ""));
        if away.is_new(&kind, began) {
            tracing::warn!(sink = sink.name(), %error, "sink is away (cannot create missing tables); trying again");
        } else {
            tracing::debug!(sink = sink.name(), %error, "cannot create missing tables yet");
        }
        tokio::select! {
            () = tokio::time::sleep(backoff.next()) => {}
            () = stop.cancelled() => return,
        }
    }
    if let Some(away) = away {
        away.back();
    }
    tracing::info!(sink = sink.name(), "tables are there");
    let mut news = News::default();
    loop {
        tokio::select! {
            () = tokio::time::sleep(MAINTENANCE_PERIOD) => {}
            () = stop.cancelled() => return,
        }
        match sink.maintain().await {
            Ok(()) => {
                if let Some(lasted) = news.over() {
                    tracing::info!(sink = sink.name(), failed_for = ?lasted, "upkeep is done again");
                }
            }
            Err(error) if news.is_new(&absence::kind(&error.reason, false, "schema")) => {
                tracing::warn!(sink = sink.name(), %error, "upkeep failed; trying again every hour");
            }
            Err(error) => tracing::debug!(sink = sink.name(), %error, "upkeep failed again"),
        }
    }
}

/// A cursor of a way out that is not configured any more keeps the journal from
/// shrinking; only an operator knows whether that is meant.
fn warn_of_unused_cursors(config: &Config, journal: &Journal) {
    let unused = unused_ways(config, journal);
    for at in journal.stats().cursors {
        let (cursor, next) = (at.name, at.next_seq);
        if unused.contains(&cursor) {
            let file = config.data.dir.join("cursors").join(&cursor);
            tracing::warn!(
                cursor, next_seq = %next, file = %file.display(),
                "no way out uses this cursor, and the journal keeps everything after it; configure its way out again, or remove the file while stopped"
            );
        }
    }
}

/// Ways out that have a cursor in the journal and no place in the configuration.
pub(super) fn unused_ways(config: &Config, journal: &Journal) -> Vec<String> {
    let used: Vec<&str> = if config.rabbitmq.is_some() {
        vec![Forwarder::CURSOR]
    } else {
        config.sinks().into_iter().map(SinkKind::name).collect()
    };
    let cursors = journal.stats().cursors.into_iter();
    cursors
        .map(|cursor| cursor.name)
        .filter(|cursor| !used.contains(&cursor.as_str()))
        .collect()
}
