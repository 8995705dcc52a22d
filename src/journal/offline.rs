//! Changes to a detached data directory, by an operator. Called by `cli` when no
//! service runs on it.
//!
//! # Invariants
//! - Holds the directory's lock: no service starts on it meanwhile, and what a
//!   killed one left unsealed counts (test `a_killed_directory_is_skipped_to_its_end`).
//! - Deletes nothing while a cursor cannot be read: its way out may need every record (tests
//!   `an_unreadable_cursor_keeps_everything`,
//!   `a_quarantine_stays_where_a_cursor_cannot_be_read`).
//! - Changes nothing unless told to apply; opens no store, begins no generation.

use super::cursor::{Cursor, is_name};
use super::data_lock;
use super::directory::{Directory, Found};
use super::error::{InspectError, OpenError, PurgeError, SkipError};
use super::generation::Generation;
use super::high_water::HighWaterFile;
use super::receipts::{self, ReceiptError};
use super::recovery;
use super::skip::{self, Skipped};
use crate::event::identity::Seq;
use crate::event::tally::Tally;
use std::fs::File;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// A detached data directory.
#[derive(Debug)]
pub struct Offline {
    data_dir: PathBuf,
    _lock: File,
}

impl Offline {
    /// Takes the directory.
    ///
    /// # Errors
    /// [`OpenError::Locked`] when a service runs on it.
    pub fn open(data_dir: &Path) -> Result<Self, OpenError> {
        Ok(Self {
            data_dir: data_dir.to_owned(),
            _lock: data_lock::take(data_dir)?,
        })
    }

    /// As [`Journal::skip`](super::Journal::skip).
    ///
    /// # Errors
    /// See [`SkipError`].
    pub fn skip(&self, way: &str, to: Seq, apply: bool) -> Result<Skipped, SkipError> {
        let read = |error: InspectError| SkipError::Read(error.to_string());
        let directory = Directory::of(&self.data_dir, false).map_err(read)?;
        let known = directory.cursors().iter().find(|c| c.name == way);
        let Some(info) = known.filter(|_| is_name(way)) else {
            return Err(SkipError::Unknown(way.to_owned()));
        };
        let end = directory.generations().iter().map(|g| g.end).max();
        let durable_end = end.unwrap_or(Seq::FIRST).max(info.reach());
        if to > durable_end {
            return Err(SkipError::Beyond { to, durable_end });
        }
        let (from, to) = (info.next, to.max(info.next));
        let mut events = Tally::default();
        let mut add = |found| {
            if let Found::Record(record) = found {
                events.merge(&record.events);
            }
            ControlFlow::Continue(())
        };
        let passed_over = info.gaps(to);
        for gap in &passed_over {
            directory.walk(gap.first, gap.end, &mut add).map_err(read)?;
        }
        if apply {
            // What was written and not synced counts from now on.
            for entry in directory
                .entries()
                .iter()
                .filter(|entry| !entry.info.sealed)
            {
                recovery::make_durable(&entry.dir)
                    .map_err(|error| SkipError::Read(error.to_string()))?;
            }
            let dir = self.data_dir.join("cursors");
            let cursor = Cursor::open(&dir, way, from, &info.since)?;
            cursor.skip(to, |_| Some(events.clone()));
            cursor.save()?;
        }
        Ok(Skipped {
            from,
            to,
            passed_over,
            events,
        })
    }

    /// Deletes the generations that every cursor has passed; their numbers.
    ///
    /// # Errors
    /// See [`PurgeError`].
    pub fn delete_passed(&self, apply: bool) -> Result<Vec<u64>, PurgeError> {
        let io_error = |source| PurgeError::Io {
            path: self.data_dir.clone(),
            source,
        };
        let directory = Directory::of(&self.data_dir, false)
            .map_err(|error| io_error(std::io::Error::other(error.to_string())))?;
        if let Some(cursor) = unreadable(&directory) {
            return Err(PurgeError::Unreadable(cursor));
        }
        let Some(passed) = directory.cursors().iter().map(|c| c.next).min() else {
            return Ok(Vec::new());
        };
        let mut high_water = HighWaterFile::open(&self.data_dir, false);
        let mut deleted = Vec::new();
        for entry in directory.entries() {
            let info = &entry.info;
            if info.quarantined || !info.sealed || info.end > passed {
                continue;
            }
            if apply {
                let manifest = entry.manifest.clone();
                let generation = Generation::sealed(entry.dir.clone(), manifest, false);
                self.receipt(&generation);
                let quarantine = self.data_dir.join("quarantine");
                generation.keep_evidence(&quarantine).map_err(io_error)?;
                let mut accepted = entry.header.accepted_before.clone();
                accepted.merge(&entry.manifest.events);
                high_water.raise(info.end, &accepted).map_err(io_error)?;
                let left = generation.delete(&self.data_dir.join("generations"));
                if let Some(error) = left.map_err(io_error)? {
                    tracing::warn!(generation = info.number, %error, "files of a deleted generation stay until the next start");
                }
            }
            deleted.push(info.number);
        }
        Ok(deleted)
    }

    /// As the service does before a deletion, which goes on without it.
    fn receipt(&self, generation: &Generation) {
        let opened = generation.open(&self.data_dir.join("quarantine"));
        let written = opened.map_err(ReceiptError::from).and_then(|opened| {
            receipts::write(&self.data_dir.join("receipts"), generation, opened.blocks)
        });
        if let Err(error) = written {
            tracing::warn!(
                generation = generation.number(), %error,
                "no receipt of a generation: its rows cannot be reconciled any more"
            );
        }
    }

    /// As [`Journal::purge_quarantined`](super::Journal::purge_quarantined).
    ///
    /// # Errors
    /// See [`PurgeError`].
    pub fn purge_quarantined(&self, generation: u64, apply: bool) -> Result<u64, PurgeError> {
        let quarantine = self.data_dir.join("quarantine");
        let directory = Directory::of(&self.data_dir, false).map_err(|error| PurgeError::Io {
            path: self.data_dir.clone(),
            source: std::io::Error::other(error.to_string()),
        })?;
        if let Some(cursor) = unreadable(&directory) {
            return Err(PurgeError::Unreadable(cursor));
        }
        let needed = |number| {
            let end = directory.generations().iter().find(|g| g.number == number);
            let passed = directory.cursors().iter().map(|c| c.next).min();
            // Without a cursor, a new way out begins with all that is there.
            end.is_some_and(|info| passed.is_none_or(|passed| info.end > passed))
        };
        skip::purge_quarantined(&quarantine, generation, needed, apply)
    }
}

/// A way out whose cursor cannot be read.
fn unreadable(directory: &Directory) -> Option<String> {
    let mut cursors = directory.cursors().iter();
    let cursor = cursors.find(|cursor| cursor.damage.is_some());
    cursor.map(|cursor| cursor.name.clone())
}
