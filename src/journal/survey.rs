//! Reads a generation that nobody writes through and says what it holds and what
//! is missing. Called by `recovery` (after a crash), `generation` (when a sealed one
//! is found to lack blocks) and `directory` (`journal verify`).
//!
//! # Invariants
//! - A range is lost if the manifest, or any block, proves that it was synced and
//!   it is not there. A hole behind all proofs is a write that a power cut tore:
//!   nobody was told of it, and what lies behind the hole is left out with it.

use super::block::Salt;
use super::contents::Contents;
use super::manifest::{Header, Manifest};
use super::scan::BlockFile;
use super::store::StoreError;
use super::unread::Patience;
use crate::event::tally::Tally;
use std::path::Path;
use std::sync::Arc;

/// What a look through a generation gave.
#[derive(Debug)]
pub(super) struct Survey {
    /// As it should be from now on: sealed, with its losses.
    pub(super) manifest: Manifest,
    /// Whole records that are there.
    pub(super) records: u64,
    /// Whole blocks that are there, of the manifest's.
    pub(super) blocks_found: u64,
    /// Their events.
    pub(super) found: Tally,
}

/// The store's file below a generation's directory.
pub(super) fn store_file(dir: &Path) -> std::path::PathBuf {
    dir.join("store").join("db")
}

/// How often a store is looked through before blocks count as missing: one that is
/// written, or was dropped a moment ago, may have moved them under the look.
const LOOKS_MAX: usize = 3;

/// Looks up the blocks of a generation, of which `expected` should be there.
pub(super) fn open_blocks(dir: &Path, salt: &Salt, expected: u64) -> std::io::Result<BlockFile> {
    let mut looks = 1;
    loop {
        let blocks = BlockFile::open(&store_file(dir), salt)?;
        if looks == LOOKS_MAX || blocks.count_below(expected) == expected {
            return Ok(blocks);
        }
        looks += 1;
    }
}

/// The blocks of one that was not sealed, once all of its bytes can be read: what cannot be read
/// now, as while a disk's path is reset, is no damage until it stays so.
pub(super) fn readable_blocks(
    dir: &Path,
    salt: &Salt,
    expected: u64,
    patience: Option<&Patience>,
) -> std::io::Result<BlockFile> {
    loop {
        let blocks = open_blocks(dir, salt, expected)?;
        let is_to_come = blocks.is_unreadable() && patience.is_some_and(|all| all.wait(dir));
        if !is_to_come {
            return Ok(blocks);
        }
    }
}

/// What a survey makes of blocks that nothing proves to have been synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tail {
    /// They count: whoever wrote them is gone, and they are made durable first.
    Take,
    /// They do not: they may be being written.
    Leave,
}

/// Reads everything. `claimed` is the manifest if it can be read.
pub(super) fn survey(
    blocks: &Arc<BlockFile>,
    header: &Header,
    claimed: Option<&Manifest>,
    tail: Tail,
) -> Result<Survey, StoreError> {
    let nothing = Manifest::new(header.clone());
    let claimed = claimed.unwrap_or(&nothing);
    let mut end_block = claimed.blocks;
    if !claimed.sealed {
        end_block = end_block.max(blocks.proven_blocks());
        while tail == Tail::Take && blocks.has(end_block) {
            end_block += 1;
        }
    }
    let mut manifest = Manifest {
        blocks: end_block,
        sealed: true,
        lost: Vec::new(),
        ..claimed.clone()
    };
    let (mut records, mut found, mut found_of_claimed) = (0, Tally::default(), Tally::default());
    let mut expected = header.base;
    let mut contents = Contents::new(Arc::<BlockFile>::clone(blocks), header.salt);
    while contents.block() < end_block {
        for record in contents.next()? {
            if record.seq > expected {
                manifest.lost.push((expected, record.seq));
            }
            expected = record.seq.next();
            records += 1;
            found.merge(&record.events);
            if record.seq < claimed.end {
                found_of_claimed.merge(&record.events);
            } else {
                manifest.events.merge(&record.events);
                manifest.times.note(record.seq, record.received_at_ms);
            }
        }
    }
    manifest.end = claimed.end.max(expected);
    if expected < manifest.end {
        manifest.lost.push((expected, manifest.end));
    }
    manifest.lost_events = claimed.events.minus(&found_of_claimed);
    Ok(Survey {
        manifest,
        records,
        blocks_found: blocks.count_below(end_block),
        found,
    })
}
