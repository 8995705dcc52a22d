//! Where an export goes: stdout, or a file. Called by `export`.
//!
//! # Invariants
//! - A file is there whole and durable, or not at all (test
//!   `a_file_gets_its_name_when_it_is_whole`), and is its owner's alone.

use anyhow::Context as _;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Bytes that are collected before they are written: one system call for many
/// records.
const WRITE_BYTES: usize = 1 << 20;

/// Where the bytes go: stdout, or a file that gets its name when it is whole.
pub(super) enum Target {
    Stdout(BufWriter<io::StdoutLock<'static>>),
    File {
        part: PathBuf,
        path: PathBuf,
        file: BufWriter<File>,
    },
}

impl Target {
    pub(super) fn open(path: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = path else {
            let stdout = io::stdout().lock();
            return Ok(Self::Stdout(BufWriter::with_capacity(WRITE_BYTES, stdout)));
        };
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        // The events are people's: for the owner only.
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&part)
            .with_context(|| format!("create {}", part.display()))?;
        Ok(Self::File {
            part,
            path: path.to_owned(),
            file: BufWriter::with_capacity(WRITE_BYTES, file),
        })
    }

    pub(super) fn finish(self) -> anyhow::Result<()> {
        match self {
            Self::Stdout(mut out) => Ok(out.flush()?),
            Self::File { part, path, file } => {
                file.into_inner()
                    .map_err(io::IntoInnerError::into_error)
                    .and_then(|file| file.sync_all())
                    .and_then(|()| std::fs::rename(&part, &path))
                    .with_context(|| format!("write {}", path.display()))?;
                let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
                Ok(File::open(dir.unwrap_or(Path::new(".")))?.sync_all()?)
            }
        }
    }
}

impl Write for Target {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stdout(out) => out.write(bytes),
            Self::File { file, .. } => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Stdout(out) => out.flush(),
            Self::File { file, .. } => file.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_gets_its_name_when_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.ndjson");
        let mut target = Target::open(Some(&path)).unwrap();
        target.write_all(b"x").unwrap();
        assert!(!path.exists());
        target.finish().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"x");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
