//! What a start finds on the disk and makes of it. Called by `handle`.
//!
//! # Invariants
//! - Never needs a person: what cannot be read is moved to `quarantine/` whole,
//!   with the lost range in the log, and the start goes on.
//! - Sealed generations are taken by their manifest, unopened; only one that was
//!   not sealed is opened, checked block by block, and sealed.
//! - Sequences continue after the highest that any manifest, block or cursor has
//!   claimed, so that none is given twice and none hides behind a cursor (tests
//!   `sequences_go_on_behind_every_cursor_whatever_is_damaged`,
//!   `without_its_generations_it_goes_on_behind_its_cursors`).

use super::block;
use super::durable_file::sync_dir;
use super::generation::Generation;
use super::manifest::Manifest;
use super::store::{BlockStore, SledStore, StoreError};
use crate::event::identity::Seq;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Sequences left out after a generation whose range cannot be told: more records
/// than any generation holds.
const UNKNOWN_RANGE: u64 = 1 << 32;

/// What was found.
#[derive(Debug)]
pub(super) struct Found {
    /// Sealed generations in order, each with at least one record.
    pub(super) generations: Vec<Generation>,
    /// The number for the next generation.
    pub(super) next_number: u64,
    /// The sequence for the next record.
    pub(super) next_seq: Seq,
    /// Records that the manifests claimed and the stores do not have.
    pub(super) lost_records: u64,
}

/// Reads the chain from the disk; `cursors_end` is the highest saved cursor.
pub(super) fn recover(
    generations: &Path,
    quarantine: &Path,
    cursors_end: Seq,
) -> io::Result<Found> {
    let mut found = Found {
        generations: Vec::new(),
        next_number: 1,
        next_seq: cursors_end.max(Seq::FIRST),
        lost_records: 0,
    };
    for (number, dir) in list(generations)? {
        found.next_number = number + 1;
        let manifest = match Manifest::read(&dir) {
            Ok(Some(manifest)) => manifest,
            Ok(None) => {
                // Cut off while it was made, and then its store is empty; else the
                // manifest was lost, and the records are still there.
                match rebuild(&dir, number) {
                    Ok(manifest) => manifest,
                    Err(error) => {
                        tracing::warn!(generation = number, %error, "no manifest; set aside");
                        move_to_quarantine(&dir, quarantine)?;
                        continue;
                    }
                }
            }
            Err(error) => {
                tracing::error!(generation = number, %error, "manifest is damaged");
                match rebuild(&dir, number) {
                    Ok(manifest) => manifest,
                    Err(error) => {
                        tracing::error!(generation = number, %error, "generation is set aside whole");
                        found.next_seq = Seq(found.next_seq.0 + UNKNOWN_RANGE);
                        move_to_quarantine(&dir, quarantine)?;
                        continue;
                    }
                }
            }
        };
        found.next_seq = found.next_seq.max(Seq(manifest.end_seq));
        let claimed_end = manifest.end_seq;
        let manifest = if manifest.sealed {
            manifest
        } else {
            match seal_unsealed(&dir, &manifest) {
                Ok(sealed) => {
                    found.lost_records += manifest.end_seq.saturating_sub(sealed.end_seq);
                    found.next_seq = found.next_seq.max(Seq(sealed.end_seq));
                    sealed
                }
                Err(error) => {
                    let lost = manifest.end_seq - manifest.base_seq;
                    tracing::error!(
                        generation = number, %error, first_seq = manifest.base_seq,
                        end_seq = manifest.end_seq, "generation cannot be read; its records are lost to delivery"
                    );
                    found.lost_records += lost;
                    move_to_quarantine(&dir, quarantine)?;
                    continue;
                }
            }
        };
        if manifest.end_seq == manifest.base_seq {
            if claimed_end > manifest.base_seq {
                // The store opened and has lost what it held: its files are evidence.
                move_to_quarantine(&dir, quarantine)?;
            } else {
                fs::remove_dir_all(&dir)?;
            }
            continue;
        }
        found.generations.push(Generation::sealed(dir, &manifest));
    }
    sync_dir(generations)?;
    Ok(found)
}

/// The generations' directories by number; half-deleted ones are removed.
fn list(generations: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut dirs = Vec::new();
    for entry in fs::read_dir(generations)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("deleted-") {
            fs::remove_dir_all(entry.path())?;
        } else if let Some(number) = name.strip_prefix("gen-").and_then(|n| n.parse().ok()) {
            dirs.push((number, entry.path()));
        } else {
            tracing::warn!(%name, "ignoring an unknown entry among the generations");
        }
    }
    dirs.sort_unstable_by_key(|(number, _)| *number);
    Ok(dirs)
}

/// Seals a generation that was being written when the process ended: everything
/// up to its last whole record stays.
fn seal_unsealed(dir: &Path, manifest: &Manifest) -> Result<Manifest, StoreError> {
    let store = SledStore::open(&dir.join("store"))?;
    let (blocks, end) = scan(&store, Seq(manifest.base_seq))?;
    // What was there but unsynced when the process died becomes durable now.
    store.sync()?;
    let mut sealed = manifest.clone();
    sealed.blocks = blocks;
    sealed.end_seq = end.0;
    sealed.sealed = true;
    if sealed.end_seq < manifest.end_seq {
        tracing::error!(
            generation = manifest.generation,
            first_seq = sealed.end_seq,
            end_seq = manifest.end_seq,
            "store lost records that its manifest claims"
        );
    }
    sealed.write(dir)?;
    Ok(sealed)
}

/// A manifest from what the store holds; not sealed yet.
fn rebuild(dir: &Path, number: u64) -> Result<Manifest, StoreError> {
    let store = SledStore::open(&dir.join("store"))?;
    let last = store.last_block()?.map_or(0, |last| last + 1);
    for block in 0..last {
        let frames = store
            .get(block)?
            .and_then(|bytes| block::parse(&bytes, block).ok());
        if let Some(first) = frames.as_ref().and_then(|frames| frames.first()) {
            return Ok(Manifest::new(number, first.seq));
        }
    }
    Err(StoreError::Io(io::Error::other("no readable block")))
}

/// Walks the dense block numbers: the blocks up to the last whole record, and the
/// sequence after it. A damaged block in the middle does not end the walk.
fn scan(store: &dyn BlockStore, base: Seq) -> Result<(u64, Seq), StoreError> {
    let Some(last) = store.last_block()? else {
        return Ok((0, base));
    };
    let (mut blocks, mut end) = (0, base);
    for number in 0..=last {
        let Some(bytes) = store.get(number)? else {
            continue;
        };
        match block::parse(&bytes, number) {
            Ok(frames) => {
                let whole = frames.iter().rev().find(|f| f.part + 1 == f.parts);
                if let Some(frame) = whole {
                    blocks = number + 1;
                    end = end.max(frame.seq.next());
                }
            }
            Err(error) => {
                tracing::error!(block = number, %error, "damaged block");
            }
        }
    }
    Ok((blocks, end))
}

/// Moves a generation aside whole.
pub(super) fn move_to_quarantine(dir: &Path, quarantine: &Path) -> io::Result<()> {
    super::durable_file::create_dir(quarantine)?;
    let name = dir
        .file_name()
        .ok_or_else(|| io::Error::other("generation has no name"))?;
    fs::rename(dir, quarantine.join(name))?;
    sync_dir(quarantine)
}
