//! What both doors do with a request's bytes: validate, make durable, count.
//! Called by `grpc`, `http` and `webhooks`.
//!
//! # Invariants
//! - What is journaled is what the client sent, byte for byte, and can be decoded within
//!   bounds (`event::scan`).
//! - A host that is drained takes nothing, and what was on its way in counts as in work
//!   until it is durable or refused: with none in work and none pending all is delivered.
//! - Of the requests in work one caller has no more than half (test
//!   `one_caller_leaves_half_of_the_places`).
//! - Bytes that are not an `Events` are never kept; an incomplete batch is kept as
//!   `Rejected` (where configured) and refused all the same.

use super::callers::Caller;
use super::health::Health;
use super::readers::Readers;
use super::refusal::Refusal;
use crate::clock::now_ms;
use crate::event::identity::Seq;
use crate::event::limits;
use crate::event::scan;
use crate::event::tally::Tally;
use crate::event::validate;
use crate::event::webhook::{Receipt, Source, Stored};
use crate::journal::{AppendError, Journal, Kind, NewRecord};
use crate::port::{Place, Places, Short, Whose};
use crate::telemetry::Metrics;
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, SemaphorePermit};

/// The way into the journal. Several parts of each request have a clone of it.
#[derive(Debug, Clone)]
pub struct Door(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    journal: Journal,
    metrics: Metrics,
    /// `ingest.keep_rejected`, which a reload changes for all doors.
    keep_rejected: Arc<AtomicBool>,
    health: Health,
    name: &'static str,
    /// `ingest.max_request_events`.
    request_events_max: usize,
    /// Requests between their bytes and their answer, for a clean stop.
    in_work: AtomicUsize,
    /// Requests that the journal works on at the same time.
    places: Semaphore,
    /// Those of one caller that wait for it or have it.
    parts: Places,
}

/// What one door takes.
#[derive(Debug, Clone, Copy)]
pub struct DoorLimits {
    /// Requests in work at the same time; more wait. One caller may have half as many, in work
    /// and waiting; more are refused.
    pub in_flight_max: usize,
    /// Events of one request.
    pub request_events_max: usize,
}

/// A request that is durable on this host.
#[derive(Debug, Clone)]
pub struct Accepted {
    /// Its sequence; `None` for a batch without events, which needs no record.
    pub seq: Option<Seq>,
    /// How many events it holds.
    pub events: usize,
}

impl Door {
    /// A door with its name in metrics. `keep_rejected`, while true, has incomplete batches
    /// kept. Of events, so many requests are in work at the same time; webhooks have their
    /// lanes' bounds.
    #[must_use]
    pub fn new(
        name: &'static str,
        journal: Journal,
        metrics: Metrics,
        keep_rejected: Arc<AtomicBool>,
        health: Health,
        limits: DoorLimits,
    ) -> Self {
        Self(Arc::new(Inner {
            journal,
            metrics,
            keep_rejected,
            health,
            name,
            request_events_max: limits.request_events_max,
            in_work: AtomicUsize::new(0),
            places: Semaphore::new(limits.in_flight_max.min(Semaphore::MAX_PERMITS)),
            parts: Places::new(usize::MAX, limits.in_flight_max.div_ceil(2)),
        }))
    }

    /// This host's id, for answers.
    #[must_use]
    pub fn host(&self) -> &str {
        self.0.journal.host().as_str()
    }

    /// Events of one request.
    pub(super) fn request_events_max(&self) -> usize {
        self.0.request_events_max
    }

    /// How many batches of one request may be here at the same time: half of what one caller may
    /// have, so that another of its requests finds a place.
    pub(super) fn batches_at_once_max(&self) -> usize {
        self.0.parts.one_max().div_ceil(2)
    }

    /// Requests that are not answered yet.
    #[must_use]
    pub fn in_work(&self) -> usize {
        self.0.in_work.load(Ordering::Acquire)
    }

