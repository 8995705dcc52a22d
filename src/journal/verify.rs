//! Reads a whole data directory and compares what is there with what its manifests
//! and cursors say: `journal verify`. Called by `cli`.
//!
//! # Invariants
//! - Finds every acknowledged record that cannot be read back, in exact ranges.
//! - Changes nothing.

use super::directory::{Directory, Entry, read_error, store_error};
use super::error::InspectError;
use super::generation::losses_of;
use super::high_water::{self, HighWater};
use super::losses::{Loss, Losses};
use super::recovery::accepted_after;
use super::survey::{self, Survey, Tail};
use crate::event::identity::Seq;
use crate::event::tally::Tally;
use serde::Serialize;
use std::ops::ControlFlow;
use std::sync::Arc;

/// What a verification found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// Generations that were read.
    pub generations: u64,
    /// Whole blocks.
    pub blocks: u64,
    /// Whole records.
    pub records: u64,
    /// Their events.
    pub events: Tally,
    /// Acknowledged records that are not there.
    pub losses: Vec<Loss>,
    /// What else is not as it should be.
    pub problems: Vec<String>,
}

impl Report {
    /// Whether everything is there and as it should be.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.losses.is_empty() && self.problems.is_empty()
    }
}

impl Directory {
    /// Reads every block. `progress` hears the bytes of each generation.
    ///
    /// # Errors
    /// When a file cannot be opened; damage is no error, it is in the report.
    pub fn verify(&self, progress: &mut dyn FnMut(u64)) -> Result<Report, InspectError> {
        let mut report = Report {
            problems: self.problems.clone(),
            ..Report::default()
        };
        if self.host().is_none() {
            report.problems.push("host_id: cannot be read".to_owned());
        }
        let mut losses = Losses::default();
        for loss in self.missing() {
            losses.add(&loss);
        }
        let mut accepted: Option<Tally> = None;
        for entry in self.entries() {
            let number = entry.info.number;
            let mut survey = self.survey(entry)?;
            if self.is_running() && !entry.dir.exists() {
                // Delivered and deleted, or moved, since the look began.
                accepted = None;
                continue;
            }
            if self.is_running() && !entry.info.sealed && !survey.manifest.lost.is_empty() {
                // Its store may have moved a block between the look and the read.
                survey = self.survey(entry)?;
            }
            report.generations += 1;
            report.blocks += survey.blocks_found;
            report.records += survey.records;
            report.events.merge(&survey.found);
            for loss in losses_of(&survey.manifest) {
                losses.add(&loss);
            }
            let before = &entry.header.accepted_before;
            if accepted.as_ref().is_some_and(|accepted| accepted != before) {
                let text = format!("generation {number}: its count of earlier events is off");
                report.problems.push(text);
            }
            let mut after = before.clone();
            after.merge(&entry.manifest.events);
            accepted = Some(after);
            progress(entry.info.disk_bytes);
        }
        if !self.is_running() {
            self.check_cursors(&mut report)?;
        }
        report.losses = losses.list().to_vec();
        Ok(report)
    }

    /// Ranges of generations that are not there at all, and what is missing behind the last.
    pub(super) fn missing(&self) -> Vec<Loss> {
        let mut missing = Vec::new();
        let loss = |generation, (first, end)| Loss {
            generation,
            first,
            end,
        };
        let Some((mut end, mut accepted)) = self.floor() else {
            return missing;
        };
        for entry in self.entries() {
            if end < entry.header.previous_end {
                let (before, end_of) = (&entry.header.accepted_before, entry.header.previous_end);
                let events = before.minus(&accepted).total();
                let generation = entry.info.number.saturating_sub(1);
                missing.push(loss(
                    generation,
                    high_water::missing_range(end, end_of, events),
                ));
            }
            if end <= entry.manifest.end {
                end = entry.manifest.end;
                accepted = accepted_after(&entry.manifest);
            }
        }
        // While a service runs, cursors are ahead of what can be seen of the last generation.
        let furthest = self
            .cursors()
            .iter()
            .map(|cursor| cursor.position.furthest());
        let high_water = self.high_water.iter().map(HighWater::place);
        let reached = high_water::reached(furthest.chain(high_water));
        let reached = reached.filter(|_| !self.is_running());
        let ways = self.cursors().iter().map(|cursor| &cursor.position);
        let beyond = high_water::beyond(end, ways);
        let range = reached
            .and_then(|at| high_water::missing_behind(&(end, accepted), &at, beyond))
            .map(|(range, _)| range);
        let generation = self.generations().last().map_or(0, |info| info.number) + 1;
        missing.extend(range.map(|range| loss(generation, range)));
        missing
    }

    fn survey(&self, entry: &Entry) -> Result<Survey, InspectError> {
        let (header, manifest) = (&entry.header, &entry.manifest);
        let blocks = survey::open_blocks(&entry.dir, &header.salt, manifest.blocks)
            .map_err(read_error(&entry.dir))?;
        survey::survey(&Arc::new(blocks), header, Some(manifest), Tail::Leave)
            .map_err(|error| store_error(entry.info.number, &error))
    }

    /// Compares each cursor's counts with the records before it.
    fn check_cursors(&self, report: &mut Report) -> Result<(), InspectError> {
        // One that cannot be read is among the problems already.
        for cursor in self.cursors().iter().filter(|c| c.damage.is_none()) {
            let before = |e: &&Entry| e.header.base <= cursor.next;
            let Some(entry) = self.entries().iter().rev().find(before) else {
                continue;
            };
            let mut accepted = entry.header.accepted_before.clone();
            if cursor.next >= entry.manifest.end {
                accepted.merge(&entry.manifest.events);
            } else {
                self.walk(entry.header.base, cursor.next, &mut |found| {
                    if let super::directory::Found::Record(record) = found {
                        accepted.merge(&record.events);
                    }
                    ControlFlow::Continue(())
                })?;
            }
            let mut accounted = cursor.since.clone();
            accounted.merge(&cursor.position.ledger.total());
            if accounted != accepted {
                let text = format!(
                    "cursor {}: accounts for {} events before {}, the journal for {}",
                    cursor.name,
                    accounted.total(),
                    cursor.next,
                    accepted.total()
                );
                report.problems.push(text);
            }
            let end = self.entries().last().map_or(Seq::FIRST, |e| e.manifest.end);
            if cursor.reach() > end {
                let reach = cursor.reach();
                let text = format!("cursor {}: {reach} is behind the end", cursor.name);
                report.problems.push(text);
            }
        }
        Ok(())
    }
}
