//! What can go wrong, one enum for each operation; each says whether the caller
//! may try again.

use super::store::StoreError;
use crate::event::identity::Seq;
use std::io;
use std::path::PathBuf;

/// Why an append was not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The journal holds as much as it may; frees up as ways out deliver.
    #[error("journal is full: {used_bytes} of {max_bytes} bytes")]
    Full {
        /// Bytes on disk.
        used_bytes: u64,
        /// The configured bound, `journal.max_bytes`.
        max_bytes: u64,
    },
    /// The disk has less room than it must keep free.
    #[error("disk is low: {free_bytes} bytes free, {min_free_bytes} must stay free")]
    DiskLow {
        /// Bytes that the file system has for us.
        free_bytes: u64,
        /// The configured floor, `journal.min_free_bytes`.
        min_free_bytes: u64,
    },
    /// No file descriptor is left for the journal's files; frees up as connections end.
    #[error("no file descriptor is left")]
    NoDescriptors,
    /// The process may have no more memory for the journal's tables.
    #[error("no memory is left")]
    NoMemory,
    /// Not durable in time; it may become durable later, but is never acknowledged.
    #[error("not durable within the deadline")]
    Deadline,
    /// The request can never be taken.
    #[error("record of {bytes} bytes is over the bound of {max_bytes}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The bound.
        max_bytes: usize,
    },
    /// A write or sync failed: nothing is acknowledged until a restart.
    #[error("journal is fenced: {0}")]
    Fenced(String),
    /// The journal is shutting down.
    #[error("journal is closed")]
    Closed,
}

impl AppendError {
    /// Whether the same request may succeed later, here or on another host.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        !matches!(self, Self::TooLarge { .. })
    }
}

/// Why a journal did not open. None of them is retried: an operator decides.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process owns the directory.
    #[error("another process is using {0}")]
    Locked(PathBuf),
    /// A file operation failed.
    #[error("{what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A generation could not be looked through, moved aside or made.
    #[error("{what} a generation: {reason}")]
    Generation {
        /// What was tried.
        what: &'static str,
        /// What the store or the system said.
        reason: String,
    },
}

impl OpenError {
    /// Of a generation, of which this was tried.
    pub(super) fn of(what: &'static str) -> impl Fn(StoreError) -> Self {
        move |error| Self::Generation {
            what,
            reason: error.to_string(),
        }
    }
}

/// Why a read failed. The reader stays where it was; trying again is allowed.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The generation's store does not open or answer.
    #[error("read generation {generation}: {reason}")]
    Store {
        /// Its number.
        generation: u64,
        /// What the store said.
        reason: String,
    },
    /// The journal is shutting down.
    #[error("journal is closed")]
    Closed,
}

/// Why a cursor was not made or moved.
#[derive(Debug, thiserror::Error)]
pub enum CursorError {
    /// The name is not one.
    #[error("not a cursor name: {0:?} (1 to 64 of a-z 0-9 _ -)")]
    Name(String),
    /// Its file could not be written.
    #[error("write {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Why a cursor was not moved by an operator.
#[derive(Debug, thiserror::Error)]
pub enum SkipError {
    /// No way out has this name.
    #[error("no way out is called {0:?}")]
    Unknown(String),
    /// There is nothing durable up to there.
    #[error("sequence {to} is behind the last durable one; the next is {durable_end}")]
    Beyond {
        /// What was asked for.
        to: Seq,
        /// The sequence after the last durable record.
        durable_end: Seq,
    },
    /// The records could not be read to count their events. Trying again is allowed.
    #[error("read the journal: {0}")]
    Read(String),
    /// The way out delivers faster than one can look. Trying again is allowed.
    #[error("the way out is moving; it needs no skip")]
    Moving,
    /// The new position could not be saved. Trying again is allowed.
    #[error(transparent)]
    Save(#[from] CursorError),
}

/// Why a quarantined generation was not removed.
#[derive(Debug, thiserror::Error)]
pub enum PurgeError {
    /// There is none with this number.
    #[error("generation {0} is not in quarantine")]
    Unknown(u64),
    /// Some way out has not passed it; skip or deliver it first.
    #[error("generation {0} still has records to deliver")]
    Needed(u64),
    /// Where a way out is cannot be read, so nobody knows what it still needs.
    #[error(
        "cursors/{0} cannot be read, so its way out may need every record; a start of the service takes it to the oldest one, or remove the file if the way out is gone"
    )]
    Unreadable(String),
    /// A file operation failed. Trying again is allowed.
    #[error("remove {path}: {source}")]
    Io {
        /// What was to be removed.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Why a data directory could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// It is no data directory.
    #[error("{0} is not a data directory of Holdfast")]
    NotOne(PathBuf),
    /// A file operation failed. Trying again is allowed.
    #[error("read {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A generation's blocks could not be read. Trying again is allowed.
    #[error("read generation {generation}: {reason}")]
    Store {
        /// Its number.
        generation: u64,
        /// What the system said.
        reason: String,
    },
}
