//! Tests of what operators do beside damage: `skip` and `offline`. Nothing is deleted that a
//! way out may need, and what is passed over is counted as it was.

use super::recovery_tests::passed;
use super::tests::{content, options, read_all, record};
use super::*;
use crate::event::identity::Seq;
use std::path::Path;
use std::time::{Duration, Instant};

/// Three generations and more of six records each, sealed.
async fn filled(dir: &Path) -> (Options, Journal) {
    let mut options = options(dir);
    options.limits.generation_bytes = 300_000;
    let journal = Journal::open(&options).unwrap();
    for i in 0..18 {
        let record = record(content(i, 60_000));
        journal.append(record, None).await.unwrap();
    }
    assert!(journal.stats().generations > 3);
    (options, journal)
}

/// Makes one record of a generation unreadable; its sequence.
fn damage(dir: &Path, generation: u64) -> u64 {
    let directory = Directory::open(dir).unwrap();
    let mut generations = directory.generations().iter();
    let hit = generations.find(|g| g.number == generation).unwrap();
    let seq = hit.first.0 + 1;
    let db = format!("generations/gen-{generation:012}/store/db");
    let db = dir.join(db);
    let mut bytes = std::fs::read(&db).unwrap();
    let needle = &content(seq as usize - 1, 60_000)[1000..1100];
    while let Some(at) = memchr::memmem::find(&bytes, needle) {
        bytes[at] ^= 1;
    }
    std::fs::write(&db, bytes).unwrap();
    seq
}

fn generations(dir: &Path) -> usize {
    std::fs::read_dir(dir.join("generations")).unwrap().count()
}

#[tokio::test]
async fn an_unreadable_cursor_keeps_everything() {
    let dir = tempfile::tempdir().unwrap();
    let (options, journal) = filled(dir.path()).await;
    let clickhouse = journal.cursor("clickhouse").unwrap();
    journal.cursor("postgres").unwrap();
    clickhouse.advance(Seq(8), &passed(1..8));
    journal.close();
    drop((journal, clickhouse));
    let before = generations(dir.path());
    assert!(before >= 3);
    std::fs::write(dir.path().join("cursors/postgres"), b"damaged").unwrap();
    let directory = Directory::open(dir.path()).unwrap();
    let mut known = directory.cursors().iter();
    let postgres = known.find(|cursor| cursor.name == "postgres");
    assert_eq!(
        postgres.map(|cursor| cursor.next),
        Some(Seq(1)),
        "it is as far as a start would take it to be"
    );
    let offline = Offline::open(dir.path()).unwrap();
    let skipped = offline.skip("clickhouse", Seq(19), true).unwrap();
    assert_eq!(skipped.events.total(), 11);
    drop(offline.delete_passed(true));
    assert_eq!(generations(dir.path()), before, "postgres needs them");
    drop(offline);
    let journal = Journal::open(&options).unwrap();
    assert_eq!(read_all(&journal, Seq::FIRST).await.len(), 18);
    for way in journal.ledger().ways {
        let pending = if way.way == "postgres" { 18 } else { 0 };
        assert_eq!(way.pending.total(), pending, "{way:?}");
        assert!(way.adds_up, "{way:?}");
    }
    journal.close();
}

#[tokio::test]
async fn a_quarantine_stays_where_a_cursor_cannot_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let (_, journal) = filled(dir.path()).await;
    journal.cursor("out").unwrap();
    journal.close();
    drop(journal);
    damage(dir.path(), 2);
    let mut options = options(dir.path());
    options.limits.generation_bytes = 300_000;
    let journal = Journal::open(&options).unwrap();
    read_all(&journal, Seq::FIRST).await;
    journal.close();
    drop(journal);
    std::fs::write(dir.path().join("cursors/out"), b"damaged").unwrap();
    let offline = Offline::open(dir.path()).unwrap();
    for apply in [false, true] {
        let refused = offline.purge_quarantined(2, apply);
        assert!(refused.is_err(), "{refused:?}");
    }
    assert!(dir.path().join("quarantine/gen-000000000002").is_dir());
    // Nor without any: a new way out begins with what is there.
    std::fs::remove_file(dir.path().join("cursors/out")).unwrap();
    let refused = offline.purge_quarantined(2, true);
    assert!(refused.is_err(), "{refused:?}");
}

#[tokio::test]
async fn a_skip_over_a_damaged_generation_counts_what_was_there() {
    // To the end of all, and into the damaged generation, behind its loss.
    for to_end in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let (_, journal) = filled(dir.path()).await;
        let cursor = journal.cursor("out").unwrap();
        let lost = damage(dir.path(), 2);
        assert_eq!(read_all(&journal, Seq::FIRST).await.len(), 17);
        cursor.advance(Seq(3), &passed(1..3));
        let to = if to_end { 19 } else { lost + 2 };
        let there = to - 1 - 2 - 1;
        let planned = journal.skip("out", Seq(to), false).unwrap();
        assert_eq!(planned.events.total(), there);
        let skipped = journal.skip("out", Seq(to), true).unwrap();
        assert_eq!(skipped, planned);
        cursor.advance(Seq(19), &passed(to..19));
        let until = Instant::now() + Duration::from_secs(10);
        let way = loop {
            let way = journal.ledger().ways.remove(0);
            if way.adds_up || Instant::now() > until {
                break way;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        assert!(way.adds_up && way.pending.is_empty(), "{way:?}");
        assert_eq!(way.ledger.purged.total(), there);
        assert_eq!(way.ledger.lost.total(), 1);
        journal.close();
    }
}
