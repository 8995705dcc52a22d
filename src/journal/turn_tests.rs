//! Tests of the keeper's turns, step by step: what comes between a look and what is done by it.

use super::tests::{filled, options, record};
use super::*;
use crate::event::identity::Seq;
use std::path::Path;

/// A closed log of several generations, all passed by the only cursor; nobody tidies it but the
/// test.
async fn passed(dir: &Path) -> Journal {
    let (journal, cursor) = filled(dir, 60_000, (4, 70_000)).await;
    journal.close();
    assert!(journal.stats().generations >= 4);
    let passed = (1..5).map(|seq| Passed {
        seq: Seq(seq),
        events: record("").events,
        dead_lettered: Default::default(),
    });
    cursor.advance(Seq(5), &passed.collect::<Vec<_>>());
    journal
}

/// Has a way out deliver all that there is from where it begins; the sequences.
pub(super) async fn deliver(journal: &Journal, way: &str) -> Vec<u64> {
    let cursor = journal.cursor(way).unwrap();
    let mut reader = journal.reader(cursor.next());
    let mut seqs = Vec::new();
    loop {
        let records = reader.read(1 << 20).await.unwrap();
        if records.is_empty() {
            return seqs;
        }
        let passed = records.iter().map(|record| Passed {
            seq: record.seq,
            events: record.events.clone(),
            dead_lettered: Default::default(),
        });
        cursor.advance(reader.position(), &passed.collect::<Vec<_>>());
        seqs.extend(records.iter().map(|record| record.seq.0));
    }
}

pub(super) fn lost(journal: &Journal, way: &str) -> u64 {
    let ledger = journal.ledger();
    let way = ledger.ways.iter().find(|it| it.way == way).unwrap();
    assert!(way.adds_up && way.pending.is_empty(), "{ledger:?}");
    way.ledger.lost.total()
}

#[tokio::test]
async fn what_a_new_cursor_begins_with_outlives_an_older_look() {
    let dir = tempfile::tempdir().unwrap();
    let journal = passed(dir.path()).await;
    let shared = journal.shared();
    let doomed = shared.look().unwrap();
    let new = journal.cursor("new").unwrap();
    assert_eq!(new.next(), Seq(1));
    assert!(shared.delete(&doomed), "the next turn looks again");
    journal.tidy_now();
    assert_eq!(journal.stats().oldest_seq, Seq(1));
    assert_eq!(deliver(&journal, "new").await, [1, 2, 3, 4]);
    assert_eq!(lost(&journal, "new"), 0);
    journal.tidy_now();
    assert_eq!(journal.stats().generations, 1, "the empty one is left");
    drop(new);
    drop(journal);
    let journal = Journal::open(&options(dir.path())).unwrap();
    assert_eq!(lost(&journal, "new"), 0);
    journal.close();
}

#[tokio::test]
async fn rubbish_that_stays_keeps_nothing_from_starting() {
    let dir = tempfile::tempdir().unwrap();
    // Files are no directories: to remove them as such fails, for root as well.
    let rubbish = ["generations", "quarantine"].map(|parent| {
        let parent = dir.path().join(parent);
        std::fs::create_dir(&parent).unwrap();
        let rubbish = parent.join("deleted-000000000009");
        std::fs::write(&rubbish, b"stays").unwrap();
        let goes = parent.join("deleted-000000000008/store");
        std::fs::create_dir_all(&goes).unwrap();
        std::fs::write(goes.join("db"), b"goes").unwrap();
        (rubbish, parent.join("deleted-000000000008"))
    });
    let journal = passed(dir.path()).await;
    for (stays, goes) in &rubbish {
        assert!(stays.exists() && !goes.exists());
    }
    // Nor does it keep anything from being deleted.
    journal.tidy_now();
    assert_eq!(journal.stats().generations, 1, "the empty one is left");
    assert!(journal.losses().is_empty());
    let shared = journal.shared();
    let generations: u64 = shared.chain().iter().map(|g| g.disk_bytes()).sum();
    assert_eq!(journal.stats().used_bytes, generations + 5, "it takes room");
}

#[tokio::test]
async fn rubbish_keeps_no_generation_of_its_number() {
    let dir = tempfile::tempdir().unwrap();
    let generations = dir.path().join("generations");
    std::fs::create_dir(&generations).unwrap();
    let names = ["deleted-000000000001", "deleted-000000000001-1"];
    let rubbish = names.map(|name| generations.join(name));
    for stays in &rubbish {
        std::fs::write(stays, b"stays").unwrap();
    }
    let journal = passed(dir.path()).await;
    journal.tidy_now();
    assert_eq!(journal.stats().generations, 1, "the empty one is left");
    assert!(!generations.join("gen-000000000001").exists());
    assert!(rubbish.iter().all(|stays| stays.exists()));
}

#[tokio::test]
async fn a_new_cursor_does_not_begin_with_what_is_half_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let journal = passed(dir.path()).await;
    let shared = journal.shared();
    // Its name goes, and then something fails, so that it stays in the chain.
    let first = shared.chain().remove(0);
    first.delete(&shared.generations_dir).unwrap();
    assert_eq!(journal.cursor("new").unwrap().next(), Seq(2));
    assert_eq!(deliver(&journal, "new").await, [2, 3, 4]);
    assert_eq!(lost(&journal, "new"), 0);
    journal.tidy_now();
    assert_eq!(journal.stats().generations, 1, "the empty one is left");
}
