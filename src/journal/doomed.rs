//! What is left of generations that are deleted: their names are gone, and their files are going.
//! Called by `generation`, `shared`, `skip`, `start` and `recovery`.
//!
//! # Invariants
//! - A generation loses its name first, in one durable step, so that nobody takes what is left of
//!   it for a damaged one: no file is removed before that.
//! - Files that cannot be removed hold up nothing: no start, and no other deletion, not even of a
//!   generation that has the same number, since numbers come again (tests
//!   `rubbish_that_stays_keeps_nothing_from_starting`,
//!   `rubbish_keeps_no_generation_of_its_number`, tests/it/faults, "deletion: unlink"). They
//!   count as used as long as they are there.

use super::durable_file::{dir_bytes, sync_dir};
use super::recovery::number_of;
use super::shared::lock;
use crate::telemetry::Board;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How the name of a generation begins whose files are going.
const DOOMED: &str = "deleted-";

/// How long after files stayed it is tried again to remove them.
const CLEAR_AGAIN: Duration = Duration::from_secs(5);

/// Whether a name is that of a generation whose files are going.
pub(super) fn is_doomed(name: &str) -> bool {
    name.starts_with(DOOMED)
}

/// Takes a generation's name away, which is not durable yet; the new one.
pub(super) fn rename(dir: &Path, generations: &Path, number: u64) -> io::Result<PathBuf> {
    let mut doomed = generations.join(format!("{DOOMED}{number:012}"));
    let mut more = 0_u64;
    // Files may stay of another that had its number.
    while is_there(&doomed)? {
        more += 1;
        doomed = generations.join(format!("{DOOMED}{number:012}-{more}"));
    }
    fs::rename(dir, &doomed)?;
    Ok(doomed)
}

fn is_there(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Deletes a generation's directory; why some of its files stay.
pub(super) fn remove(dir: &Path) -> io::Result<Option<io::Error>> {
    let parent = dir.parent().unwrap_or(dir);
    let number = number_of(dir.file_name().unwrap_or_default()).unwrap_or_default();
    let doomed = rename(dir, parent, number)?;
    sync_dir(parent)?;
    Ok(remove_files(&doomed).err())
}

/// Removes what is left of generations that were deleted; why some of it still is.
pub(super) fn remove_half_deleted(parent: &Path) -> io::Result<Option<io::Error>> {
    let mut left = None;
    for (at, doomed) in half_deleted(parent)?.iter().enumerate() {
        if at == 0
            && let Err(error) = sync_dir(parent)
        {
            // Their old names may come back, and nothing is to be missing then.
            return Ok(Some(error));
        }
        left = remove_files(doomed).err().or(left);
    }
    Ok(left)
}

fn half_deleted(parent: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(parent) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        if is_doomed(&entry.file_name().to_string_lossy()) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Removes the files of one that is deleted, where there are any.
pub(super) fn remove_files(doomed: &Path) -> io::Result<()> {
    match fs::remove_dir_all(doomed) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn bytes_of(doomed: &Path) -> u64 {
    let file = fs::symlink_metadata(doomed)
        .ok()
        .filter(|meta| !meta.is_dir());
    file.map_or_else(|| dir_bytes(doomed), |meta| meta.len())
}

/// Files of deleted generations that a running journal could not remove, or found.
#[derive(Debug)]
pub(super) struct Rubbish {
    generations: PathBuf,
    quarantine: PathBuf,
    left: Mutex<Left>,
}

#[derive(Debug)]
struct Left {
    may_be: bool,
    tried: Option<Instant>,
    /// Among the generations.
    bytes: u64,
}

impl Rubbish {
    pub(super) fn new(generations: PathBuf, quarantine: PathBuf) -> Self {
        // As a start leaves it.
        let left = Left {
            may_be: true,
            tried: None,
            bytes: 0,
        };
        Self {
            generations,
            quarantine,
            left: Mutex::new(left),
        }
    }

    /// There is some, for this reason.
    pub(super) fn note(&self, error: &io::Error, board: &Board) {
        self.look();
        if board.is_new("rubbish", "rubbish") {
            tracing::warn!(%error, "files of deleted generations stay; trying again");
        }
    }

    /// There may be some.
    pub(super) fn look(&self) {
        lock(&self.left).may_be = true;
    }

    /// Bytes of generations that do not count any more, as of the last try.
    pub(super) fn bytes(&self) -> u64 {
        lock(&self.left).bytes
    }

    /// Removes it, if there is any and it was not tried a moment ago.
    pub(super) fn clear(&self, board: &Board) {
        {
            let mut left = lock(&self.left);
            let is_early = left.tried.is_some_and(|at| at.elapsed() < CLEAR_AGAIN);
            if !left.may_be || is_early {
                return;
            }
            left.may_be = false;
            left.tried = Some(Instant::now());
        }
        let removed = [&self.generations, &self.quarantine].map(|dir| remove_half_deleted(dir));
        let error = removed
            .into_iter()
            .find_map(|result| result.unwrap_or_else(Some));
        let stays = half_deleted(&self.generations).unwrap_or_default();
        lock(&self.left).bytes = stays.iter().map(|doomed| bytes_of(doomed)).sum();
        if let Some(error) = error {
            self.note(&error, board);
        } else if let Some(lasted) = board.over("rubbish") {
            tracing::info!(failed_for = ?lasted, "files of deleted generations are gone");
        }
    }
}
