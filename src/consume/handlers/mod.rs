//! Pure functions from a message to rows, one file for each message family.
//! Called by `worker` and `direct`.
//!
//! # Invariants
//! - No I/O and no clock: the time comes in. The same message gives the same rows
//!   (but for `insert_timestamp`) and the same ids.

mod ab;
mod affiliate;
mod bigboss;
mod bots;
mod branch;
mod cells;
mod click;
mod events;
mod flat;
mod graphy;
mod launch;
mod partner_activity;
pub mod referral;
mod shopify;
mod trace_log;
mod useragent;
mod webengage_calls;
mod webengage_event;

pub use crate::event::fields;
pub use bots::Bots;
pub use events::{Clocks, error_rows, rows};

use crate::config::{Consumer, Handler};
use crate::event::batch::Batch;
use crate::event::envelope::{self, BODY_ID_HEADER, Origins};
use crate::event::guarded::{PANICKED, unless_it_panics};
use crate::event::limits;
use crate::event::split;
use crate::sink::schema::{self, Table};
use crate::sink::{Row, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

/// AMQP headers that handlers may read, in lower case, beside those of where events came from.
pub const KEPT_HEADERS: [&str; 13] = [
    "accept-language",
    "authorization",
    "x-apollo-operation-name",
    "x-bb-channelid",
    "x-bb-clientid",
    "x-bb-clienttype",
    "x-bb-custom-deviceid",
    "x-bb-deviceid",
    "x-bb-os",
    "x-bb-requestid",
    "x-bb-user-rt",
    "x-bb-version-name",
    BODY_ID_HEADER,
];

/// What a handler reads of a message.
#[derive(Debug, Default)]
pub struct Input<'a> {
    /// The body's content type, if the producer set one.
    pub content_type: Option<&'a str>,
    /// The body.
    pub body: &'a [u8],
    /// Where its events came from.
    pub origins: Origins,
    /// Why it was refused before, for error queues.
    pub reason: Option<String>,
    /// The [`KEPT_HEADERS`] that it has.
    pub headers: BTreeMap<&'static str, String>,
    /// The producer's id of the message.
    pub message_id: Option<&'a str>,
    /// When the producer made it, or our door received it; epoch milliseconds.
    pub sent_at_ms: Option<i64>,
    /// When our door received it, if it came through one; epoch milliseconds.
    pub received_at_ms: Option<i64>,
}

/// One row, or why there is none; the place in the list is the event's place in
/// the message.
pub type Item = Result<NewRow, String>;

/// A row and what identifies it.
#[derive(Debug, Clone)]
pub struct NewRow {
    /// The row.
    pub row: Row,
    /// Its identity: part of the batch's deduplication token.
    pub id: String,
}

/// What all handlers may lean on beside the message: state of this process.
#[derive(Debug, Clone, Default)]
pub struct Context {
    /// What tells clicks of bots.
    pub bots: Arc<Bots>,
}

/// The table that a handler fills; [`Handler::FlatJson`] has the consumer's own.
#[must_use]
pub fn table(handler: Handler) -> Option<&'static Table> {
    Some(match handler {
        Handler::Events | Handler::Click => &schema::EVENTS,
        Handler::ErrorEvents => &schema::ERROR_EVENTS,
        Handler::AppInit => &schema::APP_INIT_EVENTS,
        Handler::LaunchRefer => &schema::LAUNCH_REFER_EVENTS,
        Handler::AccountCreated => &schema::SIGNUP_REFERRAL_EVENTS,
        Handler::ProfileCompleted => &schema::PROFILE_COMPLETION_REFERRAL_EVENTS,
        Handler::AbAssignments => &schema::AB_ASSIGNMENTS,
        Handler::Branch => &schema::BRANCH_EVENTS,
        Handler::Graphy => &schema::GRAPHY_EVENTS,
        Handler::TraceLog => &schema::TRACE_LOG_EVENTS,
        Handler::AffiliateOrder => &schema::AFFILIATE_ORDER_EVENTS,
        Handler::BigbossVote => &schema::BIGBOSS_VOTE_LOG,
        Handler::PostLog => &schema::POST_LOG_EVENTS,
        Handler::SentimentLog => &schema::SENTIMENT_LOG_EVENTS,
        Handler::PostActivityLog => &schema::POST_ACTIVITY_LOG_EVENTS,
        Handler::ProfileLog => &schema::PROFILE_LOG_EVENTS,
        Handler::ProfileRelationshipLog => &schema::PROFILE_RELATIONSHIP_LOG_EVENTS,
        Handler::ScrapeRequestLog => &schema::SCRAPE_REQUEST_LOG_EVENTS,
        Handler::OrderLog => &schema::ORDER_LOG_EVENTS,
        Handler::Shopify => &schema::SHOPIFY_EVENTS,
        Handler::WebEngageEvent => &schema::WEBENGAGE_EVENTS,
        Handler::PartnerActivity => &schema::PARTNER_ACTIVITY_LOG_EVENTS,
        Handler::GraphyCall => &schema::GRAPHY_CALLS,
        Handler::WebEngageCall => &schema::WEBENGAGE_EVENT_CALLS,
        Handler::WebEngageUserCall => &schema::WEBENGAGE_USER_CALLS,
        Handler::FlatJson => return None,
    })
}

