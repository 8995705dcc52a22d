//! One worker of a consumer: takes messages, lets batches fill, writes them, and
//! settles each message by what became of its rows. Called by `consumer`.
//!
//! A message of several documents is taken apart when it comes (`taken`): from there on each
//! document is the message that it would be alone, and only the acknowledgement knows that they
//! came together.
//!
//! # Invariants
//! - A message is acknowledged after the rows of all its documents are committed, and after
//!   each refused row is confirmed elsewhere: on this queue for another attempt, or on
//!   the error exchange. A crash in between delivers it again.
//! - A batch is full by its rows and bytes, wherever that is in a message (test
//!   `batches_end_within_a_message`).
//! - What is handed back goes on while a batch is written: a sink that hangs keeps no other
//!   consumer's refusals (test `a_sink_that_hangs_keeps_no_other_consumers_refusals`).
//! - While the sink is away the batch is held, also over the loss of the broker:
//!   written rows are recognised when the messages come again.

use super::batch::{Batch, Items, Pending, Unsettled, taken};
use super::deliver::{Stopped, Target, Verdict};
use super::handlers::{self, Context, Input, KEPT_HEADERS};
use super::intake::Intake;
use super::launches;
use super::part::part;
use super::publisher::SafePublisher;
use super::window::Window;
use crate::broker::{Headers, Message, Session, Tag};
use crate::clock::now_ms;
use crate::config::Consumer;
use crate::event::envelope::{
    EARLIER_REASON_HEADER, HISTORY_HEADER, HOST_HEADER, INDEXES_HEADER, LETTER_HEADER, Origins,
    QUEUE_HEADER, REASON_HEADER, RECEIVED_HEADER, REFUSED_AT_HEADER, RETRY_COUNT_HEADER,
    SEQ_HEADER,
};
use crate::event::{history, limits};
use futures::stream::{FuturesUnordered, StreamExt as _};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// Why a worker ended.
#[derive(Debug)]
pub(super) enum End {
    /// The service stops.
    Stopped,
    /// The broker is lost; reconnect.
    Lost(String),
}

/// What a worker needs.
#[derive(Debug, Clone)]
pub(super) struct Worker {
    pub(super) consumer: Arc<Consumer>,
    pub(super) target: Target,
    pub(super) publisher: SafePublisher,
    pub(super) context: Context,
    /// Bytes of messages that it may hold, as far as they can be reckoned.
    pub(super) prefetch_bytes: u64,
    /// For rows that need a launch: whether those on their way have arrived.
    pub(super) arrived: Option<watch::Receiver<bool>>,
}

/// One event of a message, or a whole message, that was refused.
struct Refusal {
    /// Its place in the message; `None` is the whole message.
    at: Option<usize>,
    reason: String,
    /// Whether another attempt may help: only where the sink refused.
    retry: bool,
}

impl Worker {
    /// Works until the service stops or the broker is lost. Once the broker lets it consume,
    /// it adds a permit to `opened`.
    pub(super) async fn run(
        &self,
        session: Session,
        number: usize,
        (stop, opened): (CancellationToken, Arc<Semaphore>),
    ) -> End {
        let queue = &self.consumer.queue;
        let window = Window::new(self.consumer.batch_rows, self.prefetch_bytes);
        let tag = format!("holdfast-{queue}-{number}");
        let mut intake = match Intake::open(session, queue, tag, window).await {
            Ok(intake) => intake,
            Err(error) => return End::Lost(error.to_string()),
        };
        opened.add_permits(1);
        let end = match self.consume(&mut intake, &stop).await {
            Ok(end) | Err(end) => end,
        };
        intake.close().await;
        end
    }

