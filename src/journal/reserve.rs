//! Disk space kept for the journal's own needs: a file that is given back when the
//! disk is nearly full, so that manifests, seals, cursors and dead letters can
//! still be written. Called by `capacity`; the file is `reserve` in the data
//! directory.
//!
//! # Invariants
//! - The space is really allocated, not only a length (test
//!   `the_reserve_takes_real_space_and_gives_it_back_in_steps`).
//! - It never grows into what must stay free (test
//!   `it_grows_only_where_there_is_room_and_comes_back_when_there_is`).
//! - Nothing here fails an append or a start: without room or without the right,
//!   there is no reserve, and a warning says so once.

use rustix::fs::FallocateFlags;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// How much is given back at once: two of sled's segments, which opens a store
/// and writes any manifest. The rest stays for the next need.
pub(super) const GIVE_BACK_STEP_BYTES: u64 = 16 << 20;

/// Bytes written at once where the file system cannot allocate.
const ZEROS_BYTES: usize = 1 << 20;

/// The unit of `st_blocks`, whatever the file system's own.
const STAT_BLOCK_BYTES: u64 = 512;

/// The file.
#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    target_bytes: u64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    held_bytes: u64,
    /// Whether the last try failed, and was told.
    failing: bool,
    /// Whether the last try to give it back failed, and was told.
    stuck: bool,
}

impl Reserve {
    /// Takes over what an earlier run left of the file.
    pub(super) fn open(path: PathBuf, target_bytes: u64) -> Self {
        let held_bytes = std::fs::metadata(&path)
            .map_or(0, |meta| meta.len().min(meta.blocks() * STAT_BLOCK_BYTES));
        let reserve = Self {
            path,
            target_bytes,
            state: Mutex::new(State {
                held_bytes,
                failing: false,
                stuck: false,
            }),
        };
        if held_bytes > target_bytes {
            reserve.shrink_to(target_bytes);
        }
        reserve
    }

    /// Bytes that it holds.
    pub(super) fn held_bytes(&self) -> u64 {
        self.state().held_bytes
    }

    /// Bytes that it should hold and does not.
    pub(super) fn missing_bytes(&self) -> u64 {
        self.target_bytes.saturating_sub(self.held_bytes())
    }

    /// Makes what is missing as far as `room_bytes` go, whole steps only; says
    /// whether it grew.
    pub(super) fn grow(&self, room_bytes: u64) -> bool {
        let mut state = self.state();
        let missing = self.target_bytes.saturating_sub(state.held_bytes);
        let bytes = if room_bytes >= missing {
            missing
        } else {
            room_bytes - room_bytes % GIVE_BACK_STEP_BYTES
        };
        if bytes == 0 {
            return false;
        }
        match allocate(&self.path, state.held_bytes, bytes) {
            Ok(()) => {
                state.held_bytes += bytes;
                state.failing = false;
                tracing::info!(held_bytes = state.held_bytes, "disk reserve made");
                true
            }
            Err(error) => {
                if !state.failing {
                    tracing::warn!(path = %self.path.display(), %error, "cannot make the disk reserve; trying again");
                    state.failing = true;
                }
                false
            }
        }
    }

    /// Gives one step back to the file system; the bytes that it got.
    pub(super) fn give_back(&self) -> u64 {
        let held = self.held_bytes();
        self.shrink_to(held.saturating_sub(GIVE_BACK_STEP_BYTES))
    }

    fn shrink_to(&self, bytes: u64) -> u64 {
        let mut state = self.state();
        if state.held_bytes <= bytes {
            return 0;
        }
        let cut = || File::options().write(true).open(&self.path)?.set_len(bytes);
        match cut() {
            Ok(()) => {
                let given = state.held_bytes - bytes;
                state.held_bytes = bytes;
                state.stuck = false;
                tracing::warn!(
                    given_bytes = given,
                    held_bytes = bytes,
                    "disk reserve given back"
                );
                given
            }
            Err(error) => {
                if error.kind() == io::ErrorKind::NotFound {
                    // Someone has deleted it: there is nothing to give.
                    state.held_bytes = 0;
                }
                if !state.stuck {
                    tracing::error!(path = %self.path.display(), %error, "cannot give back the disk reserve");
                    state.stuck = true;
                }
                0
            }
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Extends the file from `held` by `bytes`, with space behind them; on an error it
/// is as long as before.
fn allocate(path: &std::path::Path, held: u64, bytes: u64) -> io::Result<()> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)?;
    let made = match rustix::fs::fallocate(&file, FallocateFlags::empty(), held, bytes) {
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
            write_zeros(&file, held, bytes)
        }
        other => other.map_err(io::Error::from),
    };
    if made.is_err() {
        // What a half-done allocation took goes back. A second failure leaves a
        // longer file, which the next start reads as held.
        drop(file.set_len(held));
    }
    made
}

