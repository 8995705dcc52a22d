//! What a start finds on the disk and makes of it. Called by `handle`.
//!
//! # Invariants
//! - Never needs a person: a generation that lacks something is moved to
//!   `quarantine/` whole, its losses are told exactly, and what is intact is
//!   delivered from there. One that does not even say what it was is told until an operator
//!   purges it (test `a_generation_that_says_nothing_is_told_until_it_is_purged`), and one that
//!   is gone by the one after it (`a_generation_that_is_gone_is_told_by_the_empty_one_after_it`),
//!   or, where none is after it, by the events of a way out that had passed it (test
//!   `what_is_missing_behind_the_end_is_told_by_who_had_passed_it`).
//! - Bytes that cannot be read for a moment are waited for, and what cannot be read is no
//!   generation without records, nor a write that a power cut tore (`taken`).
//! - What is left of deleted generations keeps nothing from starting (test
//!   `rubbish_that_stays_keeps_nothing_from_starting`).
//! - Sealed generations are taken by their manifest, unopened; only those that were
//!   not sealed are looked through, so that the time of a start does not depend on
//!   the backlog.
//! - Sequences continue after the highest that any manifest, header, block, cursor or
//!   receipt, or the high water, has claimed, so that none is given twice and none hides
//!   behind a cursor (tests `sequences_go_on_behind_every_cursor_whatever_is_damaged`,
//!   `without_its_generations_it_goes_on_behind_its_cursors`,
//!   `a_drained_host_never_begins_anew_whatever_becomes_of_its_cursors`).

use super::doomed::remove_half_deleted;
use super::durable_file::sync_dir;
use super::generation::{Generation, losses_of};
use super::high_water::{self, HighWater};
use super::losses::Loss;
use super::manifest::{Header, Manifest};
use super::position::Position;
use super::store::StoreError;
use super::survey;
use super::taken::{Found, Held, Taken, take};
use super::unread::Patience;
use crate::clock::now_ms;
use crate::event::identity::Seq;
use crate::event::tally::Tally;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// Sequences left out after a generation whose range cannot be told: more records
/// than any generation holds.
pub(super) const UNKNOWN_RANGE: u64 = 1 << 32;

/// What is known before the generations are looked at.
#[derive(Debug)]
pub(super) struct Known<'a> {
    /// The positions of the cursors that could be read.
    pub(super) cursors: &'a [Position],
    /// Whether there are others, whose ways out begin at the oldest record.
    pub(super) has_unreadable_cursors: bool,
    /// What is known to be deleted.
    pub(super) high_water: Option<&'a HighWater>,
    /// The end of the youngest receipt.
    pub(super) receipts_end: Option<Seq>,
    /// Whether the host has its name from this start on.
    pub(super) is_new_host: bool,
}

/// What was found.
#[derive(Debug)]
pub(super) struct Recovered {
    /// Sealed generations in order, each with at least one record.
    pub(super) generations: Vec<Generation>,
    /// Directories of generations without records. Only they may know where to go on: they
    /// are to be removed once the next generation is there.
    pub(super) empty: Vec<PathBuf>,
    /// The number for the next generation.
    pub(super) next_number: u64,
    /// The sequence for the next record.
    pub(super) next_seq: Seq,
    /// The sequence after the last that anything tells of: numbers between the two are left out.
    pub(super) known_end: Seq,
    /// Events accepted so far.
    pub(super) accepted: Tally,
    /// What the disk no longer has.
    pub(super) losses: Vec<Loss>,
    /// Generations in quarantine of which nobody can say what they held, and a sequence that
    /// is not behind theirs.
    pub(super) unknown: Vec<(u64, Seq)>,
}

/// The furthest place of which it is known how many events were accepted before it.
struct Furthest(Seq, Tally);

impl Furthest {
    /// What was read later counts, where two tell of one place.
    fn note(&mut self, seq: Seq, accepted: &Tally) {
        if seq >= self.0 {
            *self = Self(seq, accepted.clone());
        }
    }
}

impl Recovered {
    /// Leaves out the numbers that may have been given from here on, by something that is not
    /// there to tell.
    fn leave_out(&mut self, from: Seq) {
        let behind = from.0.saturating_add(UNKNOWN_RANGE).min(Seq::MAX.0);
        self.next_seq = self.next_seq.max(Seq(behind));
    }

