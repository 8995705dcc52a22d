//! An operator moves a way out past records that it shall not deliver. Called by
//! `handle`.
//!
//! # Invariants
//! - What is passed over is counted as purged, by type, in the same step in which
//!   the cursor moves; what was delivered meanwhile is not, nor what is lost (test
//!   `a_skip_over_a_damaged_generation_counts_what_was_there`).
//! - The new position is durable when this returns.

use super::doomed;
use super::durable_file::dir_bytes;
use super::error::{PurgeError, SkipError};
use super::generation::Generation;
use super::ledger::records_before;
use super::position::{Position, Span};
use super::shared::Shared;
use crate::event::identity::Seq;
use crate::event::tally::Tally;
use serde::Serialize;
use std::path::Path;

/// What a skip did, or would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// The way out's position before.
    pub from: Seq,
    /// The position after.
    pub to: Seq,
    /// What it passes over between the two: all but what was delivered ahead.
    pub passed_over: Vec<Span>,
    /// The events in that.
    pub events: Tally,
}

/// How often the look is repeated when the way out moves on under it.
const LOOKS_MAX: usize = 5;

pub(super) fn skip(shared: &Shared, way: &str, to: Seq, apply: bool) -> Result<Skipped, SkipError> {
    let cursors = shared.cursor_list();
    let Some(cursor) = cursors.iter().find(|cursor| cursor.name() == way) else {
        return Err(SkipError::Unknown(way.to_owned()));
    };
    let durable_end = shared.durable_end();
    if to > durable_end {
        return Err(SkipError::Beyond { to, durable_end });
    }
    for _ in 0..LOOKS_MAX {
        let position = cursor.position();
        let mut passed_over = position.gaps(to);
        let plans: Vec<_> = passed_over
            .iter()
            .map(|gap| Plan::make(shared, *gap))
            .collect::<Result<_, _>>()?;
        let from = position.next;
        let events = if apply {
            cursor.skip(to, |now| {
                passed_over = now.gaps(to);
                events(&plans, now, to)
            })
        } else {
            events(&plans, &position, to)
        };
        let Some(events) = events else { continue };
        if apply {
            cursor.save()?;
        }
        let to = to.max(from);
        return Ok(Skipped {
            from,
            to,
            passed_over,
            events,
        });
    }
    Err(SkipError::Moving)
}

/// What the position has not passed before `to`, if the plans still fit it: it may have
/// moved on in each gap, but there must be no other gaps.
fn events(plans: &[Plan], position: &Position, to: Seq) -> Option<Tally> {
    let mut all = Tally::default();
    for gap in position.gaps(to) {
        let plan = plans.iter().find(|plan| plan.to == gap.end)?;
        all.merge(&plan.events(gap.first)?);
    }
    Some(all)
}

/// The events of a gap, from any near position in it to its end.
struct Plan {
    from: Seq,
    to: Seq,
    /// Records from `from` to the end of its generation, or to the target.
    records: Vec<(Seq, Tally)>,
    /// The sequence after `records`.
    records_end: Seq,
    /// Events from there to the target.
    rest: Tally,
}

impl Plan {
    fn make(shared: &Shared, gap: Span) -> Result<Self, SkipError> {
        let (from, to) = (gap.first, gap.end);
        let mut plan = Self {
            from,
            to,
            records: Vec::new(),
            records_end: to,
            rest: Tally::default(),
        };
        let chain = shared.chain();
        let Some(generation) = chain.iter().find(|g| g.end() > from) else {
            return Ok(plan);
        };
        plan.records_end = to.min(generation.end());
        let read = |error: super::store::StoreError| SkipError::Read(error.to_string());
        let records = records_before(shared, generation, plan.records_end).map_err(read)?;
        plan.records = records
            .into_iter()
            .filter(|(seq, _)| *seq >= from)
            .collect();
        if plan.records_end < to {
            for generation in chain.iter().filter(|g| g.base() >= plan.records_end) {
                let (end, events, lost) = generation.account();
                if end <= to {
                    // Losses have their own place in the ledger.
                    plan.rest.merge(&events.minus(&lost));
                } else if generation.base() < to {
                    for (_, events) in records_before(shared, generation, to).map_err(read)? {
                        plan.rest.merge(&events);
                    }
                }
            }
        }
        Ok(plan)
    }

    /// `None` when the way out has moved beyond what was looked at.
    fn events(&self, next: Seq) -> Option<Tally> {
        if next < self.from
            || next > self.records_end
            || (next == self.records_end && self.records_end < self.to)
        {
            return None;
        }
        let mut events = self.rest.clone();
        for (_, record) in self.records.iter().filter(|(seq, _)| *seq >= next) {
            events.merge(record);
        }
        Some(events)
    }
}

/// Removes a quarantined generation that nobody needs; its bytes.
pub(super) fn purge_quarantined(
    quarantine: &Path,
    generation: u64,
    needed: impl FnOnce(u64) -> bool,
    apply: bool,
) -> Result<u64, PurgeError> {
    let path = Generation::dir_in(quarantine, generation);
    if !path.is_dir() {
        return Err(PurgeError::Unknown(generation));
    }
    if needed(generation) {
        return Err(PurgeError::Needed(generation));
    }
    let bytes = dir_bytes(&path);
    if apply {
        // Half of it would be one that tells nothing of what it held.
        match doomed::remove(&path) {
            Ok(None) => {}
            Ok(Some(error)) => {
                tracing::warn!(generation, %error, "files of a purged generation stay; they are removed later");
            }
            Err(source) => return Err(PurgeError::Io { path, source }),
        }
    }
    Ok(bytes)
}
