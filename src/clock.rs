//! The wall clock, for receive and insert times. Only the outer parts read it;
//! `event` and the handlers get the time as an argument.

use std::time::{SystemTime, UNIX_EPOCH};

/// Epoch milliseconds; before 1970 counts as 1970.
#[must_use]
pub fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
        })
}
