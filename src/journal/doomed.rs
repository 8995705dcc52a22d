//! What is left of generations that are deleted: their names are gone, and their files are going.
//! Called by `generation`, `shared`, `skip`, `start` and `recovery`.
//!
//! # Invariants
//! - A generation loses its name first, in one durable step, so that nobody takes what is left of
//!   it for a damaged one.
//! - Files that cannot be removed hold up nothing: no start, and no other deletion (tests
//!   `rubbish_that_stays_keeps_nothing_from_starting`, tests/it/faults, "deletion: unlink").

use super::durable_file::sync_dir;
use super::recovery::number_of;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// How the name of a generation begins whose files are going.
const DOOMED: &str = "deleted-";

/// The name of a generation whose files are going; a start removes what is left of it.
pub(super) fn doomed_in(generations: &Path, number: u64) -> PathBuf {
    generations.join(format!("{DOOMED}{number:012}"))
}

/// Deletes a generation's directory.
pub(super) fn remove(dir: &Path) -> io::Result<()> {
    let parent = dir.parent().unwrap_or(dir);
    let number = number_of(dir.file_name().unwrap_or_default()).unwrap_or_default();
    let doomed = doomed_in(parent, number);
    fs::rename(dir, &doomed)?;
    sync_dir(parent)?;
    remove_files(&doomed)
}

/// Removes what is left of generations that were deleted; why some of it still is.
pub(super) fn remove_half_deleted(parent: &Path) -> io::Result<Option<io::Error>> {
    let entries = match fs::read_dir(parent) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        entries => entries?,
    };
    let mut left = None;
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(DOOMED) {
            left = remove_files(&entry.path()).err().or(left);
        }
    }
    Ok(left)
}

/// Removes the files of one that is deleted, where there are any.
pub(super) fn remove_files(doomed: &Path) -> io::Result<()> {
    match fs::remove_dir_all(doomed) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}
