//! Small files that must survive a power cut: replaced whole, checksummed.
//! Called by `manifest`, `cursor` and `handle` (host id); what else is done with directories by
//! those and `generation`.
//!
//! # Invariants
//! - `replace` returns after the new content and its name are on the disk:
//!   temporary file, fsync, rename, fsync of the directory.
//! - A reader gets the old or the new content, or an error; never a mixture.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

/// The mode of a directory with events: for the service's user and group, as the unit's
/// `StateDirectoryMode`, and where it runs without one for nobody else either.
pub const DATA_DIR_MODE: u32 = 0o750;

/// Syncs a directory, so that names made or removed in it survive.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Creates a directory that is not for everybody, and makes its name durable; fine when it exists.
pub(super) fn create_dir(dir: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(DATA_DIR_MODE).create(dir) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    if let Some(parent) = dir.parent().filter(|p| !p.as_os_str().is_empty()) {
        sync_dir(parent)?;
    }
    Ok(())
}

/// Replaces a file's content: `crc32c(content) as little-endian u32, content`.
pub(super) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let dir = path
        .parent()
        .ok_or_else(|| io::Error::other("path has no directory"))?;
    let temporary = path.with_extension("new");
    let mut file = File::create(&temporary)?;
    file.write_all(&crc32c::crc32c(content).to_le_bytes())?;
    file.write_all(content)?;
    file.sync_all()?;
    drop(file);
    fs::rename(&temporary, path)?;
    sync_dir(dir)
}

/// Reads what [`replace`] wrote; `None` when there is no such file. One of more than
/// `bytes_max` bytes is none of ours.
pub(super) fn read(path: &Path, bytes_max: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(bytes_max.saturating_add(1))
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        let text = format!("larger than {bytes_max} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    let damaged = || io::Error::new(io::ErrorKind::InvalidData, "checksum does not match");
    let (crc, content) = bytes.split_first_chunk::<4>().ok_or_else(damaged)?;
    if u32::from_le_bytes(*crc) != crc32c::crc32c(content) {
        return Err(damaged());
    }
    Ok(Some(content.to_vec()))
}

/// Bytes of the files below a directory; what cannot be read counts as none.
pub(super) fn dir_bytes(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => dir_bytes(&entry.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn directories_are_not_for_everybody() {
        let dir = tempfile::tempdir().unwrap();
        let made = dir.path().join("made");
        create_dir(&made).unwrap();
        let mode = fs::metadata(&made).unwrap().permissions().mode();
        assert_eq!(mode & 0o027, 0, "{mode:o}");
        // One that somebody else has made stays as it is.
        fs::set_permissions(&made, fs::Permissions::from_mode(0o755)).unwrap();
        create_dir(&made).unwrap();
        let mode = fs::metadata(&made).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o755);
    }

    #[test]
    fn content_survives_and_damage_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        assert_eq!(read(&path, 100).unwrap(), None);
        replace(&path, b"one").unwrap();
        replace(&path, b"two").unwrap();
        assert_eq!(read(&path, 100).unwrap(), Some(b"two".to_vec()));
        for at in 0..7 {
            let mut bytes = fs::read(&path).unwrap();
            bytes[at] ^= 1;
            let bad = dir.path().join("bad");
            fs::write(&bad, &bytes).unwrap();
            assert!(read(&bad, 100).is_err(), "byte {at}");
        }
        fs::write(&path, b"abc").unwrap();
        assert!(read(&path, 100).is_err());
        replace(&path, &[7; 96]).unwrap();
        assert_eq!(read(&path, 100).unwrap(), Some(vec![7; 96]));
        assert!(read(&path, 99).is_err(), "the checksum counts");
    }
}