    async fn consume(&self, intake: &mut Intake, stop: &CancellationToken) -> Result<End, End> {
        let mut batch = Batch::new(self.consumer.batch_rows);
        let are_events = self.consumer.handler.reads_events();
        let mut waiting: VecDeque<Pending> = VecDeque::new();
        let mut unsettled = Unsettled::default();
        let mut due = Instant::now();
        let mut handing_back = FuturesUnordered::new();
        loop {
            intake.follow_window().await.map_err(lost)?;
            if batch.is_empty() && !waiting.is_empty() {
                due = Instant::now() + self.consumer.batch_age;
            }
            batch.fill(&mut waiting);
            if batch.is_full() {
                due = Instant::now();
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(End::Stopped),
                Some(handed) = handing_back.next(), if !handing_back.is_empty() => {
                    let tag: Tag = handed?;
                    settle(intake, unsettled.done([tag])).await?;
                }
                () = sleep_until(due), if !batch.is_empty() => {
                    let mut writing = std::pin::pin!(self.write(batch.take(), stop));
                    // What is handed back goes on while the sink takes its time: it may hold what
                    // other consumers wait for.
                    let (done, rest) = loop {
                        tokio::select! {
                            biased;
                            written = &mut writing => break written?,
                            Some(handed) = handing_back.next(), if !handing_back.is_empty() => {
                                settle(intake, unsettled.done([handed?])).await?;
                            }
                        }
                    };
                    settle(intake, unsettled.done(done)).await?;
                    for (message, tag, refusals) in rest {
                        handing_back.push(self.hand_back(message, tag, refusals, stop));
                    }
                }
                next = intake.next(), if !batch.is_full() => {
                    let Some(delivery) = next.map_err(lost)? else {
                        continue;
                    };
                    let tag = delivery.tag;
                    let documents = taken(delivery, are_events, |message| self.handle(message));
                    unsettled.add(tag, documents.len());
                    waiting.extend(documents);
                }
            }
        }
    }

    /// Runs the handler; a panic in it refuses this message alone.
    fn handle(&self, message: &Message) -> Items {
        let (handler, table) = (self.consumer.handler, self.target.table);
        handlers::run_guarded(handler, table, &input(message), &self.context, now_ms())
    }

    /// Writes the rows of a batch: the documents whose rows are all committed, and the others
    /// with what was refused of them.
    async fn write(
        &self,
        documents: Vec<Pending>,
        stop: &CancellationToken,
    ) -> Result<(Vec<Tag>, Vec<Refused>), End> {
        let mut refusals: Vec<Vec<Refusal>> = documents.iter().map(|_| Vec::new()).collect();
        let (mut rows, mut ids, mut places) = (Vec::new(), Vec::new(), Vec::new());
        let mut sources = Vec::with_capacity(documents.len());
        for (of, document) in documents.into_iter().enumerate() {
            match document.items {
                Err(reason) => refusals[of].push(Refusal {
                    at: None,
                    reason,
                    retry: false,
                }),
                Ok(items) => {
                    for (at, item) in items.into_iter().enumerate() {
                        match item {
                            Err(reason) => refusals[of].push(Refusal {
                                at: Some(at),
                                reason,
                                retry: false,
                            }),
                            Ok(new) => {
                                rows.push(new.row);
                                ids.push(new.id);
                                places.push((of, at));
                            }
                        }
                    }
                }
            }
            sources.push((document.message, document.tag));
        }
        if let Some(arrived) = &self.arrived {
            let launches = launches::find(&self.target, &rows, &mut arrived.clone(), stop).await?;
            let looked_up = rows.len();
            (rows, ids, places) =
                launches::complete(self.target.table, (rows, ids, places), launches);
            let metrics = &self.target.metrics;
            metrics.consumed(&self.consumer.queue, "no_launch", looked_up - rows.len());
        }
        let verdicts = self.target.write(rows.into(), &ids, stop).await;
        let verdicts = verdicts.map_err(|Stopped| End::Stopped)?;
        let mut written = 0;
        for ((of, at), verdict) in places.into_iter().zip(verdicts) {
            match verdict {
                Verdict::Written => written += 1,
                Verdict::Refused(reason) => refusals[of].push(Refusal {
                    at: Some(at),
                    reason: limits::reason(&reason),
                    retry: true,
                }),
            }
        }
        let metrics = &self.target.metrics;
        metrics.consumed(&self.consumer.queue, "written", written);
        let (mut done, mut rest) = (Vec::new(), Vec::new());
        for ((message, tag), refusals) in sources.into_iter().zip(refusals) {
            if refusals.is_empty() {
                done.push(tag);
            } else {
                rest.push((message, tag, refusals));
            }
        }
        Ok((done, rest))
    }

