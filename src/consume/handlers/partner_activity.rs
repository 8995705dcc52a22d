//! Partners' activities.
//!
//! # Invariants
//! - All keys must be there; `activityMeta` is JSON written as text, and what is none is
//!   `{}`; times are those of Asia/Kolkata.

use super::cells::{Cells, json, time};
use super::fields::{Fields, KOLKATA};
use super::{Input, NewRow};
use crate::sink::schema::PARTNER_ACTIVITY_LOG_EVENTS;

const KEYS: [&str; 9] = [
    "eventId",
    "activityName",
    "moduleName",
    "incrementCount",
    "partnerId",
    "accountId",
    "activityId",
    "activityMeta",
    "eventTimestamp",
];

pub(super) fn row(input: &Input<'_>, now_ms: i64) -> Result<NewRow, String> {
    let activity = Fields::of_body(input.body)?;
    activity.demand(&KEYS)?;
    let text = |key| activity.loose_text(key).map(Option::unwrap_or_default);
    let int = |key| activity.int(key).map(Option::unwrap_or_default);
    let id = activity.loose_text("eventId")?.filter(|id| !id.is_empty());
    let meta = activity.words("activityMeta");
    let is_object = Fields::of_body(meta.as_bytes()).is_ok();
    Ok(Cells::new(&PARTNER_ACTIVITY_LOG_EVENTS)
        .put("event_id", id.unwrap_or_else(|| input.derived_id()))
        .put("module_name", text("moduleName")?)
        .put("activity_name", text("activityName")?)
        .put("increment_count", int("incrementCount")?)
        .put("partner_id", int("partnerId")?)
        .put("account_id", int("accountId")?)
        .put("activity_id", activity.int("activityId")?)
        .put(
            "activity_meta",
            json(if is_object { meta } else { "{}".to_owned() }),
        )
        .put(
            "event_timestamp",
            time(activity.needed_time_ms("eventTimestamp", KOLKATA)?),
        )
        .put("insert_timestamp", time(now_ms))
        .finish(input))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Named, body};
    use super::*;

    const ACTIVITY: &str = r#"{"eventId":"a","activityName":"n","moduleName":"m","incrementCount":1,"partnerId":9007199254740993,
        "accountId":2,"activityId":null,"activityMeta":"{\"x\":9007199254740993}","eventTimestamp":"2023-11-15 03:43:20"}"#;

    #[test]
    fn activities_are_of_kolkata_s_time() {
        let row = Named::of(
            &PARTNER_ACTIVITY_LOG_EVENTS,
            row(&body(ACTIVITY), 5).unwrap(),
        );
        row.has("event_timestamp", time(1_700_000_000_000));
        row.has("partner_id", 9_007_199_254_740_993_i64);
        row.has("activity_id", crate::sink::Value::Null);
        row.has("activity_meta", json(r#"{"x":9007199254740993}"#));
    }

    #[test]
    fn activities_need_every_key_and_bad_meta_is_empty() {
        for key in KEYS {
            let fields = Fields::of_body(ACTIVITY.as_bytes())
                .unwrap()
                .without(&[key]);
            let text = fields.with(false, &[]);
            assert_eq!(row(&body(&text), 5).unwrap_err(), format!("missing: {key}"));
        }
        for meta in ["\"no json\"", "7", "\"[1]\"", "null"] {
            let fields = Fields::of_body(ACTIVITY.as_bytes()).unwrap();
            let text = fields.with(false, &[("activityMeta", meta)]);
            Named::of(&PARTNER_ACTIVITY_LOG_EVENTS, row(&body(&text), 5).unwrap())
                .has("activity_meta", json("{}"));
        }
    }
}
