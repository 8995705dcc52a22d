//! This host's name, made once. Called by `handle`.
//!
//! # Invariants
//! - Kept in two files, each checksummed: one damaged file is made again from the
//!   other, so that this host's rows never look like another's.
//! - Two damaged files do not keep the service from starting: a new name is made,
//!   and an error logged. Rows are recognised by their events' ids all the same.

use super::durable_file;
use super::error::OpenError;
use super::handle::io_error;
use crate::event::identity::HostId;
use std::path::Path;

const FILES: [&str; 2] = ["host_id", "host_id.copy"];

/// A checksum and an id of up to 64 characters; more is damage.
const FILE_BYTES_MAX: u64 = 100;

/// Reads the name without making one.
pub(super) fn read(data_dir: &Path) -> Option<HostId> {
    FILES.iter().find_map(|file| {
        let bytes = durable_file::read(&data_dir.join(file), FILE_BYTES_MAX).ok()??;
        HostId::parse(std::str::from_utf8(&bytes).ok()?).ok()
    })
}

/// Reads the name, or makes it.
pub(super) fn load(data_dir: &Path) -> Result<HostId, OpenError> {
    let found = read(data_dir);
    let host = found.clone().unwrap_or_else(HostId::generate);
    for file in FILES {
        let path = data_dir.join(file);
        let kept = durable_file::read(&path, FILE_BYTES_MAX);
        if matches!(&kept, Ok(Some(bytes)) if bytes == host.as_str().as_bytes()) {
            continue;
        }
        if let Err(error) = kept {
            let renewed = found.is_some();
            tracing::error!(path = %path.display(), %error, renewed, %host, "host id is damaged");
        }
        durable_file::replace(&path, host.as_str().as_bytes()).map_err(io_error("write", &path))?;
    }
    Ok(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_damaged_file_is_made_again_from_the_other() {
        let dir = tempfile::tempdir().unwrap();
        let host = load(dir.path()).unwrap();
        for file in FILES {
            std::fs::write(dir.path().join(file), b"damaged").unwrap();
            assert_eq!(load(dir.path()).unwrap(), host);
            std::fs::remove_file(dir.path().join(file)).unwrap();
            assert_eq!(load(dir.path()).unwrap(), host);
        }
        for file in FILES {
            std::fs::write(dir.path().join(file), b"damaged").unwrap();
        }
        let other = load(dir.path()).unwrap();
        assert_ne!(other, host);
        assert_eq!(load(dir.path()).unwrap(), other);
    }
}
