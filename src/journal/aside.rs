//! Moves directories of damaged generations to `quarantine/`. Called by `generation` and
//! `recovery`.
//!
//! # Invariants
//! - A directory is moved whole, by its name: that takes no room, once `quarantine/` is there.
//! - An error of [`moved_to`] means that it is where it was.

use super::durable_file::{create_dir, sync_dir};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Gives a directory its name in quarantine, which is not durable yet.
pub(super) fn moved_to(dir: &Path, quarantine: &Path) -> io::Result<PathBuf> {
    if !quarantine.is_dir() {
        create_dir(quarantine)?;
    }
    let name = dir
        .file_name()
        .ok_or_else(|| io::Error::other("generation has no name"))?;
    let moved = quarantine.join(name);
    fs::rename(dir, &moved)?;
    Ok(moved)
}

/// Makes a move durable that counts already, and says that what is intact is delivered.
pub(super) fn synced_aside(dir: &Path, moved: &Path) {
    tracing::error!(directory = %moved.display(), "generation is set aside whole; what is intact is delivered from there");
    sync_aside(dir, moved);
}

/// Makes a move durable that counts already: where that fails, the move would be repeated.
pub(super) fn sync_aside(dir: &Path, moved: &Path) {
    let parents = [moved.parent(), dir.parent()];
    let synced = parents.into_iter().flatten().try_for_each(sync_dir);
    if let Err(error) = synced {
        tracing::warn!(directory = %moved.display(), %error, "the move may not outlast a power cut; it would be repeated");
    }
}
