//! Clicks on short links, into `events` as `ClickEvent`.
//!
//! # Invariants
//! - The click is kept whole in `event_params`, with what its user agent says beside it;
//!   the columns of the app's header stay empty.

use super::bots::{Bots, Click};
use super::cells::Cells;
use super::fields::{Fields, UTC};
use super::useragent::UserAgent;
use super::{Input, NewRow};
use crate::sink::Value;
use crate::sink::schema::{ColumnType, EVENTS};

pub(super) fn row(input: &Input<'_>, bots: &Bots, now_ms: i64) -> Result<NewRow, String> {
    let fields = Fields::of_body(input.body)?;
    let id = fields.loose_text("eventId")?.filter(|id| !id.is_empty());
    let id = id.unwrap_or_else(|| input.derived_id());
    let at_ms = fields.needed_time_ms("timestamp", UTC)?;
    let url = fields.text("url")?.unwrap_or_default();
    let text = fields.text("userAgent")?.unwrap_or_default();
    let client_ip = fields.text("clientIp")?.unwrap_or_default();
    let agent = UserAgent::parse(&text);
    let is_bot = bots.is_bot(&Click {
        id: &id,
        agent: &agent,
        user_agent: &text,
        referer: &referer(&fields)?,
        client_ip: &client_ip,
        now_ms,
    });
    let agent = agent.to_json(&text, is_bot).to_string();
    let params = fields.with(false, &[("userAgentJson", &agent)]);
    let mut cells = Cells::new(&EVENTS);
    for column in EVENTS
        .columns
        .iter()
        .filter(|column| !column.name.starts_with("ingest_"))
    {
        let value = match column.name {
            "event_id" => id.clone().into(),
            "event_name" => "ClickEvent".into(),
            "event_timestamp" => Value::TimeMs(at_ms),
            "insert_timestamp" => Value::TimeMs(now_ms),
            "current_url" => url.clone().into(),
            "event_params" => Value::Json(params.clone()),
            _ if column.kind == ColumnType::Int64 => Value::Int(0),
            _ => "".into(),
        };
        cells = cells.put(column.name, value);
    }
    Ok(cells.finish(input))
}

/// The Referer among the click's own headers, each a list of texts.
fn referer(fields: &Fields<'_>) -> Result<String, String> {
    let Some(headers) = fields.object("headers")? else {
        return Ok(String::new());
    };
    // Any form that is no such list is no reason to refuse a click.
    let found = ["Referer", "referer", "REFERER"]
        .iter()
        .find_map(|name| headers.raw(name));
    Ok(found.unwrap_or_default().to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Named, body};
    use super::*;

    const CLICK: &str = r#"{"eventId":"c1","headers":{"Referer":["https://Preview.example"]},"clientIp":"10.0.0.1","userAgent":"Mozilla/5.0 (Linux; Android 13; SM-G991B) Chrome/112.0.0.0 Mobile","url":"https://a.b/c","deepLink":"d","timestamp":1700000000,"n":9007199254740993}"#;

    #[test]
    fn clicks_are_events() {
        let named = |bots: &Bots| Named::of(&EVENTS, row(&body(CLICK), bots, 5).unwrap());
        let person = named(&Bots::default());
        person.has("event_id", "c1");
        person.has("event_name", "ClickEvent");
        person.has("event_timestamp", Value::TimeMs(1_700_000_000_000));
        person.has("current_url", "https://a.b/c");
        person.has("session_id", "");
        person.has("user_id", 0_i64);
        person.json_has("event_params", r#""n":9007199254740993"#);
        person.json_has("event_params", r#""bot":false"#);
        person.json_has("event_params", r#""FullName":"Android 13""#);
        let bot = named(&Bots::new(vec!["preview.".into()], Vec::new(), 25));
        bot.json_has("event_params", r#""bot":true"#);
        for (text, key) in [
            (r#"{"eventId":"c"}"#, "timestamp"),
            (r#"{"timestamp":1,"url":5}"#, "url"),
            (r#"{"timestamp":1,"headers":5}"#, "headers"),
        ] {
            let error = row(&body(text), &Bots::default(), 5).unwrap_err();
            assert!(error.starts_with(key), "{error}");
        }
    }
}
