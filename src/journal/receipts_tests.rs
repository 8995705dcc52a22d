//! Receipts of deleted generations: there before the deletion, bounded, and told when damaged.

use super::position::Span;
use super::receipts::{Draft, Receipt, ReceiptError, Receipted, decompress, list, prune};
use super::tests::{content, options, record};
use super::*;
use crate::event::identity::Seq;
use crate::event::proto::{Event, Events, Header};
use bytes::Bytes;
use prost::Message as _;
use std::path::Path;
use std::time::Duration;

fn request(number: u64) -> NewRecord {
    let event = |at: u64| Event {
        id: format!("e{number}-{at}"),
        timestamp: "1700000000000".to_owned(),
        ..Event::default()
    };
    let batch = Events {
        header: Some(Header {
            device_id: "d".repeat(30_000),
            ..Header::default()
        }),
        events: (0..3).map(event).collect(),
    };
    let mut record = record(content(0, 0));
    // The keeper takes away what is too old.
    record.received_at_ms = crate::clock::now_ms();
    record.content = Bytes::from(batch.encode_to_vec());
    record
}

/// A journal whose way out has delivered all but the last few of many requests.
async fn delivered(dir: &Path) -> Journal {
    let mut options = options(dir);
    options.limits.generation_bytes = 256 << 10;
    let journal = Journal::open(&options).unwrap();
    let cursor = journal.cursor("out").unwrap();
    for number in 1..=60 {
        journal.append(request(number), None).await.unwrap();
    }
    cursor.advance(Seq(58), &[]);
    journal
}

#[tokio::test]
async fn a_generation_goes_after_its_receipt() {
    let dir = tempfile::tempdir().unwrap();
    let journal = delivered(dir.path()).await;
    // Where no receipt can be written the deletion goes on, and nothing is made up.
    let place = dir.path().join("receipts");
    std::fs::write(&place, b"in the way").unwrap();
    let before = journal.stats().generations;
    assert!(before > 4);
    journal.tidy_now();
    let after = journal.stats().generations;
    assert!(after < before, "{after} of {before}");
    std::fs::remove_file(&place).unwrap();
    assert_eq!(list(&place).unwrap(), []);
    journal.close();
    drop(journal);

    let dir = tempfile::tempdir().unwrap();
    let journal = delivered(dir.path()).await;
    journal.tidy_now();
    let oldest = journal.stats().oldest_seq;
    assert!(oldest > Seq(20), "{oldest}");
    let files = Directory::open(dir.path()).unwrap().receipts().unwrap();
    let mut requests = Vec::new();
    let mut end = Seq::FIRST;
    for file in &files {
        assert_eq!(
            (file.span.first, file.previous_end),
            (end, end),
            "one after the other"
        );
        end = file.span.end;
        requests.extend(file.read().unwrap().requests);
    }
    assert_eq!(end, oldest, "everything that is gone, and nothing else");
    assert_eq!(requests.len() as u64, oldest.0 - 1);
    for (request, number) in requests.iter().zip(1..) {
        assert_eq!(request.seq, Seq(number));
        let ids: Vec<_> = request
            .events
            .iter()
            .map(|event| event.id.clone())
            .collect();
        let wanted: Vec<_> = (0..3).map(|at| format!("e{number}-{at}")).collect();
        assert_eq!(ids, wanted);
    }
    journal.close();
}

#[tokio::test]
async fn a_log_at_its_bound_leaves_receipts_and_a_low_disk_leaves_none() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path());
    options.limits.generation_bytes = 256 << 10;
    options.limits.max_bytes = 12 << 20;
    let journal = Journal::open(&options).unwrap();
    let cursor = journal.cursor("out").unwrap();
    let mut number = 0;
    // Measured by the keeper, and only then refused.
    let refused = loop {
        number += 1;
        if let Err(error) = journal.append(request(number), None).await {
            break error;
        }
        assert!(number < 20_000, "the bound is not kept");
    };
    assert!(matches!(refused, AppendError::Full { .. }), "{refused:?}");
    cursor.advance(Seq(number / 2), &[]);
    journal.tidy_now();
    let files = Directory::open(dir.path()).unwrap().receipts().unwrap();
    assert!(!files.is_empty(), "nothing is known of what an outage left");
    // A write that found the disk full: nothing is added to it.
    journal.capacity().no_space();
    cursor.advance(Seq(number), &[]);
    journal.tidy_now();
    assert!(journal.stats().oldest_seq > files.last().unwrap().span.end);
    let after = Directory::open(dir.path()).unwrap().receipts().unwrap();
    assert_eq!(after, files);
    journal.close();
}

