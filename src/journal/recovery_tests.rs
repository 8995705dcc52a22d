//! Tests of `recovery`: what a start makes of damage. Nothing that held records is
//! deleted, and no sequence is given twice.

use super::manifest::{Header, Manifest};
use super::tests::{content, gated, options, read_all, record};
use super::*;
use crate::event::identity::Seq;
use crate::event::tally::Tally;
use std::path::Path;
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

/// What a way out has delivered: these records, each with one event.
pub(super) fn passed(seqs: std::ops::Range<u64>) -> Vec<Passed> {
    let one = |seq| Passed {
        seq: Seq(seq),
        events: Tally::rejected(),
        dead_lettered: Tally::default(),
    };
    seqs.map(one).collect()
}

/// A host that took ten records, delivered all of them by its one way out, and was stopped.
async fn drained(dir: &Path) -> Options {
    let options = options(dir);
    let journal = Journal::open(&options).unwrap();
    let cursor = journal.cursor("out").unwrap();
    for i in 0..10 {
        let record = record(content(i, 1000));
        journal.append(record, None).await.unwrap();
    }
    // Saved in two steps: the older slot is behind.
    cursor.advance(Seq(6), &passed(1..6));
    journal.tidy_now();
    cursor.advance(Seq(11), &passed(6..11));
    journal.close();
    let generations = std::fs::read_dir(dir.join("generations")).unwrap();
    assert_eq!(generations.count(), 0, "all are delivered and deleted");
    options
}

/// Makes the slot unreadable that counts.
fn rot_newer_slot(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let half = bytes.len() / 2;
    let number = |at: usize| u64::from_le_bytes(bytes[at + 4..at + 12].try_into().unwrap());
    let at = if number(0) > number(half) { 0 } else { half };
    bytes[at] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn a_drained_host_never_begins_anew_whatever_becomes_of_its_cursors() {
    type Harm = fn(&Path);
    let harms: [(&str, Harm); 3] = [
        ("removed", |path| std::fs::remove_file(path).unwrap()),
        ("overwritten", |path| std::fs::write(path, b"x").unwrap()),
        ("rotten in its newer slot", rot_newer_slot),
    ];
    for was_idle in [false, true] {
        for (what, harm) in harms {
            let dir = tempfile::tempdir().unwrap();
            let options = drained(dir.path()).await;
            if was_idle {
                // A generation without records says where it was to begin.
                Journal::open(&options).unwrap().crash();
            }
            harm(&dir.path().join("cursors/out"));
            let what = format!("cursor {what}, idle {was_idle}");
            let journal = Journal::open(&options).unwrap();
            assert_eq!(journal.ledger().accepted.total(), 10, "{what}");
            let other = journal.cursor("other").unwrap();
            let next = journal.append(record("on"), None).await.unwrap();
            assert_eq!(next, Seq(11), "{what}");
            other.advance(next.next(), &passed(11..12));
            for way in journal.ledger().ways {
                let pending = u64::from(way.way == "out");
                assert_eq!(way.pending.total(), pending, "{what}: {way:?}");
                assert!(way.adds_up, "{what}: {way:?}");
            }
            assert_eq!(journal.losses(), [], "{what}");
            journal.close();
        }
    }
}

#[tokio::test]
async fn a_host_that_nothing_tells_where_it_was_leaves_room_for_all_that_it_gave() {
    for keep_receipts in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let options = drained(dir.path()).await;
        std::fs::remove_file(dir.path().join("cursors/out")).unwrap();
        drop(std::fs::remove_file(dir.path().join("high_water")));
        if !keep_receipts {
            std::fs::remove_dir_all(dir.path().join("receipts")).unwrap();
        }
        let journal = Journal::open(&options).unwrap();
        let next = journal.append(record("on"), None).await.unwrap();
        assert!(next > Seq(1 << 32), "{next}");
        journal.close();
        drop(journal);
        // Once is enough.
        let journal = Journal::open(&options).unwrap();
        assert_eq!(
            journal.append(record("on"), None).await.unwrap(),
            next.next()
        );
        journal.close();
    }
}

