//! The store of the generation that is being written, on sled. The only file that
//! names sled. Called by `generation`.
//!
//! # The recipe, and why
//! A store is made, written and dropped by one process, and never opened again:
//! what sled does at an open (truncate, write a snapshot, want a free segment) is
//! not survived by all damage, and a half-written `conf` or `snap.*` would keep it
//! from opening though no data is gone. Whoever reads later finds the blocks in
//! the file's bytes (`scan`). While it is written:
//! - After it is made, before the first acknowledgement, its directories are
//!   synced, else names can vanish (`conf` and `db` are, too).
//! - `sync` is sled's flush and then our own fdatasync on `db`: flush alone is not
//!   durable (`sync_file_range` counts for nothing).
//! - At most [`SYNC_BYTES_MAX`] between two syncs: above 3/8 of a segment losses
//!   begin.
//! - Values stay far below the size at which sled writes `blobs/` files, which
//!   nothing syncs; `sync` fails when one appears.
//! - A block lies between small marks, which were there before it. sled's tree has up to 16
//!   values in a leaf, and writes a leaf anew, with all that is in it, when it is split and after
//!   ten changes: filled in ascending order it writes each block four times. A leaf of marks is
//!   split while it is small, gets a block or two as one change each, and is left alone (test
//!   `a_block_is_written_once`).
//! - sled panics on some damage, and in its drop on a failed sync: every call is
//!   caught.

use super::durable_file::sync_dir;
use bytes::Bytes;
use std::fs::{self, File};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

/// sled's segment size. With 8 MiB the bound on unsynced bytes is 1 MiB.
const SEGMENT_BYTES: usize = 8 << 20;

/// Payload bytes that may be put between two syncs: an eighth of a segment.
pub(super) const SYNC_BYTES_MAX: usize = SEGMENT_BYTES / 8;

/// sled's page cache for one store; reads go through the journal once.
const CACHE_BYTES: u64 = 8 << 20;

/// What making a store takes at once, in large pieces: sled's table of pages (6 MiB) and its
/// buffer of a segment, and as much again. It does not look whether it got them, and breaks
/// where it did not. More than 32 MiB, since glibc's malloc takes the size of what is given
/// back, up to that, for what it is to keep from then on.
const MEMORY_BYTES: usize = 40 << 20;

/// Marks for each block: a leaf of at least eight of them, which a split leaves, has room for
/// the blocks among them. With fewer, leaves are split again; more are only bytes.
const MARKS: u8 = 6;

/// Blocks whose marks are there before a block is put: so many that its leaf is not the last
/// one any more, which is the one that is split.
const MARKS_AHEAD: u64 = 3;

/// The time of a directory of blobs that nothing was made in: looking at it is one call
/// for each sync, and listing it is five.
const UNTOUCHED: SystemTime = SystemTime::UNIX_EPOCH;

/// A store operation that failed. After a failed put or sync the store must not
/// be written again.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    #[error("{0}")]
    Sled(#[from] sled::Error),
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("sync: {0}")]
    Sync(std::io::Error),
    #[error("store panicked: {0}")]
    Panicked(String),
    #[error("store wrote a blob file {0}, which is not synced")]
    Blob(PathBuf),
}

impl StoreError {
    /// What the machine lacked, where the failed write was for want of something.
    pub(super) fn want(&self) -> Option<Want> {
        match self {
            Self::Sled(sled::Error::Io(error)) | Self::Io(error) => want(error),
            // sled may report an error that its flush met earlier as text only.
            Self::Sled(_) | Self::Panicked(_) | Self::Blob(_) | Self::Sync(_) => None,
        }
    }
}

/// What a machine may lack now and have again later. These are the failures after which the
/// kernel has dropped nothing that it took before: it may be tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    /// The disk, or our share of it, is full.
    Space,
    /// The process, or the machine, has no file descriptor left.
    Descriptors,
    /// The process may have no more memory.
    Memory,
}

/// Whether an I/O error is for want of something.
pub(super) fn want(error: &std::io::Error) -> Option<Want> {
    use rustix::io::Errno;
    use std::io::ErrorKind::{OutOfMemory, QuotaExceeded, StorageFull};
    match error.kind() {
        StorageFull | QuotaExceeded => return Some(Want::Space),
        OutOfMemory => return Some(Want::Memory),
        _ => {}
    }
    let errno = Errno::from_io_error(error)?;
    [Errno::MFILE, Errno::NFILE]
        .contains(&errno)
        .then_some(Want::Descriptors)
}

/// Blocks by number, for reading.
pub(super) trait Blocks: Send + Sync {
    /// Reads a block.
    fn get(&self, block: u64) -> Result<Option<Bytes>, StoreError>;
    /// Whether a block that it knew could not be read: another look may find what is lost.
    fn is_failing(&self) -> bool {
        false
    }
    /// Told of a block that was damaged when it was read; whether it was whole before, so that
    /// another look may find a whole one.
    fn was_whole(&self) -> bool {
        false
    }
}

/// A store that is being written. A trait so that the writer's order of steps can
/// be tested with a store that fails or waits.
pub(super) trait BlockStore: Blocks {
    /// Puts a block; not durable before the next [`BlockStore::sync`].
    fn put(&self, block: u64, bytes: Vec<u8>) -> Result<(), StoreError>;
    /// Makes everything put so far durable.
    fn sync(&self) -> Result<(), StoreError>;
    /// Bytes on disk.
    fn disk_bytes(&self) -> u64;
}

/// A store on sled.
#[derive(Debug)]
pub(super) struct SledStore {
    /// `None` only while the store is dropped.
    db: Option<sled::Db>,
    /// sled's log file, opened a second time for our own sync.
    file: File,
    blobs: PathBuf,
    /// Blocks that have their marks.
    marked: AtomicU64,
}

