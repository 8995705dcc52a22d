//! `events` and `error_events`: what clients dispatch. Filled by
//! `consume/handlers/events.rs`.

use super::{Column, ColumnType, ORIGIN_COLUMNS, Partition, Table, column, plain, varchar};

/// Columns that `events` and `error_events` share: identity, header, parameters.
macro_rules! event_columns {
    ($text:ident, $timestamp:expr $(, $more:expr)*) => {
        &[
            $text("event_id", 55),
            $text("event_name", 55),
            $timestamp,
            column("insert_timestamp", ColumnType::TimeMs, "when the row was made"),
            $text("session_id", 50),
            plain("bb_device_id", ColumnType::Int64),
            plain("user_id", ColumnType::Int64),
            $text("device_id", 50),
            $text("android_advertising_id", 50),
            $text("client_id", 30),
            $text("channel", 20),
            $text("os", 30),
            $text("client_type", 20),
            $text("app_language", 20),
            $text("app_version", 20),
            $text("app_version_code", 20),
            plain("current_url", ColumnType::Text),
            $text("merchant_id", 20),
            plain("utm_referrer", ColumnType::Text),
            $text("utm_platform", 50),
            $text("utm_source", 80),
            $text("utm_medium", 80),
            $text("utm_campaign", 80),
            plain("pp_id", ColumnType::Text),
            column("event_params", ColumnType::Json, "the event's own fields, zero values left out"),
            $($more,)*
            ORIGIN_COLUMNS[0],
            ORIGIN_COLUMNS[1],
            ORIGIN_COLUMNS[2],
        ]
    };
}

const EVENT_TIMESTAMP: Column = column(
    "event_timestamp",
    ColumnType::TimeMs,
    "when it happened on the device; never later than its receipt",
);

const fn unbounded(name: &'static str, _max_chars: u32) -> Column {
    plain(name, ColumnType::Text)
}

/// The events that clients dispatched.
pub static EVENTS: Table = Table {
    name: "events",
    columns: event_columns!(varchar, EVENT_TIMESTAMP),
    key: &["event_id", "event_timestamp"],
    order_by: &["event_name", "event_timestamp", "event_id"],
    version: None,
    partition: Partition::ByTime("event_timestamp"),
    comment: "Events dispatched by apps and sites, one row each under FINAL",
};

/// Events that could not be taken as what they wanted to be, with the reason.
pub static ERROR_EVENTS: Table = Table {
    name: "error_events",
    // No length bounds: what was refused elsewhere for its length must fit here.
    columns: event_columns!(
        unbounded,
        Column {
            nullable: true,
            ..EVENT_TIMESTAMP
        },
        column("error_reason", ColumnType::Text, "why it is here")
    ),
    key: &["event_id", "ingest_host", "ingest_seq", "ingest_index"],
    order_by: &[
        "event_name",
        "event_id",
        "ingest_host",
        "ingest_seq",
        "ingest_index",
    ],
    version: None,
    partition: Partition::None,
    comment: "Events that were refused, with the reason, for diagnosis and replay",
};
