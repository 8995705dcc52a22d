//! What a start cannot read: how long it waits for that, and the mark of a generation that was
//! given up. Called by `recovery`, `taken`, `survey`, `generation` and `directory`.
//!
//! # Invariants
//! - All that a start cannot read is waited for together, so that no number of bad files holds it
//!   up for longer than systemd waits; what is marked was waited for (test
//!   `what_no_start_can_read_is_kept_as_evidence`).
//! - The mark of a generation that was given up stays for as long as its files: what is told of it
//!   is told until they are purged, be they read later or not (test
//!   `what_was_given_up_is_told_though_it_can_be_read`). One that was not set aside after all, and
//!   can be read, loses it (test `a_mark_is_taken_back_from_what_can_be_read`).

use super::durable_file::sync_dir;
use super::store::want;
use std::cell::Cell;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a start waits in all for what it cannot read, within the time that systemd gives it.
/// Tests do not have it.
pub(super) const UNREADABLE_PATIENCE: Duration =
    Duration::from_secs(if cfg!(test) { 3 } else { 60 });

/// Between two looks meanwhile.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// What a start could not read of a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unread {
    /// What lies behind some records: those are delivered.
    End,
    /// Nothing tells what it held, and nothing is delivered from it.
    Whole,
}

impl Unread {
    /// The mark: an empty file, which takes no room.
    fn file(self, dir: &Path) -> PathBuf {
        dir.join(match self {
            Self::End => "unread",
            Self::Whole => "unread_whole",
        })
    }
}

/// The time that a start has for what it cannot read, from the first such failure on.
#[derive(Debug, Default)]
pub(super) struct Patience {
    since: Cell<Option<Instant>>,
}

impl Patience {
    /// Waits a moment for something in `dir`; whether it is to be tried again.
    pub(super) fn wait(&self, dir: &Path) -> bool {
        let since = self.since.get().unwrap_or_else(|| {
            tracing::warn!(directory = %dir.display(), "parts of a generation cannot be read; trying again");
            Instant::now()
        });
        self.since.set(Some(since));
        let is_time = since.elapsed() < UNREADABLE_PATIENCE;
        if is_time {
            std::thread::sleep(LOOK_AGAIN);
        }
        is_time
    }
}

/// Reads a small file of a directory: what the system cannot read now, as while a disk's path
/// is reset, is no damage until it stays so.
///
/// # Errors
/// For want of descriptors or memory: that says nothing of the file.
pub(super) fn read<T>(
    dir: &Path,
    patience: Option<&Patience>,
    read: impl Fn(&Path) -> io::Result<T>,
) -> io::Result<io::Result<T>> {
    loop {
        let is_to_come = |error: &io::Error| {
            error.raw_os_error().is_some() && patience.is_some_and(|all| all.wait(dir))
        };
        match read(dir) {
            Err(error) if is_to_come(&error) => {}
            Err(error) if want(&error).is_some() => return Err(error),
            result => return Ok(result),
        }
    }
}

/// Marks a generation of which more may be there than could be read. Where that cannot be
/// written, only this start tells it.
pub(super) fn mark(dir: &Path, unread: Unread) {
    let marked = File::create(unread.file(dir))
        .and_then(|file| file.sync_all())
        .and_then(|()| sync_dir(dir));
    if let Err(error) = marked {
        tracing::warn!(directory = %dir.display(), %error, "cannot mark a generation that cannot be read; a later start may tell nothing of it");
    }
}

/// Takes the marks off one that is where it was, and can be read.
pub(super) fn unmark(dir: &Path) {
    for unread in [Unread::End, Unread::Whole] {
        match std::fs::remove_file(unread.file(dir)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(directory = %dir.display(), %error, "a generation stays marked that can be read");
            }
            _ => {}
        }
    }
}

/// How one is marked.
pub(super) fn marked(dir: &Path) -> Option<Unread> {
    let marks = [Unread::Whole, Unread::End];
    marks.into_iter().find(|unread| unread.file(dir).exists())
}
