//! What the service says of itself, as one document: made by `serve`, sent over the
//! socket, and shown by the `cli`, which makes the part that a directory can tell.
//!
//! # Invariants
//! - An account adds up when accepted = delivered + pending + dead-lettered +
//!   purged + lost, for each event type by itself (test
//!   `an_account_adds_up_by_type`).

use crate::clock::now_ms;
use crate::event::tally::Tally;
use crate::journal::{JournalLedger, Loss};
use crate::pace::WayPace;
use crate::telemetry::Vital;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Events by type.
pub type Counts = BTreeMap<String, u64>;

/// A tally as a document has it.
#[must_use]
pub fn counts(tally: &Tally) -> Counts {
    let named = tally
        .iter()
        .map(|(key, count)| (key.name().to_owned(), count));
    named.filter(|(_, count)| *count > 0).collect()
}

/// Whether requests are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// They are.
    Serving,
    /// They are not, or clients are told to go elsewhere; the reasons stand beside.
    NotServing,
    /// An operator drains this host: nothing is taken until all is delivered.
    Draining,
    /// The service is ending.
    Stopping,
    /// A process holds the directory but does not answer: it is starting, or hangs.
    NoAnswer,
    /// There is no service; the rest is what its directory tells.
    NotRunning,
}

/// The whole document.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// Whether requests are taken.
    pub state: State,
    /// Why not.
    pub reasons: Vec<String>,
    /// Requests that are neither durable nor refused yet.
    pub in_work: Option<u64>,
    /// The service's version.
    pub version: Option<String>,
    /// Its process.
    pub pid: Option<u32>,
    /// Seconds since it opened its journal.
    pub up_seconds: Option<u64>,
    /// The name of this host in rows and messages.
    pub host: Option<String>,
    /// The data directory.
    pub data_dir: String,
    /// The disk and its bounds.
    pub disk: Disk,
    /// Generations on disk, without those in quarantine.
    pub generations: u64,
    /// The oldest sequence held.
    pub oldest_seq: u64,
    /// The sequence that the next request gets.
    pub next_seq: u64,
    /// What cannot be read back; absent when nobody has looked.
    pub losses: Option<Vec<Loss>>,
    /// The accounts.
    pub ledger: Ledger,
    /// How fast the log fills; absent until the service has run for some seconds.
    pub rates: Option<Rates>,
    /// How long clients wait; absent where no service runs.
    pub acks: Option<Acks>,
    /// Ways out, consumers and sinks of this host: how each does.
    pub parts: Vec<Part>,
    /// Letters that wait in this host's dead letters for an operator, by way out; absent when
    /// nobody could count them.
    pub dead_letters: Option<BTreeMap<String, u64>>,
}

/// What becomes durable, and what that leads to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// Requests that become durable in a second.
    pub accepted_requests_per_second: f64,
    /// Bytes by which the log grows in a second; negative while it shrinks.
    pub growth_bytes_per_second: f64,
    /// Seconds until requests are refused, at this rate; absent while the log does not grow.
    pub full_in_seconds: Option<u64>,
}

/// How long clients wait for their acknowledgements.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Acks {
    /// Over the last minute; absent while none was made.
    pub latency: Option<AckLatency>,
    /// Requests since the start that were given up, since the disk did not take them within
    /// `journal.ack_deadline`.
    pub expired_requests: u64,
}

/// Upper bounds, as exact as the buckets of `holdfast_ingest_ack_latency_seconds` are; what is
/// slower than all of them counts as the last.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AckLatency {
    /// Half of the acknowledgements took no longer.
    pub p50_ms: f64,
    /// 99 of 100 took no longer.
    pub p99_ms: f64,
}

/// How fast a way out delivers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct WayRate {
    /// Requests in a second.
    pub requests_per_second: f64,
    /// Seconds until nothing is pending; absent while the backlog does not shrink.
    pub empty_in_seconds: Option<u64>,
}

/// A way out, a consumer or a sink.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// `way_out`, `consumer` or `sink`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Whether it has its connection; absent for parts that hold none.
    pub connected: Option<bool>,
    /// When it last got something done, epoch milliseconds.
    pub done_at_ms: Option<i64>,
    /// What is wrong with it now.
    pub trouble: Option<Trouble>,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// Since when, epoch milliseconds.
    pub since_ms: i64,
    /// What was said last.
    pub text: String,
}

