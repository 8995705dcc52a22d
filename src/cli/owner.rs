//! Work on a data directory without its service, as the directory's owner. Called by the
//! verbs that write there: `drain`, `journal skip|purge`, `dlq replay|purge`, `schema apply`.
//!
//! # Invariants
//! - Root leaves no file in a directory of another user: the service, which runs as that
//!   user, could neither open nor delete it (test
//!   `what_root_does_offline_is_done_as_the_directory_s_owner`).
//! - The configuration is read before, as whoever called: it may be for root only.

use anyhow::Context as _;
use nix::unistd::{Gid, Uid, User, initgroups, setgid, setgroups, setuid};
use std::ffi::CString;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Goes on as the owner of the directory, for good, where this process is root's and the
/// directory is not. Who it was before belongs into the audit: ask for that first.
pub(super) fn become_owner(data_dir: &Path) -> anyhow::Result<()> {
    if !Uid::effective().is_root() {
        return Ok(());
    }
    let found = std::fs::metadata(data_dir);
    let found = found.with_context(|| format!("look at {}", data_dir.display()))?;
    let (uid, gid) = (Uid::from_raw(found.uid()), Gid::from_raw(found.gid()));
    if uid.is_root() {
        return Ok(());
    }
    // On another host than its own the number may belong to nobody.
    let name = User::from_uid(uid).ok().flatten().map(|user| user.name);
    let groups = match name.as_deref().map(CString::new) {
        Some(Ok(name)) => initgroups(&name, gid),
        _ => setgroups(&[gid]),
    };
    let changed = groups.and_then(|()| setgid(gid)).and_then(|()| setuid(uid));
    let name = name.unwrap_or_else(|| format!("user {uid}"));
    changed.with_context(|| format!("go on as {name}, the owner of {}", data_dir.display()))?;
    eprintln!("going on as {name}, the owner of the data directory");
    Ok(())
}
