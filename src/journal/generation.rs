//! One link of the journal's chain: a directory with a header, a manifest and a
//! store; appended to, sealed, read, and deleted as a whole. Called by `writer`,
//! `reader`, `recovery`, `shared`.
//!
//! # Invariants
//! - `end`, `blocks` and `events` count synced data only, and only grow until
//!   sealed.
//! - A sealed generation's blocks are looked up when it is read and forgotten by
//!   the last reader, so that memory does not grow with the backlog; by the first whose read
//!   failed, too (test `what_one_reader_found_unreadable_holds_up_no_other`).
//! - A look for blocks holds up who reads them, and nobody else; parts that cannot be read are an
//!   error for a while, and lost only after that (test
//!   `what_cannot_be_read_for_a_moment_is_not_lost`).
//! - One that lacks blocks is moved to quarantine whole and read on from there; its
//!   files are never changed and never deleted by the service. One that cannot be moved now is
//!   read where it is, and moved later, at the latest instead of its deletion (`aside_tests`).

use super::aside;
use super::block::Salt;
use super::doomed::{self, remove_files};
use super::durable_file::{create_dir, dir_bytes, sync_dir};
use super::losses::Loss;
use super::manifest::{Header, Manifest};
use super::store::{BlockStore, Blocks, StoreError};
use super::survey::{self, Tail};
use super::unread::marked;
use crate::event::identity::Seq;
use crate::event::tally::Tally;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

/// How long parts of a file may be unreadable before what they held counts as lost: a disk or its
/// path may answer again.
const UNREADABLE_PATIENCE: Duration = Duration::from_secs(180);

/// How long after a look that failed for that the next one comes: each reads the whole file.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// A generation as the chain knows it.
pub(super) struct Generation {
    pub(super) header: Header,
    state: Mutex<State>,
    /// Held over a look for the blocks, which may take a bad disk minutes; taken before `state`,
    /// for which others wait that must not stand still.
    looking: Mutex<Looking>,
}

/// Of looks that met parts which could not be read: the first and the last.
type Looking = Option<(Instant, Instant)>;

struct State {
    dir: PathBuf,
    manifest: Manifest,
    /// The manifest's file says the same.
    is_written: bool,
    quarantined: bool,
    /// A start could not read all of it.
    is_unread: bool,
    /// When it could not be moved there.
    aside_tried: Option<Instant>,
    /// Its name is gone; its files are going.
    deleted: bool,
    disk_bytes: u64,
    /// Held while appends go in.
    active: Option<Arc<dyn BlockStore>>,
    /// A sealed store that some reader holds.
    opened: Weak<dyn Blocks>,
}

/// The blocks to read, and what the look for them found to be lost.
pub(super) struct Opened {
    pub(super) blocks: Arc<dyn Blocks>,
    pub(super) losses: Vec<Loss>,
    /// Why it could not be set aside, although it lacks blocks.
    pub(super) not_aside: Option<io::Error>,
}

impl std::fmt::Debug for Generation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "gen-{}", self.header.generation)
    }
}

/// Nobody holds these blocks.
struct NoBlocks;

impl Blocks for NoBlocks {
    fn get(&self, _: u64) -> Result<Option<bytes::Bytes>, StoreError> {
        Ok(None)
    }
}

fn unopened() -> Weak<dyn Blocks> {
    let none: Weak<NoBlocks> = Weak::new();
    none
}

fn unreadable() -> StoreError {
    io::Error::other("parts of the file cannot be read; tried again").into()
}

impl State {
    /// The blocks, where somebody holds them.
    fn held(&self) -> Option<Arc<dyn Blocks>> {
        let active = self.active.clone().map(|store| store as Arc<dyn Blocks>);
        // Whoever holds what turned out not to be readable may go on; the next one looks again.
        let opened = || self.opened.upgrade().filter(|blocks| !blocks.is_failing());
        active.or_else(opened)
    }

    /// Whether it lacks records, as far as anybody can tell, and is where it was.
    fn is_to_go_aside(&self) -> bool {
        let is_whole = self.manifest.lost.is_empty() && !self.is_unread;
        !(is_whole || self.quarantined || self.deleted)
    }

    /// Moves it to quarantine, with a manifest that tells what it lacks: where that cannot be
    /// written, only where `is_passed`, since nobody is to read it any more.
    fn set_aside(&mut self, quarantine: &Path, is_passed: bool) -> io::Result<()> {
        self.aside_tried = Some(Instant::now());
        if !self.is_written {
            match self.manifest.write(&self.dir) {
                Ok(()) => self.is_written = true,
                Err(error) if is_passed => {
                    tracing::warn!(directory = %self.dir.display(), %error, "a damaged generation that is delivered goes to quarantine without its manifest");
                }
                Err(error) => return Err(error),
            }
        }
        // From here on it is there, be its new name durable or not: else the next start has it
        // where it was, with this manifest, and moves it again.
        let moved = aside::moved_to(&self.dir, quarantine)?;
        let dir = std::mem::replace(&mut self.dir, moved);
        self.quarantined = true;
        aside::synced_aside(&dir, &self.dir);
        Ok(())
    }
}

