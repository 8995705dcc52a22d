//! The one thread that writes: waiting requests become blocks, blocks become
//! durable together, then all their callers are answered. Called by `handle`
//! (enqueue) and the keeper (ticks); owns the active generation.
//!
//! # Invariants
//! - A reply `Ok` is sent after the `sync` that covers the record returned, and
//!   after the durable position was published.
//! - At most `SYNC_BYTES_MAX` of blocks are put between two syncs.
//! - After a failed put, sync, or a panic, every waiting and later request gets
//!   `Fenced`; the store is not touched again.
//! - Except when the disk is full: then the generation ends at its last sync, the
//!   waiting requests get `DiskLow`, and a new generation is begun when there is
//!   room. Sequences that were put and not synced are never given again.
//! - A request whose caller gave up is left out if it was not put yet.

use super::append::{Append, Command, Reply};
use super::block::{BLOCK_BYTES_MAX, Builder, PART_BYTES_MAX};
use super::error::AppendError;
use super::generation::Generation;
use super::manifest::Header;
use super::shared::{Shared, lock};
use super::store::{BlockStore, SYNC_BYTES_MAX, StoreError, Want};
use crate::clock::now_ms;
use crate::event::identity::Seq;
use crate::event::tally::Tally;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

/// How often a growing generation's manifest is written: bounds how much a
/// silent loss could hide, at the price of one more small sync.
const MANIFEST_PERIOD: Duration = Duration::from_secs(1);

/// Answers that the writer gives by itself: for a few, a task in between would only be later.
const ANSWERED_HERE_MAX: usize = 8;

/// Makes the store of a new generation; tests put in one that fails or waits.
pub(super) type MakeStore = Box<dyn FnMut(&Path) -> Result<Arc<dyn BlockStore>, StoreError> + Send>;

/// The writer's state; `run` is its thread.
pub(super) struct Writer {
    shared: Arc<Shared>,
    make_store: MakeStore,
    /// `None` while there is no room for one.
    active: Option<Active>,
    /// A sealed generation whose manifest could not be written yet.
    unwritten: Option<Arc<Generation>>,
    next_number: u64,
    next_seq: Seq,
    /// The sequence after the last one that was acknowledged.
    end: Seq,
    block: Builder,
    /// Records whose last part is in `block` or put, waiting for the sync.
    waiting: Vec<(Seq, Reply)>,
    /// What they add to the ledger.
    waiting_events: Tally,
    waiting_times: Vec<(Seq, i64)>,
    /// Where the callers are; without one they are answered here.
    runtime: Option<Handle>,
}

/// The generation that is written.
struct Active {
    generation: Arc<Generation>,
    store: Arc<dyn BlockStore>,
    next_block: u64,
    /// Of them, those that a sync covers.
    synced_blocks: u64,
    /// Payload, against `generation_bytes`.
    bytes: u64,
    unsynced_bytes: usize,
    began: Instant,
    manifest_written: Instant,
}

impl Writer {
    /// Makes the first generation of this run, which is to have this number and
    /// first sequence; where no generation is before it, this is the end of what was.
    pub(super) fn start(
        shared: Arc<Shared>,
        number: u64,
        (known_end, base): (Seq, Seq),
        make_store: MakeStore,
    ) -> Result<Self, StoreError> {
        let previous_end = shared.chain().last().map_or(known_end, |last| last.end());
        let mut writer = Self {
            shared,
            make_store,
            active: None,
            unwritten: None,
            next_number: number,
            next_seq: base,
            end: previous_end,
            block: Builder::new(),
            waiting: Vec::new(),
            waiting_events: Tally::default(),
            waiting_times: Vec::new(),
            runtime: Handle::try_current().ok(),
        };
        match writer.begin() {
            Ok(_) => {}
            // A full disk keeps nobody from starting: what is there can be delivered.
            Err(error) if error.want().is_some() => {
                tracing::error!(%error, "no room for a new generation; nothing is accepted until there is");
            }
            Err(error) => return Err(error),
        }
        Ok(writer)
    }

    /// Whether it has a generation to write to.
    pub(super) fn is_active(&self) -> bool {
        self.active.is_some()
    }

