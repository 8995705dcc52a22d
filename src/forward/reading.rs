//! From the journal into the lanes: what is read next, and when what is fresh gets a lane of
//! its own. Called by `pump`.
//!
//! # Invariants
//! - A message's documents are of one read, and so of one lane and of one segment of it.
//! - A lane is read only while nothing of it waits to be published: one read each in memory, and
//!   what that becomes is bounded, whatever a request makes of its bytes (test
//!   `a_read_becomes_no_more_than_fits`).
//! - The cursor keeps room for the span of a lane before it begins.

use super::coalesce::{Coalescing, coalesce};
use super::depth::Watch;
use super::outgoing::{Outgoing, Prepared, Template};
use super::pump::{End, Run};
use crate::clock::now_ms;
use crate::event::identity::Seq;
use crate::event::limits::HEADER_COPIES_BYTES_MAX;
use crate::journal::Record;
use crate::pace::Lane;
use std::sync::Arc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Bytes of records taken from the journal at a time.
const READ_BYTES: usize = 1 << 20;

/// Bytes of messages and letters after which nothing more is made of a read: what one request may
/// become. A usual read becomes little more than its own bytes.
const MADE_BYTES_MAX: usize = HEADER_COPIES_BYTES_MAX;

/// Requests of a lane that may be on their way or wait behind one that is: bounds memory
/// and what is sent again while one message is not taken for a long time.
const FLIGHT_MAX: usize = 100_000;

/// Requests that a way out may be behind before fresh ones get a lane of their own: fewer
/// are read and sent in no time.
const LEAD_REQUESTS: u64 = 500;

/// Age of what is read, in milliseconds, from which it counts as a backlog.
const LEAD_AGE_MS: i64 = 1_000;

/// Requests behind which it is a backlog whatever the clock says, which may have jumped.
const LEAD_REQUESTS_ALWAYS: u64 = 50_000;

impl Run<'_> {
    /// The queues that fresh events go to.
    pub(super) fn queues(&self) -> Vec<String> {
        let exchanges: Vec<&String> = self
            .template
            .webhooks
            .values()
            .chain([&self.template.exchange])
            .collect();
        let queues = &self.forwarder.setup.topology().queues;
        queues
            .iter()
            .filter(|queue| {
                queue
                    .bindings
                    .iter()
                    .any(|b| exchanges.contains(&&b.exchange))
            })
            .map(|queue| queue.name.clone())
            .collect()
    }

    pub(super) fn wants_more(&self, lane: Lane) -> bool {
        let is_fresh = lane == Lane::Fresh;
        if is_fresh && !self.lanes.leads() {
            return false;
        }
        let window = self.forwarder.options.confirm_window;
        self.ready[self.counts_as(lane) as usize].is_empty()
            && self.published.has_room(&self.waiting, window)
            && self.lanes.in_flight(is_fresh) < FLIGHT_MAX
    }

    /// Until when more may gather in a lane before it is read; `None`: it may be read.
    pub(super) fn gathers(&self, lane: Lane) -> Option<Instant> {
        if self.forwarder.options.coalescing.borrow().documents < 2 {
            return None;
        }
        self.gather.until(lane, Instant::now())
    }

    pub(super) async fn read(&mut self, lane: Lane, stop: &CancellationToken) -> Result<(), End> {
        let is_fresh = lane == Lane::Fresh;
        let (reader, to) = match lane {
            Lane::Fresh => (&mut self.fresh, Seq(u64::MAX)),
            Lane::Backlog => (&mut self.backlog, self.lanes.limit()),
        };
        let records = match reader.read_to(READ_BYTES, to).await {
            Ok(records) => {
                if let Some(lasted) = self.reading.over() {
                    tracing::info!(failed_for = ?lasted, "the journal is read again");
                }
                records
            }
            Err(error) => {
                if self.reading.is_new("read") {
                    tracing::error!(%error, "cannot read the journal; trying again");
                } else {
                    tracing::debug!(%error, "cannot read the journal yet");
                }
                tokio::time::sleep(crate::retry::SHORTEST).await;
                return Ok(());
            }
        };
        let mut position = reader.position();
        let bytes: usize = records.iter().map(|record| record.content.len()).sum();
        let template = Arc::clone(&self.template);
        // Encoding a read's worth of events takes milliseconds.
        let by = *self.forwarder.options.coalescing.borrow();
        let work = tokio::task::spawn_blocking(move || prepare(&template, &records, by));
        let made = work
            .await
            .map_err(|error| End::Lost(format!("prepare messages: {error}")))?;
        let is_full = bytes >= READ_BYTES || made.rest.is_some();
        self.gather.read(lane, is_full, Instant::now());
        if let Some(rest) = made.rest {
            // As if it had read no further.
            let reader = match lane {
                Lane::Fresh => &mut self.fresh,
                Lane::Backlog => &mut self.backlog,
            };
            *reader = self.forwarder.journal.reader(rest);
            position = rest;
        }
        let lane = self.counts_as(lane);
        for (parts, record) in made.records {
            self.lanes.add(is_fresh, record.seq, parts, record.events);
            for (group, events, letter) in record.letters {
                self.forwarder.set_aside(&letter, stop).await?;
                self.lanes.dead_lettered(record.seq, group, &events);
            }
        }
        self.queue(lane).extend(
            made.messages
                .into_iter()
                .map(|out| Outgoing { lane, ..out }),
        );
        // Everything before the reader's place is on its way, done with, or was lost.
        self.lanes.reach(is_fresh, position);
        let taken = self.lanes.take_read(is_fresh);
        self.note(taken)?;
        if !is_fresh && let Some(to) = self.lanes.jump() {
            self.backlog = self.forwarder.journal.reader(to);
            if !self.lanes.leads() {
                self.depth = None;
                self.pacer.queue_is_full(None);
            }
        }
        if is_fresh || !self.lanes.leads() {
            self.lead();
        }
        Ok(())
    }

    /// Gives what is fresh a lane of its own, or a new one, where what is read next is old
    /// and much is behind it.
    pub(super) fn lead(&mut self) {
        let reader = if self.lanes.leads() {
            &self.fresh
        } else {
            &self.backlog
        };
        let behind = reader.durable_end().0.saturating_sub(reader.position().0);
        if behind < LEAD_REQUESTS {
            return;
        }
        let received_at_ms = reader.received_at_ms();
        let is_old =
            received_at_ms.is_some_and(|at_ms| now_ms().saturating_sub(at_ms) >= LEAD_AGE_MS);
        if !(is_old || behind >= LEAD_REQUESTS_ALWAYS) || !self.cursor.may_lead() {
            return;
        }
        let at = self.backlog.durable_end();
        let Some(at) = self.lanes.lead(at) else {
            return;
        };
        tracing::info!(next_seq = %self.cursor.next(), fresh_seq = %at, "fresh events go ahead of the backlog");
        if self.depth.is_none() {
            self.depth = Some(Watch::begin(self.session, self.queues()));
        }
        self.fresh = self.forwarder.journal.reader(at);
    }
}