    /// Makes the refused parts of a document safe elsewhere; it is done with then.
    async fn hand_back(
        &self,
        document: Message,
        tag: Tag,
        refusals: Vec<Refusal>,
        stop: &CancellationToken,
    ) -> Result<Tag, End> {
        let consumer = &self.consumer;
        let metrics = &self.target.metrics;
        let attempts = document.headers.int(RETRY_COUNT_HEADER).unwrap_or(0);
        let attempts = u32::try_from(attempts).unwrap_or(0).saturating_add(1);
        let again = attempts < consumer.max_attempts;
        if again && refusals.iter().any(|refusal| refusal.retry) {
            tokio::select! {
                () = tokio::time::sleep(consumer.retry_delay) => {}
                () = stop.cancelled() => return Err(End::Stopped),
            }
        }
        for refusal in refusals {
            let mut message = part(&document, refusal.at);
            let headers = &mut message.headers;
            headers.set(RETRY_COUNT_HEADER, i64::from(attempts));
            let now_ms = now_ms();
            let line = history::refused(now_ms, &consumer.queue, attempts, &refusal.reason);
            let lines = history::with(headers.list(HISTORY_HEADER), line);
            headers.set(HISTORY_HEADER, lines);
            let queue = if again && refusal.retry {
                metrics.consumed(&consumer.queue, "retried", 1);
                // The default exchange reaches this queue alone; the key is kept aside.
                message.exchange = String::new();
                message.routing_key.clone_from(&consumer.queue);
                &consumer.queue
            } else {
                let outcome = if refusal.at.is_none() {
                    "unreadable"
                } else {
                    "refused"
                };
                metrics.consumed(&consumer.queue, outcome, 1);
                tracing::warn!(
                    queue = consumer.queue,
                    reason = refusal.reason,
                    attempts,
                    error_exchange = consumer.error_exchange,
                    key = consumer.error_key,
                    "message refused; to the error exchange"
                );
                let earlier = headers.set(REASON_HEADER, refusal.reason.clone());
                headers.set(REFUSED_AT_HEADER, now_ms);
                if headers.text(LETTER_HEADER).is_none() {
                    headers.set(LETTER_HEADER, uuid::Uuid::new_v4().simple().to_string());
                }
                // What was refused before goes back to where it was refused first.
                if headers.text(QUEUE_HEADER).is_none() {
                    headers.set(QUEUE_HEADER, consumer.queue.clone());
                    // It came with a reason from elsewhere, which a replay gives back.
                    if let Some(earlier) = earlier {
                        headers.set(EARLIER_REASON_HEADER, earlier);
                    }
                }
                message.exchange.clone_from(&consumer.error_exchange);
                message.routing_key.clone_from(&consumer.error_key);
                // What this consumer's attempts were says nothing to the next one's.
                message.headers.set(RETRY_COUNT_HEADER, 0_i64);
                &consumer.error_queue
            };
            let publish =
                self.publisher
                    .publish(&consumer.queue, (&message, queue), &refusal.reason, stop);
            Box::pin(publish).await.map_err(|Stopped| End::Stopped)?;
        }
        Ok(tag)
    }
}

/// A document of a delivery with what was refused of it.
type Refused = (Message, Tag, Vec<Refusal>);

/// What handlers read of a message.
pub(super) fn input(message: &Message) -> Input<'_> {
    let headers = &message.headers;
    let (host, indexes) = (headers.text(HOST_HEADER), headers.text(INDEXES_HEADER));
    let sent_at_s = message.timestamp_s.and_then(|s| i64::try_from(s).ok());
    let seq = headers.int(SEQ_HEADER);
    let received_at_ms = headers.int(RECEIVED_HEADER);
    Input {
        content_type: message.content_type.as_deref(),
        body: &message.body,
        origins: Origins::from_headers(host.as_deref(), seq, indexes.as_deref()),
        reason: headers.text(REASON_HEADER).map(|r| r.into_owned()),
        headers: kept_headers(headers),
        message_id: message.message_id.as_deref(),
        sent_at_ms: received_at_ms.or_else(|| sent_at_s?.checked_mul(1000)),
        received_at_ms,
    }
}

/// The headers that handlers may read; producers differ in their case.
fn kept_headers(headers: &Headers) -> BTreeMap<&'static str, String> {
    let mut kept = BTreeMap::new();
    for (name, _) in headers.iter() {
        let known = KEPT_HEADERS.iter().find(|k| k.eq_ignore_ascii_case(name));
        if let (Some(&known), Some(text)) = (known, headers.text(name)) {
            kept.insert(known, text.into_owned());
        }
    }
    kept
}

async fn settle(intake: &Intake, tags: Vec<Tag>) -> Result<(), End> {
    if tags.is_empty() {
        return Ok(());
    }
    intake.ack(&tags).await.map_err(lost)
}

fn lost(error: impl std::error::Error) -> End {
    End::Lost(error.to_string())
}
