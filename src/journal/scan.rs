//! The blocks of a store that nobody writes any more, found in the bytes of its
//! file. Called by `generation` (to read sealed generations) and `survey`.
//!
//! # Why not open the store
//! sled's open writes: it needs a free segment on the disk, takes memory by what is
//! read, and on damage it may truncate the file or give an empty store. A block is
//! contiguous in sled's log and known by its own salt, length and checksum, so it
//! can be found without sled: a full disk can still be drained, and a damaged store
//! gives up every block whose bytes are whole.
//!
//! # Invariants
//! - Opens the file for reading only.
//! - Gives a block only if its checksum held, at the scan and again when it is read.
//! - sled keeps copies of a block; any whole one will do.

use super::block::{self, BLOCK_BYTES_MAX, Salt};
use super::store::{Blocks, StoreError};
use bytes::{Bytes, BytesMut};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes that are looked at in one go.
const WINDOW_BYTES: usize = 2 << 20;

/// What is left out around a place that the disk cannot read.
const PAGE_BYTES: usize = 4 << 10;

/// The blocks of one file.
#[derive(Debug)]
pub(super) struct BlockFile {
    /// `None` when there is no such file: then there are no blocks.
    file: Option<File>,
    salt: Salt,
    /// Where each block is, and its length.
    places: BTreeMap<u64, (u64, usize)>,
    proven_blocks: u64,
    /// Parts of the file could not be read.
    is_unreadable: bool,
    /// From here on a disk refuses to read it.
    #[cfg(test)]
    unreadable_from: Option<u64>,
    /// A block that was found could not be read later, or was another one then.
    is_failing: AtomicBool,
}

impl BlockFile {
    /// Looks through the file.
    pub(super) fn open(path: &Path, salt: &Salt) -> io::Result<Self> {
        let file = match File::open(path) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let length = file
            .as_ref()
            .map_or(Ok(0), |f| f.metadata().map(|m| m.len()))?;
        let mut found = Self {
            file,
            salt: *salt,
            places: BTreeMap::new(),
            proven_blocks: 0,
            is_unreadable: false,
            #[cfg(test)]
            unreadable_from: None,
            is_failing: AtomicBool::new(false),
        };
        // What a disk does that nothing here can make it do.
        #[cfg(test)]
        {
            found.unreadable_from = std::fs::read_to_string(path.with_extension("unreadable"))
                .ok()
                .map(|from| from.parse().unwrap_or(0));
        }
        let finder = memchr::memmem::Finder::new(salt);
        let mut at = 0;
        while at < length {
            let wanted = usize::try_from(length - at).map_or(WINDOW_BYTES, |l| l.min(WINDOW_BYTES));
            let window = found.read_window(at, wanted);
            let is_last = at + window.len() as u64 >= length;
            at += found.look_through(&finder, at, &window, is_last) as u64;
        }
        Ok(found)
    }

    /// Notes the blocks of a window; how many of its bytes are done with.
    fn look_through(
        &mut self,
        finder: &memchr::memmem::Finder<'_>,
        window_at: u64,
        window: &Bytes,
        is_last: bool,
    ) -> usize {
        let mut done = 0;
        while let Some(hit) = finder.find(&window[done..]) {
            let start = done + hit;
            if !is_last && window.len() - start < BLOCK_BYTES_MAX {
                return start;
            }
            match block::parse(&window.slice(start..), &self.salt) {
                Ok(block) => {
                    self.places
                        .entry(block.number)
                        .or_insert((window_at + start as u64, block.bytes));
                    self.proven_blocks = self.proven_blocks.max(block.durable_blocks);
                    done = start + block.bytes;
                }
                Err(_) => done = start + 1,
            }
        }
        if is_last {
            window.len()
        } else {
            // The salt may begin in the last bytes.
            done.max(window.len() - block::SALT_BYTES)
        }
    }

    /// Reads a part of the file; what the disk cannot read comes as zeros.
    fn read_window(&mut self, at: u64, length: usize) -> Bytes {
        let mut window = BytesMut::zeroed(length);
        let Some(file) = &self.file else {
            return window.freeze();
        };
        #[cfg(test)]
        if let Some(from) = self
            .unreadable_from
            .filter(|from| *from < at + length as u64)
        {
            self.is_unreadable = true;
            let readable = from.saturating_sub(at) as usize;
            file.read_exact_at(&mut window[..readable], at).unwrap();
            return window.freeze();
        }
        if file.read_exact_at(&mut window, at).is_err() {
            for (i, page) in window.chunks_mut(PAGE_BYTES).enumerate() {
                let page_at = at + (i * PAGE_BYTES) as u64;
                if let Err(error) = file.read_exact_at(page, page_at) {
                    tracing::error!(at = page_at, %error, "cannot read a part of a store");
                    page.fill(0);
                    self.is_unreadable = true;
                }
            }
        }
        window.freeze()
    }

    /// Whether parts of the file could not be read: what is missing may be there.
    pub(super) fn is_unreadable(&self) -> bool {
        self.is_unreadable
    }

    /// Whether a whole copy of the block was found.
    pub(super) fn has(&self, block: u64) -> bool {
        self.places.contains_key(&block)
    }

    /// Whole blocks below a number.
    pub(super) fn count_below(&self, block: u64) -> u64 {
        self.places.range(..block).count() as u64
    }

    /// How many blocks some block proves to have been synced.
    pub(super) fn proven_blocks(&self) -> u64 {
        self.proven_blocks
    }
}

impl Blocks for BlockFile {
    fn get(&self, block: u64) -> Result<Option<Bytes>, StoreError> {
        let (Some(file), Some((at, length))) = (&self.file, self.places.get(&block)) else {
            return Ok(None);
        };
        let mut bytes = BytesMut::zeroed(*length);
        if let Err(error) = file.read_exact_at(&mut bytes, *at) {
            self.is_failing.store(true, Ordering::Relaxed);
            return Err(error.into());
        }
        Ok(Some(bytes.freeze()))
    }

    fn is_failing(&self) -> bool {
        self.is_failing.load(Ordering::Relaxed)
    }

    fn was_whole(&self) -> bool {
        self.is_failing.store(true, Ordering::Relaxed);
        true
    }
}