/// What a read becomes.
struct Made {
    /// Each record, with its number of messages and letters.
    records: Vec<(usize, Prepared)>,
    /// The messages of all of them.
    messages: Vec<Outgoing>,
    /// The first record of which nothing is made yet.
    rest: Option<Seq>,
}

fn prepare(template: &Template, records: &[Record], by: Coalescing) -> Made {
    let mut messages = Vec::with_capacity(records.len());
    let mut made = Vec::with_capacity(records.len());
    let mut bytes = 0;
    let mut rest = None;
    for record in records {
        if bytes >= MADE_BYTES_MAX {
            rest = Some(record.seq);
            break;
        }
        let mut prepared = template.prepare(record);
        let parts = prepared.messages.len() + prepared.letters.len();
        let bodies = prepared.messages.iter().map(|out| out.message.body.len());
        let letters = prepared.letters.iter();
        bytes += bodies.sum::<usize>();
        bytes += letters
            .map(|(_, _, letter)| letter.body.len())
            .sum::<usize>();
        messages.append(&mut prepared.messages);
        made.push((parts, prepared));
    }
    Made {
        records: made,
        messages: coalesce(&template.host, messages, by),
        rest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::identity::HostId;
    use crate::event::proto::event::EventOf;
    use crate::event::proto::{Event, Events, Header, LaunchEvent, TestEvent};
    use crate::event::scan;
    use crate::journal::Kind;
    use prost::Message as _;
    use std::collections::BTreeMap;

    /// A request of two types with a header of so many bytes that JSON makes six of each.
    fn record(seq: u64, header_bytes: usize) -> Record {
        let event = |event_of| Event {
            id: "e".into(),
            timestamp: "1700000000000".into(),
            event_of: Some(event_of),
            ..Event::default()
        };
        let request = Events {
            header: Some(Header {
                device_id: "\u{1}".repeat(header_bytes),
                ..Header::default()
            }),
            events: vec![
                event(EventOf::TestEvent(TestEvent::default())),
                event(EventOf::LaunchEvent(LaunchEvent::default())),
            ],
        };
        let content = request.encode_to_vec();
        Record {
            seq: Seq(seq),
            received_at_ms: 1_700_000_000_000,
            kind: Kind::Dispatch,
            reason: None,
            events: scan::request(&content, usize::MAX).unwrap().tally,
            content: content.into(),
        }
    }

    #[test]
    fn a_read_becomes_no_more_than_fits() {
        let template = Template {
            host: HostId::parse("edge-1").unwrap(),
            exchange: "grpc_event.tx".into(),
            error_routes: Vec::new(),
            webhooks: BTreeMap::new(),
        };
        let by = Coalescing {
            documents: 1,
            bytes: 0,
        };
        // Twelve times its bytes each.
        let records: Vec<_> = (1..=64).map(|seq| record(2 * seq, 64 << 10)).collect();
        let (mut rest, mut all, mut turns) = (&records[..], Vec::new(), 0);
        while !rest.is_empty() {
            let made = prepare(&template, rest, by);
            let bytes: usize = made.messages.iter().map(|out| out.message.body.len()).sum();
            assert!(bytes < MADE_BYTES_MAX + (1 << 20), "{bytes}");
            all.extend(made.records.iter().map(|(parts, of)| (*parts, of.seq)));
            let next = made
                .rest
                .and_then(|seq| rest.iter().position(|r| r.seq == seq));
            rest = &rest[next.unwrap_or(rest.len())..];
            turns += 1;
        }
        let expected: Vec<_> = records.iter().map(|record| (2, record.seq)).collect();
        assert_eq!(all, expected, "each once, and in order");
        assert!(turns > 1, "they did not fit");
        // Usual ones do.
        let usual: Vec<_> = (1..=64).map(|seq| record(seq, 100)).collect();
        assert_eq!(prepare(&template, &usual, by).rest, None);
    }
}