/// The table that a consumer fills. Makes a new one, for good, for each call with a
/// consumer that has columns of its own: call it once at the start.
#[must_use]
pub fn table_of(consumer: &Consumer) -> &'static Table {
    table(consumer.handler).unwrap_or_else(|| flat::table(consumer))
}

/// Runs a handler on a message for `table`. `Err` is why the message as a whole cannot
/// be read.
///
/// # Errors
/// The reason, fit for headers and logs.
pub fn run(
    handler: Handler,
    table: &'static Table,
    input: &Input<'_>,
    context: &Context,
    now_ms: i64,
) -> Result<Vec<Item>, String> {
    let row = match handler {
        Handler::Events => {
            let items = rows(batch(input)?.parts(), &input.origins, now_ms);
            if items.is_empty() {
                return Err("the message has no events".to_owned());
            }
            return Ok(items);
        }
        Handler::ErrorEvents => {
            let reason = input.reason.as_deref().unwrap_or_default();
            let batch = batch(input)?;
            return Ok(error_rows(
                batch.parts(),
                &input.origins,
                reason,
                input.body,
                Clocks {
                    received_at_ms: input.received_at_ms,
                    now_ms,
                },
            ));
        }
        Handler::Click => click::row(input, &context.bots, now_ms),
        Handler::AppInit => launch::app_init(input, now_ms),
        Handler::LaunchRefer => launch::refer(input, now_ms),
        Handler::AccountCreated => referral::signup(input),
        Handler::ProfileCompleted => referral::profile(input, now_ms),
        Handler::AbAssignments => ab::row(input),
        Handler::Branch => branch::row(input, now_ms),
        Handler::Graphy => graphy::row(input, now_ms),
        Handler::TraceLog => trace_log::row(input, now_ms),
        Handler::AffiliateOrder => affiliate::row(input),
        Handler::BigbossVote => bigboss::row(input),
        Handler::PostLog
        | Handler::SentimentLog
        | Handler::PostActivityLog
        | Handler::ProfileLog
        | Handler::ProfileRelationshipLog
        | Handler::ScrapeRequestLog
        | Handler::OrderLog => flat::log(table, input, now_ms),
        Handler::Shopify => shopify::row(input, now_ms),
        Handler::WebEngageEvent => webengage_event::row(input),
        Handler::PartnerActivity => partner_activity::row(input, now_ms),
        Handler::WebEngageCall => webengage_calls::event(input),
        Handler::WebEngageUserCall => webengage_calls::user(input),
        Handler::GraphyCall => {
            let call = webengage_calls::learner(input, now_ms);
            let call = call.map_err(|reason| limits::reason(&reason))?;
            return Ok(call.map(Ok).into_iter().collect());
        }
        Handler::FlatJson => flat::own(table, input),
    };
    let row = row.map_err(|reason| limits::reason(&reason))?;
    Ok(vec![Ok(row)])
}

/// Runs a handler as [`run`] does; a panic in it refuses this message alone. It is logged
/// as an error by the panic hook.
pub(super) fn run_guarded(
    handler: Handler,
    table: &'static Table,
    input: &Input<'_>,
    context: &Context,
    now_ms: i64,
) -> Result<Vec<Item>, String> {
    // Nothing outlives a panic but the click counts, which are whole at each step.
    unless_it_panics(|| run(handler, table, input, context, now_ms))
        .unwrap_or_else(|| Err(PANICKED.to_owned()))
}

fn batch(input: &Input<'_>) -> Result<Batch, String> {
    let batch = envelope::decode(input.content_type, input.body)
        .map_err(|error| limits::reason(&error.to_string()))?;
    split::check_rows(batch.parts()).map_err(|error| error.to_string())?;
    Ok(batch)
}

impl Input<'_> {
    /// The id of a row whose message brings none: the same for the same message,
    /// different for others. Made from the message's id and body: producers that send
    /// equal messages on purpose number them, and some give one number to all.
    #[must_use]
    pub fn derived_id(&self) -> String {
        let id = self.message_id.unwrap_or_default();
        let content = [id.as_bytes(), b"\0", self.body].concat();
        crate::event::identity::derived_id(&content, 0)
    }

    /// The last three columns of a table that is fed from the journal.
    #[must_use]
    pub fn origin(&self) -> [Value; 3] {
        [
            Value::Text(self.origins.host.clone()),
            Value::UInt(self.origins.seq),
            Value::UInt(u64::from(self.origins.index(0))),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests;
