//! Tests of the journal as a whole: the order of its steps, what survives, its
//! bounds. Files of single parts have their own.

use super::store::{BlockStore, Blocks, SledStore, StoreError};
use super::*;
use crate::event::identity::Seq;
use crate::event::tally::Tally;
use bytes::Bytes;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

const MIB: u64 = 1 << 20;

pub(super) fn options(dir: &Path) -> Options {
    Options {
        data_dir: dir.to_owned(),
        limits: Limits {
            max_bytes: 1 << 30,
            min_free_bytes: MIB,
            reserve_bytes: MIB,
            record_bytes_max: 8 << 20,
            generation_bytes: 4 * MIB,
            generation_age: Duration::from_secs(600),
            queue_bytes_max: 16 << 20,
        },
        ack_deadline: Duration::from_secs(20),
        receipts: crate::journal::ReceiptLimits {
            keep: Duration::from_secs(7 * 24 * 3600),
            max_bytes: 1 << 30,
        },
    }
}

pub(super) fn record(content: impl Into<Bytes>) -> NewRecord {
    NewRecord {
        kind: Kind::Dispatch,
        received_at_ms: 7,
        reason: None,
        events: Tally::rejected(),
        content: content.into(),
    }
}

/// Content that differs for every number and is not compressible to a pattern.
pub(super) fn content(number: usize, length: usize) -> Vec<u8> {
    let mut state = number as u64 + 1;
    (0..length)
        .map(|_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1);
            (state >> 56) as u8
        })
        .collect()
}

/// A log with one way out and so many records of that many bytes each, told apart by
/// [`content`], in generations of at least so many bytes.
pub(super) async fn filled(
    dir: &Path,
    generation_bytes: u64,
    (count, bytes): (usize, usize),
) -> (Journal, Arc<Cursor>) {
    let mut options = options(dir);
    options.limits.generation_bytes = generation_bytes;
    let journal = Journal::open(&options).unwrap();
    let cursor = journal.cursor("out").unwrap();
    for i in 0..count {
        let record = record(content(i, bytes));
        journal.append(record, None).await.unwrap();
    }
    (journal, cursor)
}

pub(super) async fn read_all(journal: &Journal, from: Seq) -> Vec<Record> {
    let mut reader = journal.reader(from);
    let mut all = Vec::new();
    loop {
        let before = reader.position();
        all.extend(reader.read(1 << 20).await.unwrap());
        if reader.position() == before {
            return all;
        }
    }
}

/// A store that can be held back or made to fail.
#[derive(Default)]
pub(super) struct Gate {
    closed: Mutex<bool>,
    opened: Condvar,
    pub(super) fail_sync: AtomicBool,
    fail_put: AtomicBool,
    pub(super) no_space: AtomicBool,
    /// What a put lacks.
    pub(super) want: Mutex<Option<fn() -> std::io::Error>>,
    /// Whether the last block is not to be found.
    pub(super) hides_last: AtomicBool,
    last: AtomicU64,
    syncs: AtomicU64,
}

impl Gate {
    fn close(&self) {
        *self.closed.lock().unwrap() = true;
    }

    fn open(&self) {
        *self.closed.lock().unwrap() = false;
        self.opened.notify_all();
    }
}

struct GatedStore {
    inner: SledStore,
    gate: Arc<Gate>,
}

impl Blocks for GatedStore {
    fn get(&self, block: u64) -> Result<Option<Bytes>, StoreError> {
        let is_last = self.gate.last.load(Ordering::SeqCst) == block;
        if is_last && self.gate.hides_last.load(Ordering::SeqCst) {
            return Ok(None);
        }
        self.inner.get(block)
    }
}

impl BlockStore for GatedStore {
    fn put(&self, block: u64, bytes: Vec<u8>) -> Result<(), StoreError> {
        if self.gate.fail_put.load(Ordering::SeqCst) {
            return Err(StoreError::Io(std::io::Error::other("injected put")));
        }
        if self.gate.no_space.load(Ordering::SeqCst) {
            return Err(StoreError::Io(std::io::ErrorKind::StorageFull.into()));
        }
        if let Some(want) = *self.gate.want.lock().unwrap() {
            return Err(StoreError::Io(want()));
        }
        self.gate.last.store(block, Ordering::SeqCst);
        self.inner.put(block, bytes)
    }

    fn sync(&self) -> Result<(), StoreError> {
        let mut closed = self.gate.closed.lock().unwrap();
        while *closed {
            closed = self.gate.opened.wait(closed).unwrap();
        }
        drop(closed);
        if self.gate.fail_sync.load(Ordering::SeqCst) {
            return Err(StoreError::Io(std::io::Error::other("injected sync")));
        }
        self.gate.syncs.fetch_add(1, Ordering::SeqCst);
        self.inner.sync()
    }

    fn disk_bytes(&self) -> u64 {
        self.inner.disk_bytes()
    }
}

