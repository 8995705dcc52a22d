//! Graphy's webhooks, with what the HTTP door put into them: `name`,
//! `receive-timestamp`, `x-eg-id`, `x-eg-headers`.
//!
//! # Invariants
//! - Any JSON object gives a row: there is no public description of what is sent.

use super::cells::{Cells, json, time};
use super::fields::{Fields, UTC};
use super::{Input, NewRow};
use crate::sink::schema::GRAPHY_EVENTS;

/// The name of an event that has none.
pub(super) const NO_EVENT_NAME: &str = "NO_EVENT_NAME";

pub(super) fn row(input: &Input<'_>, now_ms: i64) -> Result<NewRow, String> {
    let event = Fields::of_body(input.body)?;
    let id = event.loose_text("x-eg-id")?.filter(|id| !id.is_empty());
    let received = event.time_ms("receive-timestamp", UTC)?;
    let name = event.loose_text("name")?;
    let headers = event.object_or_empty("x-eg-headers");
    let data = event.without(&["x-eg-headers"]).with(false, &[]);
    Ok(Cells::new(&GRAPHY_EVENTS)
        .put("id", id.unwrap_or_else(|| input.derived_id()))
        .put(
            "receive_timestamp",
            time(received.or(input.sent_at_ms).unwrap_or(now_ms)),
        )
        .put("insert_timestamp", time(now_ms))
        .put("event_name", name.as_deref().unwrap_or(NO_EVENT_NAME))
        .put("event_data", json(data))
        .put("headers", json(headers))
        .finish(input))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Named, body};
    use super::*;

    #[test]
    fn graphy_events_are_kept_whole() {
        let text = r#"{"Learner Email":"a@b.c","Price":9007199254740993,"name":"signup","receive-timestamp":1700000000,"x-eg-id":"g1","x-eg-headers":{"Spayee-Event":["signup"]}}"#;
        let row = Named::of(&GRAPHY_EVENTS, row(&body(text), 5).unwrap());
        row.has("id", "g1");
        row.has("receive_timestamp", time(1_700_000_000_000));
        row.has("event_name", "signup");
        row.has("headers", json(r#"{"Spayee-Event":["signup"]}"#));
        row.json_has("event_data", r#""Price":9007199254740993"#);
    }

    #[test]
    fn graphy_events_without_anything_are_rows() {
        let mut input = body("{}");
        input.sent_at_ms = Some(77);
        let first = Named::of(&GRAPHY_EVENTS, row(&input, 5).unwrap());
        first.has("event_name", NO_EVENT_NAME);
        first.has("receive_timestamp", time(77));
        first.has("id", input.derived_id());
        assert!(row(&body(r#"{"name": {}}"#), 5).is_err());
        assert!(row(&body("[]"), 5).is_err());
    }
}