impl Generation {
    /// The directory of a generation.
    pub(super) fn dir_in(generations: &Path, number: u64) -> PathBuf {
        generations.join(format!("gen-{number:012}"))
    }

    /// Makes a new generation and its durable names.
    pub(super) fn create(
        generations: &Path,
        header: Header,
        make_store: impl FnOnce(&Path) -> Result<Arc<dyn BlockStore>, StoreError>,
    ) -> Result<Self, StoreError> {
        let dir = Self::dir_in(generations, header.generation);
        create_dir(&dir)?;
        header.write(&dir)?;
        let store = make_store(&dir.join("store"))?;
        // Last, so that a directory with a manifest always has a whole store.
        let manifest = Manifest::new(header.clone());
        manifest.write(&dir)?;
        Ok(Self {
            header,
            state: Mutex::new(State {
                dir,
                manifest,
                is_written: true,
                is_unread: false,
                quarantined: false,
                aside_tried: None,
                deleted: false,
                disk_bytes: store.disk_bytes(),
                opened: unopened(),
                active: Some(store),
            }),
            looking: Mutex::default(),
        })
    }

    /// A sealed generation of an earlier run, by its manifest.
    pub(super) fn sealed(dir: PathBuf, manifest: Manifest, quarantined: bool) -> Self {
        let disk_bytes = dir_bytes(&dir);
        Self {
            header: manifest.header.clone(),
            state: Mutex::new(State {
                is_unread: marked(&dir).is_some(),
                dir,
                manifest,
                is_written: true,
                quarantined,
                aside_tried: None,
                deleted: false,
                disk_bytes,
                active: None,
                opened: unopened(),
            }),
            looking: Mutex::default(),
        }
    }

