//! The one thread that writes: waiting requests become blocks, blocks become
//! durable together, then all their callers are answered. Called by `handle`
//! (enqueue); owns the active generation.
//!
//! # Invariants
//! - A reply `Ok` is sent after the `sync` that covers the record returned, and
//!   after the durable position was published.
//! - At most `SYNC_BYTES_MAX` of blocks are put between two syncs.
//! - After a failed put, sync, or a panic, every waiting and later request gets
//!   `Fenced`; the store is not touched again.
//! - A request whose caller gave up is left out if it was not put yet.

use super::block::{BLOCK_BYTES_MAX, Builder, PART_BYTES_MAX};
use super::error::AppendError;
use super::generation::Generation;
use super::shared::Shared;
use super::store::{BlockStore, SYNC_BYTES_MAX, StoreError};
use crate::event::identity::Seq;
use bytes::Bytes;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

/// How often a growing generation's manifest is written: bounds how much a
/// silent loss could hide, at the price of one more small sync.
const MANIFEST_PERIOD: Duration = Duration::from_secs(1);

/// Makes the store of a new generation; tests put in one that fails or waits.
pub(super) type MakeStore = Box<dyn FnMut(&Path) -> Result<Arc<dyn BlockStore>, StoreError> + Send>;

/// A request on its way to the disk.
pub(super) struct Append {
    pub(super) record: Bytes,
    pub(super) reply: Reply,
}

/// The caller's slot. Dropped without an answer (a panic, a shutdown), it says
/// so: nobody waits for ever.
pub(super) struct Reply {
    sender: Option<oneshot::Sender<Result<Seq, AppendError>>>,
    /// Memory that the request holds until it is answered.
    _bytes: OwnedSemaphorePermit,
}

impl Reply {
    pub(super) fn new(
        sender: oneshot::Sender<Result<Seq, AppendError>>,
        bytes: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            sender: Some(sender),
            _bytes: bytes,
        }
    }

    fn is_abandoned(&self) -> bool {
        self.sender.as_ref().is_none_or(oneshot::Sender::is_closed)
    }

    fn send(mut self, result: Result<Seq, AppendError>) {
        if let Some(sender) = self.sender.take() {
            // A caller that gave up has dropped its end; it was told "deadline".
            drop(sender.send(result));
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some(sender) = self.sender.take() {
            drop(sender.send(Err(AppendError::Closed)));
        }
    }
}

/// The writer's state; `run` is its thread.
pub(super) struct Writer {
    shared: Arc<Shared>,
    make_store: MakeStore,
    active: Arc<Generation>,
    store: Arc<dyn BlockStore>,
    next_seq: Seq,
    next_block: u64,
    /// Payload in the active generation, against `generation_bytes`.
    generation_bytes: u64,
    unsynced_bytes: usize,
    block: Builder,
    /// Records whose last part is in `block` or put, waiting for the sync.
    waiting: Vec<(Seq, Reply)>,
    manifest_written: Instant,
}

impl Writer {
    /// Makes the first generation of this run, which follows `number` and `seq`.
    pub(super) fn start(
        shared: Arc<Shared>,
        number: u64,
        base: Seq,
        mut make_store: MakeStore,
    ) -> Result<Self, StoreError> {
        let active = Arc::new(Generation::create(
            &shared.generations_dir,
            number,
            base,
            &mut make_store,
        )?);
        let store = active.store()?;
        shared.push_generation(Arc::clone(&active));
        Ok(Self {
            shared,
            make_store,
            active,
            store,
            next_seq: base,
            next_block: 0,
            generation_bytes: 0,
            unsynced_bytes: 0,
            block: Builder::new(),
            waiting: Vec::new(),
            manifest_written: Instant::now(),
        })
    }