impl Part {
    /// A part with what is known of it.
    #[must_use]
    pub fn new(kind: &str, name: &str, vital: Option<&Vital>) -> Self {
        let trouble = vital.and_then(|vital| vital.trouble.as_ref());
        Self {
            kind: kind.to_owned(),
            name: name.to_owned(),
            connected: vital.and_then(|vital| vital.connected),
            done_at_ms: vital.and_then(|vital| vital.done_at_ms),
            trouble: trouble.map(|trouble| Trouble {
                since_ms: trouble.since_ms,
                text: trouble.text.clone(),
            }),
        }
    }
}

/// Bytes on the disk, and the bounds where they are known.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Disk {
    /// What the journal holds.
    pub used_bytes: u64,
    /// `journal.max_bytes`.
    pub max_bytes: Option<u64>,
    /// What the file system has free.
    pub free_bytes: Option<u64>,
    /// `journal.min_free_bytes`.
    pub min_free_bytes: Option<u64>,
}

/// What became of everything accepted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ledger {
    /// Events ever accepted by this host, by type; absent when there is no service to say so.
    pub accepted: Option<Counts>,
    /// Each way out.
    pub ways: Vec<Way>,
}

/// One way out.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Way {
    /// Its name.
    pub way: String,
    /// The first sequence that it has not delivered.
    pub next_seq: u64,
    /// Requests behind that one that it has delivered: fresh ones, ahead of the backlog.
    pub ahead_requests: u64,
    /// Requests that it has not delivered.
    pub pending_requests: u64,
    /// Events in them.
    pub pending_events: u64,
    /// Since when the oldest of them waits, epoch milliseconds.
    pub oldest_pending_at_ms: Option<i64>,
    /// Its age.
    pub oldest_pending_age_seconds: Option<u64>,
    /// How fast it delivers; absent until the service has run for some seconds.
    pub rate: Option<WayRate>,
    /// What the broker's confirms take, and what slows it; absent where nothing is known.
    pub pace: Option<WayPace>,
    /// Its accounts, by event type.
    pub events: BTreeMap<String, Account>,
    /// Whether all of them add up; absent where accepted is not known.
    pub adds_up: Option<bool>,
}

/// What became of the events of one type on one way out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Accepted since this way out exists; absent where it is not known.
    pub accepted: Option<u64>,
    /// Delivered, with evidence.
    pub delivered: u64,
    /// Still to be delivered.
    pub pending: u64,
    /// Set aside with a reason.
    pub dead_lettered: u64,
    /// Passed over by an operator.
    pub purged: u64,
    /// Not readable any more.
    pub lost: u64,
}

impl Account {
    fn parts(&self) -> [u64; 5] {
        let Self {
            delivered,
            pending,
            dead_lettered,
            purged,
            lost,
            ..
        } = *self;
        [delivered, pending, dead_lettered, purged, lost]
    }

    /// What became of all of them.
    #[must_use]
    pub fn accounted(&self) -> u64 {
        sum(self.parts())
    }

    /// Whether that is what was accepted. A sum at the end of its count is none: it was cut
    /// off there, and is equal to anything that was.
    #[must_use]
    pub fn adds_up(&self) -> Option<bool> {
        let accepted = self.accepted?;
        Some(accepted == self.accounted() && accepted < u64::MAX)
    }

    /// Adds another type's account.
    pub fn add(&mut self, other: &Self) {
        self.accepted = match (self.accepted, other.accepted) {
            (Some(a), Some(b)) => Some(a.saturating_add(b)),
            (a, b) => a.or(b),
        };
        self.delivered = sum([self.delivered, other.delivered]);
        self.pending = sum([self.pending, other.pending]);
        self.dead_lettered = sum([self.dead_lettered, other.dead_lettered]);
        self.purged = sum([self.purged, other.purged]);
        self.lost = sum([self.lost, other.lost]);
    }
}

/// A sum of counts, which may come from a damaged file.
fn sum(counts: impl IntoIterator<Item = u64>) -> u64 {
    counts.into_iter().fold(0, u64::saturating_add)
}

