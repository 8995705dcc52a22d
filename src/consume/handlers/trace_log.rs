//! HTTP exchanges that other services log.
//!
//! # Invariants
//! - The id is made from the whole message: a request and its response may be two logs
//!   with one id of their sender's, and must stay two rows.

use super::cells::{Cells, time};
use super::fields::{Fields, UTC};
use super::{Input, NewRow};
use crate::sink::schema::TRACE_LOG_EVENTS;

pub(super) fn row(input: &Input<'_>, now_ms: i64) -> Result<NewRow, String> {
    let log = Fields::of_body(input.body)?;
    let text = |key| log.loose_text(key).map(Option::unwrap_or_default);
    // One sender spells it in lower case.
    let host = log
        .loose_text("hostName")?
        .map_or_else(|| text("hostname"), Ok)?;
    // A clock of the sender's that cannot be read is no reason to refuse its log.
    let logged = log.time_ms("timestamp", UTC).ok().flatten();
    Ok(Cells::new(&TRACE_LOG_EVENTS)
        .put("id", input.derived_id())
        .put("host_name", host)
        .put("service_name", text("serviceName")?)
        .put(
            "timestamp",
            time(logged.or(input.sent_at_ms).unwrap_or(now_ms)),
        )
        .put("time_taken", log.int("timeTaken")?.unwrap_or_default())
        .put("method", text("method")?)
        .put("uri", text("uri")?)
        .put("headers", log.words("headers"))
        .put(
            "response_status",
            log.int("responseStatus")?.unwrap_or_default(),
        )
        .put("remote_address", text("remoteAddress")?)
        .put("only_request", log.flag("onlyRequest")?.unwrap_or_default())
        .put("request_body", log.words("requestBody"))
        .put("response_body", log.words("responseBody"))
        .finish(input))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Named, body};
    use super::*;

    #[test]
    fn trace_logs_of_both_spellings() {
        for key in ["hostName", "hostname"] {
            let text = format!(
                r#"{{"{key}":"api-1","serviceName":"s","timeTaken":12,"method":"GET","uri":"/x","headers":{{"a":"b"}},
                "responseStatus":200,"remoteAddress":"r","onlyRequest":true,"requestBody":"q","responseBody":null,"timestamp":1700000000}}"#
            );
            let row = Named::of(&TRACE_LOG_EVENTS, row(&body(&text), 5).unwrap());
            row.has("host_name", "api-1");
            row.has("headers", r#"{"a":"b"}"#);
            row.has("timestamp", time(1_700_000_000_000));
            row.has("only_request", true);
            row.has("request_body", "q");
            row.has("response_body", "");
        }
    }

    #[test]
    fn trace_logs_have_stable_ids_and_the_best_time_there_is() {
        let mut input = body(r#"{"id":"same","uri":"/1","timestamp":"?"}"#);
        input.sent_at_ms = Some(9_000);
        let one = Named::of(&TRACE_LOG_EVENTS, row(&input, 5).unwrap());
        one.has("timestamp", time(9_000));
        assert_eq!(
            one.get("id"),
            Named::of(&TRACE_LOG_EVENTS, row(&input, 6).unwrap()).get("id")
        );
        let other = body(r#"{"id":"same","uri":"/2"}"#);
        let other = Named::of(&TRACE_LOG_EVENTS, row(&other, 5).unwrap());
        other.has("timestamp", time(5));
        assert_ne!(one.get("id"), other.get("id"));
        assert!(
            row(&body(r#"{"timeTaken":"slow"}"#), 5)
                .unwrap_err()
                .contains("timeTaken")
        );
    }
}