fn write_zeros(mut file: &File, from: u64, bytes: u64) -> io::Result<()> {
    use std::io::Seek as _;
    file.seek(io::SeekFrom::Start(from))?;
    let zeros = vec![0; ZEROS_BYTES];
    let mut left = bytes;
    while left > 0 {
        let now = left.min(ZEROS_BYTES as u64);
        file.write_all(zeros.get(..now as usize).unwrap_or(&zeros))?;
        left -= now;
    }
    // Some file systems find out only now that there is no space.
    file.sync_data()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn on_disk(reserve: &Reserve) -> u64 {
        let meta = std::fs::metadata(&reserve.path).unwrap();
        assert_eq!(meta.len(), reserve.held_bytes());
        meta.blocks() * STAT_BLOCK_BYTES
    }

    #[test]
    fn the_reserve_takes_real_space_and_gives_it_back_in_steps() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("reserve");
        let reserve = Reserve::open(path.clone(), 40 * MIB);
        assert_eq!(reserve.missing_bytes(), 40 * MIB);
        assert!(reserve.grow(u64::MAX));
        assert!(on_disk(&reserve) >= 40 * MIB);
        assert!(!reserve.grow(u64::MAX), "it is whole");
        // A restart takes it over.
        let reserve = Reserve::open(path, 40 * MIB);
        assert_eq!(reserve.held_bytes(), 40 * MIB);
        assert_eq!(reserve.give_back(), 16 * MIB);
        let left = on_disk(&reserve);
        assert!((24 * MIB..25 * MIB).contains(&left), "{left}");
        assert_eq!(reserve.give_back(), 16 * MIB);
        assert_eq!(reserve.give_back(), 8 * MIB);
        assert_eq!(reserve.give_back(), 0);
        assert_eq!(on_disk(&reserve), 0);
    }

    #[test]
    fn it_grows_only_where_there_is_room_and_comes_back_when_there_is() {
        let dir = tempfile::tempdir().unwrap();
        let reserve = Reserve::open(dir.path().join("reserve"), 40 * MIB);
        assert!(!reserve.grow(15 * MIB), "less than a step");
        assert!(reserve.grow(39 * MIB));
        assert_eq!(reserve.held_bytes(), 32 * MIB);
        assert!(!reserve.grow(7 * MIB));
        assert!(reserve.grow(8 * MIB));
        assert_eq!(reserve.missing_bytes(), 0);
    }

    #[test]
    fn a_smaller_target_gives_the_rest_back_and_a_sparse_file_counts_as_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("reserve");
        assert!(Reserve::open(path.clone(), 8 * MIB).grow(u64::MAX));
        let reserve = Reserve::open(path.clone(), 2 * MIB);
        assert_eq!(reserve.held_bytes(), 2 * MIB);
        assert!(on_disk(&reserve) < 3 * MIB);
        let file = File::create(&path).unwrap();
        file.set_len(8 * MIB).unwrap();
        assert_eq!(Reserve::open(path, 8 * MIB).held_bytes(), 0);
    }

    #[test]
    fn zeros_are_written_where_the_file_system_cannot_allocate() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("reserve");
        let file = File::create(&path).unwrap();
        write_zeros(&file, 0, 3 * MIB + 1).unwrap();
        write_zeros(&file, 3 * MIB + 1, MIB).unwrap();
        let meta = file.metadata().unwrap();
        assert_eq!(meta.len(), 4 * MIB + 1);
        assert!(meta.blocks() * STAT_BLOCK_BYTES >= 4 * MIB);
    }

    #[test]
    fn what_cannot_be_made_or_was_deleted_does_no_harm() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("reserve");
        std::fs::create_dir(&path).unwrap();
        let reserve = Reserve::open(path.clone(), 8 * MIB);
        assert!(!reserve.grow(u64::MAX));
        std::fs::remove_dir(&path).unwrap();
        let reserve = Reserve::open(path.clone(), 8 * MIB);
        assert!(reserve.grow(u64::MAX));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(reserve.give_back(), 0);
        assert_eq!(reserve.held_bytes(), 0);
        assert!(reserve.grow(u64::MAX));
    }
}
