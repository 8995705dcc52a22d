//! Reads the journal in order for one way out. Called by the pumps.
//!
//! # Invariants
//! - Gives each durable record once, in sequence, each under its block's checksum;
//!   what cannot be read is logged with its range, counted, and passed over.
//! - Holds one generation's store at a time, and at most `bytes_max` plus one
//!   record in memory.
//! - Store access runs on blocking threads.

use super::block::{self, Frame};
use super::error::ReadError;
use super::generation::Generation;
use super::record::Record;
use super::shared::Shared;
use super::store::{BlockStore, StoreError};
use crate::event::identity::Seq;
use bytes::{Bytes, BytesMut};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A position that moves forward through the journal.
#[derive(Debug)]
pub struct Reader {
    shared: Arc<Shared>,
    /// `None` while a read is under way or after one was dropped half-way.
    walk: Option<Walk>,
    next: Seq,
}

/// Where the reader stands.
#[derive(Default)]
struct Walk {
    at: Option<Place>,
    /// Parts of the record being put together.
    parts: BytesMut,
    parts_seen: u32,
}

struct Place {
    generation: Arc<Generation>,
    store: Arc<dyn BlockStore>,
    block: u64,
}

impl std::fmt::Debug for Walk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Walk").finish_non_exhaustive()
    }
}

impl Reader {
    pub(super) fn new(shared: Arc<Shared>, from: Seq) -> Self {
        Self {
            shared,
            walk: Some(Walk::default()),
            next: from,
        }
    }

    /// The sequence of the next record to be given.
    #[must_use]
    pub fn position(&self) -> Seq {
        self.next
    }

    /// Waits until a record at or after the position is durable. Cancel-safe.
    ///
    /// # Errors
    /// [`ReadError::Closed`] when the journal closes first.
    pub async fn wait(&self) -> Result<(), ReadError> {
        let mut durable = self.shared.durable_end.subscribe();
        let next = self.next;
        durable
            .wait_for(|end| *end > next)
            .await
            .map(|_| ())
            .map_err(|_| ReadError::Closed)
    }

    /// Gives the next records: none when all durable ones were given, else at
    /// least one and not many more than `bytes_max` bytes. A dropped call gives
    /// its records again next time.
    ///
    /// # Errors
    /// When the store does not open or answer; the position stays.
    pub async fn read(&mut self, bytes_max: usize) -> Result<Vec<Record>, ReadError> {
        let shared = Arc::clone(&self.shared);
        let mut walk = self.walk.take().unwrap_or_default();
        let next = self.next;
        let work = tokio::task::spawn_blocking(move || {
            let result = walk.read(&shared, next, bytes_max);
            (walk, result)
        });
        let (walk, result) = work.await.map_err(|_| ReadError::Closed)?;
        let (records, next) = result?;
        self.walk = Some(walk);
        self.next = next;
        Ok(records)
    }
}

