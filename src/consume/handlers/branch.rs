//! Branch's webhooks (help.branch.io, "Webhooks" and "Event ontology"): installs, opens
//! and the touches that led to them.
//!
//! # Invariants
//! - `id`, `name` and `timestamp` must be there. Any other part of a wrong type is left
//!   out of its column, and stays in `complete_event`, which is the whole event in the
//!   sender's own words.
//! - Keys are also found under the spelling of exports: `tilde_`, `dollar_`, `plus_` for
//!   `~`, `$`, `+`.

use super::cells::{Cells, json, time};
use super::fields::{Fields, UTC};
use super::{Input, NewRow};
use crate::sink::Value;
use crate::sink::schema::BRANCH_EVENTS;

pub(super) fn row(input: &Input<'_>, now_ms: i64) -> Result<NewRow, String> {
    let event = Fields::of_body(input.body)?;
    let id = event.loose_text("id")?.filter(|id| !id.is_empty());
    let id = id.ok_or("id: missing")?;
    let name = event.needed_text("name")?;
    let timestamp_ms = event.needed_time_ms("timestamp", UTC)?;
    let data = part(&event, "event_data");
    let user = part(&event, "user_data");
    let touch = part(&event, "last_attributed_touch_data");
    let campaign = marked(touch.as_ref(), '~', "campaign");
    let campaign_code: String = campaign
        .chars()
        .filter(|c| !c.is_whitespace())
        .flat_map(char::to_lowercase)
        .collect();
    let text = |key| loose(&event, key);
    let int = |key| event.int(key).unwrap_or_default().unwrap_or_default();
    let flag = |key| event.flag(key).unwrap_or_default().unwrap_or_default();
    let of =
        |part: &Option<Fields<'_>>, key| part.as_ref().map_or_else(String::new, |p| loose(p, key));
    let revenue = data
        .as_ref()
        .and_then(|data| data.float("revenue").ok().flatten());
    let event_time = event.time_ms("event_timestamp", UTC).unwrap_or_default();
    let touch_time = event.time_ms("last_attributed_touch_timestamp", UTC);
    let object = |key| json(event.object_or_empty(key));
    Ok(Cells::new(&BRANCH_EVENTS)
        .put("id", id)
        .put("timestamp", time(timestamp_ms))
        .put("insert_timestamp", time(now_ms))
        .put("event_timestamp", time(event_time.unwrap_or(timestamp_ms)))
        .put("datasource", text("datasource"))
        .put("origin", text("origin"))
        .put("deep_linked", flag("deep_linked"))
        .put("name", name)
        .put("attributed", flag("attributed"))
        .put("existing_user", flag("existing_user"))
        .put("first_event_for_user", flag("first_event_for_user"))
        .put("di_match_click_token", int("di_match_click_token"))
        .put(
            "seconds_from_install_to_event",
            int("seconds_from_install_to_event"),
        )
        .put(
            "seconds_from_last_attributed_touch_to_event",
            int("seconds_from_last_attributed_touch_to_event"),
        )
        .put(
            "minutes_from_last_attributed_touch_to_event",
            int("minutes_from_last_attributed_touch_to_event"),
        )
        .put(
            "hours_from_last_attributed_touch_to_event",
            int("hours_from_last_attributed_touch_to_event"),
        )
        .put(
            "days_from_last_attributed_touch_to_event",
            int("days_from_last_attributed_touch_to_event"),
        )
        .put(
            "last_attributed_touch_timestamp",
            time(touch_time.unwrap_or_default()),
        )
        .put(
            "last_attributed_touch_type",
            text("last_attributed_touch_type"),
        )
        .put("transaction_id", of(&data, "transaction_id"))
        .put("revenue", revenue.unwrap_or_default())
        .put("event_data", object("event_data"))
        .put("platform", of(&user, "platform"))
        .put("aaid", of(&user, "aaid"))
        .put("geo_region_en", of(&user, "geo_region_en"))
        .put("geo_city_en", of(&user, "geo_city_en"))
        .put("geo_country_en", of(&user, "geo_country_en"))
        .put("user_data", object("user_data"))
        .put("campaign", campaign)
        .put("campaign_code", campaign_code)
        .put("channel", marked(touch.as_ref(), '~', "channel"))
        .put("medium", marked(touch.as_ref(), '~', "feature"))
        .put(
            "marketing_title",
            marked(touch.as_ref(), '$', "marketing_title"),
        )
        .put("url", marked(touch.as_ref(), '+', "url"))
        .put(
            "android_deeplink_path",
            marked(touch.as_ref(), '$', "android_deeplink_path"),
        )
        .put("android_url", marked(touch.as_ref(), '$', "android_url"))
        .put("ios_url", marked(touch.as_ref(), '$', "ios_url"))
        .put(
            "last_attributed_touch_data",
            object("last_attributed_touch_data"),
        )
        .put("install_activity", object("install_activity"))
        .put("custom_data", object("custom_data"))
        .put("content_items", content_items(&event))
        .put("reengagement_activity", object("reengagement_activity"))
        .put("complete_event", json(event.whole()))
        .finish(input))
}

