//! The journal as the rest of the program sees it. Called by `app` (open, close),
//! `ingest` (append) and the pumps (reader, cursor).

use super::append::{Append, Command, Reply};
use super::capacity::{Capacity, Limits};
use super::cursor::{Cursor, CursorStats};
use super::data_lock;
use super::doomed::Rubbish;
use super::durable_file;
use super::error::{AppendError, CursorError, OpenError, PurgeError, SkipError};
use super::high_water::HighWaterFile;
use super::host_id;
use super::ledger::{self, JournalLedger};
use super::losses::{Loss, Losses};
use super::pressure::Pressure;
use super::reader::Reader;
use super::receipts::ReceiptLimits;
use super::record::{Encoded, NewRecord};
use super::recovery::{Known, recover};
use super::shared::{Shared, lock};
use super::skip::{self, Skipped};
use super::start;
use super::store::SledStore;
use super::writer::{MakeStore, Writer};
use crate::event::identity::{HostId, Seq};
use crate::telemetry::{Board, FOLLOWS_PANIC};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::Instant;

/// Requests that may wait for the writer; their bytes are bounded by permits, this
/// bounds the many tiny ones.
const QUEUED_APPENDS_MAX: usize = 16_384;

/// How often cursors are saved, delivered generations deleted and the disk
/// measured. Bounds what a crash delivers twice.
const TIDY_PERIOD: Duration = Duration::from_millis(200);

/// How long a close goes on deleting; the next start does the rest.
const CLOSE_DELETING_MAX: Duration = Duration::from_secs(5);

/// How to open a journal.
#[derive(Debug, Clone)]
pub struct Options {
    /// The data directory; created when missing (its parent must exist).
    pub data_dir: PathBuf,
    /// Its bounds.
    pub limits: Limits,
    /// How long an append may wait for its sync.
    pub ack_deadline: Duration,
    /// How long the receipts of deleted generations are kept.
    pub receipts: ReceiptLimits,
}

/// A snapshot for metrics and health.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stats {
    /// Bytes on disk.
    pub used_bytes: u64,
    /// Their bound.
    pub max_bytes: u64,
    /// Bytes that the file system has free.
    pub free_bytes: u64,
    /// Their floor.
    pub min_free_bytes: u64,
    /// How near the journal is to its bounds.
    pub pressure: Pressure,
    /// Generations on disk.
    pub generations: usize,
    /// The oldest sequence held.
    pub oldest_seq: Seq,
    /// The sequence after the last durable one.
    pub durable_end_seq: Seq,
    /// Acknowledged records that could not be read back.
    pub lost_records: u64,
    /// Appends whose caller gave up before they were written.
    pub expired_appends: u64,
    /// The cursors, by name.
    pub cursors: Vec<CursorStats>,
    /// Why nothing is acknowledged, if so.
    pub fence: Option<String>,
}

/// How often each thread of the journal went round. One that does not grow for many
/// times the keeper's period (200 ms) hangs; a fence or a full disk does not stop them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turns {
    /// Commands that the writer took.
    pub writer: u64,
    /// Rounds of the keeper.
    pub keeper: u64,
}

/// A clonable handle; the last [`Journal::close`] ends the threads.
#[derive(Debug, Clone)]
pub struct Journal {
    shared: Arc<Shared>,
    host: HostId,
    ack_deadline: Duration,
    queue_bytes: Arc<Semaphore>,
    commands: Arc<Mutex<Option<mpsc::Sender<Command>>>>,
    threads: Arc<Mutex<Vec<JoinHandle<()>>>>,
    stop_tidy: Arc<Mutex<Option<std::sync::mpsc::Sender<()>>>>,
    /// Keeps other processes out for as long as any handle lives.
    _lock: Arc<File>,
}

impl Journal {
    /// Opens the journal and starts its threads. Blocking: call it before the
    /// runtime serves.
    ///
    /// # Errors
    /// See [`OpenError`]; damaged generations are none, they are set aside.
    pub fn open(options: &Options) -> Result<Self, OpenError> {
        let make_store: MakeStore = Box::new(|dir| Ok(Arc::new(SledStore::create(dir)?)));
        Self::open_with(options, make_store)
    }

