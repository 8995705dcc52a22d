//! How much the journal may hold, and whether one more request fits. Called by
//! `handle` before a request is queued; measured by the keeper and the writer.

use super::error::AppendError;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The journal's bounds.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes on disk of all generations, `journal.max_bytes`.
    pub max_bytes: u64,
    /// Bytes that the file system must keep free, `journal.min_free_bytes`.
    pub min_free_bytes: u64,
    /// Bytes of one record.
    pub record_bytes_max: usize,
    /// Payload bytes after which a generation is sealed, `journal.generation_bytes`.
    pub generation_bytes: u64,
    /// Age at which a generation with records is sealed, `journal.generation_age`.
    pub generation_age: Duration,
    /// Bytes of requests that wait for their commit, in memory.
    pub queue_bytes_max: usize,
}

/// The measured state beside the limits.
#[derive(Debug)]
pub(super) struct Capacity {
    pub(super) limits: Limits,
    data_dir: PathBuf,
    used_bytes: AtomicU64,
    free_bytes: AtomicU64,
}

impl Capacity {
    pub(super) fn new(limits: Limits, data_dir: PathBuf) -> Self {
        let capacity = Self {
            limits,
            data_dir,
            used_bytes: AtomicU64::new(0),
            free_bytes: AtomicU64::new(u64::MAX),
        };
        capacity.measure_free();
        capacity
    }

    pub(super) fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Ordering::Relaxed)
    }

    pub(super) fn free_bytes(&self) -> u64 {
        self.free_bytes.load(Ordering::Relaxed)
    }

    pub(super) fn set_used(&self, bytes: u64) {
        self.used_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Asks the file system; an unanswered question changes nothing.
    pub(super) fn measure_free(&self) {
        match rustix::fs::statvfs(&self.data_dir) {
            Ok(stat) => self
                .free_bytes
                .store(stat.f_bavail * stat.f_frsize, Ordering::Relaxed),
            Err(error) => tracing::warn!(%error, "cannot ask for the disk's free space"),
        }
    }

    /// A write was refused for want of room: nothing fits until the next measure.
    pub(super) fn no_space(&self) {
        self.free_bytes.store(0, Ordering::Relaxed);
    }

    /// What a caller hears then.
    pub(super) fn disk_low(&self) -> AppendError {
        AppendError::DiskLow {
            free_bytes: self.free_bytes(),
            min_free_bytes: self.limits.min_free_bytes,
        }
    }

    /// Whether a record of `bytes` fits now.
    pub(super) fn admit(&self, bytes: usize) -> Result<(), AppendError> {
        if bytes > self.limits.record_bytes_max {
            return Err(AppendError::TooLarge {
                bytes,
                max_bytes: self.limits.record_bytes_max,
            });
        }
        let (used_bytes, max_bytes) = (self.used_bytes(), self.limits.max_bytes);
        if used_bytes.saturating_add(bytes as u64) > max_bytes {
            return Err(AppendError::Full {
                used_bytes,
                max_bytes,
            });
        }
        let min_free_bytes = self.limits.min_free_bytes;
        if self.free_bytes() < min_free_bytes.saturating_add(bytes as u64) {
            return Err(self.disk_low());
        }
        Ok(())
    }
}