    /// Its manifest's file says something else, or is not there.
    pub(super) fn not_written(self) -> Self {
        self.state().is_written = false;
        self
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn number(&self) -> u64 {
        self.header.generation
    }

    pub(super) fn base(&self) -> Seq {
        self.header.base
    }

    pub(super) fn salt(&self) -> Salt {
        self.header.salt
    }

    /// The sequence after the last synced record.
    pub(super) fn end(&self) -> Seq {
        self.state().manifest.end
    }

    /// Synced blocks.
    pub(super) fn blocks(&self) -> u64 {
        self.state().manifest.blocks
    }

    pub(super) fn is_sealed(&self) -> bool {
        self.state().manifest.sealed
    }

    /// Whether its name is gone, and with it what could be read.
    pub(super) fn is_deleted(&self) -> bool {
        self.state().deleted
    }

    pub(super) fn disk_bytes(&self) -> u64 {
        self.state().disk_bytes
    }

    /// Events of its records, and those of them that are known to be lost.
    pub(super) fn events(&self) -> (Tally, Tally) {
        let state = self.state();
        (
            state.manifest.events.clone(),
            state.manifest.lost_events.clone(),
        )
    }

    /// Its end with [`Generation::events`], as of one moment.
    pub(super) fn account(&self) -> (Seq, Tally, Tally) {
        let manifest = &self.state().manifest;
        let (events, lost) = (manifest.events.clone(), manifest.lost_events.clone());
        (manifest.end, events, lost)
    }

    /// When a record was received, or a little before.
    pub(super) fn received_at_ms(&self, seq: Seq) -> Option<i64> {
        self.state().manifest.times.of(seq)
    }

    /// Publishes what a returned sync covers; `records` are those it added, with
    /// their time of receipt.
    pub(super) fn synced(&self, blocks: u64, end: Seq, events: &Tally, times: &[(Seq, i64)]) {
        let mut state = self.state();
        let manifest = &mut state.manifest;
        assert!(
            blocks >= manifest.blocks && end >= manifest.end && !manifest.sealed,
            "a generation only grows until it is sealed"
        );
        manifest.blocks = blocks;
        manifest.end = end;
        manifest.events.merge(events);
        for (seq, received_at_ms) in times {
            manifest.times.note(*seq, *received_at_ms);
        }
        state.is_written = false;
        if let Some(store) = &state.active {
            state.disk_bytes = store.disk_bytes();
        }
    }

    /// Whether the manifest's file is behind.
    pub(super) fn is_written(&self) -> bool {
        self.state().is_written
    }

    /// Writes the manifest as of the last sync, if its file is behind and the
    /// generation is still where it was.
    pub(super) fn write_manifest(&self) -> io::Result<()> {
        let (manifest, dir) = {
            let state = self.state();
            if state.is_written {
                return Ok(());
            }
            (state.manifest.clone(), state.dir.clone())
        };
        let written = manifest.write(&dir);
        let mut state = self.state();
        if written.is_err() && (state.deleted || state.dir != dir) {
            // Delivered and deleted, or set aside with a manifest, in the meantime.
            return Ok(());
        }
        written?;
        state.is_written = state.manifest == manifest;
        Ok(())
    }

    /// Ends the appends: everything that counts was synced before. The store stays
    /// open for as long as a reader holds it. What remains is to write the manifest.
    pub(super) fn seal(&self) {
        let mut state = self.state();
        state.manifest.sealed = true;
        state.is_written = false;
        let store: Option<Arc<dyn Blocks>> = state.active.take().map(|store| store as _);
        if let Some(store) = &store {
            state.opened = Arc::downgrade(store);
        }
        state.disk_bytes = dir_bytes(&state.dir);
        drop(state);
        // Here the store ends, unless a reader holds it.
        drop(store);
    }

    /// The blocks for reading, looked up if nobody holds them.
    pub(super) fn open(&self, quarantine: &Path) -> Result<Opened, StoreError> {
        self.open_within(UNREADABLE_PATIENCE, quarantine)
    }

    /// The same; parts that cannot be read are an error for so long.
    pub(super) fn open_within(
        &self,
        patience: Duration,
        quarantine: &Path,
    ) -> Result<Opened, StoreError> {
        // Two readers share one result.
        let looking = self.looking.lock();
        let mut looking = looking.unwrap_or_else(PoisonError::into_inner);
        let (dir, claimed, is_aside) = {
            let state = self.state();
            if let Some(blocks) = state.held() {
                return Ok(Opened {
                    blocks,
                    losses: Vec::new(),
                    not_aside: None,
                });
            }
            (state.dir.clone(), state.manifest.clone(), state.quarantined)
        };
        if looking.is_some_and(|(_, last)| last.elapsed() < LOOK_AGAIN.min(patience)) {
            return Err(unreadable());
        }
        let expected = claimed.blocks;
        let blocks = survey::open_blocks(&dir, &self.header.salt, expected)?;
        let is_whole = blocks.count_below(expected) == expected;
        if !is_whole && !is_aside && blocks.is_unreadable() {
            let now = Instant::now();
            let (first, _) = *looking.get_or_insert((now, now));
            *looking = Some((first, now));
            if first.elapsed() < patience {
                return Err(unreadable());
            }
        }
        *looking = None;
        let blocks = Arc::new(blocks);
        let found = match is_whole || is_aside {
            true => None,
            false => Some(survey::survey(
                &blocks,
                &self.header,
                Some(&claimed),
                Tail::Leave,
            )?),
        };
        let mut state = self.state();
        if state.deleted || state.dir != dir {
            return Err(io::Error::other("gone while its blocks were looked for").into());
        }
        let (mut losses, mut not_aside) = (Vec::new(), None);
        if let Some(found) = found {
            state.manifest = found.manifest;
            state.is_written = false;
            losses = losses_of(&state.manifest);
            not_aside = state.set_aside(quarantine, false).err();
        }
        let blocks: Arc<dyn Blocks> = blocks;
        state.opened = Arc::downgrade(&blocks);
        Ok(Opened {
            blocks,
            losses,
            not_aside,
        })
    }

    /// Sets it aside if that is still to be done, and was not tried within `pause`.
    pub(super) fn set_aside_late(
        &self,
        quarantine: &Path,
        pause: Duration,
    ) -> Option<io::Result<()>> {
        let mut state = self.state();
        let is_time = state.aside_tried.is_none_or(|at| at.elapsed() >= pause);
        (is_time && state.is_to_go_aside()).then(|| state.set_aside(quarantine, false))
    }

    /// One that lacks records goes to quarantine instead of its deletion, and stays there, as
    /// evidence.
    pub(super) fn keep_evidence(&self, quarantine: &Path) -> io::Result<()> {
        let mut state = self.state();
        match state.is_to_go_aside() {
            true => state.set_aside(quarantine, true),
            false => Ok(()),
        }
    }

    /// Deletes the directory: first its name (one atomic step), then its files. One in
    /// quarantine stays. What is left of its files is rubbish that nobody looks for: it is removed
    /// later (`doomed`), and holds up nothing.
    ///
    /// Why some are left.
    pub(super) fn delete(&self, generations: &Path) -> io::Result<Option<io::Error>> {
        let mut state = self.state();
        if state.quarantined {
            return Ok(None);
        }
        if !state.deleted {
            state.dir = doomed::rename(&state.dir, generations, self.number())?;
            state.deleted = true;
        }
        // From here on a failure is tried again where it was.
        sync_dir(generations)?;
        Ok(remove_files(&state.dir).err())
    }
}

/// The losses that a manifest records.
pub(super) fn losses_of(manifest: &Manifest) -> Vec<Loss> {
    let generation = manifest.header.generation;
    let range = |(first, end): &(Seq, Seq)| Loss {
        generation,
        first: *first,
        end: *end,
    };
    manifest.lost.iter().map(range).collect()
}
