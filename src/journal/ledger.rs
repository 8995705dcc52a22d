//! What became of every event that this host accepted, for each way out:
//! `accepted = delivered + pending + dead-lettered + purged + lost`. Called by
//! `handle` (metrics, status) and the keeper (at the start).
//!
//! # Invariants
//! - Accepted is what the generations' manifests and blocks say; the rest is what
//!   the cursors say; the two are counted at different ends of the journal.
//! - At a start, each cursor's counts are compared with the journal up to its
//!   position, and follow the journal if they differ.
//! - Where a way out has nothing pending, the two must agree to the event.
//! - What this version cannot read is lost, and does not stay pending (test
//!   `a_record_of_another_version_is_lost_and_does_not_stay_pending`).

use super::contents::Contents;
use super::cursor::Cursor;
use super::generation::Generation;
use super::losses::Loss;
use super::position::{Ledger, Span};
use super::shared::{Shared, lock};
use super::store::StoreError;
use crate::event::identity::Seq;
use crate::event::tally::Tally;
use serde::Serialize;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The ledger of one host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JournalLedger {
    /// All events ever accepted here.
    pub accepted: Tally,
    /// What became of them.
    pub ways: Vec<WayLedger>,
}

/// The ledger of one way out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WayLedger {
    /// Its name.
    pub way: String,
    /// The first sequence that it has not delivered.
    pub next: Seq,
    /// Requests behind it that it has delivered.
    pub ahead_requests: u64,
    /// Events that were accepted since this way out exists.
    pub accepted: Tally,
    /// Events not delivered yet.
    pub pending: Tally,
    /// Requests not delivered yet, of those that the log holds.
    pub pending_requests: u64,
    /// When the oldest pending record was received, or a little before, epoch
    /// milliseconds.
    pub oldest_pending_at_ms: Option<i64>,
    /// What became of the others.
    pub ledger: Ledger,
    /// Whether accepted is the sum of all the rest.
    pub adds_up: bool,
}

impl WayLedger {
    /// How much there is to deliver, in events; in requests where the accounts have fewer
    /// than those: then they do not add up.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.pending.total().max(self.pending_requests)
    }
}

/// The ledger now.
pub(super) fn of(shared: &Shared) -> JournalLedger {
    let cursors = shared.cursor_list();
    // Positions first: what is accepted meanwhile only adds to the pending.
    let positions: Vec<_> = cursors
        .iter()
        .map(|cursor| (cursor.name().to_owned(), cursor.position()))
        .collect();
    let accepted = lock(&shared.accepted).clone();
    let durable_end = shared.durable_end();
    let chain = shared.chain();
    let ways = positions.into_iter().map(|(way, position)| {
        let ours = accepted.minus(&position.since);
        let all = position.all();
        let done = all.total();
        let pending = ours.minus(&done);
        let mut sum = done;
        sum.merge(&pending);
        let at_end = position.next >= durable_end;
        // What was cut off at the end of its count is equal to anything that was.
        let is_exact = !ours.is_saturated() && !sum.is_saturated();
        WayLedger {
            way,
            next: position.next,
            ahead_requests: position.ahead().iter().map(Span::requests).sum(),
            pending_requests: pending_requests(&chain, &position.gaps(durable_end)),
            oldest_pending_at_ms: oldest_pending_at_ms(&chain, position.next),
            adds_up: is_exact
                && sum == ours
                && (!at_end || pending.is_empty() || lags(shared, durable_end)),
            accepted: ours,
            pending,
            ledger: all,
        }
    });
    JournalLedger {
        ways: ways.collect(),
        accepted,
    }
}

/// Whether records became durable since `seen`: then nothing can be compared.
fn lags(shared: &Shared, seen: Seq) -> bool {
    shared.durable_end() != seen
}

/// Numbers between generations are nobody's.
fn pending_requests(chain: &[Arc<Generation>], gaps: &[Span]) -> u64 {
    let held = |gap: &Span, generation: &Generation| Span {
        first: gap.first.max(generation.base()),
        end: gap.end.min(generation.end()),
    };
    let of_gap = |gap| chain.iter().map(move |g| held(gap, g).requests());
    gaps.iter().flat_map(of_gap).sum()
}

pub(super) fn oldest_pending_at_ms(chain: &[Arc<Generation>], next: Seq) -> Option<i64> {
    let generation = chain.iter().find(|generation| generation.end() > next)?;
    generation.received_at_ms(next.max(generation.base()))
}

