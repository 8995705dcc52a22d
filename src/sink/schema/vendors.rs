//! Tables of what partners post: Branch, Graphy, Shopify, WebEngage. Filled by the
//! handlers of the same names; the collector's own HTTP door feeds them.

use super::{
    ColumnType, INSERT_TIMESTAMP, ORIGIN_COLUMNS, Partition, Table, flag, int, json, nullable,
    plain, text, time,
};

/// Branch's webhooks.
pub static BRANCH_EVENTS: Table = Table {
    name: "branch_events",
    columns: &[
        text("id"),
        time("timestamp"),
        INSERT_TIMESTAMP,
        time("event_timestamp"),
        text("datasource"),
        text("origin"),
        flag("deep_linked"),
        text("name"),
        flag("attributed"),
        flag("existing_user"),
        flag("first_event_for_user"),
        int("di_match_click_token"),
        int("seconds_from_install_to_event"),
        int("seconds_from_last_attributed_touch_to_event"),
        int("minutes_from_last_attributed_touch_to_event"),
        int("hours_from_last_attributed_touch_to_event"),
        int("days_from_last_attributed_touch_to_event"),
        nullable("last_attributed_touch_timestamp", ColumnType::TimeMs),
        text("last_attributed_touch_type"),
        text("transaction_id"),
        plain("revenue", ColumnType::Float64),
        json("event_data"),
        text("platform"),
        text("aaid"),
        text("geo_region_en"),
        text("geo_city_en"),
        text("geo_country_en"),
        json("user_data"),
        text("campaign"),
        text("campaign_code"),
        text("channel"),
        text("medium"),
        text("marketing_title"),
        text("url"),
        text("android_deeplink_path"),
        text("android_url"),
        text("ios_url"),
        json("last_attributed_touch_data"),
        json("install_activity"),
        json("custom_data"),
        plain("content_items", ColumnType::AnyJson),
        json("reengagement_activity"),
        json("complete_event"),
        ORIGIN_COLUMNS[0],
        ORIGIN_COLUMNS[1],
        ORIGIN_COLUMNS[2],
    ],
    key: &["id", "timestamp"],
    order_by: &["name", "timestamp", "id"],
    version: None,
    partition: Partition::ByTime("timestamp"),
    comment: "Branch's webhooks",
};

/// Graphy's webhooks.
pub static GRAPHY_EVENTS: Table = Table {
    name: "graphy_events",
    columns: &[
        text("id"),
        time("receive_timestamp"),
        INSERT_TIMESTAMP,
        text("event_name"),
        json("event_data"),
        json("headers"),
        ORIGIN_COLUMNS[0],
        ORIGIN_COLUMNS[1],
        ORIGIN_COLUMNS[2],
    ],
    key: &["id"],
    order_by: &["event_name", "id"],
    version: None,
    partition: Partition::None,
    comment: "Graphy's webhooks",
};

/// Shops' events, of the own envelope and of native webhooks.
pub static SHOPIFY_EVENTS: Table = Table {
    name: "shopify_events",
    columns: &[
        text("id"),
        text("event_name"),
        text("store_url"),
        time("event_timestamp"),
        INSERT_TIMESTAMP,
        json("data"),
        ORIGIN_COLUMNS[0],
        ORIGIN_COLUMNS[1],
        ORIGIN_COLUMNS[2],
    ],
    key: &["id", "event_timestamp"],
    order_by: &["event_name", "store_url", "event_timestamp", "id"],
    version: None,
    partition: Partition::ByTime("event_timestamp"),
    comment: "Shops' events, of the own envelope and of native webhooks",
};

/// Events that are handed on to WebEngage.
pub static WEBENGAGE_EVENTS: Table = Table {
    name: "webengage_events",
    columns: &[
        text("id"),
        text("event_name"),
        text("account_type"),
        time("timestamp"),
        text("user_id"),
        text("anonymous_id"),
        json("data"),
        ORIGIN_COLUMNS[0],
        ORIGIN_COLUMNS[1],
        ORIGIN_COLUMNS[2],
    ],
    key: &["id", "timestamp"],
    order_by: &["id"],
    version: Some("timestamp"),
    partition: Partition::ByTime("timestamp"),
    comment: "Events that were handed on to WebEngage",
};
