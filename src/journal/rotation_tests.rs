//! Tests of how generations begin and end: by age, on a full disk, and with losses
//! that show only when they are read.

use super::tests::{content, gated, options, read_all, record};
use super::*;
use crate::event::identity::Seq;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

pub(super) async fn until(what: &str, mut check: impl AsyncFnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !check().await {
        assert!(Instant::now() < until, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_quiet_generation_is_sealed_by_age_and_deleted_once_delivered() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path());
    options.limits.generation_age = Duration::from_millis(300);
    let journal = Journal::open(&options).unwrap();
    let cursor = journal.cursor("out").unwrap();
    journal.append(record("only"), None).await.unwrap();
    until("it is sealed", async || journal.stats().generations == 2).await;
    assert_eq!(read_all(&journal, Seq::FIRST).await.len(), 1);
    cursor.advance(Seq(2), &[]);
    until("it is deleted", async || {
        journal.stats().oldest_seq == Seq(2)
    })
    .await;
    let names = std::fs::read_dir(dir.path().join("generations")).unwrap();
    assert_eq!(names.count(), 1, "an empty generation is not sealed by age");
    journal.close();
}

#[tokio::test]
async fn want_of_descriptors_or_memory_refuses_and_acceptance_resumes_by_itself() {
    use std::io::{Error, ErrorKind};
    let no_descriptors = || rustix::io::Errno::MFILE.into();
    let no_memory = || ErrorKind::OutOfMemory.into();
    let wants: [(fn() -> Error, _); 2] = [
        (no_descriptors, AppendError::NoDescriptors),
        (no_memory, AppendError::NoMemory),
    ];
    for (want, expected) in wants {
        let dir = tempfile::tempdir().unwrap();
        let (journal, gate) = gated(&options(dir.path()));
        journal.append(record("kept"), None).await.unwrap();
        *gate.want.lock().unwrap() = Some(want);
        // The one that met it, and one that is refused at once, for the same reason.
        for _ in 0..2 {
            let error = journal.append(record("x"), None).await.unwrap_err();
            assert_eq!(error, expected);
            assert!(error.is_retryable());
        }
        assert_eq!(journal.stats().fence, None);
        *gate.want.lock().unwrap() = None;
        until("it accepts again", async || {
            journal.append(record("again"), None).await.is_ok()
        })
        .await;
        assert_eq!(read_all(&journal, Seq::FIRST).await.len(), 2);
        journal.close();
    }
}

#[tokio::test]
async fn a_full_disk_ends_the_generation_and_acceptance_resumes_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, gate) = gated(&options(dir.path()));
    journal.append(record("kept"), None).await.unwrap();
    gate.no_space.store(true, Ordering::SeqCst);
    let error = journal.append(record("x"), None).await.unwrap_err();
    assert!(matches!(error, AppendError::DiskLow { .. }), "{error}");
    assert_eq!(journal.stats().fence, None);
    // What is there can be read meanwhile.
    assert_eq!(read_all(&journal, Seq::FIRST).await.len(), 1);
    gate.no_space.store(false, Ordering::SeqCst);
    let mut seq = Seq(0);
    until("it accepts again", async || {
        journal
            .append(record("again"), None)
            .await
            .is_ok_and(|given| {
                seq = given;
                true
            })
    })
    .await;
    assert!(
        seq > Seq(2),
        "the number of the failed write is given again"
    );
    let contents = |records: Vec<Record>| -> Vec<_> {
        records.into_iter().map(|r| (r.seq, r.content)).collect()
    };
    let expected = [(Seq(1), "kept".into()), (seq, "again".into())];
    assert_eq!(contents(read_all(&journal, Seq::FIRST).await), expected);
    assert_eq!(journal.losses(), []);
    journal.close();
    drop(journal);
    let journal = Journal::open(&options(dir.path())).unwrap();
    assert_eq!(contents(read_all(&journal, Seq::FIRST).await), expected);
    assert_eq!(journal.losses(), []);
    assert!(
        Directory::open(dir.path())
            .unwrap()
            .verify(&mut |_| {})
            .unwrap()
            .is_good()
    );
    journal.close();
}

