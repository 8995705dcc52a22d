//! One link of the journal's chain: a directory with a manifest and a store,
//! appended to, sealed, read, and deleted as a whole. Called by `writer`,
//! `reader`, `recovery` and `shared`.
//!
//! # Invariants
//! - `end_seq` and `blocks` count synced data only, and only grow until sealed.
//! - A sealed generation's store is opened when it is read and dropped by the
//!   last reader, so that memory does not grow with the backlog.

use super::durable_file::{create_dir, sync_dir};
use super::manifest::Manifest;
use super::store::{BlockStore, SledStore, StoreError};
use crate::event::identity::Seq;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// A generation as the chain knows it.
pub(super) struct Generation {
    pub(super) number: u64,
    pub(super) base: Seq,
    dir: PathBuf,
    state: Mutex<State>,
}

struct State {
    end: Seq,
    blocks: u64,
    sealed: bool,
    disk_bytes: u64,
    /// Held while appends go in; a sealed generation keeps no store open.
    active: Option<Arc<dyn BlockStore>>,
    /// A store that some reader holds.
    opened: Weak<dyn BlockStore>,
}

impl std::fmt::Debug for Generation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "gen-{}", self.number)
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
        number: u64,
        base: Seq,
        make_store: impl FnOnce(&Path) -> Result<Arc<dyn BlockStore>, StoreError>,
    ) -> Result<Self, StoreError> {
        let dir = Self::dir_in(generations, number);
        create_dir(&dir)?;
        let store = make_store(&dir.join("store"))?;
        // Last, so that a directory with a manifest always has a whole store.
        Manifest::new(number, base).write(&dir)?;
        Ok(Self {
            number,
            base,
            dir,
            state: Mutex::new(State {
                end: base,
                blocks: 0,
                sealed: false,
                disk_bytes: store.disk_bytes(),
                opened: Arc::downgrade(&store),
                active: Some(store),
            }),
        })
    }

    /// A sealed generation of an earlier run, by its manifest.
    pub(super) fn sealed(dir: PathBuf, manifest: &Manifest) -> Self {
        let disk_bytes = dir_bytes(&dir);
        let opened: Weak<SledStore> = Weak::new();
        Self {
            number: manifest.generation,
            base: Seq(manifest.base_seq),
            dir,
            state: Mutex::new(State {
                end: Seq(manifest.end_seq),
                blocks: manifest.blocks,
                sealed: true,
                disk_bytes,
                active: None,
                opened,
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The sequence after the last synced record.
    pub(super) fn end(&self) -> Seq {
        self.state().end
    }

    /// Synced blocks.
    pub(super) fn blocks(&self) -> u64 {
        self.state().blocks
    }

    pub(super) fn is_sealed(&self) -> bool {
        self.state().sealed
    }

    pub(super) fn disk_bytes(&self) -> u64 {
        self.state().disk_bytes
    }

    /// Publishes what a returned sync covers.
    pub(super) fn synced(&self, blocks: u64, end: Seq) {
        let mut state = self.state();
        assert!(
            blocks >= state.blocks && end >= state.end && !state.sealed,
            "a generation only grows until it is sealed"
        );
        state.blocks = blocks;
        state.end = end;
        if let Some(store) = &state.active {
            state.disk_bytes = store.disk_bytes();
        }
    }

    /// Writes the manifest as of the last sync.
    pub(super) fn write_manifest(&self) -> io::Result<()> {
        self.manifest().write(&self.dir)
    }

    fn manifest(&self) -> Manifest {
        let state = self.state();
        let mut manifest = Manifest::new(self.number, self.base);
        manifest.blocks = state.blocks;
        manifest.end_seq = state.end.0;
        manifest.sealed = state.sealed;
        manifest
    }

    /// Ends the appends: everything put was synced before. The store stays open
    /// for as long as a reader holds it.
    pub(super) fn seal(&self) -> io::Result<()> {
        self.state().sealed = true;
        self.write_manifest()?;
        let mut state = self.state();
        state.active = None;
        state.disk_bytes = dir_bytes(&self.dir);
        Ok(())
    }

    /// The store for reading, opened if nobody holds it.
    pub(super) fn store(&self) -> Result<Arc<dyn BlockStore>, StoreError> {
        // The lock is held over the open: two readers must not open one store.
        let mut state = self.state();
        if let Some(store) = state.active.clone().or_else(|| state.opened.upgrade()) {
            return Ok(store);
        }
        let store: Arc<dyn BlockStore> = Arc::new(SledStore::open(&self.dir.join("store"))?);
        state.opened = Arc::downgrade(&store);
        Ok(store)
    }

    /// Deletes the directory: first its name (one atomic step), then its files.
    pub(super) fn delete(&self, generations: &Path) -> io::Result<()> {
        let doomed = generations.join(format!("deleted-{:012}", self.number));
        fs::rename(&self.dir, &doomed)?;
        sync_dir(generations)?;
        fs::remove_dir_all(&doomed)
    }
}

/// Bytes of the files below a directory; what cannot be read counts as none.
fn dir_bytes(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => dir_bytes(&entry.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}