    /// Takes an `event.Events`: returns once it is durable, or says why not.
    /// `deadline` is the client's own, if it has one.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub async fn accept(
        &self,
        caller: &Caller,
        bytes: Bytes,
        deadline: Option<Duration>,
    ) -> Result<Accepted, Refusal> {
        let started = Instant::now();
        let _in_work = InWork::new(&self.0.in_work);
        let result = match self.place(caller, deadline).await {
            Ok(_place) => {
                let left = deadline.map(|deadline| deadline.saturating_sub(started.elapsed()));
                self.take(caller, bytes, left).await
            }
            Err(refusal) => Err(refusal),
        };
        match &result {
            Ok(accepted) => {
                self.0.metrics.request(self.0.name, "accepted");
                self.0
                    .metrics
                    .acknowledged(accepted.events, started.elapsed());
            }
            Err(refusal) => {
                self.0.metrics.request(self.0.name, refusal.outcome());
                let client = caller.name();
                tracing::debug!(door = self.0.name, client, %refusal, "request refused");
            }
        }
        result
    }

    /// Waits for its turn. A body on its way in takes no turn: who sends slowly holds up nobody;
    /// and who has as many requests here as one may is told so, and waits elsewhere.
    async fn place(
        &self,
        caller: &Caller,
        deadline: Option<Duration>,
    ) -> Result<(Place, SemaphorePermit<'_>), Refusal> {
        let own = self.0.parts.take(caller.whose(), 1);
        let own = own.map_err(|_: Short| Refusal::Busy)?;
        let turn = self.0.places.acquire();
        let turn = match deadline {
            None => turn.await,
            Some(deadline) => tokio::time::timeout(deadline, turn)
                .await
                .map_err(|_| AppendError::Deadline)?,
        };
        Ok((own, turn.map_err(|_| AppendError::Closed)?))
    }

    /// Counts a request that was refused before its bytes came here.
    pub fn refused(&self, refusal: Refusal) -> Refusal {
        self.0.metrics.request(self.0.name, refusal.outcome());
        refusal
    }

    /// Counts a request that was refused for what it is before its bytes came here.
    pub fn refused_malformed(&self) {
        self.0.metrics.request(self.0.name, "malformed");
    }

    /// Counts a request that was refused for its size before its bytes came here.
    pub fn refused_too_large(&self) {
        self.0.metrics.request(self.0.name, "too_large");
    }

    /// Takes a webhook, whose body is somebody's, has so many bytes and is read when its turn
    /// comes: returns once it is durable, or says why not. Counts what it takes; refusals are the
    /// lane's to count.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub(super) async fn accept_webhook(
        &self,
        source: Source,
        (readers, body): (&Readers, (Whose, usize)),
        read: impl FnOnce() -> Result<Stored, Refusal> + Send + 'static,
    ) -> Result<(), Refusal> {
        let started = Instant::now();
        let _in_work = InWork::new(&self.0.in_work);
        self.open()?;
        let received_at_ms = now_ms();
        let host = self.0.journal.host().clone();
        let made = move || {
            let stored = read()?;
            let receipt = Receipt {
                host: &host,
                seq: Seq(0),
                received_at_ms,
            };
            // What makes a message here makes one on the way out.
            stored
                .ready(source, receipt)
                .map_err(|reason| Refusal::BadWebhook(limits::reason(&reason)))?;
            Ok(stored.encode())
        };
        let content = readers.read(body, Refusal::BadWebhook, made).await?;
        let record = NewRecord {
            kind: Kind::Webhook(source),
            received_at_ms,
            reason: None,
            events: Tally::webhook(source),
            content,
        };
        self.0.journal.append(record, None).await?;
        self.0.metrics.request(self.0.name, "accepted");
        self.0.metrics.acknowledged(1, started.elapsed());
        Ok(())
    }

    /// Whether anything is taken at all. Looked at after the request counts as in work, and before
    /// by who would spare itself the work.
    pub(super) fn open(&self) -> Result<(), Refusal> {
        if self.0.health.is_draining() {
            Err(Refusal::Draining)
        } else {
            Ok(())
        }
    }

    async fn take(
        &self,
        caller: &Caller,
        bytes: Bytes,
        deadline: Option<Duration>,
    ) -> Result<Accepted, Refusal> {
        self.open()?;
        let found = scan::request(&bytes, self.0.request_events_max)?;
        let (events, header) = (found.events, validate::header(&found));
        if events == 0 && header.is_ok() {
            return Ok(Accepted { seq: None, events });
        }
        // Before anything is kept of it, be it complete or not.
        caller.admit(&found.tally)?;
        if let Err(invalid) = header {
            self.keep(bytes, invalid.to_string(), deadline).await?;
            return Err(Refusal::Incomplete);
        }
        let record = record(Kind::Dispatch, None, found.tally, bytes);
        let seq = self.0.journal.append(record, deadline).await?;
        Ok(Accepted {
            seq: Some(seq),
            events,
        })
    }

    /// Keeps a refused batch for diagnosis. When that fails the client must hear
    /// of it: it can send the same again, and nothing was kept.
    async fn keep(
        &self,
        bytes: Bytes,
        reason: String,
        deadline: Option<Duration>,
    ) -> Result<(), Refusal> {
        if self.0.keep_rejected.load(Ordering::Relaxed) {
            let record = record(Kind::Rejected, Some(reason), Tally::rejected(), bytes);
            self.0.journal.append(record, deadline).await?;
        }
        Ok(())
    }
}

