//! Tests of damaged generations on a disk that has no room to set them aside.

use super::manifest::Manifest;
use super::rotation_tests::until;
use super::tests::{content, filled, options, read_all};
use super::turn_tests::{deliver, lost};
use super::*;
use crate::event::identity::Seq;
use std::path::{Path, PathBuf};

const GENERATION: &str = "gen-000000000001";

/// A log whose first generation lacks its second record, and whose disk has no room for the
/// manifest that tells of it. The file that stands for the full disk.
async fn damaged_on_a_full_disk(dir: &Path) -> (Journal, PathBuf) {
    let (journal, _) = filled(dir, 300_000, (12, 60_000)).await;
    let place = dir.join("generations").join(GENERATION);
    damage(&place, 1);
    let full = fill(&place);
    (journal, full)
}

/// The record of that content cannot be read any more.
pub(super) fn damage(place: &Path, number: usize) {
    let db = place.join("store/db");
    let mut bytes = std::fs::read(&db).unwrap();
    let needle = &content(number, 60_000)[1000..1100];
    while let Some(at) = memchr::memmem::find(&bytes, needle) {
        bytes[at] ^= 1;
    }
    std::fs::write(&db, bytes).unwrap();
}

/// Each write of the manifest finds the disk full.
fn fill(place: &Path) -> PathBuf {
    let full = place.join("manifest.new");
    std::os::unix::fs::symlink("/dev/full", &full).unwrap();
    full
}

fn second() -> Loss {
    Loss {
        generation: 1,
        first: Seq(2),
        end: Seq(3),
    }
}

#[tokio::test]
async fn what_cannot_be_set_aside_for_want_of_room_is_delivered_where_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, full) = damaged_on_a_full_disk(dir.path()).await;
    let place = dir.path().join("generations").join(GENERATION);
    let aside = dir.path().join("quarantine").join(GENERATION);
    let reserve = || std::fs::metadata(dir.path().join("reserve")).unwrap().len();
    assert!(reserve() > 0);
    assert_eq!(read_all(&journal, Seq::FIRST).await.len(), 11);
    assert_eq!(journal.losses(), [second()]);
    assert!(place.is_dir() && !aside.exists());
    assert_eq!(reserve(), 0, "it may help");
    // Read again, it is looked through again, and tells nothing twice.
    assert_eq!(read_all(&journal, Seq::FIRST).await.len(), 11);
    assert_eq!(journal.losses(), [second()]);
    std::fs::remove_file(full).unwrap();
    until("it is set aside once there is room", async || {
        aside.is_dir()
    })
    .await;
    assert!(!place.exists());
    let told = Manifest::read(&aside).unwrap().unwrap();
    assert_eq!(told.lost, [(Seq(2), Seq(3))]);
    assert_eq!(deliver(&journal, "out").await.len(), 11);
    until("its loss is in the ledger", async || {
        journal.ledger().ways[0].pending.is_empty()
    })
    .await;
    assert_eq!(lost(&journal, "out"), 1);
    journal.close();
}

#[tokio::test]
async fn what_is_delivered_is_set_aside_without_a_free_byte() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _full) = damaged_on_a_full_disk(dir.path()).await;
    assert_eq!(deliver(&journal, "out").await.len(), 11);
    until("it holds up no deletion", async || {
        journal.stats().oldest_seq > Seq(6)
    })
    .await;
    let aside = dir.path().join("quarantine").join(GENERATION);
    assert!(aside.join("store/db").is_file(), "it stays as evidence");
    assert_eq!(lost(&journal, "out"), 1);
    journal.close();
    drop(journal);
    let journal = Journal::open(&options(dir.path())).unwrap();
    assert_eq!(lost(&journal, "out"), 1);
    assert!(aside.is_dir());
    journal.close();
}

#[tokio::test]
async fn a_start_goes_on_with_what_cannot_be_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = filled(dir.path(), 4 << 20, (12, 60_000)).await;
    journal.crash();
    let place = dir.path().join("generations").join(GENERATION);
    damage(&place, 1);
    fill(&place);
    let journal = Journal::open(&options(dir.path())).unwrap();
    assert_eq!(journal.losses(), [second()]);
    assert_eq!(read_all(&journal, Seq::FIRST).await.len(), 11);
    assert!(dir.path().join("quarantine").join(GENERATION).is_dir());
    journal.close();
}
