//! A dead letter of a way out without a broker, into its sink again: by the handlers that
//! made its row the first time. Called by `dlq`.
//!
//! # Invariants
//! - The row has the id and the origin that it had the first time, so that a replay that
//!   is repeated, or comes after all beside the first, shows once.
//! - What the sink refuses, and what no handler takes, stays a letter.

use super::deliver::token;
use super::handlers::{self, Context, Item, NewRow};
use super::webhooks::{Taker, handle};
use crate::dead_letters::DeadLetter;
use crate::event::envelope::{self, Origins};
use crate::event::identity::{HostId, Seq, parse_indexes};
use crate::event::limits;
use crate::event::parcel::Destination;
use crate::event::webhook::{Receipt, Stored};
use crate::sink::schema::{ERROR_EVENTS, EVENTS, Table};
use crate::sink::{Batch, Sink, WriteError};

/// What became of a letter's replay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replayed {
    /// Its rows are committed.
    Written,
    /// It is refused as it was before, for this reason.
    Refused(String),
    /// The sink is away; worth another try later.
    Away(String),
}

/// Rows with their tables.
type Rows = Vec<(&'static Table, NewRow)>;

/// Writes a letter's rows.
pub async fn into_sink(
    letter: &DeadLetter,
    sink: &dyn Sink,
    takers: &[Taker],
    context: &Context,
    now_ms: i64,
) -> Replayed {
    let rows = match rows(letter, takers, context, now_ms) {
        Ok(rows) => rows,
        Err(reason) => return Replayed::Refused(limits::reason(&reason)),
    };
    for (table, new) in rows {
        let batch = Batch {
            table,
            namespace: None,
            rows: vec![new.row].into(),
            token: token(table, &[new.id]),
        };
        match sink.write(&batch).await {
            Ok(()) => {}
            Err(WriteError::Refused { reason }) => {
                return Replayed::Refused(limits::reason(&reason));
            }
            Err(WriteError::Unavailable { reason, .. }) => return Replayed::Away(reason),
        }
    }
    Replayed::Written
}

fn rows(
    letter: &DeadLetter,
    takers: &[Taker],
    context: &Context,
    now_ms: i64,
) -> Result<Rows, String> {
    match &letter.destination {
        Destination::Table { name, reason } => {
            let indexes = parse_indexes(&letter.indexes, limits::EVENTS_PER_MESSAGE_MAX);
            let origins = Origins {
                host: letter.host.clone(),
                seq: letter.seq,
                indexes: indexes.unwrap_or_default(),
            };
            let batch = envelope::decode(Some(&letter.content_type), &letter.body);
            let batch = batch.map_err(|error| error.to_string())?;
            let (table, items): (_, Vec<Item>) = if name == ERROR_EVENTS.name {
                let reason = reason.as_deref().unwrap_or(&letter.reason);
                let clocks = handlers::Clocks {
                    received_at_ms: None,
                    now_ms,
                };
                let items =
                    handlers::error_rows(batch.parts(), &origins, reason, &letter.body, clocks);
                (&ERROR_EVENTS, items)
            } else {
                (&EVENTS, handlers::rows(batch.parts(), &origins, now_ms))
            };
            if items.is_empty() {
                return Err("the letter has no events".to_owned());
            }
            items.into_iter().map(|item| Ok((table, item?))).collect()
        }
        Destination::Webhook {
            source,
            received_at_ms,
            headers,
        } => {
            let host = HostId::parse(&letter.host).map_err(|error| error.to_string())?;
            let receipt = Receipt {
                host: &host,
                seq: Seq(letter.seq),
                received_at_ms: *received_at_ms,
            };
            let stored = Stored {
                headers: headers.clone(),
                body: letter.body.clone().into(),
            };
            let ready = stored.ready(*source, receipt)?;
            let (rows, refused) = handle(takers, *source, receipt, &ready, context, now_ms);
            refused.map_or(Ok(rows), Err)
        }
        Destination::Message(_) => Err("it was on its way to the broker".to_owned()),
        Destination::Nowhere => Err("it cannot be read".to_owned()),
    }
}
