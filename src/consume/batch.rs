//! From deliveries to batches: what a delivery holds, what of it is in the next batch, and when
//! it may be acknowledged. Pure but for the handler that it is given. Called by `worker`.
//!
//! # Invariants
//! - A message of several documents is taken apart whole or not at all: one that does not agree
//!   with itself is refused whole, before any of it is written (test
//!   `a_message_at_odds_with_itself_is_refused_whole`); a document that cannot be read is
//!   refused alone (test `a_bad_document_is_refused_alone`).
//! - A delivery is done once each of its documents is, and once only (test
//!   `a_delivery_is_done_with_its_last_document`).
//! - In memory: the batch, and what one delivery holds beyond it. A message of several documents
//!   has at most 128 KiB here, whose rows are at most twice those of a single one
//!   (`event::limits`). What a worker holds beside them, as it came, is bounded by `intake`.

use super::handlers::Item;
use crate::broker::{Delivery, Message, Tag};
use crate::event::documents::{Document, DocumentsError};
use crate::event::limits;
use std::collections::{HashMap, VecDeque};

/// Bytes of messages, with their headers, after which a batch is written even if it has few rows.
const BATCH_BYTES_MAX: usize = 8 << 20;

/// What a handler made of a document: its rows by place, or why it cannot be read.
pub(super) type Items = Result<Vec<Item>, String>;

/// A document of a delivery, as the message that it would be alone; as a rule the only one.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) message: Message,
    /// The delivery that it came in.
    pub(super) tag: Tag,
    pub(super) items: Items,
}

/// The documents of a delivery, each with what `handle` makes of it: of events one item for
/// each, and one of anything else.
pub(super) fn taken(
    delivery: Delivery,
    are_events: bool,
    handle: impl Fn(&Message) -> Items,
) -> Vec<Pending> {
    let Delivery { message, tag, .. } = delivery;
    let of = |message: Message, items| Pending {
        message,
        tag,
        items,
    };
    if !message.has_documents() {
        let items = handle(&message);
        return vec![of(message, items)];
    }
    let documents = message.documents().and_then(|documents| {
        let handled = documents.into_iter().zip(1..).map(|((who, message), at)| {
            let items = handle(&message);
            if are_events {
                agree(at, &who, &items)?;
            }
            Ok(of(message, items))
        });
        handled.collect::<Result<Vec<_>, DocumentsError>>()
    });
    // All of it, or nothing: which line is whose would be a guess.
    documents.unwrap_or_else(|error| {
        let reason = limits::reason(&error.to_string());
        vec![of(message, Err(reason))]
    })
}

/// Whether a document that can be read has the events that the header gives places to.
fn agree(at: usize, who: &Document, items: &Items) -> Result<(), DocumentsError> {
    match items {
        Ok(items) if items.len() != who.places() => Err(DocumentsError::Events {
            at,
            events: items.len(),
            places: who.places(),
        }),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// What is written next.
#[derive(Debug)]
pub(super) struct Batch {
    documents: Vec<Pending>,
    rows: usize,
    bytes: usize,
    rows_max: usize,
}

impl Batch {
    pub(super) fn new(rows_max: usize) -> Self {
        Self {
            documents: Vec::new(),
            rows: 0,
            bytes: 0,
            rows_max,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.documents.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.rows >= self.rows_max || self.bytes >= BATCH_BYTES_MAX
    }

    /// Takes what waits, as far as there is room; the last document may go beyond it.
    pub(super) fn fill(&mut self, waiting: &mut VecDeque<Pending>) {
        while !self.is_full()
            && let Some(document) = waiting.pop_front()
        {
            self.rows += document.items.as_ref().map_or(1, Vec::len);
            self.bytes += document.message.bytes();
            self.documents.push(document);
        }
    }

    /// Its documents; it is empty then.
    pub(super) fn take(&mut self) -> Vec<Pending> {
        (self.rows, self.bytes) = (0, 0);
        std::mem::take(&mut self.documents)
    }
}

/// Deliveries with the number of their documents that are not done.
#[derive(Debug, Default)]
pub(super) struct Unsettled(HashMap<Tag, usize>);

impl Unsettled {
    /// A delivery of so many documents came.
    pub(super) fn add(&mut self, tag: Tag, documents: usize) {
        self.0.insert(tag, documents);
    }

    /// A document of each of these is done: the deliveries of which nothing is left.
    pub(super) fn done(&mut self, tags: impl IntoIterator<Item = Tag>) -> Vec<Tag> {
        let is_last = |tag: &Tag| {
            let Some(left) = self.0.get_mut(tag) else {
                return false;
            };
            *left = left.saturating_sub(1);
            let is_last = *left == 0;
            if is_last {
                self.0.remove(tag);
            }
            is_last
        };
        tags.into_iter().filter(is_last).collect()
    }
}

#[cfg(test)]
#[path = "batch_tests.rs"]
mod tests;
