//! Tests of `recovery`: what a start makes of damage. Nothing that held records is
//! deleted, and no sequence is given twice.

use super::manifest::{Header, Manifest};
use super::tests::{content, gated, options, read_all, record};
use super::*;
use crate::event::identity::Seq;
use std::sync::atomic::Ordering;

#[tokio::test]
async fn sequences_go_on_behind_every_cursor_whatever_is_damaged() {
    for damage_store in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let options = options(dir.path());
        let journal = Journal::open(&options).unwrap();
        for i in 0..10 {
            journal
                .append(record(content(i, 1000)), None)
                .await
                .unwrap();
        }
        journal.cursor("out").unwrap().advance(Seq(6), &[]);
        journal.close();
        drop(journal);
        let generation = dir.path().join("generations/gen-000000000001");
        std::fs::write(generation.join("manifest"), b"damaged").unwrap();
        if damage_store {
            std::fs::write(generation.join("store/db"), vec![7; 20 << 20]).unwrap();
        }
        let journal = Journal::open(&options).unwrap();
        let next = journal.append(record("on"), None).await.unwrap();
        let from = journal.cursor("out").unwrap().next();
        let records = read_all(&journal, from).await;
        if damage_store {
            assert!(dir.path().join("quarantine/gen-000000000001").is_dir());
            assert!(next > Seq(10));
        } else {
            assert_eq!(next, Seq(11));
            assert_eq!(records.len(), 6, "rebuilt from the store");
        }
        assert_eq!(records.last().map(|r| r.seq), Some(next));
        journal.close();
    }
}

#[tokio::test]
async fn without_its_generations_it_goes_on_behind_its_cursors() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path());
    let journal = Journal::open(&options).unwrap();
    for i in 0..10 {
        journal
            .append(record(content(i, 1000)), None)
            .await
            .unwrap();
    }
    journal.cursor("out").unwrap().advance(Seq(11), &[]);
    journal.close();
    drop(journal);
    std::fs::remove_dir_all(dir.path().join("generations")).unwrap();
    let journal = Journal::open(&options).unwrap();
    let seq = journal.append(record("on"), None).await.unwrap();
    assert_eq!(
        seq,
        Seq(11),
        "a record before the cursor would never be delivered"
    );
    journal.close();
}

#[tokio::test]
async fn a_generation_that_held_records_is_never_deleted_by_a_start() {
    for lose_store in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let options = options(dir.path());
        // A failed sync leaves the generation unsealed, as a crash would.
        let (journal, gate) = gated(&options);
        journal.append(record("kept"), None).await.unwrap();
        gate.fail_sync.store(true, Ordering::SeqCst);
        journal.append(record("x"), None).await.unwrap_err();
        journal.close();
        drop(journal);
        let generation = dir.path().join("generations/gen-000000000001");
        if lose_store {
            let header = Header::read(&generation).unwrap().unwrap();
            let mut manifest = Manifest::new(header);
            manifest.blocks = 1;
            manifest.end = Seq(2);
            manifest.write(&generation).unwrap();
            std::fs::remove_dir_all(generation.join("store")).unwrap();
        } else {
            std::fs::remove_file(generation.join("manifest")).unwrap();
        }
        let journal = Journal::open(&options).unwrap();
        if lose_store {
            assert!(dir.path().join("quarantine/gen-000000000001").is_dir());
            assert_eq!(journal.stats().lost_records, 1);
        } else {
            let records = read_all(&journal, Seq::FIRST).await;
            assert_eq!(records[0].content, "kept");
        }
        journal.close();
    }
}

#[tokio::test]
async fn a_manifest_that_claims_too_much_is_no_more_than_a_damaged_one() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path());
    let journal = Journal::open(&options).unwrap();
    for i in 0..10 {
        let record = record(content(i, 1000));
        journal.append(record.clone(), None).await.unwrap();
    }
    journal.close();
    drop(journal);
    let generation = dir.path().join("generations/gen-000000000001");
    let whole = Manifest::read(&generation).unwrap().unwrap();
    // As many blocks as take a century to count, and no sequence left after them.
    let claims = Manifest {
        blocks: u64::MAX,
        end: Seq(u64::MAX),
        ..whole
    };
    claims.write(&generation).unwrap();
    // Nor is there a number after this one.
    let beyond = format!("generations/gen-{}", u64::MAX);
    std::fs::create_dir(dir.path().join(beyond)).unwrap();
    let journal = Journal::open(&options).unwrap();
    let records = read_all(&journal, Seq::FIRST).await;
    assert!(records.iter().map(|r| r.seq.0).eq(1..=10));
    let next = journal.append(record(content(10, 10)), None).await;
    assert_eq!(next.unwrap(), Seq(11));
    journal.close();
}
