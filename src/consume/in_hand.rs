//! What the way out without a broker has in hand: rows with their sources, and what becomes of
//! each record. Called by `direct`, whose invariants and tests these are.

use super::handlers::NewRow;
use crate::dead_letters::DeadLetter;
use crate::event::envelope::Origins;
use crate::event::group::Group;
use crate::event::tally::Tally;
use crate::event::webhook;
use crate::journal::{Kind, Passed, Record};
use crate::sink::schema::Table;
use std::sync::Arc;

/// Rows of one batch.
pub(super) const BATCH_ROWS: usize = 1000;

/// Bytes of rows and of what they were made of, after which a batch is written even if it
/// has few rows: each row repeats its request's header.
pub(super) const BATCH_BYTES_MAX: usize = 8 << 20;

/// Rows for one table with what is needed to set one aside.
pub(super) struct Rows {
    pub(super) table: &'static Table,
    pub(super) rows: Vec<crate::sink::Row>,
    pub(super) ids: Vec<String>,
    pub(super) letters: Vec<Source>,
    /// About how much memory all of it takes.
    pub(super) bytes: usize,
}

/// Where a row came from.
pub(super) enum Source {
    /// A group's batch and the event's place there.
    Event {
        batch: Arc<Group>,
        origins: Arc<Origins>,
        kind: Kind,
        at: usize,
    },
    /// A webhook, as the letter that it would be.
    Webhook(Arc<DeadLetter>, webhook::Source),
}

/// What becomes of the records in hand, in order.
pub(super) struct Outcome(pub(super) Vec<Passed>);

impl Outcome {
    pub(super) fn new(records: &[Record]) -> Self {
        let passed = |record: &Record| Passed {
            seq: record.seq,
            events: record.events.clone(),
            dead_lettered: Tally::default(),
        };
        Self(records.iter().map(passed).collect())
    }

    pub(super) fn dead_lettered(&mut self, seq: u64, events: &Tally) {
        let at = self.0.binary_search_by_key(&seq, |passed| passed.seq.0);
        if let Some(passed) = at.ok().and_then(|at| self.0.get_mut(at)) {
            // A webhook that two tables refuse is one event.
            let left = passed.events.minus(&passed.dead_lettered);
            if left.total() >= events.total() {
                passed.dead_lettered.merge(events);
            }
        }
    }
}

impl Rows {
    pub(super) fn new(table: &'static Table) -> Self {
        Self {
            table,
            rows: Vec::new(),
            ids: Vec::new(),
            letters: Vec::new(),
            bytes: 0,
        }
    }

    pub(super) fn push(&mut self, new: NewRow, source: Source) {
        self.bytes += new.row.bytes();
        self.rows.push(new.row);
        self.ids.push(new.id);
        self.letters.push(source);
    }

    pub(super) fn is_full(&self) -> bool {
        self.rows.len() >= BATCH_ROWS || self.bytes >= BATCH_BYTES_MAX
    }
}
