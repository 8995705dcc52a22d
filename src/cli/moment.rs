//! Moments as operators write them. Called by the verbs of `journal` and `dlq`.

use crate::clock::now_ms;
use std::time::{Duration, UNIX_EPOCH};

/// Reads a moment, as epoch milliseconds: RFC 3339, or how long ago.
pub(super) fn parse_moment(text: &str) -> Result<i64, String> {
    if let Ok(ago) = humantime::parse_duration(text) {
        return Ok(now_ms().saturating_sub(ms(ago)));
    }
    let moment = humantime::parse_rfc3339_weak(text)
        .map_err(|_| "not a time such as 2026-01-31T12:00:00Z, nor how long ago, such as 90m")?;
    Ok(moment.duration_since(UNIX_EPOCH).map_or(0, ms))
}

fn ms(length: Duration) -> i64 {
    i64::try_from(length.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_times_or_ages() {
        assert_eq!(parse_moment("1970-01-01T00:00:05Z"), Ok(5000));
        assert_eq!(parse_moment("1970-01-01 00:01:00"), Ok(60_000));
        let ago = parse_moment("90m").unwrap();
        assert!((now_ms() - ago - 5_400_000).abs() < 60_000);
        assert!(parse_moment("yesterday").is_err());
    }
}
