//! What an open reads beside the generations, and what it leaves in order: cursors, the names
//! of receipts, directories without records. Called by `handle`.
//!
//! # Invariants
//! - Damage of any of these files keeps nobody from starting: a cursor that cannot be read
//!   begins at the oldest record, and what cannot be listed tells nothing (test
//!   `a_drained_host_never_begins_anew_whatever_becomes_of_its_cursors`).

use super::cursor::is_name;
use super::doomed::remove;
use super::error::{CursorError, OpenError};
use super::handle::io_error;
use super::position::Position;
use super::receipts;
use super::shared::Shared;
use crate::event::identity::Seq;
use std::path::{Path, PathBuf};

/// The positions of all cursors whose files can be read, and whether there are others; a
/// damaged one is reported when it is opened.
pub(super) fn saved_positions(dir: &Path) -> Result<(Vec<Position>, bool), OpenError> {
    let (mut positions, mut has_unreadable) = (Vec::new(), false);
    for entry in std::fs::read_dir(dir).map_err(io_error("read", dir))? {
        let entry = entry.map_err(io_error("read", dir))?;
        if is_name(&entry.file_name().to_string_lossy()) {
            match Position::read(&entry.path()) {
                Ok(position) => positions.push(position),
                Err(_) => has_unreadable = true,
            }
        }
    }
    Ok((positions, has_unreadable))
}

/// The end of what receipts tell of; what cannot be listed tells nothing.
pub(super) fn receipts_end(dir: &Path) -> Option<Seq> {
    let files = receipts::list(dir);
    let files = files.inspect_err(|error| tracing::warn!(%error, "cannot list the receipts"));
    let ends = files.into_iter().flatten().map(|file| file.span.end);
    // A name can claim anything; there must be room behind it.
    ends.filter(|end| end.0 <= Seq::MAX.0 / 2).max()
}

/// Removes generations without records, now that another has the place where they began.
pub(super) fn remove_empty(dirs: &[PathBuf]) {
    for dir in dirs {
        match remove(dir) {
            Ok(None) => {}
            // The keeper tries again.
            Ok(Some(error)) => tracing::debug!(%error, "files of an empty generation stay"),
            Err(error) => {
                tracing::warn!(directory = %dir.display(), %error, "an empty generation stays until the next start");
            }
        }
    }
}

/// Opens every cursor that has a file: one that no way out uses any more still
/// holds its records back, until an operator removes it. Where it has passed all that
/// there is, it goes on at `next_seq`: numbers before that are nobody's.
pub(super) fn load_cursors(shared: &Shared, next_seq: Seq) -> Result<(), OpenError> {
    let dir = &shared.cursors_dir;
    let end = shared.chain().last().map_or(Seq::FIRST, |last| last.end());
    for entry in std::fs::read_dir(dir).map_err(io_error("read", dir))? {
        let entry = entry.map_err(io_error("read", dir))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        match shared.open_cursor(&name) {
            Ok(cursor) => {
                let (next, ahead) = cursor.place();
                if next >= end && ahead.is_empty() {
                    cursor.advance(next_seq, &[]);
                }
            }
            // Left by a cut between write and rename, or not ours.
            Err(CursorError::Name(_)) => {
                tracing::debug!(%name, "not a cursor");
            }
            Err(CursorError::Io { path, source }) => {
                return Err(io_error("write", &path)(source));
            }
        }
    }
    Ok(())
}
