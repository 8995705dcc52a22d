//! Events and users for WebEngage's API, and Graphy's events, as calls.
//!
//! # Invariants
//! - Values keep the sender's own words and digits; only keys that are null are left out
//!   of `eventData` and `attributes`.
//! - The idempotency key is the event's, where the door has told it, and the message's else: the
//!   same at each attempt and redelivery (test `an_event_that_came_twice_has_one_key`).

use super::cells::{Cells, json};
use super::fields::{Fields, UTC};
use super::graphy::NO_EVENT_NAME;
use super::{Input, NewRow};
use crate::event::envelope::BODY_ID_HEADER;
use crate::sink::schema::{GRAPHY_CALLS, Table, WEBENGAGE_EVENT_CALLS, WEBENGAGE_USER_CALLS};

/// The account for brands.
const BRAND: &str = "BRAND";
/// The account for users.
const USER: &str = "USER";

/// The event that browsers' extensions send for brands, without an account.
const EXTENSION_EVENT: &str = "Extension Profile Visited";
/// How other events of brands begin that come without an account.
const BRAND_PREFIX: &str = "VS -";

pub(super) fn event(input: &Input<'_>) -> Result<NewRow, String> {
    let event = Fields::of_body(input.body)?;
    let account = match event.text("appType")?.as_deref() {
        Some(USER) => USER,
        Some(BRAND) => BRAND,
        None => {
            let name = event.text("eventName")?.unwrap_or_default();
            let is_brand =
                name.eq_ignore_ascii_case(EXTENSION_EVENT) || name.starts_with(BRAND_PREFIX);
            if !is_brand {
                return Err("Invalid app type: there is none".to_owned());
            }
            BRAND
        }
        Some(_) => return Err("Invalid app type: neither USER nor BRAND".to_owned()),
    };
    call(&WEBENGAGE_EVENT_CALLS, input, account, event, "eventData")
}

pub(super) fn user(input: &Input<'_>) -> Result<NewRow, String> {
    let user = Fields::of_body(input.body)?;
    let account = match user.text("appType")?.as_deref() {
        Some(USER) => USER,
        Some(BRAND) => BRAND,
        _ => return Err("Invalid app type: appType is neither USER nor BRAND".to_owned()),
    };
    call(&WEBENGAGE_USER_CALLS, input, account, user, "attributes")
}

/// The body without the account, and without nulls in one part of it.
fn call(
    table: &'static Table,
    input: &Input<'_>,
    account: &str,
    fields: Fields<'_>,
    part: &str,
) -> Result<NewRow, String> {
    let kept = fields.object(part)?.map(|part| part.with(true, &[]));
    let fields = fields.without(&["appType"]);
    let body = match &kept {
        Some(kept) => fields.with(false, &[(part, kept)]),
        None => fields.without(&[part]).with(false, &[]),
    };
    Ok(start(table, input)
        .put("account", account)
        .put("body", json(body))
        .finish(input))
}

/// What every call begins with.
fn start(table: &'static Table, input: &Input<'_>) -> Cells {
    // An event's: the sender may have missed our answer and sent it again.
    let key = input.headers.get(BODY_ID_HEADER).cloned();
    // Users' own credentials are no business of a partner's.
    let headers = input
        .headers
        .iter()
        .filter(|(name, _)| name.starts_with("x-bb-"));
    let headers: serde_json::Map<String, serde_json::Value> = headers
        .map(|(name, text)| ((*name).to_owned(), text.as_str().into()))
        .collect();
    Cells::new(table)
        .put("idempotency_key", key.unwrap_or_else(|| input.derived_id()))
        .put(
            "headers",
            json(serde_json::Value::Object(headers).to_string()),
        )
}

