//! Outgoing calls in the form of rows: what the sink of an API sends. No database has
//! these tables.

use super::{Partition, Table, json, text};

macro_rules! calls {
    ($name:literal, $($column:expr),* $(,)?) => {
        Table {
            name: $name,
            columns: &[text("idempotency_key"), json("headers"), $($column),*],
            key: &["idempotency_key"],
            order_by: &["idempotency_key"],
            version: None,
            partition: Partition::None,
            comment: "",
        }
    };
}

/// Events for WebEngage: the account and the body.
pub static WEBENGAGE_EVENT_CALLS: Table =
    calls!("webengage_event_calls", text("account"), json("body"));

/// Users for WebEngage: the account and the body.
pub static WEBENGAGE_USER_CALLS: Table =
    calls!("webengage_user_calls", text("account"), json("body"));

/// Graphy's events, to become WebEngage's once the learner is known.
pub static GRAPHY_CALLS: Table = calls!(
    "graphy_calls",
    text("email"),
    text("event_name"),
    text("event_time"),
    json("event_data"),
);