pub(super) fn gated(options: &Options) -> (Journal, Arc<Gate>) {
    let gate = Arc::new(Gate::default());
    let theirs = Arc::clone(&gate);
    let make_store = Box::new(move |dir: &Path| {
        let store: Arc<dyn BlockStore> = Arc::new(GatedStore {
            inner: SledStore::create(dir)?,
            gate: Arc::clone(&theirs),
        });
        Ok(store)
    });
    (Journal::open_with(options, make_store).unwrap(), gate)
}

#[tokio::test]
async fn records_of_all_sizes_come_back_in_order_and_after_a_reopen() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path());
    let sizes = [0, 1, 100, 1 << 10, 65_000, 65_600, 200_000, 3 << 20, 5];
    let journal = Journal::open(&options).unwrap();
    for (i, size) in sizes.iter().enumerate() {
        let seq = journal
            .append(record(content(i, *size)), None)
            .await
            .unwrap();
        assert_eq!(seq, Seq(i as u64 + 1));
    }
    check(&read_all(&journal, Seq::FIRST).await, &sizes);
    journal.close();
    drop(journal);
    let journal = Journal::open(&options).unwrap();
    check(&read_all(&journal, Seq::FIRST).await, &sizes);
    let tail = read_all(&journal, Seq(6)).await;
    assert_eq!(tail.first().map(|r| r.seq), Some(Seq(6)));
    let seq = journal.append(record("next"), None).await.unwrap();
    assert_eq!(seq, Seq(sizes.len() as u64 + 1));
    journal.close();
}

fn check(records: &[Record], sizes: &[usize]) {
    assert_eq!(records.len(), sizes.len());
    for (i, (record, size)) in records.iter().zip(sizes).enumerate() {
        assert_eq!(record.seq, Seq(i as u64 + 1));
        assert_eq!(record.received_at_ms, 7);
        assert!(record.content == content(i, *size), "record {i}");
    }
}

#[tokio::test]
async fn an_append_is_answered_only_after_its_sync() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, gate) = gated(&options(dir.path()));
    gate.close();
    let syncs = gate.syncs.load(Ordering::SeqCst);
    let waiting = record("x");
    let mut append = std::pin::pin!(journal.append(waiting, None));
    let early = tokio::time::timeout(Duration::from_millis(300), &mut append).await;
    assert!(early.is_err(), "answered before the sync");
    gate.open();
    append.await.unwrap();
    assert!(gate.syncs.load(Ordering::SeqCst) > syncs);
    journal.close();
}

#[tokio::test]
async fn readers_see_only_what_is_durable() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, gate) = gated(&options(dir.path()));
    journal.append(record("first"), None).await.unwrap();
    gate.close();
    let handle = journal.clone();
    let second = tokio::spawn(async move { handle.append(record("second"), None).await });
    tokio::time::timeout(Duration::from_millis(300), async {
        let mut reader = journal.reader(Seq::FIRST);
        assert_eq!(reader.read(1 << 20).await.unwrap().len(), 1);
        reader.wait().await.unwrap();
        panic!("woken before the sync");
    })
    .await
    .unwrap_err();
    gate.open();
    second.await.unwrap().unwrap();
    assert_eq!(read_all(&journal, Seq::FIRST).await.len(), 2);
    journal.close();
}

#[tokio::test]
async fn a_failed_sync_fences_the_journal() {
    for put in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let (journal, gate) = gated(&options(dir.path()));
        journal.append(record("kept"), None).await.unwrap();
        let fail = if put { &gate.fail_put } else { &gate.fail_sync };
        fail.store(true, Ordering::SeqCst);
        let error = journal.append(record("lost"), None).await.unwrap_err();
        assert!(matches!(error, AppendError::Fenced(_)), "{error}");
        // The disk is well again, but what the kernel dropped stays dropped.
        fail.store(false, Ordering::SeqCst);
        let error = journal.append(record("later"), None).await.unwrap_err();
        assert!(matches!(error, AppendError::Fenced(_)), "{error}");
        assert!(journal.stats().fence.unwrap().contains("injected"));
        journal.close();
        drop(journal);
        let journal = Journal::open(&options(dir.path())).unwrap();
        let records = read_all(&journal, Seq::FIRST).await;
        assert_eq!(records[0].content, "kept");
        journal.append(record("again"), None).await.unwrap();
        journal.close();
    }
}

#[tokio::test]
async fn a_late_sync_is_not_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, gate) = gated(&options(dir.path()));
    gate.close();
    let deadline = Some(Duration::from_millis(50));
    let error = journal.append(record("x"), deadline).await.unwrap_err();
    assert_eq!(error, AppendError::Deadline);
    // One that waits behind a slow commit and is given up is not written at all.
    let error = journal.append(record("y"), deadline).await.unwrap_err();
    assert_eq!(error, AppendError::Deadline);
    gate.open();
    journal.append(record("z"), None).await.unwrap();
    let contents: Vec<_> = read_all(&journal, Seq::FIRST).await;
    assert_eq!(contents.len(), 2, "x became durable late, y never");
    assert_eq!(journal.stats().expired_appends, 1);
    journal.close();
}