impl Walk {
    fn read(
        &mut self,
        shared: &Shared,
        from: Seq,
        bytes_max: usize,
    ) -> Result<(Vec<Record>, Seq), ReadError> {
        let end = shared.durable_end();
        let mut records = Vec::new();
        let mut bytes = 0;
        let mut next = from;
        while next < end && bytes < bytes_max {
            if !self.find_place(shared, next)? {
                break;
            }
            let frames = self.next_block()?;
            for frame in frames.into_iter().flatten() {
                let Some(record) = self.assemble(&frame) else {
                    continue;
                };
                if frame.seq < next || frame.seq >= end {
                    continue;
                }
                report_gap(shared, next, frame.seq);
                next = frame.seq.next();
                match Record::decode(frame.seq, &record) {
                    Ok(record) => {
                        bytes += record.content.len();
                        records.push(record);
                    }
                    Err(error) => {
                        tracing::error!(seq = %frame.seq, %error, "record cannot be read");
                        shared.lost_records.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
            next = self.leave_if_done(shared, next);
        }
        Ok((records, next))
    }

    /// Opens the generation that holds `next`, or the first after it.
    fn find_place(&mut self, shared: &Shared, next: Seq) -> Result<bool, ReadError> {
        if self.at.is_some() {
            return Ok(true);
        }
        let Some(generation) = shared.chain().into_iter().find(|g| g.end() > next) else {
            return Ok(false);
        };
        let fail = |error: StoreError| ReadError::Store {
            generation: generation.number,
            reason: error.to_string(),
        };
        let store = generation.store().map_err(fail)?;
        let block = first_block_for(&*store, generation.blocks(), next).map_err(fail)?;
        self.at = Some(Place {
            generation,
            store,
            block,
        });
        self.parts.clear();
        self.parts_seen = 0;
        Ok(true)
    }

    /// Reads the block at the place and steps on; `None` when it is damaged or the
    /// generation has no more synced blocks.
    fn next_block(&mut self) -> Result<Option<Vec<Frame>>, ReadError> {
        let Some(place) = &mut self.at else {
            return Ok(None);
        };
        if place.block >= place.generation.blocks() {
            return Ok(None);
        }
        let number = place.block;
        let generation = place.generation.number;
        let bytes = place.store.get(number).map_err(|error| ReadError::Store {
            generation,
            reason: error.to_string(),
        })?;
        place.block += 1;
        let parsed = bytes.map(|bytes| block::parse(&bytes, number));
        match parsed {
            Some(Ok(frames)) => Ok(Some(frames)),
            Some(Err(error)) => {
                tracing::error!(generation, block = number, %error, "damaged block");
                Ok(None)
            }
            None => {
                tracing::error!(generation, block = number, "block is missing");
                Ok(None)
            }
        }
    }

    /// Adds a frame; the record's bytes once it is whole.
    fn assemble(&mut self, frame: &Frame) -> Option<Bytes> {
        if frame.parts == 1 {
            self.parts_seen = 0;
            return Some(frame.bytes.clone());
        }
        if frame.part == 0 {
            self.parts.clear();
            self.parts_seen = 0;
        }
        if frame.part != self.parts_seen {
            // A part before this one was damaged: the record is not whole.
            self.parts_seen = u32::MAX;
            return None;
        }
        self.parts.extend_from_slice(&frame.bytes);
        self.parts_seen += 1;
        if self.parts_seen < frame.parts {
            return None;
        }
        self.parts_seen = 0;
        Some(self.parts.split().freeze())
    }

    /// Leaves a generation whose blocks were all read once it takes no more.
    fn leave_if_done(&mut self, shared: &Shared, next: Seq) -> Seq {
        let Some(place) = &self.at else {
            return next;
        };
        // Sealed is asked first: blocks do not grow after it.
        let sealed = place.generation.is_sealed();
        if !sealed || place.block < place.generation.blocks() {
            return next;
        }
        let end = place.generation.end();
        report_gap(shared, next, end);
        self.at = None;
        next.max(end)
    }
}

/// Records between the expected and the found sequence cannot be read back.
fn report_gap(shared: &Shared, expected: Seq, found: Seq) {
    if found > expected {
        let lost = found.0 - expected.0;
        tracing::error!(first_seq = %expected, end_seq = %found, lost, "journal lost records");
        shared.lost_records.fetch_add(lost, Ordering::Relaxed);
    }
}

/// The first block that may hold `seq` or a later record. Blocks are in sequence
/// order, so a search by halves finds it; unreadable ones count as late enough, which
/// only makes the walk start sooner.
fn first_block_for(store: &dyn BlockStore, blocks: u64, seq: Seq) -> Result<u64, StoreError> {
    let (mut low, mut high) = (0, blocks);
    while low < high {
        let middle = low + (high - low) / 2;
        let last = store
            .get(middle)?
            .and_then(|bytes| block::parse(&bytes, middle).ok())
            .and_then(|frames| frames.last().map(|frame| frame.seq));
        match last {
            Some(last) if last < seq => low = middle + 1,
            // Unreadable: go left, never skip a block that may hold it.
            _ => high = middle,
        }
    }
    Ok(low)
}
