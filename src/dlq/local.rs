//! Letters in this host's file: rows that a sink refused where there is no broker, and
//! messages that no queue took. Called by `cli`, through `mod.rs`, also beside a running
//! service.
//!
//! # Invariants
//! - A letter is settled after the sink's commit, or the broker's confirm (test
//!   `a_dead_letter_is_replayed_into_its_table`).

use super::letter::{Filter, Letter};
use super::queues::Queues;
use super::repaired::Repaired;
use super::{Act, DlqError, Report};
use crate::broker::Message;
use crate::clock::now_ms;
use crate::consume::handlers::Context;
use crate::consume::{Replayed, Taker, into_sink};
use crate::dead_letters::{DeadLetter, Desk, Kept, State, Tallies};
use crate::event::envelope;
use crate::event::parcel::Destination;
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
    Refused(String),
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
    /// early, if anything did. What was not done waits as before. `queues` is the broker,
    /// where there is one; `to` another queue for messages.
    pub async fn change(
        &self,
        filter: &Filter,
        act: Act,
        to: Option<&str>,
        repaired: &Repaired,
        queues: Option<&mut Queues>,
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
        mut queues: Option<&mut Queues>,
    ) -> Result<(), DlqError> {
        let mut after = 0;
        loop {
            let page = self.desk.waiting(after).await?;
            let Some(last) = page.last() else {
                return Ok(());
            };
            after = last.id;
            for mut kept in page {
                report.seen += 1;
                let letter = Letter::of_kept(DEAD_LETTERS, &kept);
                let body = repaired.body(&letter.id);
                if !filter.means(&letter) || (!repaired.is_empty() && body.is_none()) {
                    continue;
                }
                report.matched += 1;
                if act == Act::Purge {
                    let purged = self.desk.settle(kept.id, State::Purged, now_ms()).await?;
                    report.done += u64::from(purged);
                } else if act == Act::Replay {
                    if let Some(body) = body {
                        mend(&mut kept.letter, body.to_vec());
                    }
                    let fate = self.send(&kept, to, queues.as_deref_mut()).await?;
                    self.settle(&kept, fate, report).await?;
                }
            }
        }
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
        }
        Ok(())
    }

    async fn send(
        &self,
        kept: &Kept,
        to: Option<&str>,
        queues: Option<&mut Queues>,
    ) -> Result<Fate, DlqError> {
        let letter = &kept.letter;
        let Destination::Message(parcel) = &letter.destination else {
            return self.write(letter).await;
        };
        let Some(queues) = queues else {
            let reason = "it was on its way to a broker, and none is configured";
            return Ok(Fate::Refused(reason.to_owned()));
        };
        let mut parcel = parcel.clone();
        if let Some(to) = to {
            parcel.exchange = String::new();
            to.clone_into(&mut parcel.routing_key);
        }
        let body = letter.body.clone().into();
        let message = Message::of_parcel(parcel, &letter.content_type, body);
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
            return Ok(Fate::Refused(reason));
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
