//! The figures that are looked up when Prometheus asks: what the journal holds, what
//! became of each event, which dead letters wait, what bodies hold. Called by `http`.
//!
//! # Invariants
//! - A scrape takes no longer than `LETTERS_TIMEOUT` for the letters: a file that is
//!   busy costs this scrape's count of them, and nothing else.
//! - A look makes no file of dead letters (test
//!   `letters_that_wait_are_counted_and_looking_makes_no_file`).

use super::bodies::Bodies;
use crate::clock::now_ms;
use crate::dead_letters::DeadLetters;
use crate::event::tally::Tally;
use crate::journal::{Journal, JournalLedger};
use crate::telemetry::{FOLLOWS_PANIC, Metrics};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Far below the default scrape timeout of 10 s.
const LETTERS_TIMEOUT: Duration = Duration::from_secs(1);

/// Shared by clones.
#[derive(Debug, Clone)]
pub struct Figures {
    journal: Journal,
    dead_letters: DeadLetters,
    bodies: Bodies,
    metrics: Metrics,
    /// Ways out that had letters: they show 0 once none waits.
    ways_with_letters: Arc<Mutex<BTreeSet<String>>>,
}

impl Figures {
    /// The figures of a running service.
    #[must_use]
    pub fn new(
        journal: Journal,
        dead_letters: DeadLetters,
        bodies: Bodies,
        metrics: Metrics,
    ) -> Self {
        Self {
            journal,
            dead_letters,
            bodies,
            metrics,
            ways_with_letters: Arc::default(),
        }
    }

    /// All metrics as Prometheus reads them, up to date.
    pub(super) async fn scrape(&self) -> String {
        self.metrics.body_bytes(self.bodies.held_bytes());
        self.observe_journal();
        // It may read the disk, which may be a bad one.
        let journal = self.journal.clone();
        match tokio::task::spawn_blocking(move || journal.ledger()).await {
            Ok(ledger) => observe_ledger(&ledger, &self.metrics),
            Err(error) => {
                tracing::error!(target: FOLLOWS_PANIC, %error, "the ledger cannot be told");
            }
        }
        self.observe_letters().await;
        self.metrics.render()
    }

    fn observe_journal(&self) {
        let (stats, metrics) = (self.journal.stats(), &self.metrics);
        metrics.journal("used_bytes", stats.used_bytes);
        metrics.journal("max_bytes", stats.max_bytes);
        metrics.journal("free_bytes", stats.free_bytes);
        metrics.journal("min_free_bytes", stats.min_free_bytes);
        metrics.journal("pressure", stats.pressure.as_number());
        metrics.journal("generations", stats.generations as u64);
        metrics.journal("oldest_seq", stats.oldest_seq.0);
        metrics.journal("durable_end_seq", stats.durable_end_seq.0);
        metrics.journal("lost_records", stats.lost_records);
        metrics.journal("expired_appends", stats.expired_appends);
        metrics.journal("fenced", u64::from(stats.fence.is_some()));
        for cursor in &stats.cursors {
            let pending_requests = cursor.pending_requests(stats.durable_end_seq);
            metrics.backlog(&cursor.name, pending_requests);
        }
    }

    async fn observe_letters(&self) {
        let counting = self.dead_letters.waiting();
        let waiting = match tokio::time::timeout(LETTERS_TIMEOUT, counting).await {
            Ok(Ok(waiting)) => waiting,
            Ok(Err(error)) => return tracing::debug!(%error, "cannot count the dead letters"),
            Err(_) => return tracing::debug!("the dead letters are busy; not counted"),
        };
        let ways = self.ways_with_letters.lock();
        let mut ways = ways.unwrap_or_else(PoisonError::into_inner);
        ways.extend(waiting.keys().cloned());
        for way in ways.iter() {
            let letters = waiting.get(way).copied().unwrap_or(0);
            self.metrics.dead_letters_waiting(way, letters);
        }
    }
}

/// Every state of every type that was ever accepted is set, so that no series
/// keeps an old value.
fn observe_ledger(ledger: &JournalLedger, metrics: &Metrics) {
    let accepted = by_name(&ledger.accepted);
    for (event, count) in &accepted {
        metrics.ledger_accepted(event, *count);
    }
    for way in &ledger.ways {
        let ours = by_name(&way.accepted);
        let states = [
            ("delivered", by_name(&way.ledger.delivered)),
            ("pending", by_name(&way.pending)),
            ("dead_lettered", by_name(&way.ledger.dead_lettered)),
            ("purged", by_name(&way.ledger.purged)),
            ("lost", by_name(&way.ledger.lost)),
        ];
        let all = states.iter().flat_map(|(_, counts)| counts.keys());
        let events: BTreeSet<_> = accepted.keys().chain(ours.keys()).chain(all).collect();
        for event in events {
            let of = |counts: &BTreeMap<&str, u64>| counts.get(event).copied().unwrap_or(0);
            metrics.ledger_way_accepted(&way.way, event, of(&ours));
            for (state, counts) in &states {
                metrics.ledger(&way.way, event, state, of(counts));
            }
        }
        metrics.ledger_adds_up(&way.way, way.adds_up);
        let age_ms = way
            .oldest_pending_at_ms
            .map_or(0, |at_ms| now_ms().saturating_sub(at_ms));
        metrics.oldest_pending(&way.way, u64::try_from(age_ms).unwrap_or(0) / 1000);
    }
}

fn by_name(tally: &Tally) -> BTreeMap<&'static str, u64> {
    tally
        .iter()
        .map(|(key, count)| (key.name(), count))
        .collect()
}