    /// Serves until every sender is gone, then seals what was written.
    pub(super) fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        while let Some(command) = commands.blocking_recv() {
            // Fenced or not: it is the work that may hang, not its failure.
            self.shared.writer_turns.fetch_add(1, Ordering::Relaxed);
            if self.shared.fence.get().is_some() {
                if let Command::Append(append) = command {
                    self.refuse(append.reply);
                }
                continue;
            }
            let work = AssertUnwindSafe(|| match command {
                Command::Append(first) => self.commit(first, &mut commands),
                Command::Tick => self.tick(),
            });
            let failure = match catch_unwind(work) {
                Ok(Ok(())) => continue,
                Ok(Err(error)) => match error.want() {
                    Some(want) => {
                        self.retire(&error, want);
                        continue;
                    }
                    None => error.to_string(),
                },
                Err(_) => "the journal's writer panicked".to_owned(),
            };
            self.shared.fence(failure);
            // A store that failed may not answer: what is durable is read from its bytes.
            self.seal();
            for (_, reply) in std::mem::take(&mut self.waiting) {
                self.refuse(reply);
            }
        }
        self.finish();
    }

    fn refuse(&self, reply: Reply) {
        let reason = self.shared.fence.get().cloned().unwrap_or_default();
        reply.send(Err(AppendError::Fenced(reason)));
    }

    /// One group commit: the first request and whatever waits behind it.
    fn commit(
        &mut self,
        first: Append,
        commands: &mut mpsc::Receiver<Command>,
    ) -> Result<(), StoreError> {
        let mut next = Some(Command::Append(first));
        let mut taken_bytes = 0;
        while let Some(command) = next {
            if let Command::Append(append) = command {
                if append.reply.is_abandoned() {
                    self.shared.expired_appends.fetch_add(1, Ordering::Relaxed);
                } else {
                    taken_bytes += append.record.len();
                    self.add(append)?;
                }
            }
            next = if taken_bytes < SYNC_BYTES_MAX {
                commands.try_recv().ok()
            } else {
                None
            };
        }
        self.sync()?;
        self.tick()
    }

    fn add(&mut self, append: Append) -> Result<(), StoreError> {
        let seq = self.next_seq;
        // From here on the number is used, whatever becomes of the write.
        self.next_seq = seq.next();
        self.waiting.push((seq, append.reply));
        self.waiting_events.merge(&append.events);
        self.waiting_times.push((seq, append.received_at_ms));
        let record = &append.record;
        if record.len() <= PART_BYTES_MAX {
            if !self.block.fits(record.len()) {
                self.put_block()?;
            }
            self.block.push(seq, 0, 1, [&record.head, &record.content]);
            return Ok(());
        }
        self.put_block()?;
        let record = record.concat();
        let parts = u32::try_from(record.len().div_ceil(PART_BYTES_MAX))
            .expect("a record is bounded far below 2^32 parts");
        for (part, bytes) in (0..).zip(record.chunks(PART_BYTES_MAX)) {
            self.block.push(seq, part, parts, [bytes, b""]);
            self.put_block()?;
        }
        Ok(())
    }

    /// Puts the block in hand, after a sync if it would pass the bound.
    fn put_block(&mut self) -> Result<(), StoreError> {
        if self.block.is_empty() {
            return Ok(());
        }
        let base = self.waiting.first().map_or(self.next_seq, |(seq, _)| *seq);
        if self.active.is_none() {
            self.begin_at(base)?;
        }
        let Some(active) = &mut self.active else {
            return Ok(());
        };
        if active.unsynced_bytes + BLOCK_BYTES_MAX > SYNC_BYTES_MAX {
            // Answers nobody: a record cut in parts may be half put.
            active.store.sync()?;
            active.unsynced_bytes = 0;
            active.synced_blocks = active.next_block;
        }
        let salt = active.generation.salt();
        let bytes = std::mem::replace(&mut self.block, Builder::new()).finish(
            &salt,
            active.next_block,
            active.synced_blocks,
        );
        active.unsynced_bytes += bytes.len();
        active.bytes += bytes.len() as u64;
        active.store.put(active.next_block, bytes)?;
        active.next_block += 1;
        Ok(())
    }

    /// Makes everything added durable, publishes it, answers its callers.
    fn sync(&mut self) -> Result<(), StoreError> {
        self.put_block()?;
        let (Some(active), false) = (&mut self.active, self.waiting.is_empty()) else {
            return Ok(());
        };
        active.store.sync()?;
        active.unsynced_bytes = 0;
        active.synced_blocks = active.next_block;
        let events = std::mem::take(&mut self.waiting_events);
        let times = std::mem::take(&mut self.waiting_times);
        active
            .generation
            .synced(active.next_block, self.next_seq, &events, &times);
        self.end = self.next_seq;
        lock(&self.shared.accepted).merge(&events);
        self.shared.durable_end.send_replace(self.next_seq);
        self.answer();
        if let Some(lasted) = self.shared.board.over("writing") {
            tracing::info!(full_for = ?lasted, "the disk takes events again");
        }
        Ok(())
    }

    /// Answers all that is durable now. A waker from outside of the runtime costs as much as the
    /// rest of a request here, so many are woken by one of its own tasks, while this thread goes
    /// on with the next block. A task that the runtime drops, when it ends, says `Closed`.
    fn answer(&mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        let is_few = waiting.len() <= ANSWERED_HERE_MAX;
        self.waiting.reserve(waiting.len());
        let answer = move || {
            for (seq, reply) in waiting {
                reply.send(Ok(seq));
            }
        };
        match &self.runtime {
            Some(runtime) if !is_few => drop(runtime.spawn(async { answer() })),
            _ => answer(),
        }
    }

    /// What is due: a generation that is large or old enough is sealed and the next
    /// one begun; a manifest that is behind is written.
    fn tick(&mut self) -> Result<(), StoreError> {
        self.write_sealed()?;
        let Some(active) = &mut self.active else {
            // Tried once the keeper has seen that there is room again.
            return if self.shared.capacity.has_room() && self.unwritten.is_none() {
                self.begin()
            } else {
                Ok(())
            };
        };
        let limits = &self.shared.capacity.limits;
        let is_old = active.began.elapsed() >= limits.generation_age && active.next_block > 0;
        if active.bytes >= limits.generation_bytes || is_old {
            self.seal();
            self.write_sealed()?;
            return if self.unwritten.is_none() {
                self.begin()
            } else {
                Ok(())
            };
        }
        let is_due = active.manifest_written.elapsed() >= MANIFEST_PERIOD;
        if is_due && !active.generation.is_written() {
            match active.generation.write_manifest() {
                Ok(()) => {}
                // No room: the blocks themselves prove what was synced.
                Err(error) if self.shared.capacity.heed(&error) => {}
                Err(error) => return Err(error.into()),
            }
            active.manifest_written = Instant::now();
        }
        Ok(())
    }

    fn begin(&mut self) -> Result<(), StoreError> {
        self.begin_at(self.next_seq)
    }

    /// Makes the next generation, whose first record is to be `base`.
    fn begin_at(&mut self, base: Seq) -> Result<(), StoreError> {
        let header = Header {
            generation: self.next_number,
            base,
            previous_end: self.end,
            salt: *uuid::Uuid::new_v4().as_bytes(),
            created_at_ms: now_ms(),
            accepted_before: lock(&self.shared.accepted).clone(),
        };
        if self.unwritten.is_some() {
            return Err(StoreError::Io(std::io::ErrorKind::StorageFull.into()));
        }
        let directory = &self.shared.generations_dir;
        let mut store = None;
        let made = Generation::create(directory, header, |dir| {
            let made = (self.make_store)(dir)?;
            store = Some(Arc::clone(&made));
            Ok(made)
        });
        let generation = match made {
            Ok(generation) => Arc::new(generation),
            Err(error) => {
                drop(store);
                let dir = Generation::dir_in(directory, self.next_number);
                if let Err(error) = std::fs::remove_dir_all(&dir) {
                    tracing::debug!(%error, "cannot remove what was begun of a generation");
                    self.next_number += 1;
                }
                return Err(error);
            }
        };
        self.next_number += 1;
        self.shared.push_generation(Arc::clone(&generation));
        let now = Instant::now();
        self.active = store.map(|store| Active {
            generation,
            store,
            next_block: 0,
            synced_blocks: 0,
            bytes: 0,
            unsynced_bytes: 0,
            began: now,
            manifest_written: now,
        });
        Ok(())
    }

    /// Ends the active generation at its last sync.
    fn seal(&mut self) {
        if let Some(active) = self.active.take() {
            drop(active.store);
            active.generation.seal();
            self.unwritten = Some(active.generation);
        }
    }

    /// Writes the manifest of the generation that was sealed last.
    fn write_sealed(&mut self) -> Result<(), StoreError> {
        if let Some(generation) = &self.unwritten {
            match generation.write_manifest() {
                Ok(()) => self.unwritten = None,
                // Tried again at the next tick; a crash finds it by its blocks.
                Err(error) if self.shared.capacity.heed(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// The disk is full, or no descriptor or memory left: nothing more goes into this generation.
    fn retire(&mut self, error: &StoreError, want: Want) {
        let is_met = self.active.is_some() || !self.waiting.is_empty();
        match want {
            _ if !is_met => {}
            Want::Space if self.shared.board.is_new("writing", "full") => {
                tracing::error!(%error, "the disk is full; nothing is accepted until there is room");
            }
            Want::Descriptors if self.shared.board.is_new("writing", "starved") => {
                tracing::error!(%error, "no file descriptor is left; nothing is accepted until there is one");
            }
            Want::Memory if self.shared.board.is_new("writing", "poor") => {
                tracing::error!(%error, "no memory is left; nothing is accepted until there is some");
            }
            Want::Space | Want::Descriptors | Want::Memory => {}
        }
        self.block = Builder::new();
        self.waiting_events = Tally::default();
        self.waiting_times.clear();
        self.shared.capacity.lacks(want);
        for (_, reply) in self.waiting.drain(..) {
            reply.send(Err(self.shared.capacity.lacking(want)));
        }
        self.seal();
        if let Err(error) = self.write_sealed() {
            self.shared.fence(error.to_string());
        }
    }

    fn finish(mut self) {
        if self.shared.fence.get().is_some() {
            return;
        }
        if self
            .active
            .as_ref()
            .is_some_and(|active| active.next_block > 0)
        {
            self.seal();
        }
        if let Err(error) = self.write_sealed() {
            // The next start seals it from what the store holds.
            tracing::warn!(%error, "cannot seal the last generation");
        }
    }
}
