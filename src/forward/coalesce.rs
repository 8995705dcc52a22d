//! Messages of one read that go to the same queues, joined into fewer: a broker's work is for
//! each message, and that of a small batch is a small message. Pure; called by `reading` on a
//! blocking thread.
//!
//! What is grouped is what one read of the journal found. Under a low load that is one request,
//! and its messages go as they always went; what gathers between two reads (`gather`) goes in few.
//!
//! # Invariants
//! - Every group is in one message, in the order of the log; each message is within its bounds,
//!   unless it holds one group alone (test `everything_goes_once_in_order_and_within_bounds`).
//! - A message of one group is what it would be without any of this (test
//!   `what_is_alone_stays_as_it_was`). That is what queues in the field rely on, so more is
//!   switched on by an operator.
//! - Only what is for the consumers of a known type is joined: refused events, webhooks and
//!   types that have no JSON form go alone (test `only_events_of_a_known_type_share`).

use super::outgoing::Outgoing;
use crate::broker::Message;
use crate::event::documents::{DOCUMENTS_MAX, HEADER_BYTES_MAX};
use crate::event::envelope::JSON;
use crate::event::identity::HostId;
use std::collections::HashMap;

/// How much one message may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Coalescing {
    /// Documents; 1: each goes alone.
    pub documents: usize,
    /// Bytes of the body. One document that is larger goes alone.
    pub bytes: usize,
}

/// A message that more may be added to.
struct Open {
    /// Its place among the messages.
    at: usize,
    bytes: usize,
    header_bytes: usize,
}

/// Joins messages of one read, in the order of the log, and tells each where it came from.
pub(super) fn coalesce(host: &HostId, singles: Vec<Outgoing>, by: Coalescing) -> Vec<Outgoing> {
    let mut groups: Vec<Vec<Outgoing>> = Vec::with_capacity(singles.len());
    let mut open: HashMap<(String, String), Open> = HashMap::new();
    for single in singles {
        let Some(entry_bytes) = may_share(&single).filter(|_| by.documents > 1) else {
            groups.push(vec![single]);
            continue;
        };
        // With what divides it from the next one.
        let bytes = single.message.body.len() + 1;
        let found = open.get_mut(&single.meant_for).filter(|open| {
            groups[open.at].len() < by.documents.min(DOCUMENTS_MAX)
                && open.bytes + bytes <= by.bytes
                && open.header_bytes + entry_bytes <= HEADER_BYTES_MAX
        });
        if let Some(open) = found {
            open.bytes += bytes;
            open.header_bytes += entry_bytes;
            groups[open.at].push(single);
            continue;
        }
        let at = groups.len();
        let begun = Open {
            at,
            bytes,
            header_bytes: entry_bytes,
        };
        open.insert(single.meant_for.clone(), begun);
        groups.push(vec![single]);
    }
    let join = |group| join(host.as_str(), group);
    groups.into_iter().filter_map(join).collect()
}

/// The bytes that its entry takes at most, where a message may be one of several documents.
fn may_share(single: &Outgoing) -> Option<usize> {
    let [part] = single.parts.as_slice() else {
        return None;
    };
    let is_json = single.message.content_type.as_deref() == Some(JSON);
    (is_json && !single.is_error).then(|| part.document.entry_bytes_max())
}

fn join(host: &str, group: Vec<Outgoing>) -> Option<Outgoing> {
    let mut parts = Vec::with_capacity(group.len());
    let mut singles = Vec::with_capacity(group.len());
    let mut first = None;
    for mut single in group {
        let message = std::mem::take(&mut single.message);
        let document = single.parts.first().map(|part| part.document.clone());
        singles.extend(document.map(|document| (document, message)));
        parts.append(&mut single.parts);
        first.get_or_insert(single);
    }
    Some(Outgoing {
        message: Message::join(host, singles)?,
        parts,
        ..first?
    })
}

#[cfg(test)]
#[path = "coalesce_tests.rs"]
mod tests;
