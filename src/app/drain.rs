//! Delivers what a directory holds, without any door: the log of a host that is dead, or
//! of a service that does not run. Called by `cli drain`.
//!
//! # Invariants
//! - It is the same delivery as that of the service, under the directory's lock, with the
//!   host id and the sequences that the directory has: rows are what that host would have
//!   written (test `the_log_of_a_dead_host_is_emptied`).
//! - What it leaves undone is delivered by the next, or by the service.

use super::pumps::{Pumps, coalescing};
use super::shutdown::{Signals, phase};
use super::{journal_options, unused_ways};
use crate::config::Config;
use crate::dead_letters::DeadLetters;
use crate::drill::Drill;
use crate::journal::{Journal, JournalLedger, WayLedger};
use crate::pace::Pace;
use crate::telemetry::Metrics;
use anyhow::Context as _;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// How often the ledger is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// What became of a drain.
#[derive(Debug)]
pub struct Drained {
    /// The ledger when it ended.
    pub ledger: JournalLedger,
    /// Ways out that still have something, and that the configuration does not have.
    pub unused: Vec<String>,
    /// Why it ended before all was delivered.
    pub ended: Option<String>,
}

/// What ways out of the configuration have not delivered: requests, too, so that no account
/// that does not add up says that nothing is left while records wait.
#[must_use]
fn left(ledger: &JournalLedger, unused: &[String]) -> u64 {
    let ways = ledger.ways.iter();
    ways.filter(|way| !unused.contains(&way.way))
        .map(WayLedger::left)
        .fold(0, u64::saturating_add)
}

/// Runs the ways out until nothing is left, a signal, or the end of `limit`. `show` gets
/// the ledger now and then.
///
/// # Errors
/// What keeps it from starting, such as a service that has the directory.
pub async fn drain(
    config: &Config,
    limit: Option<Duration>,
    mut show: impl FnMut(&JournalLedger),
) -> anyhow::Result<Drained> {
    let mut signals = Signals::new()?;
    let options = journal_options(config);
    let journal = tokio::task::spawn_blocking(move || Journal::open(&options))
        .await?
        .context("open the journal")?;
    let metrics = Metrics::new();
    let dead_letters = DeadLetters::new(&config.data.dir);
    let pace = Pace::new(config.forward.settings());
    let coalescing = watch::Sender::new(coalescing(config)).subscribe();
    let pumps = Pumps::start(
        config,
        &journal,
        &dead_letters,
        &metrics,
        (&pace, &Drill::default(), coalescing),
    )?;
    let unused = unused_ways(config, &journal);
    let until = limit.map(|limit| Instant::now() + limit);
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let ended = loop {
        tokio::select! {
            () = signals.first() => break Some("a signal ended it".to_owned()),
            _ = looks.tick() => {}
        }
        let ledger = journal.ledger();
        show(&ledger);
        if left(&ledger, &unused) == 0 {
            break None;
        }
        if until.is_some_and(|until| Instant::now() >= until) {
            break Some("the time was up".to_owned());
        }
    };
    signals.exit_on_second();
    let grace = config.shutdown.grace.get();
    phase("ways out", grace, pumps.stop(grace)).await;
    dead_letters.close().await;
    let ledger = journal.ledger();
    let waiting = ledger.ways.iter().filter(|way| way.left() > 0);
    let waiting: Vec<_> = waiting.map(|way| way.way.clone()).collect();
    tokio::task::spawn_blocking(move || journal.close())
        .await
        .context("close the journal")?;
    Ok(Drained {
        unused: unused
            .into_iter()
            .filter(|way| waiting.contains(way))
            .collect(),
        ledger,
        ended,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::identity::Seq;
    use crate::event::tally::Tally;
    use crate::journal::Ledger;

    #[test]
    fn records_that_wait_are_left_whatever_the_accounts_say() {
        let way = |name: &str, pending_requests| WayLedger {
            way: name.to_owned(),
            next: Seq(5),
            ahead_requests: 0,
            accepted: Tally::default(),
            pending: Tally::default(),
            pending_requests,
            oldest_pending_at_ms: None,
            ledger: Ledger::default(),
            adds_up: false,
        };
        let mut ledger = JournalLedger {
            accepted: Tally::default(),
            ways: vec![way("used", 3), way("unused", 9)],
        };
        assert_eq!(left(&ledger, &["unused".to_owned()]), 3);
        ledger.ways[0].pending_requests = 0;
        assert_eq!(left(&ledger, &["unused".to_owned()]), 0);
    }
}
