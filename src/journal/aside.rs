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

/// Moves a generation's directory aside whole, to be read from there; its new path.
pub(super) fn move_to_quarantine(dir: &Path, quarantine: &Path) -> io::Result<PathBuf> {
    let moved = to_quarantine(dir, quarantine)?;
    say_aside(&moved);
    Ok(moved)
}

fn say_aside(moved: &Path) {
    tracing::error!(directory = %moved.display(), "generation is set aside whole; what is intact is delivered from there");
}

/// Moves a directory aside whole; its new path.
pub(super) fn to_quarantine(dir: &Path, quarantine: &Path) -> io::Result<PathBuf> {
    let moved = moved_to(dir, quarantine)?;
    sync_move(dir, quarantine)?;
    Ok(moved)
}

/// Gives a directory its name in quarantine, which is not durable yet.
pub(super) fn moved_to(dir: &Path, quarantine: &Path) -> io::Result<PathBuf> {
    create_dir(quarantine)?;
    let name = dir
        .file_name()
        .ok_or_else(|| io::Error::other("generation has no name"))?;
    let moved = quarantine.join(name);
    fs::rename(dir, &moved)?;
    Ok(moved)
}

fn sync_move(dir: &Path, quarantine: &Path) -> io::Result<()> {
    sync_dir(quarantine)?;
    dir.parent().map_or(Ok(()), sync_dir)
}

/// Makes a move durable that counts already.
pub(super) fn synced_aside(dir: &Path, moved: &Path) {
    say_aside(moved);
    if let Some(quarantine) = moved.parent()
        && let Err(error) = sync_move(dir, quarantine)
    {
        tracing::warn!(directory = %moved.display(), %error, "the move may not outlast a power cut; it would be repeated");
    }
}
