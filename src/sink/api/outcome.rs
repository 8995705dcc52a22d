//! What an API's answer means for the message. Pure; called by `mod`.
//!
//! # Invariants
//! - The HTTP status decides, and within a 2xx the body's own word (WebEngage answers
//!   `{"response": {"status": "error"}}`). A body that cannot be read changes nothing.

use crate::event::limits;
use crate::sink::WriteError;
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use std::time::Duration;

/// Longest wait that an API may ask for: it is asked again then.
pub(super) const RETRY_AFTER_MAX: Duration = Duration::from_secs(600);

/// Characters of an answer that reasons carry.
const BODY_CHARS_MAX: usize = 300;

/// Whether a status says nothing against the message.
pub(super) fn holds(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 425 | 429) || status.is_server_error()
}

/// What became of the call.
pub(super) fn of(
    api: &str,
    status: StatusCode,
    retry_after: Option<Duration>,
    body: &[u8],
) -> Result<(), WriteError> {
    let text = String::from_utf8_lossy(&body[..body.len().min(4 * BODY_CHARS_MAX)]);
    let text: String = text.chars().take(BODY_CHARS_MAX).collect();
    let reason = limits::reason(&format!("{api} answered {}: {text}", status.as_u16()));
    if status.is_success() {
        if says_error(body) {
            return Err(WriteError::Refused { reason });
        }
        return Ok(());
    }
    if holds(status) {
        return Err(WriteError::Unavailable {
            reason,
            retry_after,
            overloaded: false,
        });
    }
    Err(WriteError::Refused { reason })
}

fn says_error(body: &[u8]) -> bool {
    let answer: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let status = answer.as_ref().map(|answer| &answer["response"]["status"]);
    status.and_then(serde_json::Value::as_str) == Some("error")
}

/// The wait that an answer asks for: seconds, or a date (RFC 9110, 10.2.3).
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    wait_of(
        headers.get(RETRY_AFTER)?.to_str().ok()?,
        crate::clock::now_ms(),
    )
}

pub(super) fn wait_of(text: &str, now_ms: i64) -> Option<Duration> {
    let wait = if let Ok(seconds) = text.trim().parse() {
        Duration::from_secs(seconds)
    } else {
        let date = chrono::DateTime::parse_from_rfc2822(text.trim()).ok()?;
        let ms = date.timestamp_millis().saturating_sub(now_ms);
        Duration::from_millis(u64::try_from(ms).unwrap_or(0))
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_decides() {
        let of = |status: u16, body: &str| {
            of(
                "api",
                StatusCode::from_u16(status).unwrap(),
                None,
                body.as_bytes(),
            )
        };
        for status in [200, 201, 202, 204] {
            for body in [
                "",
                "<html>",
                r#"{"response":{"status":"queued"}}"#,
                "[1]",
                "null",
            ] {
                assert!(of(status, body).is_ok(), "{status} {body}");
            }
            let error = of(
                status,
                r#"{"response":{"status":"error","message":"bad user"}}"#,
            );
            let error = error.unwrap_err();
            assert!(!error.is_retryable() && error.to_string().contains("bad user"));
        }
        for status in [408, 425, 429, 500, 502, 503, 504] {
            assert!(of(status, "").unwrap_err().is_retryable(), "{status}");
        }
        for status in [301, 302, 307, 400, 401, 403, 404, 409, 413, 422] {
            let error = of(status, "why").unwrap_err();
            assert!(!error.is_retryable(), "{status}");
            assert!(
                error
                    .to_string()
                    .contains(&format!("api answered {status}: why"))
            );
        }
        let long = of(400, &"x".repeat(1 << 20)).unwrap_err();
        assert!(long.to_string().len() < 700);
    }

    #[test]
    fn a_wait_is_seconds_or_a_date_and_bounded() {
        let now = 1_445_412_480_000; // 07:28:00
        for (text, seconds) in [
            ("7", Some(7)),
            ("Wed, 21 Oct 2015 07:28:09 GMT", Some(9)),
            ("Wed, 21 Oct 2015 07:00:00 GMT", Some(0)),
            ("99999999", Some(600)),
            ("soon", None),
            ("-1", None),
        ] {
            let wait = wait_of(text, now).map(|wait| wait.as_secs());
            assert_eq!(wait, seconds, "{text}");
        }
    }
}
