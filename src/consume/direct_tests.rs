//! Tests of `direct` with requests that become far more than they are: what is in memory
//! stays bounded, and every event is accounted for.

use super::super::in_hand::{BATCH_BYTES_MAX, BATCH_ROWS};
use super::*;
use crate::dead_letters::Desk;
use crate::event::guarded::trap;
use crate::event::identity::Seq;
use crate::event::proto::{Event, Events, Header};
use crate::event::scan;
use crate::journal::{Limits, NewRecord, Options, ReceiptLimits};
use crate::sink::schema::Table;
use crate::sink::{Batch, Row, SchemaError, WriteError};
use prost::Message as _;
use std::path::Path;
use std::sync::Mutex;

/// Takes everything, and remembers how much came at a time.
#[derive(Debug, Default)]
struct Taking {
    /// Table, rows and bytes of each batch.
    batches: Mutex<Vec<(&'static str, usize, usize)>>,
    reasons: Mutex<Vec<String>>,
}

#[async_trait::async_trait]
impl Sink for Taking {
    fn name(&self) -> &'static str {
        "taking"
    }

    async fn write(&self, batch: &Batch) -> Result<(), WriteError> {
        let bytes = batch.rows.iter().map(Row::bytes).sum();
        let mut batches = self.batches.lock().unwrap();
        batches.push((batch.table.name, batch.rows.len(), bytes));
        if batch.table.name == ERROR_EVENTS.name {
            let column = |c: &crate::sink::schema::Column| c.name == "error_reason";
            let at = ERROR_EVENTS.columns.iter().position(column).unwrap();
            let reasons = batch.rows.iter().map(|row| match &row.values[at] {
                crate::sink::Value::Text(text) => text.clone(),
                other => panic!("{other:?}"),
            });
            self.reasons.lock().unwrap().extend(reasons);
        }
        Ok(())
    }

