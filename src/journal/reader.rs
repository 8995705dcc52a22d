//! Reads the journal in order for one way out. Called by the pumps.
//!
//! # Invariants
//! - Gives each durable record once, in sequence, each under its block's checksum;
//!   what cannot be read is noted with its exact range, and passed over.
//! - Holds one generation's blocks at a time, and at most `bytes_max` plus one
//!   block's records in memory.
//! - Store access runs on blocking threads.

use super::contents::Contents;
use super::error::ReadError;
use super::generation::Generation;
use super::ledger;
use super::losses::Loss;
use super::record::Record;
use super::shared::Shared;
use super::store::StoreError;
use crate::event::identity::Seq;
use std::sync::Arc;

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
}

struct Place {
    generation: Arc<Generation>,
    contents: Contents,
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

    /// When the record at the position was received, or a little before, epoch milliseconds;
    /// `None` at the end.
    #[must_use]
    pub fn received_at_ms(&self) -> Option<i64> {
        ledger::oldest_pending_at_ms(&self.shared.chain(), self.next)
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

    /// The sequence after the last durable record.
    #[must_use]
    pub fn durable_end(&self) -> Seq {
        self.shared.durable_end()
    }

    /// Gives the next records: not many more than `bytes_max` bytes, and none when
    /// all durable ones were given or those up to the new position are lost. A
    /// dropped call gives its records again next time.
    ///
    /// # Errors
    /// When the store does not open or answer; the position stays.
    pub async fn read(&mut self, bytes_max: usize) -> Result<Vec<Record>, ReadError> {
        self.read_to(bytes_max, Seq(u64::MAX)).await
    }

    /// As [`Reader::read`], of records before `to`. There the reader is at its end: it does
    /// not give the rest of the block that it is in.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn read_to(&mut self, bytes_max: usize, to: Seq) -> Result<Vec<Record>, ReadError> {
        let shared = Arc::clone(&self.shared);
        let mut walk = self.walk.take().unwrap_or_default();
        let next = self.next;
        let work = tokio::task::spawn_blocking(move || {
            let result = walk.read(&shared, (next, to), bytes_max);
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
        (from, to): (Seq, Seq),
        bytes_max: usize,
    ) -> Result<(Vec<Record>, Seq), ReadError> {
        let end = shared.durable_end().min(to);
        let mut records = Vec::new();
        let mut bytes = 0;
        let mut next = from;
        while next < end && bytes < bytes_max {
            if !self.find_place(shared, next)? {
                break;
            }
            let Some(place) = &mut self.at else { break };
            // A new generation may begin later than the one before it ended.
            next = next.max(place.generation.base());
            if next >= end {
                // What it holds became durable meanwhile, and is for the next call.
                break;
            }
            if place.contents.block() < place.generation.blocks() {
                let number = place.generation.number();
                for record in place.contents.next().map_err(|e| failed(number, &e))? {
                    if record.seq < next {
                        continue;
                    }
                    if record.seq >= to {
                        note_gap(shared, number, next, to);
                        return Ok((records, to));
                    }
                    if record.seq >= end {
                        // It became durable meanwhile, and is for the next call, which begins
                        // with its block again.
                        self.at = None;
                        return Ok((records, next));
                    }
                    note_gap(shared, number, next, record.seq);
                    next = record.seq.next();
                    bytes += record.content.len();
                    records.push(record);
                }
            }
            if next < to {
                next = self.leave_if_done(shared, next);
            }
            if next < end && self.is_stuck() {
                // What is durable can be read later, at the latest when it is sealed.
                match &self.at {
                    Some(place) if records.is_empty() => return Err(not_yet(place)),
                    _ => break,
                }
            }
        }
        // Numbers may be left out between generations.
        Ok((records, next.min(to)))
    }

    /// Opens the generation that holds `next`, or the first after it.
    fn find_place(&mut self, shared: &Shared, next: Seq) -> Result<bool, ReadError> {
        if self.at.is_some() {
            return Ok(true);
        }
        let Some(generation) = shared.chain().into_iter().find(|g| g.end() > next) else {
            return Ok(false);
        };
        let number = generation.number();
        let blocks = shared
            .open_generation(&generation)
            .map_err(|error| failed(number, &error))?;
        let salt = generation.salt();
        let contents = Contents::starting_at(blocks, salt, generation.blocks(), next)
            .map_err(|error| failed(number, &error))?;
        self.at = Some(Place {
            generation,
            contents,
        });
        Ok(true)
    }

    /// Whether all blocks were read of a generation that takes more.
    fn is_stuck(&self) -> bool {
        self.at.as_ref().is_some_and(
            |Place {
                 generation,
                 contents,
             }| { !generation.is_sealed() && contents.block() >= generation.blocks() },
        )
    }

    /// Leaves a generation whose blocks were all read once it takes no more.
    fn leave_if_done(&mut self, shared: &Shared, next: Seq) -> Seq {
        let Some(place) = &self.at else {
            return next;
        };
        // Sealed is asked first: blocks do not grow after it.
        let sealed = place.generation.is_sealed();
        if !sealed || place.contents.block() < place.generation.blocks() {
            return next;
        }
        let end = place.generation.end();
        note_gap(shared, place.generation.number(), next, end);
        self.at = None;
        next.max(end)
    }
}

fn not_yet(place: &Place) -> ReadError {
    ReadError::Store {
        generation: place.generation.number(),
        reason: "a durable block cannot be read yet".to_owned(),
    }
}

fn failed(generation: u64, error: &StoreError) -> ReadError {
    ReadError::Store {
        generation,
        reason: error.to_string(),
    }
}

/// Records between the expected and the found sequence cannot be read back.
fn note_gap(shared: &Shared, generation: u64, expected: Seq, found: Seq) {
    if found > expected {
        shared.note_loss(&Loss {
            generation,
            first: expected,
            end: found,
        });
    }
}