#[tokio::test]
async fn a_way_out_that_was_replaced_has_lost_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path());
    options.limits.generation_bytes = 60_000;
    let journal = Journal::open(&options).unwrap();
    let cursor = journal.cursor("out").unwrap();
    for i in 0..5 {
        let record = record(content(i, 70_000));
        journal.append(record, None).await.unwrap();
    }
    cursor.advance(Seq(4), &passed(1..4));
    journal.close();
    drop((journal, cursor));
    std::fs::remove_file(dir.path().join("cursors/out")).unwrap();
    let journal = Journal::open(&options).unwrap();
    let other = journal.cursor("other").unwrap();
    assert_eq!(other.next(), Seq(4), "what is left is for the other");
    assert_eq!(journal.losses(), [], "what was delivered is not lost");
    let ledger = journal.ledger();
    assert_eq!(ledger.accepted.total(), 5);
    assert_eq!(ledger.ways[0].pending.total(), 2, "{ledger:?}");
    journal.close();
}

/// A life with one way out that takes so many records.
async fn lived(options: &Options, records: usize) {
    let journal = Journal::open(options).unwrap();
    journal.cursor("out").unwrap();
    for i in 0..records {
        let record = record(content(i, 1000));
        journal.append(record, None).await.unwrap();
    }
    journal.close();
}

#[tokio::test]
async fn a_generation_that_says_nothing_is_told_until_it_is_purged() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path());
    lived(&options, 10).await;
    let generation = dir.path().join("generations/gen-000000000001");
    for file in ["header", "manifest"] {
        std::fs::write(generation.join(file), b"damaged").unwrap();
    }
    for start in 0..3 {
        let journal = Journal::open(&options).unwrap();
        assert!(dir.path().join("quarantine/gen-000000000001").is_dir());
        let losses = journal.losses();
        assert_eq!(losses.len(), 1, "start {start}");
        assert_eq!((losses[0].generation, losses[0].records()), (1, 0));
        assert!(journal.stats().lost_records > 0, "the alert sees it");
        let next = journal.append(record("on"), None).await.unwrap();
        let expected = Seq((1 << 32) + 1 + start);
        assert_eq!(next, expected, "numbers are left out once");
        if start == 2 {
            journal.purge_quarantined(1, true).unwrap();
            assert_eq!(journal.losses(), []);
        }
        journal.close();
    }
}

#[tokio::test]
async fn a_generation_that_is_gone_is_told_by_the_empty_one_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path());
    lived(&options, 5).await;
    // Its next life takes nothing.
    lived(&options, 0).await;
    assert!(dir.path().join("generations/gen-000000000002").is_dir());
    std::fs::remove_dir_all(dir.path().join("generations/gen-000000000001")).unwrap();
    for start in 0..2 {
        let journal = Journal::open(&options).unwrap();
        let losses = journal.losses();
        assert_eq!(losses.len(), 1, "start {start}");
        assert_eq!((losses[0].first, losses[0].end), (Seq(1), Seq(6)));
        assert_eq!(journal.stats().lost_records, 5);
        let next = journal.append(record("on"), None).await.unwrap();
        assert_eq!(next, Seq(6 + start));
        assert_eq!(read_all(&journal, Seq::FIRST).await[0].seq, Seq(6));
        let way = &journal.ledger().ways[0];
        assert!(way.adds_up, "start {start}: {way:?}");
        journal.close();
    }
}

/// A log of ten records in two generations, of which one way out has passed all and another
/// three: the second generation is `gen-000000000002`, and not there any more.
async fn cut_behind(dir: &Path, generations: &[u32], ahead: bool) -> Options {
    let options = options(dir);
    for life in 0..2 {
        let journal = Journal::open(&options).unwrap();
        let (fast, slow) = (
            journal.cursor("fast").unwrap(),
            journal.cursor("slow").unwrap(),
        );
        for i in 0..5 {
            let record = record(content(5 * life + i, 1000));
            journal.append(record, None).await.unwrap();
        }
        if life == 0 {
            slow.advance(Seq(4), &passed(1..4));
            fast.advance(Seq(6), &passed(1..6));
        } else if ahead {
            let span = Span {
                first: Seq(8),
                end: Seq(11),
            };
            assert!(fast.deliver(span, &passed(8..11)));
        } else {
            fast.advance(Seq(11), &passed(6..11));
        }
        journal.close();
    }
    for number in generations {
        let generation = dir.join(format!("generations/gen-{number:012}"));
        std::fs::remove_dir_all(generation).unwrap();
    }
    options
}

