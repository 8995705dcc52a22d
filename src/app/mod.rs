//! Puts the parts together, runs them, and takes them down in order. Called by
//! `cli run`.
//!
//! # Invariants
//! - Ways out have their cursors before the doors open: nothing accepted can be
//!   deleted before each of them delivered it.
//! - The doors do not wait for the broker, a database or a table.
//! - A pump that panics is started again; it takes nothing else with it.

mod doors;
mod drain;
mod drills;
mod pumps;
pub mod reconcile;
mod setup;
mod shutdown;
mod watchdog;

pub use drain::{Drained, drain};
pub use setup::{broker, consumers, error_queues, sinks, tables, takers, topology};

use crate::admin::{self, Admin};
use crate::config::{self, Config, Listen};
use crate::dead_letters::DeadLetters;
use crate::drill::Drill;
use crate::ingest::Health;
use crate::journal::{self, Journal};
use crate::pace::Pace;
use crate::telemetry::{FOLLOWS_PANIC, Metrics};
use anyhow::Context as _;
use doors::Doors;
use pumps::{Pumps, unused_ways};
use shutdown::Signals;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use watchdog::Watchdog;

/// Runs the service until a signal ends it.
///
/// # Errors
/// What keeps it from starting, or from stopping cleanly.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    // First, so that a port in use shows before any work.
    let bound = doors::bind(&config).await?;
    let options = journal_options(&config);
    let journal = tokio::task::spawn_blocking(move || Journal::open(&options))
        .await?
        .context("open the journal")?;
    let metrics = Metrics::new();
    let dead_letters = DeadLetters::new(&config.data.dir);
    let health = Health::new(journal.clone());
    let pace = Pace::new(config.forward.settings());
    let drill = Drill::new(config.drill.allowed);
    let pumps = Pumps::start(&config, &journal, &dead_letters, &metrics, (&pace, &drill))?;
    let played = CancellationToken::new();
    let full_disk = drills::play_full_disk(drill.clone(), journal.clone(), played.clone());
    let full_disk = tokio::spawn(full_disk);
    let doors = Doors::open(&config, bound, &journal, &health, &metrics, &dead_letters)?;
    health.set_open(true);
    let parts = (&health, &metrics, &pace, &drill);
    let parts = (parts, &dead_letters);
    let admin = admin_options(&config, &journal, parts, doors.counter());
    let admin = Admin::start(admin, page_options(&config.admin));
    let stats = journal.stats();
    tracing::info!(
        host = %journal.host(), grpc = %doors.grpc_address, http = %doors.http_address,
        data_dir = %config.data.dir.display(), next_seq = %stats.durable_end_seq,
        generations = stats.generations, "accepting"
    );
    shutdown::notify(&sd_notify::NotifyState::Ready);
    let watchdog = Watchdog::start(&journal).context("start the watchdog")?;

    signals.first().await;
    shutdown::notify(&sd_notify::NotifyState::Stopping);
    signals.exit_on_second();
    let grace = config.shutdown.grace.get();
    // In the data's order, so that each part can hand on what it holds.
    health.set_open(false);
    played.cancel();
    if let Err(error) = full_disk.await {
        tracing::error!(target: FOLLOWS_PANIC, %error, "the drill's part of the log had ended");
    }
    shutdown::phase("doors", grace, doors.close()).await;
    shutdown::phase("ways out", grace, pumps.stop()).await;
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

fn admin_options(
    config: &Config,
    journal: &Journal,
    ((health, metrics, pace, drill), dead_letters): (
        (&Health, &Metrics, &Pace, &Drill),
        &DeadLetters,
    ),
    in_work: impl Fn() -> usize + Send + Sync + 'static,
) -> admin::Options {
    let (health, switch) = (health.clone(), health.clone());
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
        dead_letters: dead_letters.clone(),
        metrics: metrics.clone(),
        pace: pace.clone(),
        drill: drill.clone(),
        parts: setup::parts(config),
    }
}

fn page_options(section: &config::Admin) -> admin::PageOptions {
    admin::PageOptions {
        listen: match section.listen {
            Listen::Off => None,
            Listen::At(address) => Some(address),
        },
        names: section.names.clone(),
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
