//! One generation's sled store, used only in the way that lost nothing under
//! simulated power cuts. The only file that names sled. Called by `generation`.
//!
//! # The recipe, and why
//! - Before each open: `conf` and `snap.*` are deleted and the directory synced. A
//!   half-written one makes every later open fail though no data is gone.
//! - After each open, before the first acknowledgement: `conf`, `db`, the directory
//!   and its parent are synced, else names can vanish.
//! - `sync` is sled's flush and then our own fdatasync on `db`: flush alone is not
//!   durable (`sync_file_range` counts for nothing).
//! - At most [`SYNC_BYTES_MAX`] between two syncs: above 3/8 of a segment losses
//!   begin.
//! - Values stay far below the size at which sled writes `blobs/` files, which
//!   nothing syncs; `sync` fails when one appears.
//! - sled panics on some damage: every call that may read foreign bytes is caught.

use super::durable_file::sync_dir;
use bytes::Bytes;
use std::fs::{self, File};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// sled's segment size. With 8 MiB the bound on unsynced bytes is 1 MiB.
const SEGMENT_BYTES: usize = 8 << 20;

/// Payload bytes that may be put between two syncs: an eighth of a segment.
pub(super) const SYNC_BYTES_MAX: usize = SEGMENT_BYTES / 8;

/// sled's page cache for one store; reads go through the journal once.
const CACHE_BYTES: u64 = 8 << 20;

/// How long an open waits for the lock of a store just dropped in this process.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(5);

/// A store operation that failed. After a failed put or sync the store must not
/// be written again.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    #[error("{0}")]
    Sled(#[from] sled::Error),
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("store panicked: {0}")]
    Panicked(String),
    #[error("store wrote a blob file {0}, which is not synced")]
    Blob(PathBuf),
}

/// Blocks by number. A trait so that the writer's order of steps can be tested
/// with a store that fails or waits.
pub(super) trait BlockStore: Send + Sync {
    /// Puts a block; not durable before the next [`BlockStore::sync`].
    fn put(&self, block: u64, bytes: Vec<u8>) -> Result<(), StoreError>;
    /// Makes everything put so far durable.
    fn sync(&self) -> Result<(), StoreError>;
    /// Reads a block.
    fn get(&self, block: u64) -> Result<Option<Bytes>, StoreError>;
    /// The highest block number present.
    fn last_block(&self) -> Result<Option<u64>, StoreError>;
    /// Bytes on disk.
    fn disk_bytes(&self) -> u64;
}

/// A store on sled.
#[derive(Debug)]
pub(super) struct SledStore {
    db: sled::Db,
    /// sled's log file, opened a second time for our own sync.
    file: File,
    blobs: PathBuf,
}

impl SledStore {
    /// Opens or creates the store in `dir`, whose parent exists.
    pub(super) fn open(dir: &Path) -> Result<Self, StoreError> {
        super::durable_file::create_dir(dir)?;
        clean(dir)?;
        let db = open_sled(dir)?;
        let file = File::open(dir.join("db"))?;
        for name in ["conf", "db"] {
            File::open(dir.join(name))?.sync_all()?;
        }
        sync_dir(dir)?;
        if let Some(parent) = dir.parent() {
            sync_dir(parent)?;
        }
        Ok(Self {
            db,
            file,
            blobs: dir.join("blobs"),
        })
    }
}

impl BlockStore for SledStore {
    fn put(&self, block: u64, bytes: Vec<u8>) -> Result<(), StoreError> {
        guarded(|| Ok(self.db.insert(block.to_be_bytes(), bytes).map(|_| ())?))
    }

    fn sync(&self) -> Result<(), StoreError> {
        guarded(|| Ok(self.db.flush().map(|_| ())?))?;
        self.file.sync_data()?;
        match fs::read_dir(&self.blobs)?.next() {
            None => Ok(()),
            Some(entry) => Err(StoreError::Blob(entry?.path())),
        }
    }

    fn get(&self, block: u64) -> Result<Option<Bytes>, StoreError> {
        guarded(|| {
            let value = self.db.get(block.to_be_bytes())?;
            Ok(value.map(|value| Bytes::copy_from_slice(&value)))
        })
    }

    fn last_block(&self) -> Result<Option<u64>, StoreError> {
        guarded(|| {
            let Some((key, _)) = self.db.last()? else {
                return Ok(None);
            };
            Ok(key.first_chunk::<8>().map(|key| u64::from_be_bytes(*key)))
        })
    }

    fn disk_bytes(&self) -> u64 {
        // sled's other files are a few hundred bytes.
        self.file.metadata().map_or(0, |meta| meta.len())
    }
}

/// Deletes what a cut may have left half-written and sled can do without.
fn clean(dir: &Path) -> std::io::Result<()> {
    let mut deleted = false;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name == "conf" || name.starts_with("snap.") {
            fs::remove_file(entry.path())?;
            deleted = true;
        }
    }
    if deleted {
        if let Ok(file) = File::open(dir.join("db")) {
            file.sync_all()?;
        }
        sync_dir(dir)?;
    }
    Ok(())
}

fn open_sled(dir: &Path) -> Result<sled::Db, StoreError> {
    let config = sled::Config::new()
        .path(dir)
        .segment_size(SEGMENT_BYTES)
        .cache_capacity(CACHE_BYTES)
        .flush_every_ms(None)
        .mode(sled::Mode::HighThroughput);
    let started = Instant::now();
    loop {
        match guarded(|| Ok(config.open()?)) {
            Err(StoreError::Sled(sled::Error::Io(error)))
                if is_lock(&error) && started.elapsed() < LOCK_WAIT_MAX =>
            {
                std::thread::sleep(Duration::from_millis(20));
            }
            other => return other,
        }
    }
}

fn is_lock(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::WouldBlock || error.to_string().contains("acquire lock")
}

fn guarded<T>(work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_default();
        Err(StoreError::Panicked(text))
    })
}
