//! Tests of what a start cannot read: it is waited for, and told for as long as its files are there.

use super::manifest::{Header, Manifest};
use super::tests::{content, options, read_all, record};
use super::unreadable_tests::{sealed, unreadable};
use super::*;
use crate::event::identity::Seq;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A log of one young generation with so many records, as a killed process leaves it; its
/// directory.
async fn young(dir: &Path, records: usize) -> PathBuf {
    let journal = Journal::open(&options(dir)).unwrap();
    for i in 0..records {
        let record = record(content(i, 60_000));
        journal.append(record, None).await.unwrap();
    }
    journal.crash();
    dir.join("generations/gen-000000000001")
}

#[tokio::test]
async fn what_a_start_cannot_read_for_a_moment_is_not_lost() {
    for records in [20, 0] {
        let dir = tempfile::tempdir().unwrap();
        let place = young(dir.path(), records).await;
        let marker = unreadable(&place);
        let removing = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(500));
            std::fs::remove_file(marker).unwrap();
        });
        let journal = Journal::open(&options(dir.path())).unwrap();
        removing.join().unwrap();
        assert_eq!(read_all(&journal, Seq::FIRST).await.len(), records);
        assert!(journal.losses().is_empty());
        journal.close();
    }
}

#[tokio::test]
async fn small_files_that_cannot_be_read_for_a_moment_are_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let place = sealed(dir.path()).await;
    let files =
        ["manifest", "header"].map(|name| (place.join(name), place.join(name.to_uppercase())));
    for (file, away) in &files {
        std::fs::rename(file, away).unwrap();
        // The system refuses to read it.
        std::fs::create_dir(file).unwrap();
    }
    let restoring = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(500));
        for (file, away) in &files {
            std::fs::remove_dir(file).unwrap();
            std::fs::rename(away, file).unwrap();
        }
    });
    let journal = Journal::open(&options(dir.path())).unwrap();
    restoring.join().unwrap();
    assert_eq!(read_all(&journal, Seq::FIRST).await.len(), 20);
    assert!(journal.losses().is_empty() && place.is_dir());
    journal.close();
}

/// A log of one young generation that no start can read.
async fn given_up(dir: &Path) -> Journal {
    let place = young(dir, 1).await;
    unreadable(&place);
    let journal = Journal::open(&options(dir)).unwrap();
    assert!(!place.exists());
    journal
}

/// Whether nobody knows what the first generation held, and nothing else is lost.
fn is_told(journal: &Journal) -> bool {
    let losses = journal.losses();
    losses.len() == 1 && losses[0].generation == 1 && losses[0].records() == 0
}

#[tokio::test]
async fn what_no_start_can_read_is_kept_as_evidence() {
    let dir = tempfile::tempdir().unwrap();
    let journal = given_up(dir.path()).await;
    let kept = dir.path().join("quarantine/gen-000000000001/store/db");
    assert!(kept.metadata().unwrap().len() > 0 && is_told(&journal));
    journal.close();
    drop(journal);
    for _ in 0..3 {
        // From there on no start waits for it: there may be many.
        let began = std::time::Instant::now();
        let journal = Journal::open(&options(dir.path())).unwrap();
        let took = began.elapsed();
        assert!(took < unread::UNREADABLE_PATIENCE, "{took:?}");
        assert!(kept.exists() && is_told(&journal), "{:?}", journal.losses());
        journal.close();
    }
}

#[tokio::test]
async fn what_was_given_up_is_told_though_it_can_be_read() {
    let dir = tempfile::tempdir().unwrap();
    given_up(dir.path()).await.close();
    let kept = dir.path().join("quarantine/gen-000000000001");
    std::fs::remove_file(kept.join("store/db.unreadable")).unwrap();
    for _ in 0..3 {
        let journal = Journal::open(&options(dir.path())).unwrap();
        assert!(is_told(&journal), "{:?}", journal.losses());
        assert!(read_all(&journal, Seq::FIRST).await.is_empty());
        journal.close();
    }
    let directory = Directory::open(dir.path()).unwrap();
    assert_eq!(directory.unknown_generations(), [1]);
    let journal = Journal::open(&options(dir.path())).unwrap();
    journal.purge_quarantined(1, true).unwrap();
    assert!(journal.losses().is_empty() && !kept.exists());
    journal.close();
}

