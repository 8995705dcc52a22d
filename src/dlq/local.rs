//! Letters in this host's file: rows that a sink refused where there is no broker, and
//! messages that no queue took. Called by `cli`, through `mod.rs`, also beside a running
//! service.
//!
//! # Invariants
//! - A letter is settled after the sink's commit, or the broker's confirm (test
//!   `a_dead_letter_is_replayed_into_its_table`).
//! - A message that a consumer refused is replayed as it came (`again`).
//! - A letter is tried once, though what comes of it be set aside while the others are (test
//!   `what_is_set_aside_again_is_for_the_next_time`).
//! - What was not tried keeps the reason that it is here for (test
//!   `what_was_not_tried_keeps_its_reason`).

use super::again::untried;
use super::letter::{Filter, Letter};
use super::queues::Queues;
use super::repaired::Repaired;
use super::{Act, DlqError, Report};
use crate::broker::Message;
use crate::clock::now_ms;
use crate::consume::handlers::Context;
use crate::consume::{Replayed, Taker, into_sink};
use crate::dead_letters::{DeadLetter, Desk, Kept, State, Tallies};
use crate::event::envelope::{self, QUEUE_HEADER};
use crate::event::parcel::{Destination, Parcel};
use crate::sink::Sink;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

/// The place's name.
pub const DEAD_LETTERS: &str = "dead_letters.sqlite";

/// The file of a data directory, with what its letters were on their way to.
#[derive(Debug)]
pub struct Local {
    desk: Desk,
    sinks: Vec<Arc<dyn Sink>>,
    takers: Vec<Taker>,
}

/// What became of one letter.
enum Fate {
    Arrived,
    /// By a handler, a sink or the broker: their word is the letter's reason from now on.
    Refused(String),
    /// It was not tried; why it is here is as true as before.
    Untried(String),
}

impl Local {
    /// Opens the file; `None` when nothing was ever set aside.
    #[must_use]
    pub fn open(data_dir: &Path, sinks: Vec<Arc<dyn Sink>>, takers: Vec<Taker>) -> Option<Self> {
        Some(Self {
            desk: Desk::open(data_dir)?,
            sinks,
            takers,
        })
    }

    /// All letters ever set aside, by way out.
    ///
    /// # Errors
    /// [`DlqError::Desk`].
    pub async fn tallies(&self) -> Result<Vec<Tallies>, DlqError> {
        Ok(self.desk.tallies().await?)
    }

    /// Shows the letters that are meant, one after the other, until `show` has enough.
    ///
    /// # Errors
    /// [`DlqError::Desk`].
    pub async fn look(
        &self,
        filter: &Filter,
        mut show: impl FnMut(Letter) -> ControlFlow<()>,
    ) -> Result<Report, DlqError> {
        let mut report = Report::of(DEAD_LETTERS);
        let mut after = 0;
        loop {
            let page = self.desk.waiting(after).await?;
            let Some(last) = page.last() else {
                return Ok(report);
            };
            after = last.id;
            for kept in &page {
                report.seen += 1;
                let letter = Letter::of_kept(DEAD_LETTERS, kept);
                if filter.means(&letter) {
                    report.matched += 1;
                    if show(letter).is_break() {
                        return Ok(report);
                    }
                }
            }
        }
    }

    /// Replays or purges the letters that are meant: what was done, and what ended the work
    /// early, if anything did. What was not done waits as before. `queues` is the broker, or
    /// why there is none; `to` another queue for messages.
    pub async fn change(
        &self,
        filter: &Filter,
        act: Act,
        to: Option<&str>,
        repaired: &Repaired,
        queues: Result<&mut Queues, &str>,
    ) -> (Report, Result<(), DlqError>) {
        let mut report = Report::of(DEAD_LETTERS);
        let meant = (filter, act, to, repaired);
        let ended = self.change_all(&mut report, meant, queues).await;
        (report, ended)
    }