#[tokio::test]
async fn bounds_refuse_and_free_up() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path());
    options.limits.max_bytes = 40 * MIB;
    options.limits.generation_bytes = 2 * MIB;
    let journal = Journal::open(&options).unwrap();
    let cursor = journal.cursor("out").unwrap();
    let mut appended = 0u64;
    let refusal = loop {
        match journal.append(record(content(1, 1 << 20)), None).await {
            Ok(seq) => appended = seq.0,
            Err(error) => break error,
        }
        assert!(appended < 200, "the bound is not kept");
    };
    assert!(matches!(refusal, AppendError::Full { .. }), "{refusal}");
    assert!(refusal.is_retryable());
    assert!(appended > 5);
    cursor.advance(Seq(appended + 1), &[]);
    let until = std::time::Instant::now() + Duration::from_secs(20);
    while journal.append(record("fits"), None).await.is_err() {
        assert!(std::time::Instant::now() < until, "did not free up");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let large = journal.append(record(content(1, 9 << 20)), None).await;
    assert!(matches!(large, Err(AppendError::TooLarge { .. })));
    journal.close();

    options.limits.min_free_bytes = u64::MAX / 2;
    drop(journal);
    let journal = Journal::open(&options).unwrap();
    let error = journal.append(record("x"), None).await.unwrap_err();
    assert!(matches!(error, AppendError::DiskLow { .. }), "{error}");
    journal.close();
}

#[tokio::test]
async fn under_pressure_an_append_waits_before_it_is_queued_but_within_its_deadline() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path());
    let journal = Journal::open(&options).unwrap();
    // The keeper's next measure finds the truth again: set it just before each call.
    let press = || {
        journal
            .capacity()
            .measure(|| options.limits.max_bytes / 100 * 97)
    };
    press();
    assert_eq!(journal.stats().pressure, Pressure::Slow);
    let started = std::time::Instant::now();
    journal.append(record("slow"), None).await.unwrap();
    let waited = started.elapsed();
    assert!(waited >= Duration::from_millis(150), "{waited:?}");
    press();
    let started = std::time::Instant::now();
    let deadline = Duration::from_millis(60);
    // Half of its time is left for the sync, which may or may not be enough here.
    let result = journal.append(record("short"), Some(deadline)).await;
    let waited = started.elapsed();
    assert!(
        matches!(result, Ok(_) | Err(AppendError::Deadline)),
        "{result:?}"
    );
    assert!(waited >= Duration::from_millis(29), "{waited:?}");
    journal.close();
}

#[tokio::test]
async fn a_generation_is_deleted_only_when_every_cursor_passed_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path());
    options.limits.generation_bytes = MIB;
    let journal = Journal::open(&options).unwrap();
    let (fast, slow) = (
        journal.cursor("fast").unwrap(),
        journal.cursor("slow").unwrap(),
    );
    for i in 0..12 {
        journal
            .append(record(content(i, 300_000)), None)
            .await
            .unwrap();
    }
    assert!(journal.stats().generations >= 3);
    fast.advance(Seq(13), &[]);
    slow.advance(Seq(3), &[]);
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(read_all(&journal, Seq(3)).await.len(), 10);
    // A way out that is not configured any more still holds its records.
    journal.close();
    drop((journal, fast, slow));
    let journal = Journal::open(&options).unwrap();
    assert_eq!(read_all(&journal, Seq(3)).await.len(), 10);
    assert_eq!(journal.cursor("fast").unwrap().next(), Seq(13));
    journal.cursor("slow").unwrap().advance(Seq(13), &[]);
    let until = std::time::Instant::now() + Duration::from_secs(20);
    while journal.stats().generations > 1 {
        assert!(std::time::Instant::now() < until, "nothing deleted");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    journal.close();
}

#[tokio::test]
async fn concurrent_appends_share_syncs_and_all_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, gate) = gated(&options(dir.path()));
    let tasks: Vec<_> = (0..2000)
        .map(|i| {
            let journal = journal.clone();
            tokio::spawn(async move {
                let seq = journal.append(record(content(i, 700)), None).await.unwrap();
                (seq, i)
            })
        })
        .collect();
    let mut acked = std::collections::BTreeMap::new();
    for task in tasks {
        let (seq, i) = task.await.unwrap();
        assert!(acked.insert(seq, i).is_none(), "sequence given twice");
    }
    assert!(gate.syncs.load(Ordering::SeqCst) < 1000, "no group commit");
    let records = read_all(&journal, Seq::FIRST).await;
    assert_eq!(records.len(), 2000);
    for record in records {
        assert!(record.content == content(acked[&record.seq], 700));
    }
    journal.close();
}

#[tokio::test]
async fn a_second_process_is_kept_out_and_the_host_id_stays() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(&options(dir.path())).unwrap();
    let host = journal.host().clone();
    let second = Journal::open(&options(dir.path()));
    assert!(matches!(second, Err(OpenError::Locked(_))));
    journal.close();
    drop(journal);
    let journal = Journal::open(&options(dir.path())).unwrap();
    assert_eq!(journal.host(), &host);
    journal.close();
}