/// How far a way out is.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// The first sequence that it has not delivered.
    pub next_seq: u64,
    /// Requests behind that one that it has delivered.
    pub ahead_requests: u64,
    /// The sequence after the last.
    pub end_seq: u64,
}

impl Way {
    /// A way out's accounts, from what is known of it.
    #[must_use]
    pub fn new(
        way: &str,
        place: Place,
        accepted: Option<&Counts>,
        pending: &Counts,
        ledger: &crate::journal::Ledger,
    ) -> Self {
        let delivered = counts(&ledger.delivered);
        let dead_lettered = counts(&ledger.dead_lettered);
        let purged = counts(&ledger.purged);
        let lost = counts(&ledger.lost);
        let all = [&delivered, pending, &dead_lettered, &purged, &lost];
        let names: BTreeSet<&String> = all
            .into_iter()
            .chain(accepted)
            .flat_map(BTreeMap::keys)
            .collect();
        let of = |counts: &Counts, name: &String| counts.get(name).copied().unwrap_or(0);
        let events: BTreeMap<_, _> = names
            .into_iter()
            .map(|name| {
                let account = Account {
                    accepted: accepted.map(|accepted| of(accepted, name)),
                    delivered: of(&delivered, name),
                    pending: of(pending, name),
                    dead_lettered: of(&dead_lettered, name),
                    purged: of(&purged, name),
                    lost: of(&lost, name),
                };
                (name.clone(), account)
            })
            .collect();
        Self {
            way: way.to_owned(),
            next_seq: place.next_seq,
            ahead_requests: place.ahead_requests,
            pending_requests: (place.end_seq.saturating_sub(place.next_seq))
                .saturating_sub(place.ahead_requests),
            pending_events: sum(pending.values().copied()),
            oldest_pending_at_ms: None,
            oldest_pending_age_seconds: None,
            rate: None,
            pace: None,
            adds_up: accepted.map(|_| events.values().all(|a| a.adds_up() == Some(true))),
            events,
        }
    }

    /// Says since when the oldest pending request waits.
    #[must_use]
    pub fn waiting_since(mut self, at_ms: Option<i64>) -> Self {
        self.oldest_pending_at_ms = at_ms;
        self.oldest_pending_age_seconds =
            at_ms.map(|at_ms| u64::try_from(now_ms().saturating_sub(at_ms)).unwrap_or(0) / 1000);
        self
    }

    /// All types together.
    #[must_use]
    pub fn total(&self) -> Account {
        let mut total = Account {
            accepted: self.adds_up.map(|_| 0),
            ..Account::default()
        };
        for account in self.events.values() {
            total.add(account);
        }
        total
    }
}

impl Ledger {
    /// The running journal's accounts.
    #[must_use]
    pub fn new(ledger: &JournalLedger, end_seq: u64) -> Self {
        let ways = ledger.ways.iter().map(|way| {
            let (accepted, pending) = (counts(&way.accepted), counts(&way.pending));
            let place = Place {
                next_seq: way.next.0,
                ahead_requests: way.ahead_requests,
                end_seq,
            };
            let mut shown = Way::new(&way.way, place, Some(&accepted), &pending, &way.ledger)
                .waiting_since(way.oldest_pending_at_ms);
            // The journal knows more: such as that nothing can be pending at its end.
            shown.adds_up = shown.adds_up.map(|adds_up| adds_up && way.adds_up);
            shown
        });
        Self {
            ways: ways.collect(),
            accepted: Some(counts(&ledger.accepted)),
        }
    }
}

impl Status {
    /// Events that some way out has not delivered, counted once for each of them, and
    /// requests that may still become such.
    #[must_use]
    pub fn left(&self) -> u64 {
        let ways = self.ledger.ways.iter();
        let pending = ways.map(|way| way.pending_events.max(way.pending_requests));
        sum(pending.chain(self.in_work))
    }

    /// Whether nothing is wrong: requests are taken, the accounts add up, nothing
    /// is lost.
    #[must_use]
    pub fn is_good(&self) -> bool {
        let adds_up = self
            .ledger
            .ways
            .iter()
            .all(|way| way.adds_up != Some(false));
        self.state == State::Serving && adds_up && self.losses.as_ref().is_none_or(Vec::is_empty)
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
