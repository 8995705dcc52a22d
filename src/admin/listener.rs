//! The socket file: made, replaced, reached. Called by `serve` and `client`.
//!
//! # Invariants
//! - Nobody but the owner can ever connect: the file is made in a directory of its
//!   own that others cannot enter, gets mode 0600 there, and is then renamed into
//!   place, over what a killed process left (test
//!   `a_left_over_socket_is_replaced_and_only_the_owner_may_connect`).
//! - The length of the path does not matter: a socket address has room for 107
//!   bytes, so both sides go through `/proc/self/fd` (test
//!   `a_path_longer_than_a_socket_address_works`).
//! - Called by the holder of the data directory's lock, which proves that the
//!   socket that is replaced has no owner.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use tokio::net::{UnixListener, UnixStream};

/// The socket's name in the data directory.
const NAME: &str = "admin.sock";

/// Where it is made.
const NURSERY: &str = "admin.sock.new";

/// A directory, open, and its short path.
struct Short {
    _dir: File,
    path: PathBuf,
}

impl Short {
    fn open(dir: &Path) -> io::Result<Self> {
        let dir = File::open(dir)?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd()));
        Ok(Self { _dir: dir, path })
    }
}

/// Makes the socket of a data directory.
pub(super) fn bind(data_dir: &Path) -> io::Result<UnixListener> {
    let nursery = data_dir.join(NURSERY);
    // Left by a process that was killed between these steps.
    if nursery.exists() {
        fs::remove_dir_all(&nursery)?;
    }
    fs::DirBuilder::new().mode(0o700).create(&nursery)?;
    let listener = UnixListener::bind(Short::open(&nursery)?.path.join(NAME))?;
    let made = nursery.join(NAME);
    fs::set_permissions(&made, Permissions::from_mode(0o600))?;
    fs::rename(&made, data_dir.join(NAME))?;
    fs::remove_dir(&nursery)?;
    Ok(listener)
}

/// Connects to the socket of a data directory.
pub(super) async fn connect(data_dir: &Path) -> io::Result<UnixStream> {
    let short = Short::open(data_dir)?;
    UnixStream::connect(short.path.join(NAME)).await
}

/// Takes the socket away after a clean stop.
pub(super) fn remove(data_dir: &Path) -> io::Result<()> {
    fs::remove_file(data_dir.join(NAME))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    #[tokio::test]
    async fn a_left_over_socket_is_replaced_and_only_the_owner_may_connect() {
        let dir = tempfile::tempdir().unwrap();
        drop(bind(dir.path()).unwrap());
        let refused = connect(dir.path()).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        // Killed half-way.
        fs::create_dir(dir.path().join(NURSERY)).unwrap();
        fs::write(dir.path().join(NURSERY).join(NAME), "").unwrap();
        let listener = bind(dir.path()).unwrap();
        let (client, server) = tokio::join!(connect(dir.path()), listener.accept());
        client.unwrap();
        server.unwrap();
        let mode = fs::metadata(dir.path().join(NAME)).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
        remove(dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_path_longer_than_a_socket_address_works() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(120)).join("e".repeat(120));
        fs::create_dir_all(&deep).unwrap();
        let listener = bind(&deep).unwrap();
        let (client, server) = tokio::join!(connect(&deep), listener.accept());
        client.unwrap();
        server.unwrap();
    }
}