/// What verify tells, and then three starts, in first and end.
async fn told(options: &Options) -> Vec<(Seq, Seq)> {
    let dir = Directory::open(&options.data_dir).unwrap();
    let report = dir.verify(&mut |_| {}).unwrap();
    let mut walked = Vec::new();
    dir.walk(Seq::FIRST, Seq(u64::MAX), &mut |found| {
        if let crate::journal::Found::Lost(loss) = found {
            walked.push((loss.first, loss.end));
        }
        std::ops::ControlFlow::Continue(())
    })
    .unwrap();
    let ranges = |losses: &[Loss]| losses.iter().map(|l| (l.first, l.end)).collect::<Vec<_>>();
    let verified = ranges(&report.losses);
    assert_eq!(walked, verified);
    for start in 0..3 {
        let journal = Journal::open(options).unwrap();
        assert_eq!(ranges(&journal.losses()), verified, "start {start}");
        if start == 1 {
            let next = journal.append(record("on"), None).await.unwrap();
            assert_eq!(next, Seq(11));
        }
        for way in journal.ledger().ways {
            assert!(way.adds_up, "start {start}: {way:?}");
        }
        journal.close();
    }
    verified
}

#[tokio::test]
async fn what_is_missing_behind_the_end_is_told_by_who_had_passed_it() {
    for (gone, first, ahead) in [
        (&[2][..], Seq(6), false),
        (&[1, 2][..], Seq(4), false),
        // Of 6 and 7 nobody knows the events.
        (&[2][..], Seq(6), true),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let options = cut_behind(dir.path(), gone, ahead).await;
        assert_eq!(told(&options).await, [(first, Seq(11))]);
        let journal = Journal::open(&options).unwrap();
        let slow = journal.cursor("slow").unwrap();
        let there = read_all(&journal, slow.next()).await;
        assert_eq!(there.last().map(|last| last.seq), Some(Seq(11)));
        let read: Vec<_> = there
            .iter()
            .flat_map(|r| passed(r.seq.0..r.seq.0 + 1))
            .collect();
        slow.advance(Seq(12), &read);
        journal.tidy_now();
        let ledger = journal.ledger();
        let lost = |way: &str| {
            let way = ledger.ways.iter().find(|of| of.way == way).unwrap();
            assert!(way.adds_up, "{way:?}");
            way.ledger.lost.total()
        };
        let known = if ahead { 3 } else { 11 - first.0 };
        assert_eq!((lost("slow"), lost("fast")), (known, 0));
        journal.close();
    }
}

#[tokio::test]
async fn numbers_that_were_left_out_behind_the_end_are_no_loss() {
    let dir = tempfile::tempdir().unwrap();
    let options = cut_behind(dir.path(), &[], false).await;
    // A generation that says nothing: numbers are left out, and who was at the end goes on
    // behind them.
    let unknown = dir.path().join("generations/gen-000000000009");
    std::fs::create_dir_all(unknown.join("store")).unwrap();
    std::fs::write(unknown.join("store/db"), b"of old").unwrap();
    Journal::open(&options).unwrap().close();
    for entry in std::fs::read_dir(dir.path().join("generations")).unwrap() {
        let entry = entry.unwrap();
        let header = Header::read(&entry.path()).unwrap().unwrap();
        if header.base > Seq(11) {
            std::fs::remove_dir_all(entry.path()).unwrap();
        }
    }
    std::fs::remove_dir_all(dir.path().join("quarantine")).unwrap();
    let journal = Journal::open(&options).unwrap();
    assert!(journal.cursor("fast").unwrap().next() > Seq(1 << 32));
    assert_eq!(journal.losses(), []);
    journal.close();
}