/// Counts a request for as long as it lives, also when its client hangs up.
struct InWork<'a>(&'a AtomicUsize);

impl<'a> InWork<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(count)
    }
}

impl Drop for InWork<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

fn record(kind: Kind, reason: Option<String>, events: Tally, content: Bytes) -> NewRecord {
    NewRecord {
        kind,
        received_at_ms: now_ms(),
        reason,
        events,
        content,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::event::proto::{Event, Events, Header};
    use crate::ingest::Callers;
    use crate::journal::{Limits, Options, ReceiptLimits};
    use crate::port::Peer;
    use http::HeaderMap;
    use prost::Message as _;
    use std::net::SocketAddr;

    /// One before a journal of its own.
    pub(in crate::ingest) fn door(dir: &std::path::Path, in_flight_max: usize) -> Door {
        let journal = Journal::open(&Options {
            data_dir: dir.to_owned(),
            limits: Limits {
                max_bytes: 1 << 30,
                min_free_bytes: 1 << 20,
                reserve_bytes: 1 << 20,
                record_bytes_max: 1 << 20,
                generation_bytes: 4 << 20,
                generation_age: Duration::from_secs(600),
                queue_bytes_max: 4 << 20,
            },
            ack_deadline: Duration::from_secs(20),
            receipts: ReceiptLimits {
                keep: Duration::from_secs(60),
                max_bytes: 1 << 20,
            },
        });
        let journal = journal.unwrap();
        let health = Health::new(journal.clone());
        let limits = DoorLimits {
            in_flight_max,
            request_events_max: 10,
        };
        let keep_rejected = Arc::new(AtomicBool::new(true));
        Door::new(
            "grpc",
            journal,
            Metrics::new(),
            keep_rejected,
            health,
            limits,
        )
    }

    fn caller(host: u8) -> Caller {
        let peer = Peer {
            address: SocketAddr::from(([10, 0, 0, host], 1)),
            certificate: None,
        };
        Callers::default()
            .identify(&HeaderMap::new(), Some(&peer))
            .unwrap()
    }

    #[tokio::test]
    async fn one_caller_leaves_half_of_the_places() {
        let dir = tempfile::tempdir().unwrap();
        let door = door(dir.path(), 4);
        let batch = Events {
            header: Some(Header {
                device_id: "d".to_owned(),
                ..Header::default()
            }),
            events: vec![Event::default()],
        };
        let bytes = Bytes::from(batch.encode_to_vec());
        let send = async |host: u8, deadline: Option<Duration>| {
            let sent = door.accept(&caller(host), bytes.clone(), deadline).await;
            sent.map(drop).map_err(|refusal| refusal.outcome())
        };
        let (one, other) = (caller(1), caller(2));
        let held = [
            door.place(&one, None).await.unwrap(),
            door.place(&one, None).await.unwrap(),
        ];
        assert_eq!(send(1, None).await, Err("busy"), "it has its half");
        assert_eq!(send(2, None).await, Ok(()));
        // With all places taken the third waits, for as long as it wants to.
        let rest = [
            door.place(&other, None).await.unwrap(),
            door.place(&other, None).await.unwrap(),
        ];
        assert_eq!(
            send(3, Some(Duration::from_millis(20))).await,
            Err("unavailable")
        );
        drop(rest);
        assert_eq!(send(3, Some(Duration::from_secs(20))).await, Ok(()));
        drop(held);
        assert_eq!(send(1, None).await, Ok(()));
        assert_eq!(door.in_work(), 0);
    }
}
