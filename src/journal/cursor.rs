//! A cursor: a named, durable position in the journal, one for each way out.
//! Called by the pumps (advance) and the keeper in `shared` (save).
//!
//! # Invariants
//! - `next` is the first sequence that this way out has not delivered; it moves
//!   only forward, and only after the delivery's evidence (the pumps' duty).
//! - What was advanced but not saved is delivered again after a crash; the ids
//!   make that harmless. Deletion looks at saved positions only.
//! - A damaged or missing file means the oldest record: deliver again, never skip.

use super::durable_file;
use super::error::CursorError;
use crate::event::identity::Seq;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Reads a saved position; 0 when there is none.
fn load(path: &Path) -> io::Result<Seq> {
    let Some(bytes) = durable_file::read(path)? else {
        return Ok(Seq(0));
    };
    let seq = bytes
        .first_chunk::<8>()
        .ok_or_else(|| io::Error::other("cursor file is too short"))?;
    Ok(Seq(u64::from_le_bytes(*seq)))
}

/// The highest position that any readable cursor file claims.
pub(super) fn highest_saved(dir: &Path) -> io::Result<Seq> {
    let mut highest = Seq(0);
    for entry in fs::read_dir(dir)? {
        // A damaged file is reported when the cursor is opened.
        highest = highest.max(load(&entry?.path()).unwrap_or(Seq(0)));
    }
    Ok(highest)
}

/// A way out's position.
#[derive(Debug)]
pub struct Cursor {
    name: String,
    path: PathBuf,
    next: AtomicU64,
    saved: AtomicU64,
}

impl Cursor {
    /// Opens or makes the cursor; a new one starts at `oldest`.
    pub(super) fn open(dir: &Path, name: &str, oldest: Seq) -> Result<Self, CursorError> {
        let is_name = (1..=64).contains(&name.len())
            && name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-');
        if !is_name {
            return Err(CursorError::Name(name.to_owned()));
        }
        let path = dir.join(name);
        let saved = load(&path).unwrap_or_else(|error| {
            tracing::error!(cursor = name, %error, "cursor file is damaged: delivering again from the oldest record");
            Seq(0)
        });
        let cursor = Self {
            name: name.to_owned(),
            path,
            next: AtomicU64::new(saved.max(oldest).0),
            saved: AtomicU64::new(0),
        };
        // Saved at once: from now on deletion waits for this way out.
        cursor.save()?;
        Ok(cursor)
    }

    /// The way out's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The first sequence not delivered yet.
    #[must_use]
    pub fn next(&self) -> Seq {
        Seq(self.next.load(Ordering::Acquire))
    }

    /// Moves on: everything before `next` is delivered. Moving back is ignored.
    pub fn advance(&self, next: Seq) {
        self.next.fetch_max(next.0, Ordering::AcqRel);
    }

    /// The position that survives a power cut.
    pub(super) fn saved(&self) -> Seq {
        Seq(self.saved.load(Ordering::Acquire))
    }

    /// Makes the present position durable. One caller at a time (the keeper).
    pub(super) fn save(&self) -> Result<(), CursorError> {
        let next = self.next();
        if next == self.saved() {
            return Ok(());
        }
        durable_file::replace(&self.path, &next.0.to_le_bytes()).map_err(|source| {
            CursorError::Io {
                path: self.path.clone(),
                source,
            }
        })?;
        self.saved.store(next.0, Ordering::Release);
        Ok(())
    }
}