#[tokio::test]
async fn what_becomes_durable_behind_numbers_left_out_is_not_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, gate) = gated(&options(dir.path()));
    journal.append(record("first"), None).await.unwrap();
    gate.no_space.store(true, Ordering::SeqCst);
    assert!(journal.append(record("x"), None).await.is_err());
    gate.no_space.store(false, Ordering::SeqCst);
    let shared = journal.shared();
    until("it has another generation", async || {
        shared.chain().len() == 2
    })
    .await;
    journal.close();
    drop(journal);
    let journal = Journal::open(&options(dir.path())).unwrap();
    let shared = journal.shared();
    let base = *shared.durable_end.borrow();
    assert!(base > Seq(2), "a number is left out");
    let mut reader = journal.reader(Seq::FIRST);
    let mut contents = Vec::new();
    let append = async |text: &'static str| journal.append(record(text), None).await.unwrap();
    let second = append("second").await;
    assert_eq!(second, base);
    // As a read that began before it was durable.
    let end = shared.durable_end.send_replace(base);
    contents.extend(reader.read(1 << 20).await.unwrap());
    shared.durable_end.send_replace(end);
    append("third").await;
    contents.extend(reader.read(1 << 20).await.unwrap());
    let contents: Vec<_> = contents.into_iter().map(|record| record.content).collect();
    assert_eq!(contents, ["first", "second", "third"]);
    assert!(journal.losses().is_empty());
    journal.close();
}

#[tokio::test]
async fn a_sealed_generation_that_lost_blocks_is_quarantined_when_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path());
    options.limits.generation_bytes = 300_000;
    let journal = Journal::open(&options).unwrap();
    let (early, late) = (
        journal.cursor("early").unwrap(),
        journal.cursor("late").unwrap(),
    );
    let mut records = Vec::new();
    for i in 0..12 {
        records.push(record(content(i, 60_000)));
        journal.append(records[i].clone(), None).await.unwrap();
    }
    let passed = |from: u64, to: u64| -> Vec<Passed> {
        let one = |seq: u64| Passed {
            seq: Seq(seq),
            events: records[seq as usize - 1].events.clone(),
            dead_lettered: Default::default(),
        };
        (from..to).map(one).collect()
    };
    // One way out has delivered the record before it is lost, the other has not.
    early.advance(Seq(3), &passed(1, 3));
    let db = dir.path().join("generations/gen-000000000001/store/db");
    let mut bytes = std::fs::read(&db).unwrap();
    let needle = &content(1, 60_000)[1000..1100];
    while let Some(at) = memchr::memmem::find(&bytes, needle) {
        bytes[at] ^= 1;
    }
    std::fs::write(&db, bytes).unwrap();
    let found = read_all(&journal, Seq::FIRST).await;
    assert_eq!(found.len(), 11);
    let expected = Loss {
        generation: 1,
        first: Seq(2),
        end: Seq(3),
    };
    assert_eq!(journal.losses(), std::slice::from_ref(&expected));
    assert!(dir.path().join("quarantine/gen-000000000001").is_dir());
    late.advance(Seq(13), &[passed(1, 2), passed(3, 13)].concat());
    early.advance(Seq(13), &passed(3, 13));
    until("both ledgers add up", async || {
        let ledger = journal.ledger();
        ledger
            .ways
            .iter()
            .all(|way| way.adds_up && way.pending.is_empty())
    })
    .await;
    let lost = |journal: &Journal| -> Vec<_> {
        let ways = journal.ledger().ways.into_iter();
        ways.map(|way| (way.way, way.ledger.lost.total())).collect()
    };
    let told = [("early".to_owned(), 0), ("late".to_owned(), 1)];
    assert_eq!(lost(&journal), told);
    journal.close();
    drop((journal, early, late));
    // A restart knows it still, and the files stay.
    let journal = Journal::open(&options).unwrap();
    assert_eq!(journal.losses(), [expected]);
    assert_eq!(lost(&journal), told);
    assert!(dir.path().join("quarantine/gen-000000000001").is_dir());
    assert!(matches!(
        journal.purge_quarantined(2, true),
        Err(PurgeError::Unknown(2))
    ));
    assert!(journal.purge_quarantined(1, false).unwrap() > 0);
    journal.purge_quarantined(1, true).unwrap();
    assert_eq!(journal.losses(), []);
    assert!(!dir.path().join("quarantine/gen-000000000001").exists());
    journal.close();
}