#[tokio::test]
async fn the_oldest_receipts_go_first() {
    let dir = tempfile::tempdir().unwrap();
    let journal = delivered(dir.path()).await;
    journal.tidy_now();
    journal.close();
    let place = dir.path().join("receipts");
    let all = list(&place).unwrap();
    let last_ms = all
        .iter()
        .map(|file| file.last_received_at_ms)
        .max()
        .unwrap();
    let size: u64 = std::fs::read_dir(&place)
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    let limits = |keep_s, max_bytes| ReceiptLimits {
        keep: Duration::from_secs(keep_s),
        max_bytes,
    };
    prune(&place, &limits(3600, size), last_ms).unwrap();
    assert_eq!(list(&place).unwrap(), all, "all of it may stay");
    prune(&place, &limits(3600, size - 1), last_ms).unwrap();
    assert_eq!(list(&place).unwrap(), all[1..], "the oldest went");
    prune(&place, &limits(3600, size), last_ms + 3_601_000).unwrap();
    let youngest = &all[all.len() - 1..];
    assert_eq!(
        list(&place).unwrap(),
        youngest,
        "all too old: the youngest shows it"
    );
    prune(&place, &limits(3600, 0), last_ms + 3_601_000).unwrap();
    assert_eq!(list(&place).unwrap(), [], "the bytes bound it in any case");
}

#[tokio::test]
async fn a_damaged_receipt_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let journal = delivered(dir.path()).await;
    journal.tidy_now();
    journal.close();
    let file = Directory::open(dir.path())
        .unwrap()
        .receipts()
        .unwrap()
        .remove(0);
    let path = std::fs::read_dir(dir.path().join("receipts"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .min()
        .unwrap();
    let whole = std::fs::read(&path).unwrap();
    for at in (0..whole.len()).step_by(whole.len() / 40) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        std::fs::write(&path, &bytes).unwrap();
        assert!(file.read().is_err(), "byte {at}");
    }
    std::fs::write(&path, &whole).unwrap();
    assert!(file.read().is_ok());
    std::fs::remove_file(&path).unwrap();
    assert!(file.read().is_err());
}

#[test]
fn webhooks_are_counted_and_no_more() {
    let record = Record {
        seq: Seq(1),
        kind: Kind::Webhook(crate::event::webhook::Source::Branch),
        received_at_ms: 5,
        reason: None,
        events: crate::event::tally::Tally::default(),
        content: Bytes::from_static(b"\x2a\x00"),
    };
    let receipted = Receipted::of(&record);
    assert!(receipted.webhook && receipted.events.is_empty());
}

#[test]
fn a_receipt_is_no_larger_than_it_may_be() {
    // A few KiB that say they are 64 MiB.
    let bomb = zstd::encode_all(&vec![0u8; 64 << 20][..], 1).unwrap();
    assert!(bomb.len() < 64 << 10);
    let error = decompress(&bomb, 1 << 20).map(|bytes| bytes.len());
    let error = error.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
    assert_eq!(decompress(&bomb, 64 << 20).unwrap().len(), 64 << 20);

    let record = |seq| {
        let NewRecord {
            kind,
            reason,
            events,
            content,
            ..
        } = request(seq);
        Record {
            seq: Seq(seq),
            kind,
            received_at_ms: 9,
            reason,
            events,
            content,
        }
    };
    let span = Span {
        first: Seq(1),
        end: Seq(4),
    };
    let mut draft = Draft::new(9, 1 << 20).unwrap();
    for seq in 1..=3 {
        draft.add(&record(seq)).unwrap();
    }
    let bytes = decompress(&draft.finish(span).unwrap(), 1 << 20).unwrap();
    let (receipt, _): (Receipt, usize) = super::codec::decode(&bytes).unwrap();
    let wanted: Vec<_> = (1..=3).map(|seq| Receipted::of(&record(seq))).collect();
    assert_eq!((receipt.span, receipt.requests), (span, wanted));
    let draft = |events_max, bytes_max| {
        let mut draft = Draft::new(events_max, bytes_max).unwrap();
        (1..=3).try_for_each(|seq| draft.add(&record(seq)))
    };
    assert!(matches!(draft(8, 1 << 20), Err(ReceiptError::Large)));
    assert!(matches!(draft(9, 50), Err(ReceiptError::Large)));
    crate::event::guarded::trap::set(1);
    assert!(matches!(draft(9, 1 << 20), Err(ReceiptError::Panicked)));
}
