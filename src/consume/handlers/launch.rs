//! Starts of apps, plain and through a referral link.
//!
//! # Invariants
//! - Ids are taken as text or as numbers, digit by digit: producers write both.

use super::cells::{Cells, json, time};
use super::fields::{Fields, UTC};
use super::useragent::{UserAgent, is_known_crawler};
use super::{Input, NewRow};
use crate::sink::schema::{APP_INIT_EVENTS, LAUNCH_REFER_EVENTS};

/// Starts of apps.
pub(super) fn app_init(input: &Input<'_>, now_ms: i64) -> Result<NewRow, String> {
    let fields = Fields::of_body(input.body)?;
    let cells = Cells::new(&APP_INIT_EVENTS)
        .put("id", id(&fields, input)?)
        .put(
            "event_timestamp",
            time(fields.needed_time_ms("timestamp", UTC)?),
        )
        .put("insert_timestamp", time(now_ms))
        .put("event_data", json(fields.whole()));
    Ok(common(cells, &fields)?.finish(input))
}

/// Starts of apps through a referral link.
pub(super) fn refer(input: &Input<'_>, now_ms: i64) -> Result<NewRow, String> {
    let fields = Fields::of_body(input.body)?;
    let cells = Cells::new(&LAUNCH_REFER_EVENTS)
        .put("id", id(&fields, input)?)
        .put(
            "event_timestamp",
            time(fields.needed_time_ms("timestamp", UTC)?),
        )
        .put("insert_timestamp", time(now_ms));
    Ok(common(cells, &fields)?
        .put("referral_identifier", text(&fields, "referralIdentifier")?)
        .put("dynamic_link", text(&fields, "dynamicLink")?)
        .put("deep_link", fields.loose_text("deepLink")?)
        .finish(input))
}

fn id(fields: &Fields<'_>, input: &Input<'_>) -> Result<String, String> {
    let id = fields.loose_text("eventId")?.filter(|id| !id.is_empty());
    Ok(id.unwrap_or_else(|| input.derived_id()))
}

fn text(fields: &Fields<'_>, key: &str) -> Result<String, String> {
    Ok(fields.loose_text(key)?.unwrap_or_default())
}

fn common(cells: Cells, fields: &Fields<'_>) -> Result<Cells, String> {
    let user_agent = text(fields, "userAgent")?;
    let agent = UserAgent::parse(&user_agent);
    let is_bot = agent.is_crawler || is_known_crawler(&user_agent);
    let os_full_name = agent.full_name();
    Ok(cells
        .put("client_ip", text(fields, "clientIp")?)
        .put("user_agent", user_agent)
        .put("user_id", fields.loose_text("userId")?)
        .put("device_id", text(fields, "deviceId")?)
        .put("bb_device_id", text(fields, "bbDeviceId")?)
        .put("user_account_id", fields.loose_text("userAccountId")?)
        .put("client_id", text(fields, "clientId")?)
        .put("mozilla", agent.mozilla)
        .put("platform", agent.platform)
        .put("os", agent.os)
        .put("os_full_name", os_full_name)
        .put("os_name", agent.os_name)
        .put("os_version", agent.os_version)
        .put("localization", agent.localization)
        .put("model", agent.model)
        .put("browser_name", agent.browser_name)
        .put("browser_version", agent.browser_version)
        .put("bot", is_bot)
        .put("mobile", agent.is_mobile))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Named, body};
    use super::*;
    use crate::sink::Value;

    #[test]
    fn launches_keep_ids_of_both_kinds() {
        let text = r#"{"eventId":"l1","clientIp":"10.0.0.1","userAgent":"Mozilla/5.0 (Linux; Android 13; SM-G991B) Chrome/112.0.0.0 Mobile","timestamp":1700000000,"userId":9007199254740993,"deviceId":"d","bbDeviceId":7,"userAccountId":null,"clientId":"c","referralIdentifier":"r","dynamicLink":"y","deepLink":null}"#;
        let launch = Named::of(&LAUNCH_REFER_EVENTS, refer(&body(text), 5).unwrap());
        launch.has("id", "l1");
        launch.has("user_id", "9007199254740993");
        launch.has("bb_device_id", "7");
        launch.has("user_account_id", Value::Null);
        launch.has("deep_link", Value::Null);
        launch.has("mobile", true);
        launch.has("event_timestamp", Value::TimeMs(1_700_000_000_000));
        let start = Named::of(&APP_INIT_EVENTS, app_init(&body(text), 5).unwrap());
        start.json_has("event_data", "9007199254740993");
        start.has("os_name", "Android");
        for bad in [
            r#"{}"#,
            r#"{"timestamp":"soon"}"#,
            r#"{"timestamp":1,"userId":{}}"#,
        ] {
            assert!(
                refer(&body(bad), 5).is_err() && app_init(&body(bad), 5).is_err(),
                "{bad}"
            );
        }
    }
}