    /// What is missing behind `end`, the last of the chain, where others had come further.
    fn missing_behind(
        &self,
        end: Option<&(Seq, Tally)>,
        reached: Option<&(Seq, Tally)>,
        cursors: &[Position],
    ) -> Option<Manifest> {
        let (end, reached) = (end?, reached?);
        let beyond = high_water::beyond(end.0, cursors.iter());
        let (range, events) = high_water::missing_behind(end, reached, beyond)?;
        if self.generations.iter().any(|held| held.end() > range.0) {
            return None;
        }
        let header = Header {
            generation: self.next_number,
            base: range.0,
            previous_end: end.0,
            salt: Default::default(),
            created_at_ms: now_ms(),
            accepted_before: end.1.clone(),
        };
        Some(lost_whole(header, range, events))
    }

    /// Puts into the chain what is missing from it, so that it counts.
    fn push_missing(&mut self, missing: Manifest, quarantine: &Path) {
        self.losses.extend(losses_of(&missing));
        let nowhere = quarantine.join("missing");
        self.generations
            .push(Generation::sealed(nowhere, missing, true));
    }
}

/// Reads the chain from the disk.
pub(super) fn recover(
    generations: &Path,
    quarantine: &Path,
    known: &Known<'_>,
) -> Result<Recovered, StoreError> {
    for parent in [generations, quarantine] {
        if let Some(error) = remove_half_deleted(parent)? {
            tracing::warn!(directory = %parent.display(), %error, "files of a deleted generation stay");
        }
    }
    let mut recovered = Recovered {
        generations: Vec::new(),
        empty: Vec::new(),
        next_number: 1,
        next_seq: Seq::FIRST,
        known_end: Seq::FIRST,
        accepted: Tally::default(),
        losses: Vec::new(),
        unknown: Vec::new(),
    };
    let patience = Patience::default();
    let mut furthest = Furthest(Seq(0), Tally::default());
    let places = known.cursors.iter().map(|at| (at.next, at.accounted()));
    places
        .clone()
        .for_each(|(next, accepted)| furthest.note(next, &accepted));
    let high_water = known.high_water.map(HighWater::place);
    if let Some((end, accepted)) = &high_water {
        furthest.note(*end, accepted);
    }
    // What the chain is known to hold up to here, in sequence order.
    let high_water_place = high_water.clone();
    let mut end = high_water::floor(places, known.has_unreadable_cursors, high_water);
    let floor = end.as_ref().map_or(Seq(0), |(floor, _)| *floor);
    // Where the deletions had come, as far as that is known.
    let gone = known.high_water.map_or(floor, |at| at.end.min(floor));
    let mut is_told = end.is_some();
    let reach = known.cursors.iter().map(Position::reach);
    let ends = reach.chain([floor]).chain(known.receipts_end);
    recovered.known_end = ends.fold(Seq::FIRST, Seq::max);
    recovered.next_seq = recovered.known_end;
    let furthest_of_all = known.cursors.iter().map(Position::furthest);
    let reached = high_water::reached(furthest_of_all.chain(high_water_place));
    let mut found = list(generations, false)?;
    found.extend(list(quarantine, true)?);
    found.sort_unstable_by_key(|found| found.number);
    for found in found {
        recovered.next_number = recovered.next_number.max(found.number + 1);
        let number = found.number;
        let held = match take(found, quarantine, &patience)? {
            Taken::Nothing => continue,
            Taken::Empty(header, dir) => {
                is_told = true;
                recovered.next_seq = recovered.next_seq.max(header.base);
                // A cursor that has passed all there was goes on behind the numbers left out.
                if header.base >= recovered.known_end {
                    recovered.known_end = header.previous_end;
                }
                furthest.note(header.base, &header.accepted_before);
                if let Some(missing) = missing_before(&header, end.as_ref()) {
                    end = Some((header.previous_end, header.accepted_before));
                    recovered.push_missing(missing, quarantine);
                }
                recovered.empty.push(dir);
                continue;
            }
            Taken::Unknown(is_new, header) => {
                recovered.unknown.push((number, recovered.next_seq));
                is_told |= is_new;
                match header {
                    Some(header) => {
                        recovered.known_end = recovered.known_end.max(header.previous_end);
                        // The same ones, however many starts find it so.
                        recovered.leave_out(header.base);
                    }
                    None if is_new => recovered.leave_out(recovered.next_seq),
                    None => {}
                }
                continue;
            }
            Taken::Generation(held) => held,
        };
        let Held {
            manifest,
            dir,
            quarantined,
            is_written,
            is_unread,
        } = *held;
        // What lies in quarantine may be from long ago.
        is_told |= !quarantined;
        let header = &manifest.header;
        recovered.next_seq = recovered.next_seq.max(manifest.end);
        recovered.known_end = recovered.known_end.max(manifest.end);
        recovered.losses.extend(losses_of(&manifest));
        if is_unread {
            recovered.unknown.push((number, manifest.end));
            recovered.leave_out(manifest.end);
        }
        let accepted = accepted_after(&manifest);
        furthest.note(manifest.end, &accepted);
        if manifest.end <= gone && quarantined {
            // Delivered as far as it could be, and deleted; only its files are left.
            continue;
        }
        if let Some(missing) = missing_before(header, end.as_ref()) {
            recovered.push_missing(missing, quarantine);
        }
        // Others may be before the floor that are only not deleted yet.
        if end.as_ref().is_none_or(|(at, _)| *at <= manifest.end) {
            end = Some((manifest.end, accepted));
        }
        let mut generation = Generation::sealed(dir, manifest, quarantined);
        if !is_written {
            generation = generation.not_written();
        }
        recovered.generations.push(generation);
    }
    let missing = recovered.missing_behind(end.as_ref(), reached.as_ref(), known.cursors);
    if let Some(missing) = missing {
        // Its number was that of a generation, as a rule.
        recovered.next_number += 1;
        furthest.note(missing.end, &accepted_after(&missing));
        recovered.push_missing(missing, quarantine);
    }
    if !is_told && !known.is_new_host {
        recovered.leave_out(recovered.next_seq);
        // Nobody can say that nothing was before it.
        recovered.known_end = recovered.next_seq;
        tracing::error!(
            next_seq = %recovered.next_seq,
            "this host has taken events before, and neither cursors nor generations tell how many: its sequences go on far behind all that it can have given"
        );
    }
    recovered.accepted = furthest.1;
    sync_dir(generations)?;
    Ok(recovered)
}

