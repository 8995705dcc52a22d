//! Shops' events: the envelope of our own apps, and native webhooks, which the HTTP
//! door puts into the same envelope with their `eventId`.
//!
//! # Invariants
//! - The id is the event's own, else made from the body alone: a shop that repeats a
//!   request after a lost answer sends the same body in another message.

use super::cells::{Cells, json, time};
use super::fields::{Fields, UTC};
use super::{Input, NewRow};
use crate::event::identity::derived_id;
use crate::sink::schema::SHOPIFY_EVENTS;

pub(super) fn row(input: &Input<'_>, now_ms: i64) -> Result<NewRow, String> {
    let event = Fields::of_body(input.body)?;
    let id = event.loose_text("eventId")?.filter(|id| !id.is_empty());
    event.object("eventData")?;
    Ok(Cells::new(&SHOPIFY_EVENTS)
        .put("id", id.unwrap_or_else(|| derived_id(input.body, 0)))
        .put("event_name", event.text("eventName")?.unwrap_or_default())
        .put("store_url", event.text("storeUrl")?.unwrap_or_default())
        .put(
            "event_timestamp",
            time(event.needed_time_ms("eventTime", UTC)?),
        )
        .put("insert_timestamp", time(now_ms))
        .put("data", json(event.object_or_empty("eventData")))
        .finish(input))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Named, body};
    use super::*;

    #[test]
    fn shop_events_sent_again_are_one_row() {
        let text = r#"{"storeUrl":"s","eventName":"orders/create","eventTime":1700000000001,"eventData":{"id":9007199254740993}}"#;
        let (mut first, mut again) = (body(text), body(text));
        (first.message_id, again.message_id) = (Some("h-1-0"), Some("h-2-0"));
        let first = Named::of(&SHOPIFY_EVENTS, row(&first, 5).unwrap());
        let again = Named::of(&SHOPIFY_EVENTS, row(&again, 6).unwrap());
        assert_eq!(first.get("id"), again.get("id"));
        first.has("event_timestamp", time(1_700_000_000_001));
        first.has("data", json(r#"{"id":9007199254740993}"#));
    }

    #[test]
    fn native_webhooks_are_known_by_their_event_id() {
        let text =
            r#"{"eventId":"e1","storeUrl":"s","eventName":"t","eventTime":1,"eventData":{}}"#;
        Named::of(&SHOPIFY_EVENTS, row(&body(text), 5).unwrap()).has("id", "e1");
        for (text, key) in [
            (r#"{"eventName":"n"}"#, "eventTime"),
            (r#"{"eventTime":1,"eventData":[]}"#, "eventData"),
            (r#"{"eventTime":1,"eventName":{}}"#, "eventName"),
        ] {
            assert!(row(&body(text), 5).unwrap_err().starts_with(key), "{key}");
        }
    }
}