    /// Serves until every sender is gone, then seals what was written.
    pub(super) fn run(mut self, mut appends: mpsc::Receiver<Append>) {
        while let Some(first) = appends.blocking_recv() {
            if self.shared.fence.get().is_some() {
                self.refuse(first.reply);
                continue;
            }
            let work = AssertUnwindSafe(|| self.commit(first, &mut appends));
            let failure = match catch_unwind(work) {
                Ok(Ok(())) => continue,
                Ok(Err(error)) => error.to_string(),
                Err(_) => "the journal's writer panicked".to_owned(),
            };
            self.shared.fence(failure);
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
        appends: &mut mpsc::Receiver<Append>,
    ) -> Result<(), StoreError> {
        let mut next = Some(first);
        let mut taken_bytes = 0;
        while let Some(append) = next {
            if append.reply.is_abandoned() {
                self.shared.expired_appends.fetch_add(1, Ordering::Relaxed);
            } else {
                taken_bytes += append.record.len();
                self.add(append)?;
            }
            next = if taken_bytes < SYNC_BYTES_MAX {
                appends.try_recv().ok()
            } else {
                None
            };
        }
        self.sync()?;
        if self.generation_bytes >= self.shared.capacity.limits.generation_bytes {
            self.rotate()?;
        } else if self.manifest_written.elapsed() >= MANIFEST_PERIOD {
            self.active.write_manifest()?;
            self.manifest_written = Instant::now();
        }
        Ok(())
    }

    fn add(&mut self, append: Append) -> Result<(), StoreError> {
        let seq = self.next_seq;
        let record = &append.record;
        if record.len() <= PART_BYTES_MAX {
            if !self.block.fits(record.len()) {
                self.put_block()?;
            }
            self.block.push(seq, 0, 1, record);
        } else {
            self.put_block()?;
            let parts = u32::try_from(record.len().div_ceil(PART_BYTES_MAX))
                .expect("a record is bounded far below 2^32 parts");
            for (part, bytes) in (0..).zip(record.chunks(PART_BYTES_MAX)) {
                self.block.push(seq, part, parts, bytes);
                self.put_block()?;
            }
        }
        self.next_seq = seq.next();
        self.waiting.push((seq, append.reply));
        Ok(())
    }

    /// Puts the block in hand, after a sync if it would pass the bound.
    fn put_block(&mut self) -> Result<(), StoreError> {
        if self.block.is_empty() {
            return Ok(());
        }
        if self.unsynced_bytes + BLOCK_BYTES_MAX > SYNC_BYTES_MAX {
            // Answers nobody: a record cut in parts may be half put.
            self.store.sync()?;
            self.unsynced_bytes = 0;
        }
        let bytes = std::mem::replace(&mut self.block, Builder::new()).finish(self.next_block);
        self.unsynced_bytes += bytes.len();
        self.generation_bytes += bytes.len() as u64;
        self.store.put(self.next_block, bytes)?;
        self.next_block += 1;
        Ok(())
    }

    /// Makes everything added durable, publishes it, answers its callers.
    fn sync(&mut self) -> Result<(), StoreError> {
        self.put_block()?;
        if self.waiting.is_empty() {
            return Ok(());
        }
        self.store.sync()?;
        self.unsynced_bytes = 0;
        self.active.synced(self.next_block, self.next_seq);
        self.shared.durable_end.send_replace(self.next_seq);
        for (seq, reply) in self.waiting.drain(..) {
            reply.send(Ok(seq));
        }
        Ok(())
    }

    /// Seals the active generation and goes on in a new one.
    fn rotate(&mut self) -> Result<(), StoreError> {
        self.active.seal()?;
        let number = self.active.number + 1;
        let generation = Arc::new(Generation::create(
            &self.shared.generations_dir,
            number,
            self.next_seq,
            &mut self.make_store,
        )?);
        self.store = generation.store()?;
        self.shared.push_generation(Arc::clone(&generation));
        self.active = generation;
        self.next_block = 0;
        self.generation_bytes = 0;
        self.manifest_written = Instant::now();
        Ok(())
    }

    fn finish(self) {
        if self.shared.fence.get().is_some() {
            return;
        }
        if let Err(error) = self.active.seal() {
            // The next start seals it from what the store holds.
            tracing::warn!(%error, "cannot seal the last generation");
        }
    }
}
