//! New accounts and completed profiles, where a launch through a referral link led to
//! them. The rows lack what the launch says until the worker has looked it up.
//!
//! # Invariants
//! - The look-up is by the device ids in the message's headers; empty ones match nothing
//!   (before, an empty id matched every launch without one).

use super::cells::{Cells, time};
use super::fields::{Fields, UTC};
use super::{Input, NewRow};
use crate::sink::schema::Table;
use crate::sink::schema::{PROFILE_COMPLETION_REFERRAL_EVENTS, SIGNUP_REFERRAL_EVENTS};
use crate::sink::{Device, Launch, Row, Value};
use serde_json::value::RawValue;

/// New accounts.
pub(super) fn signup(input: &Input<'_>) -> Result<NewRow, String> {
    let message = Fields::of_body(input.body)?;
    let entry = message.object("newEntry")?.ok_or("newEntry: missing")?;
    let cells = Cells::new(&SIGNUP_REFERRAL_EVENTS)
        .put("id", input.derived_id())
        .put(
            "signup_timestamp",
            time(entry.needed_time_ms("createdOn", UTC)?),
        );
    Ok(common(cells, &entry, input)?.finish(input))
}

/// Completed profiles.
pub(super) fn profile(input: &Input<'_>, now_ms: i64) -> Result<NewRow, String> {
    let message = Fields::of_body(input.body)?;
    let entry = message.object("newEntry")?.ok_or("newEntry: missing")?;
    let cells = Cells::new(&PROFILE_COMPLETION_REFERRAL_EVENTS)
        .put("id", input.derived_id())
        // The message does not say when; its producer's clock is the same at each attempt.
        .put(
            "profile_completion_timestamp",
            time(input.sent_at_ms.unwrap_or(now_ms)),
        );
    Ok(common(cells, &entry, input)?
        .put("insta_followers", followers(&entry)?)
        .finish(input))
}

fn common(cells: Cells, entry: &Fields<'_>, input: &Input<'_>) -> Result<Cells, String> {
    let header = |name| input.headers.get(name).cloned().unwrap_or_default();
    let account = entry.loose_text("id")?.filter(|id| !id.is_empty());
    Ok(cells
        .put("launch_timestamp", Value::TimeMs(0))
        .put("user_id", entry.loose_text("userId")?.unwrap_or_default())
        .put("device_id", header("x-bb-custom-deviceid"))
        .put("bb_device_id", header("x-bb-deviceid"))
        .put("account_id", account.ok_or("newEntry.id: missing")?)
        .put("referral_identifier", "")
        .put("dynamic_link", "")
        .put("deep_link", Value::Null))
}

/// Followers of the Instagram account, if there is one that says so.
fn followers(entry: &Fields<'_>) -> Result<Option<i64>, String> {
    let Some(list) = entry.raw("socialAccounts") else {
        return Ok(None);
    };
    let accounts: Vec<&RawValue> = serde_json::from_str(list)
        .map_err(|_| "newEntry.socialAccounts: a list expected".to_owned())?;
    for account in accounts {
        let account = Fields::of_body(account.get().as_bytes())?;
        if account.text("platform")?.as_deref() == Some("INSTAGRAM")
            && let Some(metrics) = account.object("metrics")?
        {
            return metrics.int("followers");
        }
    }
    Ok(None)
}

/// The device that a row is about.
#[must_use]
pub fn device(table: &Table, row: &Row) -> Device {
    let text = |name: &str| match cell(table, row, name) {
        Some(Value::Text(text)) => text.clone(),
        _ => String::new(),
    };
    Device {
        device_id: text("device_id"),
        bb_device_id: text("bb_device_id"),
    }
}

/// Puts what the launch says into a row.
pub fn complete(table: &Table, row: &mut Row, launch: &Launch) {
    let mut set = |name: &str, value: Value| {
        let at = table.columns.iter().position(|column| column.name == name);
        if let Some(cell) = at.and_then(|at| row.values.get_mut(at)) {
            *cell = value;
        }
    };
    set("launch_timestamp", Value::TimeMs(launch.at_ms));
    set(
        "referral_identifier",
        launch.referral_identifier.as_str().into(),
    );
    set("dynamic_link", launch.dynamic_link.as_str().into());
    set("deep_link", launch.deep_link.clone().into());
}

fn cell<'a>(table: &Table, row: &'a Row, name: &str) -> Option<&'a Value> {
    let at = table
        .columns
        .iter()
        .position(|column| column.name == name)?;
    row.values.get(at)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Named, body};
    use super::*;

    const PROFILE: &str = r#"{"newEntry":{"id":9007199254740993,"createdOn":1700000000001,"clientId":"c","clientAppType":"t","userId":5,"socialAccounts":[{"platform":"X"},{"platform":"INSTAGRAM","metrics":{"followers":9007199254740993}}]}}"#;

    #[test]
    fn rows_lack_the_launch_until_it_is_found() {
        let mut input = body(PROFILE);
        input.headers.insert("x-bb-custom-deviceid", "d".into());
        input.sent_at_ms = Some(77);
        let table = &PROFILE_COMPLETION_REFERRAL_EVENTS;
        let mut new = profile(&input, 5).unwrap();
        let device = device(table, &new.row);
        assert_eq!(
            (device.device_id.as_str(), device.bb_device_id.as_str()),
            ("d", "")
        );
        let launch = Launch {
            at_ms: 9,
            referral_identifier: "r".into(),
            dynamic_link: "y".into(),
            deep_link: Some("z".into()),
        };
        complete(table, &mut new.row, &launch);
        let row = Named::of(table, new);
        row.has("account_id", "9007199254740993");
        row.has("insta_followers", 9_007_199_254_740_993_i64);
        row.has("profile_completion_timestamp", Value::TimeMs(77));
        row.has("launch_timestamp", Value::TimeMs(9));
        row.has("referral_identifier", "r");
        row.has("deep_link", "z");
    }

    #[test]
    fn what_is_missing_is_named() {
        for (text, key) in [
            ("{}", "newEntry"),
            (r#"{"newEntry":[]}"#, "newEntry"),
            (r#"{"newEntry":{"id":1}}"#, "newEntry.createdOn"),
            (r#"{"newEntry":{"createdOn":1}}"#, "newEntry.id"),
        ] {
            assert!(signup(&body(text)).unwrap_err().starts_with(key), "{key}");
        }
        let bad = r#"{"newEntry":{"id":1,"socialAccounts":{}}}"#;
        assert!(
            profile(&body(bad), 5)
                .unwrap_err()
                .contains("socialAccounts")
        );
        assert!(profile(&body(r#"{"newEntry":{"id":1,"socialAccounts":null}}"#), 5).is_ok());
    }
}