    pub(super) fn open_with(options: &Options, make_store: MakeStore) -> Result<Self, OpenError> {
        let data_dir = &options.data_dir;
        make_dir(data_dir)?;
        let lock = data_lock::take(data_dir)?;
        let is_new_host = host_id::read(data_dir).is_none();
        // Before the host has its name: see there.
        let high_water = HighWaterFile::open(data_dir, is_new_host);
        let host = host_id::load(data_dir)?;
        let generations_dir = data_dir.join("generations");
        let quarantine_dir = data_dir.join("quarantine");
        let cursors_dir = data_dir.join("cursors");
        make_dir(&generations_dir)?;
        make_dir(&cursors_dir)?;

        // First: on a full disk it gives space back that the next steps may need.
        let capacity = Capacity::new(options.limits.clone(), data_dir.clone());
        // While there is room: what is damaged can be moved there without a free byte then.
        if let Err(error) = durable_file::create_dir(&quarantine_dir) {
            tracing::warn!(%error, "cannot make the quarantine before it is needed");
            capacity.heed(&error);
        }
        let receipts_dir = data_dir.join("receipts");
        let (positions, has_unreadable_cursors) = start::saved_positions(&cursors_dir)?;
        let known = Known {
            cursors: &positions,
            has_unreadable_cursors,
            high_water: high_water.known(),
            receipts_end: start::receipts_end(&receipts_dir),
            is_new_host,
        };
        let found =
            recover(&generations_dir, &quarantine_dir, &known).map_err(OpenError::of("recover"))?;
        let rubbish = Rubbish::new(generations_dir.clone(), quarantine_dir.clone());
        let shared = Arc::new(Shared {
            generations_dir,
            quarantine_dir,
            cursors_dir,
            receipts_dir,
            high_water: Mutex::new(high_water),
            receipt_limits: options.receipts.clone(),
            capacity,
            chain: RwLock::new(found.generations.into_iter().map(Arc::new).collect()),
            cursors: Mutex::new(BTreeMap::new()),
            beginning: Mutex::default(),
            durable_end: watch::Sender::new(found.next_seq),
            fence: OnceLock::new(),
            accepted: Mutex::new(found.accepted),
            losses: Mutex::new(Losses::default()),
            expired_appends: AtomicU64::new(0),
            writer_turns: AtomicU64::new(0),
            keeper_turns: AtomicU64::new(0),
            board: Board::default(),
            without_receipt: AtomicU64::new(u64::MAX),
            unreadable: Mutex::default(),
            rubbish,
            untold: Mutex::default(),
        });
        for loss in &found.losses {
            shared.note_loss(loss);
        }
        for (generation, at) in &found.unknown {
            shared.note_unknown(*generation, *at);
        }
        start::load_cursors(&shared, found.next_seq)?;
        let writer = Writer::start(
            Arc::clone(&shared),
            found.next_number,
            (found.known_end, found.next_seq),
            make_store,
        )
        .map_err(OpenError::of("create"))?;
        if writer.is_active() {
            start::remove_empty(&found.empty);
        }
        shared.measure();

        let (commands, queue) = mpsc::channel(QUEUED_APPENDS_MAX);
        let (stop_tidy, stopped) = std::sync::mpsc::channel();
        let (keeper, ticks) = (Arc::clone(&shared), commands.clone());
        let threads = vec![
            spawn("journal-writer", move || writer.run(queue))?,
            spawn("journal-keeper", move || {
                if catch_unwind(AssertUnwindSafe(|| ledger::check_cursors(&keeper))).is_err() {
                    tracing::error!(target: FOLLOWS_PANIC, "the ledger was not compared with the journal");
                }
                while stopped.recv_timeout(TIDY_PERIOD)
                    == Err(std::sync::mpsc::RecvTimeoutError::Timeout)
                {
                    // What is left to delete waits for the next turn: the writer's ticks, the
                    // measures and the watchdog do not wait for a long backlog.
                    if catch_unwind(AssertUnwindSafe(|| keeper.tidy())).is_err() {
                        if keeper.board.is_new("keeping", "panicked") {
                            tracing::error!(target: FOLLOWS_PANIC, "a turn of the journal's keeper failed; trying again");
                        }
                    } else {
                        keeper.board.over("keeping");
                    }
                    keeper.keeper_turns.fetch_add(1, Ordering::Relaxed);
                    // A full queue means that the writer is awake: it looks by itself.
                    drop(ticks.try_send(Command::Tick));
                }
            })?,
        ];
        Ok(Self {
            shared,
            host,
            ack_deadline: options.ack_deadline,
            queue_bytes: Arc::new(Semaphore::new(options.limits.queue_bytes_max)),
            commands: Arc::new(Mutex::new(Some(commands))),
            threads: Arc::new(Mutex::new(threads)),
            stop_tidy: Arc::new(Mutex::new(Some(stop_tidy))),
            _lock: Arc::new(lock),
        })
    }

