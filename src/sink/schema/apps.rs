//! Tables of what apps report beside the dispatched events: launches, referrals,
//! experiments. Filled by the handlers of the same names.

use super::{
    ColumnType, INSERT_TIMESTAMP, Partition, Table, flag, int, json, nullable, text, time,
};

/// Starts of apps.
pub static APP_INIT_EVENTS: Table = Table {
    name: "app_init_events",
    columns: &[
        text("id"),
        time("event_timestamp"),
        INSERT_TIMESTAMP,
        json("event_data"),
        text("client_ip"),
        text("user_agent"),
        nullable("user_id", ColumnType::Text),
        text("device_id"),
        text("bb_device_id"),
        nullable("user_account_id", ColumnType::Text),
        text("client_id"),
        text("mozilla"),
        text("platform"),
        text("os"),
        text("os_full_name"),
        text("os_name"),
        text("os_version"),
        text("localization"),
        text("model"),
        text("browser_name"),
        text("browser_version"),
        flag("bot"),
        flag("mobile"),
    ],
    key: &["id"],
    order_by: &["id"],
    version: None,
    partition: Partition::None,
    comment: "Starts of apps",
};

/// Starts of apps through a referral link; new accounts are looked up among them.
pub static LAUNCH_REFER_EVENTS: Table = Table {
    name: "launch_refer_events",
    columns: &[
        text("id"),
        time("event_timestamp"),
        INSERT_TIMESTAMP,
        text("client_ip"),
        text("user_agent"),
        nullable("user_id", ColumnType::Text),
        text("device_id"),
        text("bb_device_id"),
        nullable("user_account_id", ColumnType::Text),
        text("client_id"),
        text("mozilla"),
        text("platform"),
        text("os"),
        text("os_full_name"),
        text("os_name"),
        text("os_version"),
        text("localization"),
        text("model"),
        text("browser_name"),
        text("browser_version"),
        flag("bot"),
        flag("mobile"),
        text("referral_identifier"),
        text("dynamic_link"),
        nullable("deep_link", ColumnType::Text),
    ],
    key: &["id"],
    order_by: &["id"],
    version: None,
    partition: Partition::None,
    comment: "Starts of apps through a referral link",
};

/// Accounts that a referral led to.
pub static SIGNUP_REFERRAL_EVENTS: Table = Table {
    name: "signup_referral_events",
    columns: &[
        text("id"),
        time("signup_timestamp"),
        time("launch_timestamp"),
        text("user_id"),
        text("device_id"),
        text("bb_device_id"),
        text("account_id"),
        text("referral_identifier"),
        text("dynamic_link"),
        nullable("deep_link", ColumnType::Text),
    ],
    key: &["id"],
    order_by: &["id"],
    version: None,
    partition: Partition::None,
    comment: "Accounts that a referral led to",
};

/// Completed profiles that a referral led to.
pub static PROFILE_COMPLETION_REFERRAL_EVENTS: Table = Table {
    name: "profile_completion_referral_events",
    columns: &[
        text("id"),
        time("profile_completion_timestamp"),
        time("launch_timestamp"),
        text("user_id"),
        text("device_id"),
        text("bb_device_id"),
        text("account_id"),
        text("referral_identifier"),
        text("dynamic_link"),
        nullable("deep_link", ColumnType::Text),
        nullable("insta_followers", ColumnType::Int64),
    ],
    key: &["id"],
    order_by: &["id"],
    version: None,
    partition: Partition::None,
    comment: "Completed profiles that a referral led to",
};

/// Assignments to experiments. They have no id: one is known by who got it, when, its
/// version and its checksum, which covers the assignments themselves.
pub static AB_ASSIGNMENTS: Table = Table {
    name: "ab_assignments",
    columns: &[
        time("timestamp"),
        int("user_id"),
        text("bb_device_id"),
        flag("new_user"),
        text("checksum"),
        int("ver"),
        json("assignments"),
    ],
    key: &["timestamp", "user_id", "bb_device_id", "ver", "checksum"],
    order_by: &["bb_device_id", "user_id", "timestamp", "ver", "checksum"],
    version: None,
    partition: Partition::None,
    comment: "Assignments to experiments; one is known by who, when, version and checksum",
};
