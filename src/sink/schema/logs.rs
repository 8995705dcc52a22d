//! Tables of logs that other services write through the broker. Filled by the
//! handlers of the same names. Times and whole numbers are wider than they once
//! were; `ORDER BY` keeps the order of before and ends with the row's identity.

use super::{
    ColumnType, INSERT_TIMESTAMP, Partition, Table, flag, int, json, nullable, plain, text, time,
};

/// HTTP exchanges of other services.
pub static TRACE_LOG_EVENTS: Table = Table {
    name: "trace_log_events",
    columns: &[
        text("id"),
        text("host_name"),
        text("service_name"),
        time("timestamp"),
        int("time_taken"),
        text("method"),
        text("uri"),
        text("headers"),
        int("response_status"),
        text("remote_address"),
        flag("only_request"),
        text("request_body"),
        text("response_body"),
    ],
    key: &["id"],
    order_by: &["id"],
    version: None,
    partition: Partition::None,
    comment: "HTTP exchanges of other services",
};

/// Affiliates' orders, the last that was written of each.
pub static AFFILIATE_ORDER_EVENTS: Table = Table {
    name: "affiliate_order_events",
    columns: &[
        text("order_id"),
        text("platform"),
        text("referral_code"),
        json("meta"),
        time("created_on"),
        time("last_modified_on"),
        nullable("delivered_on", ColumnType::TimeMs),
        int("amount"),
        text("status"),
    ],
    key: &["order_id", "platform"],
    order_by: &["order_id", "platform"],
    version: Some("last_modified_on"),
    partition: Partition::None,
    comment: "Affiliates' orders; the last that was written of each",
};

/// Votes.
pub static BIGBOSS_VOTE_LOG: Table = Table {
    name: "bigboss_vote_log",
    columns: &[
        text("id"),
        text("key"),
        text("vendorcode"),
        text("country"),
        text("meta"),
        text("contestantid"),
        text("identifier"),
        text("languages"),
        text("sdc_received_at"),
        text("sdc_batched_at"),
        text("sdc_extracted_at"),
        time("createdat"),
        time("updatedat"),
        int("sdc_table_version"),
        int("sdc_sequence"),
    ],
    key: &["id"],
    order_by: &["id"],
    version: None,
    partition: Partition::None,
    comment: "Votes",
};

/// Scraped posts.
pub static POST_LOG_EVENTS: Table = Table {
    name: "post_log_events",
    columns: &[
        text("event_id"),
        text("source"),
        text("platform"),
        text("profile_id"),
        nullable("handle", ColumnType::Text),
        text("shortcode"),
        nullable("publish_time", ColumnType::TimeMs),
        time("event_timestamp"),
        INSERT_TIMESTAMP,
        json("metrics"),
        json("dimensions"),
    ],
    key: &["event_id", "event_timestamp"],
    order_by: &[
        "platform",
        "profile_id",
        "shortcode",
        "event_timestamp",
        "event_id",
    ],
    version: None,
    partition: Partition::ByTime("event_timestamp"),
    comment: "Scraped posts",
};

/// Sentiments of comments.
pub static SENTIMENT_LOG_EVENTS: Table = Table {
    name: "sentiment_log_events",
    columns: &[
        text("event_id"),
        text("source"),
        text("platform"),
        text("shortcode"),
        text("comment_id"),
        text("comment"),
        text("sentiment"),
        plain("score", ColumnType::Float64),
        json("metrics"),
        json("dimensions"),
        time("event_timestamp"),
        INSERT_TIMESTAMP,
    ],
    key: &["event_id", "event_timestamp"],
    order_by: &["platform", "shortcode", "event_timestamp", "event_id"],
    version: None,
    partition: Partition::ByTime("event_timestamp"),
    comment: "Sentiments of comments",
};

