//! Who owns a data directory. Called by `handle`, `offline` (take it) and
//! `directory` (ask).
//!
//! # Invariants
//! - One process at a time writes below a data directory; the kernel gives the lock
//!   back when its process ends, however that is.

use super::error::OpenError;
use super::handle::io_error;
use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

const FILE: &str = "lock";

/// How long a start waits for the lock: whoever only asks holds it for a moment.
const WAIT_MAX: Duration = Duration::from_millis(500);

/// Takes the lock for as long as the file lives.
pub(super) fn take(data_dir: &Path) -> Result<File, OpenError> {
    let path = data_dir.join(FILE);
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(io_error("open", &path))?;
    let started = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if started.elapsed() < WAIT_MAX => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(TryLockError::WouldBlock) => return Err(OpenError::Locked(path)),
            Err(TryLockError::Error(source)) => return Err(io_error("lock", &path)(source)),
        }
    }
}

/// Whether some process owns the directory.
pub(super) fn is_held(data_dir: &Path) -> io::Result<bool> {
    let file = match File::open(data_dir.join(FILE)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}