/// What was written but not synced when the process died becomes durable before
/// anyone reads it.
pub(super) fn make_durable(dir: &Path) -> io::Result<()> {
    let store = survey::store_file(dir);
    match File::open(&store) {
        Ok(file) => file.sync_all()?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    if let Some(parent) = store.parent() {
        sync_dir(parent)?;
    }
    sync_dir(dir)
}

/// What is missing between the end of what is known and where a generation says that the one
/// before it had ended: a range that is lost as a whole.
fn missing_before(next: &Header, known: Option<&(Seq, Tally)>) -> Option<Manifest> {
    let (end, accepted) = known.filter(|(end, _)| *end < next.previous_end)?;
    let events = next.accepted_before.minus(accepted);
    let range = high_water::missing_range(*end, next.previous_end, events.total());
    let header = Header {
        generation: next.generation.saturating_sub(1),
        base: range.0,
        previous_end: *end,
        salt: Default::default(),
        created_at_ms: next.created_at_ms,
        accepted_before: accepted.clone(),
    };
    Some(lost_whole(header, range, events))
}

/// A generation of which nothing is there.
fn lost_whole(header: Header, range: (Seq, Seq), events: Tally) -> Manifest {
    let mut manifest = Manifest::new(header);
    manifest.sealed = true;
    manifest.end = range.1;
    manifest.lost = vec![range];
    manifest.lost_events = events.clone();
    manifest.events = events;
    manifest
}

/// Events accepted before a generation's end.
pub(super) fn accepted_after(manifest: &Manifest) -> Tally {
    let mut accepted = manifest.header.accepted_before.clone();
    accepted.merge(&manifest.events);
    accepted
}

/// More generations than a host ever makes: a directory with a higher number is none of
/// ours, and the next generation must have a number, too.
const NUMBER_MAX: u64 = 1 << 62;

/// The number in the name of a generation's directory.
pub(super) fn number_of(name: &std::ffi::OsStr) -> Option<u64> {
    let number = name.to_str()?.strip_prefix("gen-")?.parse().ok();
    number.filter(|number| *number < NUMBER_MAX)
}

/// The generations' directories.
fn list(parent: &Path, quarantined: bool) -> io::Result<Vec<Found>> {
    let entries = match fs::read_dir(parent) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut dirs = Vec::new();
    for entry in entries {
        let entry = entry?;
        match number_of(&entry.file_name()) {
            Some(number) => dirs.push(Found {
                number,
                dir: entry.path(),
                quarantined,
            }),
            None => {
                tracing::warn!(path = %entry.path().display(), "ignoring an unknown entry");
            }
        }
    }
    Ok(dirs)
}
