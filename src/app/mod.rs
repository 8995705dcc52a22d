//! Puts the parts together, runs them, and takes them down in order. Called by
//! `cli run`.
//!
//! # Invariants
//! - Ways out have their cursors before the doors open: nothing accepted can be
//!   deleted before each of them delivered it.
//! - The doors do not wait for the broker, a database or a table.
//! - A pump that panics is started again; it takes nothing else with it.

pub mod arrivals;
mod check;
mod doors;
mod drain;
mod drills;
mod memory;
mod outward;
mod ports;
mod pumps;
pub mod reconcile;
mod reload;
mod setup;
mod shutdown;
mod watchdog;

pub use check::{check, check_start, warnings};
pub use drain::{Drained, drain};
pub use memory::leave_no_core;
pub use reload::Source;
pub use setup::{broker, consumers, error_queues, sinks, tables, takers, topology};

use crate::admin::{self, Admin};
use crate::config::{self, Config, Listen};
use crate::dead_letters::DeadLetters;
use crate::drill::Drill;
use crate::ingest::Health;
use crate::journal::{self, Journal};
use crate::pace::Pace;
use crate::port::{self, Encryption};
use crate::telemetry::{FOLLOWS_PANIC, Metrics};
use anyhow::Context as _;
use doors::Doors;
use pumps::{Pumps, unused_ways};
use reload::{Live, Reloader};
use sd_notify::NotifyState;
use shutdown::Signals;
use std::sync::Arc;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use watchdog::Watchdog;

/// Runs the service until a signal ends it; `source` is where its configuration came from,
/// and comes from again.
///
/// # Errors
/// What keeps it from starting, or from stopping cleanly.
pub async fn run(config: Config, source: Source) -> anyhow::Result<()> {
    if !config.debug.core_dumps {
        memory::seal();
    }
    let mut signals = Signals::new()?;
    // Before systemd, or anybody, may send one: uncaught, it would end the process.
    let hangup = shutdown::hangup()?;
    // Of each of two ports.
    port::make_room(config.connections.max.saturating_mul(2));
    if config.rabbitmq.is_some() {
        crate::broker::prepare().context("prepare for RabbitMQ")?;
    }
    // First, so that a port in use shows before any work.
    let bound = doors::bind(&config).await?;
    // Then what may end the start again and again, until its files are there.
    let metrics = Metrics::new();
    let encryptions = ports::encrypt(&config, &metrics).context("read the files of [tls]")?;
    let options = journal_options(&config);
    let journal = tokio::task::spawn_blocking(move || Journal::open(&options))
        .await?
        .context("open the journal")?;
    let dead_letters = DeadLetters::new(&config.data.dir);
    let health = Health::new(journal.clone());
    let pace = Pace::new(config.forward.settings());
    let drill = Drill::new(config.drill.allowed);
    let coalescing = watch::Sender::new(pumps::coalescing(&config));
    let shared = (&pace, &drill, coalescing.subscribe());
    let pumps = Pumps::start(&config, &journal, &dead_letters, &metrics, shared)?;
    let played = CancellationToken::new();
    let full_disk = drills::play_full_disk(drill.clone(), journal.clone(), played.clone());
    let full_disk = tokio::spawn(full_disk);
    let doors = Doors::open(
        &config,
        (bound, &encryptions),
        &journal,
        &health,
        &metrics,
        &dead_letters,
    )?;
    health.set_open(true);
    let live = Live {
        pace: pace.clone(),
        coalescing,
        keep_rejected: Arc::clone(&doors.keep_rejected),
        callers: doors.callers.clone(),
        partners: doors.partners.clone(),
    };
    let reloader = Arc::new(Reloader::new(source, config.clone(), live));
    let parts = Parts {
        health: &health,
        metrics: &metrics,
        pace: &pace,
        drill: &drill,
        dead_letters: &dead_letters,
        reloader: &reloader,
    };
    let admin = admin_options(&config, &journal, &parts, doors.counter());
    let admin = Admin::start(admin, page_options(&config.admin, encryptions.admin));
    let stats = journal.stats();
    tracing::info!(
        host = %journal.host(), grpc = %doors.grpc_address, http = %doors.http_address,
        data_dir = %config.data.dir.display(), next_seq = %stats.durable_end_seq,
        generations = stats.generations, "accepting"
    );
    shutdown::notify(&[NotifyState::Ready]);
    let watchdog = Watchdog::start(&journal).context("start the watchdog")?;
    let hangups = tokio::spawn(reload::on(hangup, Arc::clone(&reloader)));

    signals.first().await;
    let grace = reloader.end();
    // Whatever it loads comes to nothing now. The handler stays: no SIGHUP ends the stop.
    hangups.abort();
    shutdown::notify(&[NotifyState::Stopping]);
    signals.exit_on_second();
    // In the data's order, so that each part can hand on what it holds.
    health.set_open(false);
    played.cancel();
    if let Err(error) = full_disk.await {
        tracing::error!(target: FOLLOWS_PANIC, %error, "the drill's part of the log had ended");
    }
    shutdown::phase("doors", grace, doors.close()).await;
    shutdown::phase("ways out", grace, pumps.stop(grace)).await;
    dead_letters.close().await;
    // Late, so that an operator can ask how the stop goes.
    shutdown::phase("admin socket", grace, admin.close()).await;
    shutdown::extend(grace);
    // The journal's threads end now. The watchdog's limit bounds this, too.
    drop(watchdog);
    tokio::task::spawn_blocking(move || journal.close())
        .await
        .context("close the journal")?;
    tracing::info!("stopped");
    Ok(())
}