/// What happened at posts.
pub static POST_ACTIVITY_LOG_EVENTS: Table = Table {
    name: "post_activity_log_events",
    columns: &[
        text("event_id"),
        text("source"),
        text("activity_type"),
        text("platform"),
        text("actor_profile_id"),
        text("shortcode"),
        nullable("publish_time", ColumnType::TimeMs),
        json("metrics"),
        json("dimensions"),
        time("event_timestamp"),
        INSERT_TIMESTAMP,
    ],
    key: &["event_id", "event_timestamp"],
    order_by: &["platform", "shortcode", "event_timestamp", "event_id"],
    version: None,
    partition: Partition::ByTime("event_timestamp"),
    comment: "What happened at posts",
};

/// Scraped profiles.
pub static PROFILE_LOG_EVENTS: Table = Table {
    name: "profile_log_events",
    columns: &[
        text("event_id"),
        text("source"),
        text("platform"),
        text("profile_id"),
        nullable("handle", ColumnType::Text),
        time("event_timestamp"),
        INSERT_TIMESTAMP,
        json("metrics"),
        json("dimensions"),
    ],
    key: &["event_id", "event_timestamp"],
    order_by: &["platform", "profile_id", "event_timestamp", "event_id"],
    version: None,
    partition: Partition::ByTime("event_timestamp"),
    comment: "Scraped profiles",
};

/// Relations of profiles.
pub static PROFILE_RELATIONSHIP_LOG_EVENTS: Table = Table {
    name: "profile_relationship_log_events",
    columns: &[
        text("event_id"),
        text("source"),
        text("relationship_type"),
        text("platform"),
        text("source_profile_id"),
        text("target_profile_id"),
        json("source_metrics"),
        json("target_metrics"),
        json("source_dimensions"),
        json("target_dimensions"),
        time("event_timestamp"),
        INSERT_TIMESTAMP,
    ],
    key: &["event_id", "event_timestamp"],
    order_by: &[
        "platform",
        "source_profile_id",
        "target_profile_id",
        "event_timestamp",
        "event_id",
    ],
    version: None,
    partition: Partition::ByTime("event_timestamp"),
    comment: "Relations of profiles",
};

/// What the scraper was asked for.
pub static SCRAPE_REQUEST_LOG_EVENTS: Table = Table {
    name: "scrape_request_log_events",
    columns: &[
        text("event_id"),
        plain("scl_id", ColumnType::UInt64),
        text("platform"),
        text("flow"),
        json("params"),
        text("status"),
        nullable("priority", ColumnType::Int64),
        nullable("reason", ColumnType::Text),
        nullable("picked_at", ColumnType::TimeMs),
        nullable("expires_at", ColumnType::TimeMs),
        time("event_timestamp"),
        INSERT_TIMESTAMP,
    ],
    key: &["event_id", "event_timestamp"],
    order_by: &["platform", "flow", "event_timestamp", "event_id"],
    version: None,
    partition: Partition::ByTime("event_timestamp"),
    comment: "What the scraper was asked for",
};

/// Scraped orders.
pub static ORDER_LOG_EVENTS: Table = Table {
    name: "order_log_events",
    columns: &[
        text("event_id"),
        text("source"),
        text("platform"),
        text("platform_order_id"),
        text("store"),
        time("event_timestamp"),
        INSERT_TIMESTAMP,
        json("metrics"),
        json("dimensions"),
    ],
    key: &["event_id", "event_timestamp"],
    order_by: &[
        "platform",
        "store",
        "platform_order_id",
        "event_timestamp",
        "event_id",
    ],
    version: None,
    partition: Partition::ByTime("event_timestamp"),
    comment: "Scraped orders",
};

/// Partners' activities.
pub static PARTNER_ACTIVITY_LOG_EVENTS: Table = Table {
    name: "partner_activity_log_events",
    columns: &[
        text("event_id"),
        text("module_name"),
        text("activity_name"),
        int("increment_count"),
        int("partner_id"),
        int("account_id"),
        nullable("activity_id", ColumnType::Int64),
        json("activity_meta"),
        time("event_timestamp"),
        INSERT_TIMESTAMP,
    ],
    key: &["event_id", "event_timestamp"],
    order_by: &["partner_id", "event_timestamp", "event_id"],
    version: None,
    partition: Partition::ByTime("event_timestamp"),
    comment: "Partners' activities",
};