    /// This host's id.
    #[must_use]
    pub fn host(&self) -> &HostId {
        &self.host
    }

    /// Makes a record durable and gives its sequence. The wait is bounded by the
    /// journal's deadline or the caller's, the shorter; a record whose deadline
    /// passed may still become durable, but is never answered with a sequence.
    /// A dropped call has the same effect.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub async fn append(
        &self,
        record: NewRecord,
        deadline: Option<Duration>,
    ) -> Result<Seq, AppendError> {
        if let Some(reason) = self.shared.fence.get() {
            return Err(AppendError::Fenced(reason.clone()));
        }
        let limit = deadline.map_or(self.ack_deadline, |d| d.min(self.ack_deadline));
        let until = Instant::now() + limit;
        let encoded = record.encode();
        let admitted = self.shared.capacity.admit(encoded.len())?;
        let wait = admitted.wait(limit);
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        let result = tokio::time::timeout_at(until, self.enqueue(record, encoded)).await;
        result.unwrap_or(Err(AppendError::Deadline))
    }

    async fn enqueue(&self, record: NewRecord, encoded: Encoded) -> Result<Seq, AppendError> {
        let permits = u32::try_from(encoded.len()).unwrap_or(u32::MAX);
        let bytes = Arc::clone(&self.queue_bytes)
            .acquire_many_owned(permits)
            .await
            .map_err(|_| AppendError::Closed)?;
        let queue = lock(&self.commands).clone().ok_or(AppendError::Closed)?;
        let (sender, answer) = oneshot::channel();
        let append = Append {
            record: encoded,
            received_at_ms: record.received_at_ms,
            events: record.events,
            reply: Reply::new(sender, bytes),
        };
        queue
            .send(Command::Append(append))
            .await
            .map_err(|_| AppendError::Closed)?;
        // The queue's end must not be kept open by a waiting caller.
        drop(queue);
        answer.await.unwrap_or(Err(AppendError::Closed))
    }

    /// Opens or makes the cursor of a way out; a new one starts at the oldest
    /// record held. Blocking for one small file sync, and for a deletion under way.
    ///
    /// # Errors
    /// See [`CursorError`].
    pub fn cursor(&self, name: &str) -> Result<Arc<Cursor>, CursorError> {
        self.shared.open_cursor(name)
    }

    /// A reader that starts at a sequence.
    #[must_use]
    pub fn reader(&self, from: Seq) -> Reader {
        Reader::new(Arc::clone(&self.shared), from)
    }

    /// The journal's state now.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let shared = &self.shared;
        Stats {
            used_bytes: shared.capacity.used_bytes(),
            max_bytes: shared.capacity.limits.max_bytes,
            free_bytes: shared.capacity.free_bytes(),
            min_free_bytes: shared.capacity.limits.min_free_bytes,
            pressure: shared.capacity.pressure(),
            generations: shared.chain().len(),
            oldest_seq: shared.oldest(),
            durable_end_seq: shared.durable_end(),
            lost_records: lock(&shared.losses).records(),
            expired_appends: shared.expired_appends.load(Ordering::Relaxed),
            cursors: shared
                .cursor_list()
                .iter()
                .map(|cursor| cursor.stats())
                .collect(),
            fence: shared.fence.get().cloned(),
        }
    }

    /// Whether its threads go round, for those who ask twice.
    #[must_use]
    pub fn turns(&self) -> Turns {
        Turns {
            writer: self.shared.writer_turns.load(Ordering::Relaxed),
            keeper: self.shared.keeper_turns.load(Ordering::Relaxed),
        }
    }

    /// What became of every event that this host accepted.
    #[must_use]
    pub fn ledger(&self) -> JournalLedger {
        ledger::of(&self.shared)
    }

    /// Acknowledged records that could not be read back, in exact ranges.
    #[must_use]
    pub fn losses(&self) -> Vec<Loss> {
        lock(&self.shared.losses).list().to_vec()
    }

    /// Moves one way out past everything before `to`; what it had not delivered is
    /// purged. Without `apply` only says what would be. Blocking: reads at most two
    /// generations.
    ///
    /// # Errors
    /// See [`SkipError`].
    pub fn skip(&self, way: &str, to: Seq, apply: bool) -> Result<Skipped, SkipError> {
        skip::skip(&self.shared, way, to, apply)
    }

    /// Removes a generation from quarantine that every way out has passed; its
    /// bytes. Without `apply` only says what would be. Blocking.
    ///
    /// # Errors
    /// See [`PurgeError`].
    pub fn purge_quarantined(&self, generation: u64, apply: bool) -> Result<u64, PurgeError> {
        let needed = |number| self.shared.chain().iter().any(|g| g.number() == number);
        let quarantine = &self.shared.quarantine_dir;
        let bytes = skip::purge_quarantined(quarantine, generation, needed, apply)?;
        if apply {
            self.shared.rubbish.look();
            // As the next start would see it.
            lock(&self.shared.losses).forget(generation);
        }
        Ok(bytes)
    }

    /// Takes it, for a second, that a write found the disk full: requests are refused.
    pub fn play_full_disk(&self) {
        self.shared.capacity.no_space();
    }

    /// What the keeper does in as many turns as it takes, now.
    #[cfg(test)]
    pub(super) fn tidy_now(&self) {
        while self.shared.tidy() {}
    }

    /// Ends as a killed process does: nothing is sealed, nothing is saved.
    #[cfg(test)]
    pub(super) fn crash(self) {
        drop(self.shared.fence.set("crashed".to_owned()));
        drop(lock(&self.stop_tidy).take());
        drop(lock(&self.commands).take());
        for thread in std::mem::take(&mut *lock(&self.threads)) {
            thread.join().unwrap();
        }
    }

    /// What its threads share, for tests that take their steps one by one.
    #[cfg(test)]
    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// The measures, for tests that set them.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> &Capacity {
        &self.shared.capacity
    }

    /// Ends the journal: no more appends, a last commit, cursors saved. Blocking.
    pub fn close(&self) {
        drop(lock(&self.stop_tidy).take());
        drop(lock(&self.commands).take());
        for thread in std::mem::take(&mut *lock(&self.threads)) {
            if thread.join().is_err() {
                tracing::error!(target: FOLLOWS_PANIC, "a journal thread had panicked");
            }
        }
        let until = Instant::now() + CLOSE_DELETING_MAX;
        while self.shared.tidy() && Instant::now() < until {}
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, OpenError> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map_err(io_error("start thread", Path::new(name)))
}

pub(super) fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_owned();
    move |source| OpenError::Io { what, path, source }
}

fn make_dir(dir: &Path) -> Result<(), OpenError> {
    durable_file::create_dir(dir).map_err(io_error("create", dir))
}
