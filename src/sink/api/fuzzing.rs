//! What must hold of an API's answers. Called by `crate::fuzzing` alone, and compiled for it
//! alone.

use super::outcome::{RETRY_AFTER_MAX, of, wait_of};
use http::StatusCode;

/// When the answer comes, epoch milliseconds.
const NOW_MS: i64 = 1_700_000_000_000;

/// What an answer means, and how long it asks to wait.
pub(crate) fn answer(text: &str) {
    let wait = wait_of(text, NOW_MS);
    assert!(wait.is_none_or(|wait| wait <= RETRY_AFTER_MAX));
    for status in [
        StatusCode::OK,
        StatusCode::BAD_REQUEST,
        StatusCode::BAD_GATEWAY,
    ] {
        let said = of("api", status, wait, text.as_bytes());
        let is_retryable = said.is_err_and(|error| error.is_retryable());
        assert_eq!(is_retryable, status == StatusCode::BAD_GATEWAY);
    }
}