    async fn create_missing(&self, _: &[&'static Table]) -> Result<(), SchemaError> {
        Ok(())
    }

    fn ddl(&self, _: &[&'static Table]) -> Vec<String> {
        Vec::new()
    }

    async fn maintain(&self) -> Result<(), SchemaError> {
        Ok(())
    }
}

fn journal(dir: &Path) -> Journal {
    Journal::open(&Options {
        data_dir: dir.to_owned(),
        limits: Limits {
            max_bytes: 1 << 30,
            min_free_bytes: 1 << 20,
            reserve_bytes: 1 << 20,
            record_bytes_max: 16 << 20,
            generation_bytes: 64 << 20,
            generation_age: Duration::from_secs(600),
            queue_bytes_max: 64 << 20,
        },
        ack_deadline: Duration::from_secs(60),
        receipts: ReceiptLimits {
            keep: Duration::from_secs(600),
            max_bytes: 1 << 20,
        },
    })
    .unwrap()
}

/// A request of many events, every third of which has a time of its own that is none.
fn request(header_bytes: usize, events: usize) -> NewRecord {
    let event = |at: usize| Event {
        id: format!("e{at}"),
        timestamp: match at % 3 {
            0 => format!("soon {at}"),
            _ => "1700000000000".to_owned(),
        },
        ..Event::default()
    };
    let batch = Events {
        header: Some(Header {
            device_id: "d".to_owned(),
            utm_referrer: "h".repeat(header_bytes),
            ..Header::default()
        }),
        events: (0..events).map(event).collect(),
    };
    let content = batch.encode_to_vec();
    NewRecord {
        kind: Kind::Dispatch,
        received_at_ms: now_ms(),
        reason: None,
        events: scan::request(&content, events).unwrap().tally,
        content: content.into(),
    }
}

/// Delivers records; gives back the sink and the journal.
async fn delivered(dir: &Path, records: &[NewRecord]) -> (Arc<Taking>, Journal) {
    let journal = journal(dir);
    let cursor = journal.cursor("taking").unwrap();
    let mut last = Seq(0);
    for record in records {
        last = journal.append(record.clone(), None).await.unwrap();
    }
    let sink = Arc::new(Taking::default());
    let direct = Direct {
        journal: journal.clone(),
        sink: Arc::<Taking>::clone(&sink),
        dead_letters: DeadLetters::new(dir),
        metrics: Metrics::new(),
        takers: Arc::new([]),
        context: handlers::Context::default(),
        pace: Pace::default(),
    };
    let stop = CancellationToken::new();
    let pump = {
        let (cursor, stop) = (Arc::clone(&cursor), stop.clone());
        tokio::spawn(async move { direct.run(cursor, stop).await })
    };
    let done = async {
        while cursor.next() <= last {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), done)
        .await
        .expect("all is delivered or set aside");
    stop.cancel();
    pump.await.unwrap();
    (sink, journal)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_record_is_written_batch_by_batch() {
    let dir = tempfile::tempdir().unwrap();
    // 6,000 rows with 3 KiB of header in each: 18 MiB of rows out of 200 KiB.
    let events = 6_000;
    let (sink, journal) = delivered(dir.path(), &[request(3 << 10, events)]).await;
    let batches = sink.batches.lock().unwrap().clone();
    let rows: usize = batches.iter().map(|(_, rows, _)| rows).sum();
    assert_eq!(rows, events);
    let of_group = limits::MESSAGE_ROWS_BYTES_SOFT_MAX + (1 << 20);
    for (table, rows, bytes) in batches {
        assert!(
            rows < BATCH_ROWS + limits::EVENTS_PER_MESSAGE_MAX,
            "{table}: {rows} rows"
        );
        assert!(
            bytes < BATCH_BYTES_MAX + of_group,
            "{table}: {bytes} bytes in {rows} rows"
        );
    }
    // Each row says what was wrong with its own event.
    let mut reasons = sink.reasons.lock().unwrap().clone();
    reasons.sort_unstable();
    reasons.dedup();
    assert_eq!(reasons.len(), events / 3);
    assert!(reasons.iter().all(|reason| reason.contains("\"soon ")));
    let way = journal.ledger().ways.remove(0);
    assert!(way.adds_up && way.pending.is_empty(), "{way:?}");
    assert_eq!(way.ledger.delivered.total(), events as u64);
    journal.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_made_for_its_header_is_set_aside_whole() {
    let dir = tempfile::tempdir().unwrap();
    let records = [request(1 << 20, 1_000), request(100, 30)];
    let (sink, journal) = delivered(dir.path(), &records).await;
    let rows: usize = sink.batches.lock().unwrap().iter().map(|b| b.1).sum();
    assert_eq!(rows, 30, "of the other request");
    let way = journal.ledger().ways.remove(0);
    assert!(way.adds_up && way.pending.is_empty(), "{way:?}");
    assert_eq!(way.ledger.dead_lettered, records[0].events);
    assert_eq!(way.ledger.delivered, records[1].events);
    let desk = Desk::open(dir.path()).unwrap();
    let letters = desk.waiting(0).await.unwrap();
    assert_eq!(letters.len(), 1);
    let letter = &letters[0].letter;
    assert_eq!((letter.indexes.as_str(), letter.seq), ("0-999", 1));
    assert_eq!(letter.body, records[0].content);
    assert!(letter.reason.contains("too large to be repeated"));
    desk.close().await;
    journal.close();
}

/// In one thread, as the trap is.
#[tokio::test]
async fn what_makes_a_handler_panic_is_set_aside_and_the_others_go_on() {
    // A record takes at least four guarded steps: it is split, its groups are taken, and made
    // into rows.
    for at in 0..8 {
        let dir = tempfile::tempdir().unwrap();
        let records = [request(10, 3), request(10, 6)];
        trap::set(at);
        let (sink, journal) = delivered(dir.path(), &records).await;
        let way = journal.ledger().ways.remove(0);
        assert!(way.adds_up && way.pending.is_empty(), "step {at}: {way:?}");
        assert!(way.ledger.dead_lettered.total() > 0, "step {at}: {way:?}");
        let rows: usize = sink.batches.lock().unwrap().iter().map(|b| b.1).sum();
        assert!(rows >= 3, "step {at}: the other record");
        // Each event is a row, or in a letter.
        let desk = Desk::open(dir.path()).unwrap();
        let letters = desk.waiting(0).await.unwrap();
        let places = letters.iter().flat_map(|kept| kept.letter.places(10));
        let set_aside: usize = places.map(|(_, indexes)| indexes.len()).sum();
        assert!(rows + set_aside >= 9, "step {at}: {rows} and {set_aside}");
        assert!(letters.iter().all(|kept| kept.letter.reason == PANICKED));
        desk.close().await;
        journal.close();
    }
}
