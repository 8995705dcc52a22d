//! The records of one generation, in order, from its blocks. Called by `reader`,
//! `survey`, `directory` and `skip`.
//!
//! # Invariants
//! - Gives a record only if all its blocks passed their checksum.
//! - A missing or damaged block costs the records that have a part in it, no more.

use super::block::{self, Frame, Salt};
use super::record::Record;
use super::store::{Blocks, StoreError};
use crate::event::identity::Seq;
use bytes::{Bytes, BytesMut};
use std::sync::Arc;

/// A walk through a generation's blocks.
pub(super) struct Contents {
    store: Arc<dyn Blocks>,
    salt: Salt,
    /// The next block.
    block: u64,
    /// Parts of the record being put together.
    parts: BytesMut,
    parts_seen: u32,
}

impl Contents {
    /// Starts at the first block.
    pub(super) fn new(store: Arc<dyn Blocks>, salt: Salt) -> Self {
        Self {
            store,
            salt,
            block: 0,
            parts: BytesMut::new(),
            parts_seen: 0,
        }
    }

    /// Starts at the block, of the first `blocks`, that may hold `seq` or a later
    /// record. Blocks are in sequence order, so a search by halves finds it;
    /// unreadable ones count as late enough, which only starts the walk sooner.
    pub(super) fn starting_at(
        store: Arc<dyn Blocks>,
        salt: Salt,
        blocks: u64,
        seq: Seq,
    ) -> Result<Self, StoreError> {
        let mut contents = Self::new(store, salt);
        let (mut low, mut high) = (0, blocks);
        while low < high {
            let middle = low + (high - low) / 2;
            match contents.frames(middle)?.last() {
                Some(last) if last.seq < seq => low = middle + 1,
                _ => high = middle,
            }
        }
        contents.block = low;
        Ok(contents)
    }

    /// The number of the next block.
    pub(super) fn block(&self) -> u64 {
        self.block
    }

    /// Reads the next block and steps on: the records that are whole with it. None
    /// when it is missing or damaged.
    pub(super) fn next(&mut self) -> Result<Vec<Record>, StoreError> {
        let frames = self.frames(self.block)?;
        self.block += 1;
        if frames.is_empty() {
            self.parts_seen = u32::MAX;
        }
        let mut records = Vec::new();
        for frame in frames {
            let Some(bytes) = self.assemble(&frame) else {
                continue;
            };
            match Record::decode(frame.seq, &bytes) {
                Ok(record) => records.push(record),
                Err(error) => tracing::error!(seq = %frame.seq, %error, "record cannot be read"),
            }
        }
        Ok(records)
    }

    fn frames(&self, number: u64) -> Result<Vec<Frame>, StoreError> {
        let Some(bytes) = self.store.get(number)? else {
            return Ok(Vec::new());
        };
        match block::parse(&bytes, &self.salt) {
            Ok(block) if block.number == number => Ok(block.frames),
            Ok(block) => {
                tracing::error!(block = number, found = block.number, "misplaced block");
                Ok(Vec::new())
            }
            Err(error) => {
                tracing::error!(block = number, %error, "damaged block");
                match self.store.was_whole() {
                    true => Err(std::io::Error::other("a block has changed under the read").into()),
                    false => Ok(Vec::new()),
                }
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
            // A part before this one is missing: the record is not whole.
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
}
