//! What can go wrong, one enum for each operation; each says whether the caller
//! may try again.

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
    /// The host id file holds something else.
    #[error("{path}: {reason}")]
    HostId {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The first generation could not be made.
    #[error("create a generation: {0}")]
    Generation(String),
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
