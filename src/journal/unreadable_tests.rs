//! Tests of bytes that cannot be read now: they are an error for a while, hold up who reads them
//! and nobody else, and are lost only when they stay so.

use super::cursor::Cursor;
use super::generation::Generation;
use super::manifest::Manifest;
use super::recovery_tests::passed;
use super::tests::{content, gated, options, read_all, record};
use super::*;
use crate::event::identity::Seq;
use crate::event::tally::Tally;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A log of one sealed generation, closed; its directory.
pub(super) async fn sealed(dir: &Path) -> PathBuf {
    let journal = Journal::open(&options(dir)).unwrap();
    for i in 0..20 {
        let record = record(content(i, 60_000));
        journal.append(record, None).await.unwrap();
    }
    journal.close();
    dir.join("generations/gen-000000000001")
}

/// Has the disk refuse to read a store.
pub(super) fn unreadable(generation: &Path) -> PathBuf {
    let marker = generation.join("store/db.unreadable");
    std::fs::write(&marker, b"").unwrap();
    marker
}

#[tokio::test]
async fn what_cannot_be_read_for_a_moment_is_not_lost() {
    let dir = tempfile::tempdir().unwrap();
    let marker = unreadable(&sealed(dir.path()).await);
    let journal = Journal::open(&options(dir.path())).unwrap();
    let mut reader = journal.reader(Seq::FIRST);
    for _ in 0..3 {
        let error = reader.read(1 << 20).await.unwrap_err();
        assert!(error.to_string().contains("cannot be read"), "{error}");
    }
    assert!(journal.losses().is_empty());
    std::fs::remove_file(marker).unwrap();
    let limit = tokio::time::Instant::now() + Duration::from_secs(20);
    let first = loop {
        match reader.read(1).await {
            Ok(records) => break records,
            Err(error) => assert!(tokio::time::Instant::now() < limit, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(first.first().map(|record| record.seq), Some(Seq(1)));
    assert_eq!(read_all(&journal, Seq::FIRST).await.len(), 20);
    assert!(journal.losses().is_empty());
    journal.close();
}

#[tokio::test]
async fn what_stays_unreadable_is_lost_and_told() {
    let dir = tempfile::tempdir().unwrap();
    let place = sealed(dir.path()).await;
    unreadable(&place);
    let manifest = Manifest::read(&place).unwrap().unwrap();
    let generation = Generation::sealed(place.clone(), manifest, false);
    let quarantine = dir.path().join("quarantine");
    assert!(generation.open(&quarantine).is_err());
    assert!(place.is_dir());
    let opened = generation.open_within(Duration::ZERO, &quarantine).unwrap();
    let lost: u64 = opened.losses.iter().map(Loss::records).sum();
    assert_eq!(lost, 20);
    assert!(!place.exists() && quarantine.join("gen-000000000001").is_dir());
    // Read on from there, as it is.
    drop(opened);
    assert!(generation.open(&quarantine).unwrap().losses.is_empty());
}

#[tokio::test]
async fn a_durable_block_that_does_not_come_is_an_error_and_no_spin() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, gate) = gated(&options(dir.path()));
    for i in 0..3 {
        journal.append(record(content(i, 10)), None).await.unwrap();
    }
    gate.hides_last
        .store(true, std::sync::atomic::Ordering::SeqCst);
    let mut reader = journal.reader(Seq::FIRST);
    assert_eq!(reader.read(1 << 20).await.unwrap().len(), 2);
    for _ in 0..2 {
        assert!(reader.read(1 << 20).await.is_err());
        assert_eq!(reader.position(), Seq(3));
    }
    gate.hides_last
        .store(false, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(reader.read(1 << 20).await.unwrap().len(), 1);
    assert!(journal.losses().is_empty());
    journal.close();
}

#[test]
fn what_a_cursor_does_not_account_for_counts_as_lost() {
    let dir = tempfile::tempdir().unwrap();
    let cursor = Cursor::open(dir.path(), "out", Seq::FIRST, &Tally::default()).unwrap();
    let events = Tally::rejected();
    let passed = Passed {
        seq: Seq(1),
        events: events.clone(),
        dead_lettered: Tally::default(),
    };
    cursor.advance(Seq(3), &[passed]);
    let mut accepted = events.clone();
    accepted.merge(&events);
    assert!(!cursor.reconcile(Seq(3), &accepted));
    let ledger = cursor.position().ledger;
    assert_eq!(
        (ledger.delivered, ledger.lost),
        (events.clone(), events.clone())
    );
    assert!(cursor.reconcile(Seq(3), &accepted));
    // What it accounts for beyond that was not delivered.
    assert!(!cursor.reconcile(Seq(3), &events));
    let ledger = cursor.position().ledger;
    assert_eq!((ledger.delivered.total(), ledger.lost.total()), (0, 1));
}

/// A log of five records, the third of which this version does not know.
async fn with_one_unknown(dir: &Path) {
    let journal = Journal::open(&options(dir)).unwrap();
    journal.cursor("out").unwrap();
    for i in 0..5 {
        let mut record = record(content(i, 1000));
        if i == 2 {
            // No reason may be so long when it is read.
            record.reason = Some("x".repeat(2 << 20));
        }
        journal.append(record, None).await.unwrap();
    }
    journal.close();
}

#[tokio::test]
async fn a_record_of_another_version_is_lost_and_does_not_stay_pending() {
    let dir = tempfile::tempdir().unwrap();
    with_one_unknown(dir.path()).await;
    let journal = Journal::open(&options(dir.path())).unwrap();
    let cursor = journal.cursor("out").unwrap();
    let records = read_all(&journal, Seq::FIRST).await;
    assert!(records.iter().map(|r| r.seq.0).eq([1, 2, 4, 5]));
    let read: Vec<_> = [passed(1..3), passed(4..6)].concat();
    cursor.advance(Seq(6), &read);
    journal.tidy_now();
    let way = &journal.ledger().ways[0];
    assert!(way.adds_up && way.pending.is_empty(), "{way:?}");
    assert_eq!(
        (way.ledger.delivered.total(), way.ledger.lost.total()),
        (4, 1)
    );
    assert_eq!(journal.stats().lost_records, 1);
    journal.close();
}

#[tokio::test]
async fn a_record_that_an_earlier_version_does_not_know_stays_as_it_was_counted() {
    for was_delivered in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        with_one_unknown(dir.path()).await;
        let journal = Journal::open(&options(dir.path())).unwrap();
        let mut read = passed(1..5);
        if !was_delivered {
            read.remove(2);
        }
        journal.cursor("out").unwrap().advance(Seq(5), &read);
        journal.close();
        drop(journal);
        let journal = Journal::open(&options(dir.path())).unwrap();
        let limit = std::time::Instant::now() + Duration::from_secs(20);
        while journal.losses().is_empty() {
            assert!(std::time::Instant::now() < limit, "the start tells it");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        journal
            .cursor("out")
            .unwrap()
            .advance(Seq(6), &passed(5..6));
        journal.tidy_now();
        let way = &journal.ledger().ways[0];
        assert!(way.adds_up && way.pending.is_empty(), "{way:?}");
        let lost = u64::from(!was_delivered);
        assert_eq!(
            (way.ledger.delivered.total(), way.ledger.lost.total()),
            (5 - lost, lost)
        );
        journal.close();
    }
}

#[tokio::test]
async fn what_cannot_be_told_at_a_place_is_not_looked_at_again_at_once() {
    let dir = tempfile::tempdir().unwrap();
    with_one_unknown(dir.path()).await;
    with_one_unknown(dir.path()).await;
    let journal = Journal::open(&options(dir.path())).unwrap();
    assert_eq!(read_all(&journal, Seq::FIRST).await.len(), 8);
    // It has passed the first of two that lack a record, and stands behind what the second lacks.
    let read: Vec<_> = [passed(1..3), passed(4..8), passed(9..10)].concat();
    journal.cursor("out").unwrap().advance(Seq(10), &read);
    let shared = journal.shared();
    let told = || {
        let untold = shared.untold.lock().unwrap();
        untold.get("out").map(|(at, of, _)| (*at, *of))
    };
    let limit = std::time::Instant::now() + Duration::from_secs(20);
    while told() != Some((Seq(10), Seq(6))) {
        assert!(std::time::Instant::now() < limit, "{:?}", told());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    unreadable(&dir.path().join("generations/gen-000000000002"));
    ledger::settle_losses(shared, &shared.cursor_list());
    let is_quiet = shared.board.is_new("losses", "losses");
    assert!(is_quiet, "it was read again");
    journal.close();
}

#[tokio::test]
async fn a_generation_that_cannot_be_read_for_a_moment_leaves_its_receipt() {
    let dir = tempfile::tempdir().unwrap();
    let place = sealed(dir.path()).await;
    let marker = unreadable(&place);
    let journal = Journal::open(&options(dir.path())).unwrap();
    let cursor = journal.cursor("out").unwrap();
    cursor.advance(Seq(21), &passed(1..21));
    let receipts = || {
        Directory::open(dir.path())
            .unwrap()
            .receipts()
            .unwrap()
            .len()
    };
    for _ in 0..3 {
        journal.tidy_now();
        assert!(place.is_dir(), "it waits");
        assert_eq!(receipts(), 0);
    }
    assert_eq!(cursor.saved(), Seq(21), "nothing else waits");
    std::fs::remove_file(marker).unwrap();
    let limit = std::time::Instant::now() + Duration::from_secs(20);
    while place.is_dir() {
        assert!(std::time::Instant::now() < limit, "it goes");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(receipts(), 1);
    assert!(journal.losses().is_empty());
    journal.close();
}
