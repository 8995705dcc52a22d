//! Tests of what a start and `verify` take for missing, where ways out have come to different
//! places.

use super::aside_tests::damage;
use super::high_water::HighWaterFile;
use super::recovery::{Known, recover};
use super::recovery_tests::passed;
use super::tests::{filled, options, read_all};
use super::*;
use crate::event::identity::Seq;

fn ranges(losses: &[Loss]) -> Vec<(u64, u64)> {
    losses.iter().map(|l| (l.first.0, l.end.0)).collect()
}

#[tokio::test]
async fn what_was_passed_and_is_not_deleted_yet_is_not_missing() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, cursor) = filled(dir.path(), 100_000, (8, 60_000)).await;
    // Nobody tidies it from here on.
    journal.close();
    let generations = dir.path().join("generations");
    damage(&generations.join("gen-000000000002"), 2);
    assert_eq!(read_all(&journal, Seq::FIRST).await.len(), 7);
    assert!(dir.path().join("quarantine/gen-000000000002").is_dir());
    cursor.advance(Seq(9), &passed(1..9));
    // Cursors are saved, and then the process dies before it deletes anything.
    journal.shared().look();
    drop((cursor, journal));
    assert!(generations.join("gen-000000000001").is_dir());
    let verified = Directory::open(dir.path()).unwrap();
    let verified = verified.verify(&mut |_| {}).unwrap();
    // A new way out may begin with the first, and finds the second behind it.
    let (positions, _) = start::saved_positions(&dir.path().join("cursors")).unwrap();
    let high_water = HighWaterFile::open(dir.path(), false);
    let known = Known {
        is_new_host: false,
        cursors: &positions,
        has_unreadable_cursors: false,
        high_water: high_water.known(),
        receipts_end: None,
    };
    let found = recover(&generations, &dir.path().join("quarantine"), &known).unwrap();
    let numbers = found.generations.iter().map(|found| found.number());
    assert_eq!(numbers.collect::<Vec<_>>(), [1, 2, 3, 4]);
    let journal = Journal::open(&options(dir.path())).unwrap();
    assert_eq!(ranges(&journal.losses()), [(3, 4)]);
    assert_eq!(ranges(&verified.losses), [(3, 4)]);
    assert!(journal.ledger().ways[0].adds_up);
    journal.close();
}

#[tokio::test]
async fn what_is_missing_behind_the_end_is_told_by_what_was_delivered_ahead() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, cursor) = filled(dir.path(), 60_000, (4, 70_000)).await;
    // Fewer events than the log has left.
    let span = Span {
        first: Seq(4),
        end: Seq(5),
    };
    assert!(cursor.deliver(span, &passed(4..5)));
    journal.close();
    drop((cursor, journal));
    for number in 3..6 {
        let generation = dir.path().join(format!("generations/gen-{number:012}"));
        std::fs::remove_dir_all(&generation).ok();
    }
    let verified = Directory::open(dir.path()).unwrap();
    let verified = verified.verify(&mut |_| {}).unwrap();
    assert_eq!(ranges(&verified.losses), [(3, 5)]);
    for start in 0..2 {
        let journal = Journal::open(&options(dir.path())).unwrap();
        assert_eq!(ranges(&journal.losses()), [(3, 5)], "start {start}");
        let way = &journal.ledger().ways[0];
        assert!(way.adds_up, "start {start}: {way:?}");
        journal.close();
    }
}
