//! What a start finds on the disk and makes of it. Called by `handle`.
//!
//! # Invariants
//! - Never needs a person: a generation that lacks something is moved to
//!   `quarantine/` whole, its losses are told exactly, and what is intact is
//!   delivered from there.
//! - Sealed generations are taken by their manifest, unopened; only those that were
//!   not sealed are looked through, so that the time of a start does not depend on
//!   the backlog.
//! - Sequences continue after the highest that any manifest, block or cursor has
//!   claimed, so that none is given twice and none hides behind a cursor (tests
//!   `sequences_go_on_behind_every_cursor_whatever_is_damaged`,
//!   `without_its_generations_it_goes_on_behind_its_cursors`).

use super::durable_file::sync_dir;
use super::generation::{Generation, losses_of, move_to_quarantine};
use super::losses::Loss;
use super::manifest::{Header, Manifest};
use super::position::Position;
use super::store::{StoreError, want};
use super::survey::{self, Tail};
use crate::event::identity::Seq;
use crate::event::tally::Tally;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Sequences left out after a generation whose range cannot be told: more records
/// than any generation holds.
const UNKNOWN_RANGE: u64 = 1 << 32;

/// What was found.
#[derive(Debug)]
pub(super) struct Recovered {
    /// Sealed generations in order, each with at least one record.
    pub(super) generations: Vec<Generation>,
    /// The number for the next generation.
    pub(super) next_number: u64,
    /// The sequence for the next record.
    pub(super) next_seq: Seq,
    /// Events accepted so far.
    pub(super) accepted: Tally,
    /// What the disk no longer has.
    pub(super) losses: Vec<Loss>,
}

/// A generation's directory.
struct Found {
    number: u64,
    dir: PathBuf,
    quarantined: bool,
}

/// What became of a directory.
enum Taken {
    /// It holds no records.
    Nothing,
    /// It may have held records, and nothing tells how many.
    Unknown,
    /// Its manifest, sealed; where it is now; whether that is the quarantine.
    Generation(Box<Manifest>, PathBuf, bool),
}

/// Reads the chain from the disk. `cursors` are the positions that could be read.
pub(super) fn recover(
    generations: &Path,
    quarantine: &Path,
    cursors: &[Position],
) -> Result<Recovered, StoreError> {
    remove_half_deleted(generations)?;
    let floor = cursors.iter().min_by_key(|cursor| cursor.next);
    let highest = cursors.iter().max_by_key(|cursor| cursor.next);
    let reach = cursors.iter().map(Position::reach).max();
    let mut recovered = Recovered {
        generations: Vec::new(),
        next_number: 1,
        next_seq: reach.unwrap_or(Seq::FIRST).max(Seq::FIRST),
        accepted: highest.map_or_else(Tally::default, Position::accounted),
        losses: Vec::new(),
    };
    // What the chain is known to hold up to here, in sequence order.
    let mut end = floor.map_or(Seq::FIRST, |cursor| cursor.next);
    let mut accepted = floor.map_or_else(Tally::default, Position::accounted);
    let mut found = list(generations, false)?;
    found.extend(list(quarantine, true)?);
    found.sort_unstable_by_key(|found| found.number);
    for found in found {
        recovered.next_number = recovered.next_number.max(found.number + 1);
        let number = found.number;
        let (manifest, dir, quarantined) = match take(found, quarantine)? {
            Taken::Nothing => continue,
            Taken::Unknown => {
                recovered.next_seq = Seq(recovered.next_seq.0 + UNKNOWN_RANGE);
                continue;
            }
            Taken::Generation(manifest, dir, quarantined) => (*manifest, dir, quarantined),
        };
        let header = &manifest.header;
        recovered.next_seq = recovered.next_seq.max(manifest.end);
        recovered.losses.extend(losses_of(&manifest));
        if manifest.end <= floor.map_or(Seq(0), |cursor| cursor.next) && quarantined {
            // Delivered as far as it could be; only its files are left.
            continue;
        }
        if end < header.previous_end {
            let missing = missing(number - 1, end, &accepted, header);
            recovered.losses.extend(losses_of(&missing));
            let nowhere = quarantine.join("missing");
            recovered
                .generations
                .push(Generation::sealed(nowhere, missing, true));
        }
        end = manifest.end;
        accepted = header.accepted_before.clone();
        accepted.merge(&manifest.events);
        recovered
            .generations
            .push(Generation::sealed(dir, manifest, quarantined));
    }
    if !recovered.generations.is_empty() {
        recovered.accepted = accepted;
    }
    sync_dir(generations)?;
    Ok(recovered)
}

