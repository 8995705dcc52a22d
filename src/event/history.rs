//! What became of a message so far: one line for each attempt and each replay, in a
//! header that travels with it. Written by `consume` and `dlq`.
//!
//! # Invariants
//! - Bounded: the newest [`ENTRIES_MAX`] lines, each with the beginning of its reason, so
//!   that headers stay far under the size of a frame (test `only_the_newest_are_kept`).

use chrono::{DateTime, SecondsFormat};

/// Lines that are kept. Three attempts in each of two queues, and some replays.
pub const ENTRIES_MAX: usize = 16;

/// Characters of a reason in a line; the last one stands whole in its own header.
const REASON_CHARS_MAX: usize = 200;

/// The line of an attempt that failed. `attempt` counts from 1.
#[must_use]
pub fn refused(at_ms: i64, queue: &str, attempt: u32, reason: &str) -> String {
    let reason: String = reason.chars().take(REASON_CHARS_MAX).collect();
    format!("{} {queue} attempt {attempt}: {reason}", time(at_ms))
}

/// The line of a replay.
#[must_use]
pub fn replayed(at_ms: i64, from: &str, to: &str) -> String {
    format!("{} replayed from {from} to {to}", time(at_ms))
}

/// The lines with one more.
#[must_use]
pub fn with(mut lines: Vec<String>, line: String) -> Vec<String> {
    lines.push(line);
    let surplus = lines.len().saturating_sub(ENTRIES_MAX);
    lines.drain(..surplus);
    lines
}

/// Epoch milliseconds as RFC 3339 in UTC.
#[must_use]
pub fn time(ms: i64) -> String {
    DateTime::from_timestamp_millis(ms).map_or_else(
        || format!("{ms}ms"),
        |time| time.to_rfc3339_opts(SecondsFormat::Millis, true),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_are_kept() {
        let mut lines = Vec::new();
        for attempt in 1..=20 {
            lines = with(lines, refused(0, "q", attempt, "too long"));
        }
        assert_eq!(lines.len(), ENTRIES_MAX);
        assert_eq!(lines[0], "1970-01-01T00:00:00.000Z q attempt 5: too long");
        let last = with(lines, replayed(1, "q_error", "q")).pop().unwrap();
        assert_eq!(last, "1970-01-01T00:00:00.001Z replayed from q_error to q");
        let long = refused(0, "q", 1, &"ä".repeat(5000));
        assert_eq!(long.chars().count(), 24 + " q attempt 1: ".len() + 200);
        assert_eq!(time(i64::MAX), format!("{}ms", i64::MAX));
    }
}