#[tokio::test]
async fn a_killed_directory_is_skipped_to_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(&options(dir.path())).unwrap();
    journal.cursor("out").unwrap();
    for i in 0..9 {
        journal
            .append(record(content(i, 2000)), None)
            .await
            .unwrap();
    }
    assert!(matches!(
        Offline::open(dir.path()),
        Err(OpenError::Locked(_))
    ));
    journal.crash();
    let offline = Offline::open(dir.path()).unwrap();
    assert!(matches!(
        offline.skip("out", Seq(11), true),
        Err(SkipError::Beyond { .. })
    ));
    assert!(matches!(
        offline.skip("in", Seq(2), true),
        Err(SkipError::Unknown(_))
    ));
    let planned = offline.skip("out", Seq(10), false).unwrap();
    assert_eq!((planned.from, planned.events.total()), (Seq(1), 9));
    assert_eq!(offline.skip("out", Seq(10), true).unwrap(), planned);
    drop(offline);
    let journal = Journal::open(&options(dir.path())).unwrap();
    assert_eq!(journal.cursor("out").unwrap().next(), Seq(10));
    let ledger = journal.ledger();
    assert!(ledger.ways[0].adds_up, "{ledger:?}");
    assert_eq!(ledger.ways[0].ledger.purged.total(), 9);
    journal.close();
}

#[tokio::test]
async fn a_long_backlog_goes_in_many_turns_each_measured() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path());
    options.limits.generation_bytes = 60_000;
    let journal = Journal::open(&options).unwrap();
    let cursor = journal.cursor("out").unwrap();
    for i in 0..40 {
        let record = record(content(i, 70_000));
        journal.append(record, None).await.unwrap();
    }
    let many = journal.stats().generations;
    assert!(many >= 30, "{many}");
    journal.tidy_now();
    cursor.advance(Seq(41), &[]);
    // By turns of the keeper: one that is under way counts in part, at both ends.
    let mut before = (journal.turns().keeper, journal.stats());
    let mut measured = std::collections::BTreeSet::from([before.1.used_bytes]);
    until("all of it is deleted", async || {
        let turns = journal.turns().keeper;
        let stats = journal.stats();
        let deleted = before.1.generations.saturating_sub(stats.generations);
        let turns_max = journal.turns().keeper - before.0 + 1;
        assert!(
            deleted as u64 <= turns_max * 4,
            "{deleted} in {turns_max} turns"
        );
        measured.insert(stats.used_bytes);
        before = (turns, stats);
        before.1.generations == 1
    })
    .await;
    assert!(measured.len() > 4, "not measured in between: {measured:?}");
    journal.close();
}

#[tokio::test]
async fn what_one_reader_found_unreadable_holds_up_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path());
    let journal = Journal::open(&options).unwrap();
    for i in 0..20 {
        let record = record(content(i, 60_000));
        journal.append(record, None).await.unwrap();
    }
    journal.close();
    drop(journal);
    let journal = Journal::open(&options).unwrap();
    let (mut slow, mut fast) = (journal.reader(Seq(1)), journal.reader(Seq(1)));
    assert!(!slow.read(1).await.unwrap().is_empty());
    assert!(!fast.read(1).await.unwrap().is_empty());
    // The disk cannot read the second half any more; both hold what they found before.
    let db = dir.path().join("generations/gen-000000000001/store/db");
    let file = std::fs::File::options().write(true).open(db).unwrap();
    file.set_len(700_000).unwrap();
    let mut failures = 0;
    let mut given = 0;
    while fast.position() < Seq(21) {
        match fast.read(1 << 20).await {
            Ok(records) => given += records.len(),
            Err(_) => failures += 1,
        }
        assert!(failures < 3, "it stays before {}", fast.position());
    }
    assert!(given > 0 && given < 20);
    let lost: u64 = journal.losses().iter().map(Loss::records).sum();
    assert!(lost > 0 && slow.position() < Seq(20));
    journal.close();
}