/// Makes sense of one directory.
fn take(found: Found, quarantine: &Path) -> Result<Taken, StoreError> {
    let Found {
        number,
        dir,
        quarantined,
    } = found;
    let manifest = Manifest::read(&dir);
    if let Ok(Some(manifest)) = &manifest
        && manifest.sealed
    {
        return Ok(Taken::Generation(manifest.clone().into(), dir, quarantined));
    }
    let was_damaged = manifest.is_err();
    if let Err(error) = &manifest {
        tracing::error!(generation = number, %error, "manifest is damaged");
    }
    let claimed = manifest.unwrap_or_default();
    let Some(header) = header_of(number, &dir, claimed.as_ref()) else {
        let store = survey::store_file(&dir);
        let held_records = was_damaged || store.metadata().is_ok_and(|meta| meta.len() > 0);
        if quarantined {
            return Ok(Taken::Nothing);
        }
        if !held_records {
            // Cut off while it was made: the header comes before the store.
            fs::remove_dir_all(&dir)?;
            return Ok(Taken::Nothing);
        }
        // If another follows, its header tells how far this one went.
        move_to_quarantine(&dir, quarantine)?;
        return Ok(Taken::Unknown);
    };
    make_durable(&dir)?;
    let expected = claimed.as_ref().map_or(0, |manifest| manifest.blocks);
    let blocks = Arc::new(survey::open_blocks(&dir, &header.salt, expected)?);
    let manifest = survey::survey(&blocks, &header, claimed.as_ref(), Tail::Take)?.manifest;
    if manifest.end == header.base {
        if quarantined {
            return Ok(Taken::Nothing);
        }
        if was_damaged {
            move_to_quarantine(&dir, quarantine)?;
            return Ok(Taken::Unknown);
        }
        fs::remove_dir_all(&dir)?;
        return Ok(Taken::Nothing);
    }
    match manifest.write(&dir) {
        Err(error) if want(&error).is_some() => {
            // A full disk keeps nobody from starting. The next start looks through the
            // blocks again.
            tracing::warn!(generation = number, %error, "no room for the manifest of a generation; it is delivered all the same");
        }
        written => written?,
    }
    if manifest.lost.is_empty() || quarantined {
        return Ok(Taken::Generation(manifest.into(), dir, quarantined));
    }
    let dir = move_to_quarantine(&dir, quarantine)?;
    Ok(Taken::Generation(manifest.into(), dir, true))
}

/// The header, from the manifest or its own file.
fn header_of(number: u64, dir: &Path, claimed: Option<&Manifest>) -> Option<Header> {
    if let Some(manifest) = claimed {
        return Some(manifest.header.clone());
    }
    Header::read(dir).unwrap_or_else(|error| {
        tracing::error!(generation = number, %error, "header is damaged");
        None
    })
}

/// What was written but not synced when the process died becomes durable before
/// anyone reads it.
fn make_durable(dir: &Path) -> io::Result<()> {
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

/// Stands for a generation that is not there any more, between the one that ends at
/// `end` and the one with the header `next`.
fn missing(number: u64, end: Seq, accepted: &Tally, next: &Header) -> Manifest {
    let events = next.accepted_before.minus(accepted);
    let header = Header {
        generation: number,
        base: end,
        previous_end: end,
        salt: Default::default(),
        created_at_ms: next.created_at_ms,
        accepted_before: accepted.clone(),
    };
    let mut manifest = Manifest::new(header);
    manifest.sealed = true;
    manifest.end = next.previous_end;
    manifest.lost = vec![(end, next.previous_end)];
    manifest.lost_events = events.clone();
    manifest.events = events;
    manifest
}

fn remove_half_deleted(generations: &Path) -> io::Result<()> {
    for entry in fs::read_dir(generations)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("deleted-") {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
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