impl SledStore {
    /// Makes the store in `dir`, which does not exist but whose parent does.
    pub(super) fn create(dir: &Path) -> Result<Self, StoreError> {
        memory_for(MEMORY_BYTES)?;
        super::durable_file::create_dir(dir)?;
        let config = sled::Config::new()
            .path(dir)
            .segment_size(SEGMENT_BYTES)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(None)
            .mode(sled::Mode::HighThroughput);
        let db = guarded(|| Ok(config.open()?))?;
        let store = match File::open(dir.join("db")) {
            Ok(file) => Self {
                db: Some(db),
                file,
                blobs: dir.join("blobs"),
                marked: AtomicU64::new(0),
            },
            Err(error) => {
                end(db);
                return Err(error.into());
            }
        };
        for name in ["conf", "db"] {
            File::open(dir.join(name))?.sync_all()?;
        }
        File::open(&store.blobs)?.set_modified(UNTOUCHED)?;
        sync_dir(dir)?;
        if let Some(parent) = dir.parent() {
            sync_dir(parent)?;
        }
        Ok(store)
    }

    /// Puts the marks that are to be there before this block. Blocks come from one thread, in
    /// order; whatever else would only cost bytes.
    fn mark(&self, db: &sled::Db, block: u64) -> sled::Result<()> {
        let from = self.marked.load(Ordering::Relaxed);
        let to = block.saturating_add(1 + MARKS_AHEAD);
        for marked in from..to {
            for mark in 0..MARKS {
                let mut key = [mark; 9];
                key[..8].copy_from_slice(&marked.to_be_bytes());
                db.insert(key, &[])?;
            }
        }
        self.marked.fetch_max(to, Ordering::Relaxed);
        Ok(())
    }

    fn db(&self) -> Result<&sled::Db, StoreError> {
        let ended = || StoreError::Panicked("the store has ended".to_owned());
        self.db.as_ref().ok_or_else(ended)
    }
}

impl Drop for SledStore {
    fn drop(&mut self) {
        if let Some(db) = self.db.take() {
            end(db);
        }
    }
}

/// Drops sled's handle. It syncs once more then, and panics when that fails: on a full
/// or broken disk, where nothing of it counts any more.
fn end(db: sled::Db) {
    let dropped = guarded(|| {
        drop(db);
        Ok(())
    });
    if let Err(error) = dropped {
        tracing::warn!(%error, "a store did not end cleanly");
    }
}

impl Blocks for SledStore {
    fn get(&self, block: u64) -> Result<Option<Bytes>, StoreError> {
        guarded(|| {
            let value = self.db()?.get(block.to_be_bytes())?;
            Ok(value.map(|value| Bytes::copy_from_slice(&value)))
        })
    }
}

impl BlockStore for SledStore {
    fn put(&self, block: u64, bytes: Vec<u8>) -> Result<(), StoreError> {
        guarded(|| {
            let db = self.db()?;
            self.mark(db, block)?;
            Ok(db.insert(block.to_be_bytes(), bytes).map(|_| ())?)
        })
    }

    fn sync(&self) -> Result<(), StoreError> {
        guarded(|| Ok(self.db()?.flush().map(|_| ())?))?;
        self.file.sync_data().map_err(StoreError::Sync)?;
        // A file that is made in it sets its time.
        if fs::metadata(&self.blobs)?.modified()? == UNTOUCHED {
            return Ok(());
        }
        match fs::read_dir(&self.blobs)?.next() {
            None => Ok(()),
            Some(entry) => Err(StoreError::Blob(entry?.path())),
        }
    }

    fn disk_bytes(&self) -> u64 {
        // sled's other files are a few hundred bytes.
        self.file.metadata().map_or(0, |meta| meta.len())
    }
}

/// Whether there is so much memory now. Another thread may take it in the next moment: what
/// then breaks ends in a fence, or the process.
fn memory_for(bytes: usize) -> std::io::Result<()> {
    let mut room = Vec::<u8>::new();
    let got = room.try_reserve_exact(bytes);
    // Else the compiler may leave it out.
    std::hint::black_box(&room);
    got.map_err(|_| std::io::ErrorKind::OutOfMemory.into())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_written_once() {
        // What the disk has for each byte put, for blocks as long as they get, and for short ones.
        for (block_bytes, most) in [(64 << 10, 1.1), (16 << 10, 1.2), (3 << 10, 1.7)] {
            let parent = tempfile::tempdir().unwrap();
            let store = SledStore::create(&parent.path().join("store")).unwrap();
            let blocks = 24_000_000 / block_bytes;
            for block in 0..blocks as u64 {
                store.put(block, vec![7; block_bytes]).unwrap();
                if block % 8 == 7 {
                    store.sync().unwrap();
                }
            }
            let ratio = store.disk_bytes() as f64 / (blocks * block_bytes) as f64;
            assert!(ratio < most, "{ratio:.2} for blocks of {block_bytes} bytes");
        }
    }

    #[test]
    fn a_blob_file_is_noticed_at_the_next_sync() {
        let parent = tempfile::tempdir().unwrap();
        let store = SledStore::create(&parent.path().join("store")).unwrap();
        store.put(0, vec![7; 2000]).unwrap();
        store.sync().unwrap();
        let blob = store.blobs.join("9");
        fs::write(&blob, b"x").unwrap();
        let error = store.sync().unwrap_err();
        assert!(matches!(error, StoreError::Blob(path) if path == blob));
    }

    #[test]
    fn memory_that_is_not_there_is_named_before_sled_wants_it() {
        memory_for(MEMORY_BYTES).unwrap();
        let error = memory_for(isize::MAX as usize).unwrap_err();
        assert_eq!(want(&error), Some(Want::Memory));
    }
}