/// A part of the event, unless it is of another type.
fn part<'a>(event: &Fields<'a>, key: &str) -> Option<Fields<'a>> {
    event.object(key).ok().flatten()
}

fn loose(fields: &Fields<'_>, key: &str) -> String {
    fields.loose_text(key).ok().flatten().unwrap_or_default()
}

/// The text of a key with a mark before it, or with the mark's name.
fn marked(touch: Option<&Fields<'_>>, mark: char, key: &str) -> String {
    let Some(touch) = touch else {
        return String::new();
    };
    let name = match mark {
        '~' => "tilde_",
        '$' => "dollar_",
        _ => "plus_",
    };
    let found = loose(touch, &format!("{mark}{key}"));
    if found.is_empty() {
        loose(touch, &format!("{name}{key}"))
    } else {
        found
    }
}

/// The list that Branch sends, or the object that others do.
fn content_items(event: &Fields<'_>) -> Value {
    let items = event.raw("content_items");
    json(
        items
            .filter(|raw| raw.starts_with(['[', '{']))
            .unwrap_or("[]"),
    )
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Named, body};
    use super::*;

    const EVENT: &str = r#"{"id": 1234567890123456789, "name": "INSTALL", "timestamp": 1700000000123,
        "event_timestamp": 1700000000001, "deep_linked": true, "di_match_click_token": 9007199254740993,
        "days_from_last_attributed_touch_to_event": 3, "last_attributed_touch_timestamp": 1699999999999,
        "event_data": {"transaction_id": "t1", "revenue": 12.5, "big": 123456789012345678901234567890},
        "user_data": {"platform": "ANDROID_APP", "geo_city_en": 7},
        "last_attributed_touch_data": {"~campaign": " Big  Sale ", "tilde_channel": "sms", "$marketing_title": "T", "plus_url": "u"},
        "content_items": [{"$sku": "a"}], "custom_data": "none", "attributed": "perhaps"}"#;

    #[test]
    fn branch_events_keep_what_was_sent() {
        let row = Named::of(&BRANCH_EVENTS, row(&body(EVENT), 5).unwrap());
        row.has("id", "1234567890123456789");
        row.has("timestamp", time(1_700_000_000_123));
        row.has("event_timestamp", time(1_700_000_000_001));
        row.has("insert_timestamp", time(5));
        row.has("deep_linked", true);
        row.has("attributed", false);
        row.has("di_match_click_token", 9_007_199_254_740_993_i64);
        row.has("days_from_last_attributed_touch_to_event", 3_i64);
        row.has("last_attributed_touch_timestamp", time(1_699_999_999_999));
        row.has("transaction_id", "t1");
        row.has("revenue", 12.5);
        row.has("platform", "ANDROID_APP");
        row.has("geo_city_en", "7");
        row.has("campaign", " Big  Sale ");
        row.has("campaign_code", "bigsale");
        row.has("channel", "sms");
        row.has("marketing_title", "T");
        row.has("url", "u");
        row.has("content_items", json(r#"[{"$sku": "a"}]"#));
        row.has("custom_data", json("{}"));
        row.has("complete_event", json(EVENT));
    }

    #[test]
    fn branch_events_without_identity_or_time_are_refused() {
        for (key, with) in [
            ("id", "null"),
            ("name", "7"),
            ("timestamp", "\"soon\""),
            ("name", "[]"),
        ] {
            let fields = Fields::of_body(EVENT.as_bytes()).unwrap();
            let text = fields.with(false, &[(key, with)]);
            let reason = row(&body(&text), 5).unwrap_err();
            assert!(reason.starts_with(key), "{key}={with}: {reason}");
            let text = fields.without(&[key]).with(false, &[]);
            assert!(row(&body(&text), 5).unwrap_err().starts_with(key), "{key}");
        }
    }

    #[test]
    fn an_event_without_a_time_of_its_own_has_the_webhook_s() {
        let text = r#"{"id": "i", "name": "OPEN", "timestamp": 1700000000}"#;
        let row = Named::of(&BRANCH_EVENTS, row(&body(text), 5).unwrap());
        row.has("event_timestamp", time(1_700_000_000_000));
        row.has("last_attributed_touch_timestamp", Value::Null);
        row.has("content_items", json("[]"));
    }
}