/// A young generation of twenty records of which a disk gives half, and nothing has told yet how
/// far it went; its directory.
async fn with_unread_end(dir: &Path) -> (PathBuf, Header) {
    let place = young(dir, 20).await;
    let header = Header::read(&place).unwrap().unwrap();
    Manifest::new(header.clone()).write(&place).unwrap();
    let half = survey::store_file(&place).metadata().unwrap().len() / 2;
    std::fs::write(unreadable(&place), half.to_string()).unwrap();
    (place, header)
}

#[tokio::test]
async fn an_end_that_cannot_be_read_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let (place, header) = with_unread_end(dir.path()).await;
    let mut held = None;
    let moved = dir.path().join("quarantine/gen-000000000001");
    for is_written in [true, false, true] {
        if !is_written {
            // As if there had been no room for what the first start found.
            Manifest::new(header.clone()).write(&moved).unwrap();
        }
        let journal = Journal::open(&options(dir.path())).unwrap();
        assert!(is_told(&journal), "{:?}", journal.losses());
        let records = read_all(&journal, Seq::FIRST).await.len();
        assert!(0 < records && records < 20, "{records}");
        assert_eq!(*held.get_or_insert(records), records);
        journal.close();
    }
    // Numbers that may have been given are not given again, and what is delivered stays.
    let journal = Journal::open(&options(dir.path())).unwrap();
    let next = journal.append(record(content(0, 10)), None).await.unwrap();
    assert!(next > Seq(recovery::UNKNOWN_RANGE), "{next}");
    journal.cursor("out").unwrap().advance(next, &[]);
    journal.tidy_now();
    assert!(!place.exists() && is_told(&journal));
    assert!(moved.join("store/db").exists());
    journal.close();
    let directory = Directory::open(dir.path()).unwrap();
    assert_eq!(directory.unknown_generations(), [1]);
}

#[tokio::test]
async fn a_mark_is_taken_back_from_what_can_be_read() {
    for unread in [unread::Unread::End, unread::Unread::Whole] {
        let dir = tempfile::tempdir().unwrap();
        let place = young(dir.path(), 1).await;
        // As a start does that fails before it can set it aside.
        unread::mark(&place, unread);
        for _ in 0..2 {
            let journal = Journal::open(&options(dir.path())).unwrap();
            assert_eq!(read_all(&journal, Seq::FIRST).await.len(), 1);
            journal.tidy_now();
            assert!(journal.losses().is_empty() && place.is_dir());
            journal.close();
        }
    }
}

/// What a start of a host knows that nothing else tells of.
fn nothing_known(is_new_host: bool) -> recovery::Known<'static> {
    recovery::Known {
        cursors: &[],
        has_unreadable_cursors: false,
        high_water: None,
        receipts_end: None,
        is_new_host,
    }
}

#[tokio::test]
async fn numbers_of_what_cannot_be_read_are_left_out_by_each_start() {
    let [part, whole] = [(), ()].map(|()| tempfile::tempdir().unwrap());
    with_unread_end(part.path()).await;
    let place = young(whole.path(), 1).await;
    // What was before it is gone, too.
    let header = Header {
        base: Seq(107),
        previous_end: Seq(101),
        ..Header::read(&place).unwrap().unwrap()
    };
    header.write(&place).unwrap();
    Manifest::new(header).write(&place).unwrap();
    unreadable(&place);
    for (dir, known_end, base) in [(&part, 2..21, 1), (&whole, 101..102, 107)] {
        let [generations, quarantine] = ["generations", "quarantine"].map(|n| dir.path().join(n));
        // Each of them fails before the next generation is made.
        for _ in 0..3 {
            let known = nothing_known(true);
            let found = recovery::recover(&generations, &quarantine, &known).unwrap();
            let (next, end) = (found.next_seq.0, found.known_end.0);
            assert!(next >= base + recovery::UNKNOWN_RANGE, "{next}");
            assert!(known_end.contains(&end) && next > end, "{end}");
            assert_eq!(found.unknown.len(), 1);
        }
    }
}

#[test]
fn where_nothing_tells_how_far_it_came_nobody_says_that_nothing_was_before() {
    let dir = tempfile::tempdir().unwrap();
    let found = recovery::recover(dir.path(), dir.path(), &nothing_known(false)).unwrap();
    assert_eq!(found.known_end, found.next_seq);
    assert!(found.next_seq.0 > recovery::UNKNOWN_RANGE);
}