/// The call of one of Graphy's events; none where it names no learner.
pub(super) fn learner(input: &Input<'_>, now_ms: i64) -> Result<Option<NewRow>, String> {
    let event = Fields::of_body(input.body)?;
    let email = match event.text("Email")?.filter(|email| !email.is_empty()) {
        Some(email) => Some(email),
        None => event
            .text("Learner Email")?
            .filter(|email| !email.is_empty()),
    };
    let Some(email) = email else {
        return Ok(None);
    };
    let name = event.loose_text("name")?;
    let received = event.time_ms("receive-timestamp", UTC)?;
    let received = received.or(input.sent_at_ms).unwrap_or(now_ms);
    let time = chrono::DateTime::from_timestamp_millis(received);
    let time = time.ok_or("receive-timestamp: out of range")?;
    let row = start(&GRAPHY_CALLS, input)
        .put("email", email)
        .put("event_name", name.as_deref().unwrap_or(NO_EVENT_NAME))
        .put(
            "event_time",
            time.format("%Y-%m-%dT%H:%M:%S+0000").to_string(),
        )
        .put("event_data", json(event.texts()))
        .finish(input);
    Ok(Some(row))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Named, body};
    use super::*;

    #[test]
    fn events_go_to_their_account_without_nulls_and_with_their_digits() {
        for (text, account) in [
            (
                r#"{"appType":"USER","userId":"u","eventName":"n","eventData":{"a":null,"b":9007199254740993}}"#,
                USER,
            ),
            (
                r#"{"appType":"BRAND","userId":"u","eventName":"n","eventData":{"a":null,"b":9007199254740993}}"#,
                BRAND,
            ),
            (
                r#"{"userId":"u","eventName":"extension profile VISITED","eventData":{"b":9007199254740993}}"#,
                BRAND,
            ),
            (
                r#"{"appType":null,"userId":"u","eventName":"VS - x","eventData":{"b":9007199254740993}}"#,
                BRAND,
            ),
        ] {
            let row = Named::of(&WEBENGAGE_EVENT_CALLS, event(&body(text)).unwrap());
            row.has("account", account);
            row.json_has("body", r#""eventData":{"b":9007199254740993}"#);
            row.json_has("body", r#""userId":"u""#);
            assert!(!format!("{:?}", row.get("body")).contains("appType"));
        }
    }

    #[test]
    fn calls_without_an_account_are_refused() {
        for text in [
            r#"{"userId":"u","eventName":"other"}"#,
            r#"{"appType":"ADMIN","userId":"u","eventName":"VS - x"}"#,
            r#"{"userId":"u"}"#,
        ] {
            assert!(
                event(&body(text)).unwrap_err().contains("Invalid app type"),
                "{text}"
            );
            assert!(
                user(&body(text)).unwrap_err().contains("Invalid app type"),
                "{text}"
            );
        }
        assert!(
            event(&body(r#"{"appType":"USER","eventData":[]}"#))
                .unwrap_err()
                .starts_with("eventData")
        );
    }

    #[test]
    fn users_keep_their_attributes() {
        let text =
            r#"{"appType":"USER","userId":"u","email":"a@b.c","attributes":{"x":1.10,"y":null}}"#;
        let mut input = body(text);
        input.headers.insert("x-bb-os", "android".into());
        input
            .headers
            .insert("authorization", "Bearer hunter2".into());
        let row = user(&input).unwrap();
        assert!(!format!("{row:?}").contains("hunter2"));
        let row = Named::of(&WEBENGAGE_USER_CALLS, row);
        row.json_has("body", r#""attributes":{"x":1.10}"#);
        row.has("headers", json(r#"{"x-bb-os":"android"}"#));
        row.has("idempotency_key", input.derived_id());
    }

    #[test]
    fn an_event_that_came_twice_has_one_key() {
        let text = r#"{"appType":"USER","userId":"u","eventName":"n"}"#;
        let key = |message, told: Option<&str>| {
            let mut input = body(text);
            input.message_id = Some(message);
            if let Some(told) = told {
                input.headers.insert(BODY_ID_HEADER, told.to_owned());
            }
            let row = Named::of(&WEBENGAGE_EVENT_CALLS, event(&input).unwrap());
            format!("{:?}", row.get("idempotency_key"))
        };
        assert_eq!(key("one", Some("body")), key("other", Some("body")));
        assert_ne!(key("one", Some("body")), key("one", Some("another")));
        assert_ne!(key("one", None), key("other", None), "nobody knows");
    }

    #[test]
    fn a_learner_s_event_has_the_texts_of_graphy_s() {
        let text = r#"{"Learner Email":"l@b.c","Course":"Rust","Price":12,"name":"signup","receive-timestamp":1700000000,"x-eg-headers":{}}"#;
        let row = Named::of(&GRAPHY_CALLS, learner(&body(text), 5).unwrap().unwrap());
        row.has("email", "l@b.c");
        row.has("event_name", "signup");
        row.has("event_time", "2023-11-14T22:13:20+0000");
        row.json_has("event_data", r#""Course":"Rust""#);
        assert!(!format!("{:?}", row.get("event_data")).contains("Price"));
        assert!(learner(&body(r#"{"name":"x"}"#), 5).unwrap().is_none());
        assert!(
            learner(&body(r#"{"Email":"","Learner Email":"l@b.c"}"#), 5)
                .unwrap()
                .is_some()
        );
        assert!(learner(&body(r#"{"Email":5}"#), 5).is_err());
    }
}
