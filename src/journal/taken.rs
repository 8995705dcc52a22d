//! What a start makes of one generation's directory. Called by `recovery`.
//!
//! # Invariants
//! - A generation that lacks something is moved to `quarantine/` whole, before anything is
//!   delivered from it, or as soon as there is room.
//! - Bytes that cannot be read for a moment are waited for; after that, whatever they held is told
//!   as unknown, and is neither nothing nor the end of a write that a power cut tore (tests
//!   `what_a_start_cannot_read_for_a_moment_is_not_lost`,
//!   `small_files_that_cannot_be_read_for_a_moment_are_waited_for`,
//!   `what_no_start_can_read_is_kept_as_evidence`, `an_end_that_cannot_be_read_is_told`). The
//!   numbers that it may have given are not given again, however often a start fails after that
//!   (test `numbers_of_what_cannot_be_read_are_left_out_by_each_start`).

use super::aside;
use super::manifest::{Header, Manifest};
use super::recovery::make_durable;
use super::store::{StoreError, want};
use super::survey::{self, Tail};
use super::unread::{self, Patience, Unread, marked};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A generation's directory.
pub(super) struct Found {
    pub(super) number: u64,
    pub(super) dir: PathBuf,
    pub(super) quarantined: bool,
}

/// What became of a directory.
pub(super) enum Taken {
    /// It holds no records, and tells nothing.
    Nothing,
    /// It holds no records.
    Empty(Box<Header>, PathBuf),
    /// It may have held records, and nothing tells how many; whether that is new, and its header,
    /// as far as that can be read.
    Unknown(bool, Option<Box<Header>>),
    Generation(Box<Held>),
}

/// A generation with records.
pub(super) struct Held {
    /// Sealed.
    pub(super) manifest: Manifest,
    /// Where it is now.
    pub(super) dir: PathBuf,
    /// Whether that is the quarantine.
    pub(super) quarantined: bool,
    /// Whether the manifest's file says the same.
    pub(super) is_written: bool,
    /// Behind its end more may have been, which nobody could read.
    pub(super) is_unread: bool,
}

/// Makes sense of one directory.
pub(super) fn take(
    found: Found,
    quarantine: &Path,
    patience: &Patience,
) -> Result<Taken, StoreError> {
    let Found {
        number,
        dir,
        quarantined,
    } = found;
    let mark = marked(&dir);
    // What was set aside has been waited for.
    let patience = (!quarantined).then_some(patience);
    let manifest = unread::read(&dir, patience, Manifest::read)?;
    if let Ok(Some(manifest)) = &manifest
        && manifest.sealed
    {
        let is_given_back = mark == Some(Unread::Whole) && !quarantined;
        if is_given_back {
            unread::unmark(&dir);
        }
        return Ok(Taken::Generation(Box::new(Held {
            manifest: manifest.clone(),
            dir,
            quarantined,
            is_written: true,
            is_unread: mark.is_some() && !is_given_back,
        })));
    }
    let was_damaged = manifest.is_err();
    if let Err(error) = &manifest {
        tracing::error!(generation = number, %error, "manifest is damaged");
    }
    let claimed = manifest.unwrap_or_default();
    let header = match &claimed {
        Some(manifest) => Some(manifest.header.clone()),
        None => header_of(number, &dir, patience)?,
    };
    if mark == Some(Unread::Whole) && quarantined {
        // Whatever can be read by now: the ways out have passed it.
        return Ok(Taken::Unknown(false, header.map(Box::new)));
    }
    let Some(header) = header else {
        let store = survey::store_file(&dir);
        let held_records = was_damaged || store.metadata().is_ok_and(|meta| meta.len() > 0);
        if quarantined {
            return Ok(unknown_if(held_records, None));
        }
        if !held_records {
            // Cut off while it was made: the header comes before the store.
            fs::remove_dir_all(&dir)?;
            return Ok(Taken::Nothing);
        }
        // If another follows, its header tells how far this one went.
        set_aside(&dir, quarantine)?;
        return Ok(Taken::Unknown(true, None));
    };
    make_durable(&dir)?;
    let expected = claimed.as_ref().map_or(0, |m| m.blocks);
    let blocks = survey::readable_blocks(&dir, &header.salt, expected, patience)?;
    let is_unreadable = blocks.is_unreadable();
    let manifest =
        survey::survey(&Arc::new(blocks), &header, claimed.as_ref(), Tail::Take)?.manifest;
    if manifest.end == header.base {
        if quarantined {
            return Ok(unknown_if(was_damaged || is_unreadable, Some(header)));
        }
        if was_damaged || is_unreadable {
            set_aside(&dir, quarantine)?;
            return Ok(Taken::Unknown(true, Some(header.into())));
        }
        return Ok(Taken::Empty(header.into(), dir));
    }
    if is_unreadable && !quarantined {
        // Before it is sealed: what is sealed is not looked at again.
        unread::mark(&dir, Unread::End);
    } else if mark.is_some() && !quarantined {
        unread::unmark(&dir);
    }
    let is_unread = is_unreadable || (mark.is_some() && quarantined);
    let is_written = match manifest.write(&dir) {
        Err(error) if want(&error).is_some() => {
            // A full disk keeps nobody from starting. The next start looks through the
            // blocks again.
            tracing::warn!(generation = number, %error, "no room for the manifest of a generation; it is delivered all the same");
            false
        }
        written => written.map(|()| true)?,
    };
    let is_whole = manifest.lost.is_empty() && !is_unread;
    let mut held = Held {
        manifest,
        dir,
        quarantined,
        is_written,
        is_unread,
    };
    if !is_whole && !quarantined {
        match aside::moved_to(&held.dir, quarantine) {
            Err(error) if want(&error).is_some() => {
                // As above. The keeper moves it once there is room.
                tracing::error!(generation = number, %error, "no room to set a damaged generation aside; what is intact is delivered from where it is");
            }
            moved => {
                let dir = std::mem::replace(&mut held.dir, moved?);
                aside::synced_aside(&dir, &held.dir);
                held.quarantined = true;
            }
        }
    }
    Ok(Taken::Generation(held.into()))
}

/// What a directory in quarantine tells that holds nothing to be read.
fn unknown_if(held_records: bool, header: Option<Header>) -> Taken {
    if held_records {
        Taken::Unknown(false, header.map(Box::new))
    } else {
        Taken::Nothing
    }
}

/// Moves a generation aside that does not say what it held, or where its records are.
fn set_aside(dir: &Path, quarantine: &Path) -> io::Result<()> {
    unread::mark(dir, Unread::Whole);
    let moved = aside::moved_to(dir, quarantine)?;
    aside::sync_aside(dir, &moved);
    tracing::error!(directory = %moved.display(), "generation is set aside whole: nothing tells how many records it held, and nothing is delivered from there");
    Ok(())
}

/// The header, from its own file.
fn header_of(number: u64, dir: &Path, patience: Option<&Patience>) -> io::Result<Option<Header>> {
    let header = unread::read(dir, patience, Header::read)?;
    Ok(header.unwrap_or_else(|error| {
        tracing::error!(generation = number, %error, "header is damaged");
        None
    }))
}
