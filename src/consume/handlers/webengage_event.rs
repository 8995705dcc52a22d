//! Events that are handed on to WebEngage, as rows.
//!
//! # Invariants
//! - The id is made from the body alone, as the sender wrote it where the door tells that, so
//!   that neither a redelivery nor a request repeated after a lost answer is a second row, and
//!   two events of one second are two (`webhook`'s test
//!   `webengage_events_of_one_second_are_told_apart`).

use super::cells::{Cells, json, time};
use super::fields::{Fields, UTC};
use super::{Input, NewRow};
use crate::event::envelope::BODY_ID_HEADER;
use crate::event::identity::derived_id;
use crate::sink::schema::WEBENGAGE_EVENTS;

/// The account of events that name none.
const DEFAULT_ACCOUNT: &str = "BRAND";

pub(super) fn row(input: &Input<'_>) -> Result<NewRow, String> {
    let event = Fields::of_body(input.body)?;
    let text = |key| event.loose_text(key).map(Option::unwrap_or_default);
    let account = event.text("appType")?;
    event.object("eventData")?;
    let id = input.headers.get(BODY_ID_HEADER).cloned();
    let id = id.unwrap_or_else(|| derived_id(input.body, 0));
    Ok(Cells::new(&WEBENGAGE_EVENTS)
        .put("id", id)
        .put("event_name", text("eventName")?)
        .put(
            "account_type",
            account.as_deref().unwrap_or(DEFAULT_ACCOUNT),
        )
        .put("timestamp", time(event.needed_time_ms("eventTime", UTC)?))
        .put("user_id", text("userId")?)
        .put("anonymous_id", text("anonymousId")?)
        .put("data", json(event.object_or_empty("eventData")))
        .finish(input))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Named, body};
    use super::*;

    #[test]
    fn webengage_events_have_stable_ids_and_times_with_zones() {
        for written in ["2023-11-14T22:13:20Z", "2023-11-15T03:43:20+0530"] {
            let text = format!(
                r#"{{"userId":"u","eventName":"n","eventTime":"{written}","eventData":{{"a":null,"b":9007199254740993}}}}"#
            );
            let (first, mut again) = (body(&text), body(&text));
            again.message_id = Some("other");
            let first = Named::of(&WEBENGAGE_EVENTS, row(&first).unwrap());
            first.has("timestamp", time(1_700_000_000_000));
            first.has("account_type", "BRAND");
            first.has("data", json(r#"{"a":null,"b":9007199254740993}"#));
            let again = Named::of(&WEBENGAGE_EVENTS, row(&again).unwrap());
            assert_eq!(first.get("id"), again.get("id"));
            let mut told = body(&text);
            told.headers.insert(BODY_ID_HEADER, "told".to_owned());
            let told = Named::of(&WEBENGAGE_EVENTS, row(&told).unwrap());
            told.has("id", "told".to_owned());
        }
        assert!(
            row(&body(r#"{"eventTime":"?"}"#))
                .unwrap_err()
                .starts_with("eventTime")
        );
        assert!(row(&body("{}")).is_err());
    }
}