/// Events accepted before a sequence, as the journal has them; `None` when it does
/// not reach back so far, or cannot tell.
pub(super) fn accepted_before(shared: &Shared, seq: Seq) -> Result<Option<Tally>, StoreError> {
    let chain = shared.chain();
    let Some(generation) = chain.iter().rev().find(|g| g.base() <= seq) else {
        return Ok(None);
    };
    let mut before = generation.header.accepted_before.clone();
    if seq == generation.base() {
        // Whatever it lacks lies behind that.
        return Ok(Some(before));
    }
    // At once: what becomes durable between two looks is not before `seq`.
    let (end, events, _) = generation.account();
    if seq >= end {
        before.merge(&events);
        return Ok(Some(before));
    }
    let mut expected = generation.base();
    let records = records_before(shared, generation, seq)?;
    let ends = records.iter().map(|(seq, _)| *seq).chain([seq]);
    let mut is_whole = true;
    for seq in ends {
        if expected < seq {
            // Its bytes are whole, and are no record: nobody knows its events.
            is_whole = false;
            // What is written to may only not show it yet.
            if generation.is_sealed() {
                shared.note_loss(&Loss {
                    generation: generation.number(),
                    first: expected,
                    end: seq,
                });
            }
        }
        expected = seq.next();
    }
    for (_, events) in records {
        before.merge(&events);
    }
    // With holes in it, one cannot tell on which side of the sequence they lie.
    let has_holes = !is_whole || !generation.events().1.is_empty();
    Ok((!has_holes).then_some(before))
}

/// Whether a generation is known to lack records: it may be that its blocks do, or that what
/// they hold is none for this version.
fn lacks_records(shared: &Shared, generation: &Generation) -> bool {
    let (base, end) = (generation.base(), generation.end());
    let is_in = |loss: &Loss| loss.first < end && base < loss.end;
    !generation.events().1.is_empty() || lock(&shared.losses).list().iter().any(is_in)
}

/// The records of a generation before a sequence, each with its events.
pub(super) fn records_before(
    shared: &Shared,
    generation: &Generation,
    seq: Seq,
) -> Result<Vec<(Seq, Tally)>, StoreError> {
    let blocks = shared.open_generation(generation)?;
    let mut contents = Contents::new(blocks, generation.salt());
    let mut records = Vec::new();
    while contents.block() < generation.blocks() {
        for record in contents.next()? {
            if record.seq >= seq {
                return Ok(records);
            }
            records.push((record.seq, record.events));
        }
    }
    Ok(records)
}

/// How long after losses could not be told at a place that is tried again, where the way out
/// stays there: each try reads a generation up to it.
const TELL_AGAIN: Duration = Duration::from_secs(60);

/// Puts what generations have lost in the ledger of each cursor that has passed
/// them. A record that a way out had delivered before it was lost stays delivered:
/// the loss is what is missing of all that was accepted up to the cursor.
pub(super) fn settle_losses(shared: &Shared, cursors: &[Arc<Cursor>]) {
    let chain = shared.chain();
    let mut failed = None;
    for cursor in cursors {
        let (next, through) = (cursor.next(), cursor.losses_through());
        let mut passed = None;
        let mut has_losses = false;
        for generation in chain.iter().filter(|g| g.end() > through) {
            if generation.is_sealed() && generation.end() <= next {
                has_losses |= lacks_records(shared, generation);
                passed = Some(generation.end());
            }
        }
        let Some(end) = passed else { continue };
        if !has_losses {
            cursor.without_losses(end);
            continue;
        }
        let untold = lock(&shared.untold).get(cursor.name()).copied();
        if untold
            .is_some_and(|(at, of, tried)| (at, of) == (next, end) && tried.elapsed() < TELL_AGAIN)
        {
            continue;
        }
        match accepted_before(shared, next) {
            Ok(Some(accepted)) => {
                cursor.settle_losses(next, end, &accepted);
                lock(&shared.untold).remove(cursor.name());
            }
            // Tried again when the cursor has moved on; nothing is deleted before.
            Ok(None) => {
                let untold = (next, end, Instant::now());
                lock(&shared.untold).insert(cursor.name().to_owned(), untold);
            }
            Err(error) => failed = Some((cursor, error)),
        }
    }
    match failed {
        Some((cursor, error)) if shared.board.is_new("losses", "losses") => {
            tracing::warn!(way = cursor.name(), %error, "cannot account for losses yet");
        }
        Some((cursor, error)) => {
            tracing::debug!(way = cursor.name(), %error, "cannot account for losses yet");
        }
        None => {
            shared.board.over("losses");
        }
    }
}

/// Compares each cursor's counts with the journal, and corrects them.
pub(super) fn check_cursors(shared: &Shared) {
    let cursors = shared.cursor_list();
    settle_losses(shared, &cursors);
    for cursor in cursors {
        check_cursor(shared, &cursor);
    }
}

fn check_cursor(shared: &Shared, cursor: &Cursor) {
    let next = cursor.next();
    let chain = shared.chain();
    let passed = chain.iter().rfind(|g| g.is_sealed() && g.end() <= next);
    if passed.is_some_and(|g| g.end() > cursor.losses_through()) {
        // It has moved since, or has losses that cannot be told yet.
        return;
    }
    match accepted_before(shared, next) {
        Ok(Some(accepted)) => {
            if !cursor.reconcile(next, &accepted) {
                tracing::error!(
                    way = cursor.name(), next_seq = %next,
                    "the ledger did not agree with the journal; it follows the journal"
                );
            }
        }
        Ok(None) => {}
        Err(error) => {
            tracing::warn!(way = cursor.name(), %error, "cannot check the ledger against the journal");
        }
    }
}
