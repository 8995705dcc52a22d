//! Without a broker: which handlers take a webhook, and the rows that they make of it.
//! Called by `direct`.
//!
//! # Invariants
//! - A webhook that nothing takes is refused, not passed over.
//! - It fills a table once, however many consumers fill that table.

use super::handlers::{self, Context, Input, KEPT_HEADERS, NewRow};
use crate::config::{Handler, binding_matches};
use crate::event::envelope::{self, Origins};
use crate::event::identity::HostId;
use crate::event::parcel::Destination;
use crate::event::webhook::{Ready, Receipt, Source, Stored};
use crate::journal::Record;
use crate::sink::schema::Table;

/// A handler of a source's webhooks, bound as its consumer would be.
#[derive(Debug, Clone)]
pub struct Taker {
    /// The source.
    pub source: Source,
    /// The exchange that its messages would go to.
    pub exchange: String,
    /// Binding keys.
    pub keys: Vec<String>,
    /// What makes rows.
    pub handler: Handler,
    /// The table that they fill.
    pub table: &'static Table,
}

/// What becomes of a webhook.
pub(super) struct Made {
    /// Rows with their tables.
    pub(super) rows: Vec<(&'static Table, NewRow)>,
    /// Why there are none, or not all.
    pub(super) refused: Option<String>,
    /// Its content type, its body as the sender wrote it, and where it was going: for the
    /// dead letters.
    pub(super) letter: (&'static str, Vec<u8>, Destination),
}

/// Runs the handlers that take a webhook.
pub(super) fn make(
    takers: &[Taker],
    source: Source,
    record: &Record,
    host: &HostId,
    context: &Context,
    now_ms: i64,
) -> Made {
    let receipt = Receipt {
        host,
        seq: record.seq,
        received_at_ms: record.received_at_ms,
    };
    let stored = match Stored::decode(&record.content) {
        Ok(stored) => stored,
        Err(reason) => {
            let body = record.content.to_vec();
            return Made {
                rows: Vec::new(),
                refused: Some(reason),
                letter: (envelope::WEBHOOK, body, Destination::Nowhere),
            };
        }
    };
    let destination = Destination::Webhook {
        source,
        received_at_ms: record.received_at_ms,
        headers: stored.headers.clone(),
    };
    let letter = (envelope::JSON, stored.body.to_vec(), destination);
    let (rows, refused) = match stored.ready(source, receipt) {
        Ok(ready) => handle(takers, source, receipt, &ready, context, now_ms),
        Err(reason) => (Vec::new(), Some(reason)),
    };
    Made {
        rows,
        refused,
        letter,
    }
}

/// The rows of a webhook, and why there are none, or not all.
pub(super) fn handle(
    takers: &[Taker],
    source: Source,
    receipt: Receipt<'_>,
    ready: &Ready,
    context: &Context,
    now_ms: i64,
) -> (Vec<(&'static Table, NewRow)>, Option<String>) {
    let (mut rows, mut refused) = (Vec::new(), None);
    let mut tables: Vec<&str> = Vec::new();
    for taker in takers
        .iter()
        .filter(|taker| taker.takes(source, &ready.key))
    {
        if tables.contains(&taker.table.name) {
            continue;
        }
        tables.push(taker.table.name);
        match run(taker, receipt, ready, context, now_ms) {
            Ok(made) => {
                for item in made {
                    match item {
                        Ok(row) => rows.push((taker.table, row)),
                        Err(reason) => refused = Some(reason),
                    }
                }
            }
            Err(reason) => refused = Some(reason),
        }
    }
    if tables.is_empty() {
        refused = Some(format!(
            "no consumer takes key {:?} of {}",
            ready.key,
            source.name()
        ));
    }
    (rows, refused)
}

impl Taker {
    fn takes(&self, source: Source, key: &str) -> bool {
        let binds = |binding: &String| binding_matches(&self.exchange, binding, key);
        self.source == source && self.keys.iter().any(binds)
    }
}

fn run(
    taker: &Taker,
    receipt: Receipt<'_>,
    ready: &Ready,
    context: &Context,
    now_ms: i64,
) -> Result<Vec<handlers::Item>, String> {
    let (host, seq) = (receipt.host, receipt.seq);
    let message_id = format!("{host}-{seq}-0");
    let headers = KEPT_HEADERS
        .into_iter()
        .filter_map(|name| Some((name, ready.headers.get(name)?.clone())));
    let input = Input {
        content_type: Some(envelope::JSON),
        body: &ready.body,
        origins: Origins {
            host: host.to_string(),
            seq: seq.0,
            indexes: vec![0],
        },
        reason: None,
        headers: headers.collect(),
        message_id: Some(&message_id),
        sent_at_ms: Some(receipt.received_at_ms),
        received_at_ms: Some(receipt.received_at_ms),
    };
    handlers::run_guarded(taker.handler, taker.table, &input, context, now_ms)
}