/// What an operator sees and changes of the running service.
struct Parts<'a> {
    health: &'a Health,
    metrics: &'a Metrics,
    pace: &'a Pace,
    drill: &'a Drill,
    dead_letters: &'a DeadLetters,
    reloader: &'a Arc<Reloader>,
}

fn admin_options(
    config: &Config,
    journal: &Journal,
    parts: &Parts<'_>,
    in_work: impl Fn() -> usize + Send + Sync + 'static,
) -> admin::Options {
    let (health, switch) = (parts.health.clone(), parts.health.clone());
    let reloader = Arc::clone(parts.reloader);
    admin::Options {
        journal: journal.clone(),
        data_dir: config.data.dir.clone(),
        max_bytes: config.journal.max_bytes.bytes(),
        min_free_bytes: config.journal.min_free_bytes.bytes(),
        serving: Arc::new(move || admin::Serving {
            open: health.is_open(),
            beat: health.beat(),
            draining: health.is_draining(),
            in_work: in_work(),
        }),
        drain: Arc::new(move |on| switch.set_draining(on)),
        dead_letters: parts.dead_letters.clone(),
        reload: Arc::new(move || reloader.reload()),
        metrics: parts.metrics.clone(),
        pace: parts.pace.clone(),
        drill: parts.drill.clone(),
        parts: setup::parts(config),
    }
}

fn page_options(section: &config::Admin, encryption: Option<Encryption>) -> admin::PageOptions {
    admin::PageOptions {
        listen: match section.listen {
            Listen::Off => None,
            Listen::At(address) => Some(address),
        },
        names: section.names.clone(),
        certificates: section.certificates.clone(),
        encryption,
    }
}

fn journal_options(config: &Config) -> journal::Options {
    journal::Options {
        data_dir: config.data.dir.clone(),
        limits: journal::Limits {
            max_bytes: config.journal.max_bytes.bytes(),
            min_free_bytes: config.journal.min_free_bytes.bytes(),
            reserve_bytes: config.journal.reserve_bytes.bytes(),
            // The record's meta beside the request's bytes.
            record_bytes_max: config.ingest.max_request_bytes.in_memory() + 4096,
            generation_bytes: config.journal.generation_bytes.bytes(),
            generation_age: config.journal.generation_age.get(),
            queue_bytes_max: config.journal.queue_bytes.in_memory(),
        },
        ack_deadline: config.journal.ack_deadline.get(),
        receipts: journal::ReceiptLimits {
            keep: config.receipts.keep.get(),
            max_bytes: config.receipts.max_bytes.bytes(),
        },
    }
}