    async fn change_all(
        &self,
        report: &mut Report,
        (filter, act, to, repaired): (&Filter, Act, Option<&str>, &Repaired),
        mut queues: Result<&mut Queues, &str>,
    ) -> Result<(), DlqError> {
        // What is set aside again meanwhile has another number, and is for the next time.
        let newest = self.desk.newest().await?;
        let mut after = 0;
        while after < newest {
            let page = self.desk.waiting(after).await?;
            let Some(last) = page.last() else {
                break;
            };
            after = last.id;
            for mut kept in page.into_iter().filter(|kept| kept.id <= newest) {
                report.seen += 1;
                let letter = Letter::of_kept(DEAD_LETTERS, &kept);
                let body = repaired.body(&letter.id);
                if !filter.means(&letter) || (!repaired.is_empty() && body.is_none()) {
                    continue;
                }
                report.meant(&letter.id, body.is_some());
                if act == Act::Purge {
                    let purged = self.desk.settle(kept.id, State::Purged, now_ms()).await?;
                    report.done += u64::from(purged);
                } else if act == Act::Replay {
                    if let Some(body) = body {
                        mend(&mut kept.letter, body.to_vec());
                    }
                    let queues = queues.as_deref_mut().map_err(|why| &**why);
                    let fate = self.send(&kept, to, queues).await?;
                    self.settle(&kept, fate, report).await?;
                }
            }
        }
        Ok(())
    }

    async fn settle(&self, kept: &Kept, fate: Fate, report: &mut Report) -> Result<(), DlqError> {
        match fate {
            Fate::Arrived => {
                let settled = self.desk.settle(kept.id, State::Replayed, now_ms());
                report.done += u64::from(settled.await?);
            }
            Fate::Refused(reason) => {
                report.fail(&kept.id.to_string(), &reason);
                self.desk.refused_again(kept.id, &reason).await?;
            }
            Fate::Untried(why) => report.fail(&kept.id.to_string(), why),
        }
        Ok(())
    }

    async fn send(
        &self,
        kept: &Kept,
        to: Option<&str>,
        queues: Result<&mut Queues, &str>,
    ) -> Result<Fate, DlqError> {
        let letter = &kept.letter;
        let parcel = match &letter.destination {
            Destination::Message(parcel) => parcel,
            Destination::Nowhere => return Ok(Fate::Untried("it cannot be read".to_owned())),
            Destination::Table { .. } | Destination::Webhook { .. } => {
                return self.write(letter).await;
            }
        };
        let queues = match queues {
            Ok(queues) => queues,
            Err(why) => return Ok(Fate::Untried(why.to_owned())),
        };
        let message = message_of(letter, parcel.clone(), to);
        let sent = queues.send_one(&message).await?;
        Ok(match sent {
            Ok(()) => Fate::Arrived,
            Err(reason) => Fate::Refused(reason),
        })
    }

    async fn write(&self, letter: &DeadLetter) -> Result<Fate, DlqError> {
        let sink = self.sinks.iter().find(|sink| sink.name() == letter.way_out);
        let Some(sink) = sink else {
            let reason = format!("the sink {:?} is not configured", letter.way_out);
            return Ok(Fate::Untried(reason));
        };
        let context = Context::default();
        let replayed = into_sink(letter, &**sink, &self.takers, &context, now_ms()).await;
        match replayed {
            Replayed::Written => Ok(Fate::Arrived),
            Replayed::Refused(reason) => Ok(Fate::Refused(reason)),
            Replayed::Away(reason) => Err(DlqError::SinkAway {
                sink: sink.name().to_owned(),
                reason,
            }),
        }
    }

    /// Closes the file.
    pub async fn close(&self) {
        self.desk.close().await;
    }
}

/// What a letter was, or as it came where a consumer refused it. What the forwarder set aside on
/// its way to an error queue keeps its reason, which is read there.
fn message_of(letter: &DeadLetter, mut parcel: Parcel, to: Option<&str>) -> Message {
    if let Some(to) = to {
        parcel.exchange = String::new();
        to.clone_into(&mut parcel.routing_key);
    }
    let body = letter.body.clone().into();
    let mut message = Message::of_parcel(parcel, &letter.content_type, body);
    let refused_by = message.headers.text(QUEUE_HEADER);
    let goes_back = |queue: &str| to.is_some() || queue == message.routing_key;
    if refused_by.is_some_and(|queue| goes_back(&queue)) {
        let queue = message.routing_key.clone();
        untried(&mut message.headers, DEAD_LETTERS, &queue);
    }
    message
}

/// Puts a mended body into a letter. It is JSON, as people write it, unless it was bytes
/// before and is no JSON now.
fn mend(letter: &mut DeadLetter, body: Vec<u8>) {
    if letter.content_type == envelope::PROTOBUF
        && serde_json::from_slice::<serde::de::IgnoredAny>(&body).is_ok()
    {
        letter.content_type = envelope::JSON.to_owned();
    }
    letter.body = body;
}

#[cfg(test)]
#[path = "local_tests.rs"]
mod tests;
