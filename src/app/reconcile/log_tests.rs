//! Tests of what `reconcile` makes of a damaged log.

use super::*;
use crate::event::tally::Tally;
use crate::journal::{Journal, Kind, Limits, NewRecord, Options, ReceiptLimits};

fn options(data_dir: &Path) -> Options {
    Options {
        data_dir: data_dir.to_owned(),
        limits: Limits {
            max_bytes: 1 << 30,
            min_free_bytes: 1 << 20,
            reserve_bytes: 1 << 20,
            record_bytes_max: 8 << 20,
            generation_bytes: 4 << 20,
            generation_age: Duration::from_secs(600),
            queue_bytes_max: 16 << 20,
        },
        ack_deadline: Duration::from_secs(20),
        receipts: ReceiptLimits {
            keep: Duration::from_secs(3600),
            max_bytes: 1 << 30,
        },
    }
}

async fn append(journal: &Journal) -> Seq {
    let record = NewRecord {
        kind: Kind::Dispatch,
        received_at_ms: 7,
        reason: None,
        events: Tally::rejected(),
        content: "x".into(),
    };
    journal.append(record, None).await.unwrap()
}

#[tokio::test]
async fn a_generation_that_says_nothing_is_unknown() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path());
    let range = Range {
        from_seq: Some(1),
        to_seq: None,
        since_ms: None,
        until_ms: None,
    };
    for _ in 0..2 {
        let journal = Journal::open(&options).unwrap();
        append(&journal).await;
        journal.close();
    }
    assert_eq!(Log::open(dir.path(), &range, None).unwrap().unknown, []);
    let generation = dir.path().join("generations/gen-000000000002");
    for file in ["header", "manifest"] {
        std::fs::write(generation.join(file), b"damaged").unwrap();
    }
    let journal = Journal::open(&options).unwrap();
    let next = append(&journal).await;
    journal.close();
    let log = Log::open(dir.path(), &range, None).unwrap();
    let places: Vec<_> = log.unknown.iter().map(|unknown| unknown.span).collect();
    let place = Span {
        first: Seq(2),
        end: next,
    };
    assert_eq!(places, [place]);
}
