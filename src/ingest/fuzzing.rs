//! The parsers of the doors. Called by `crate::fuzzing` alone, and compiled for it alone.

use super::Refusal;
use super::callers::{Shown, TOKEN_BYTES_MAX, bearer};
use super::calls::client_deadline;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use std::time::Duration;
use tonic::metadata::MetadataMap;

/// As `ingest.max_request_events` is by default.
const DOCUMENTS_MAX: usize = 10_000;

/// The batches of a body of `POST /events`, as protobuf.
pub(crate) fn parse(body: &[u8]) -> Result<Vec<Vec<u8>>, Refusal> {
    super::http::parse(body, DOCUMENTS_MAX)
}

/// What the headers of a request say of its sender and of how long it waits.
pub(crate) fn headers(headers: &HeaderMap) {
    let shown = headers.get_all(AUTHORIZATION).iter().count();
    match bearer(headers) {
        Shown::Nothing => assert_eq!(shown, 0),
        Shown::Unreadable => assert!(shown > 0),
        Shown::Token(token) => {
            assert_eq!(shown, 1, "one of several");
            assert!((1..=TOKEN_BYTES_MAX).contains(&token.len()));
            let value = headers[AUTHORIZATION].as_bytes().trim_ascii();
            assert!(value.ends_with(token) && token.trim_ascii() == token);
        }
    }
    if let Some(deadline) = client_deadline(&MetadataMap::from_headers(headers.clone())) {
        // Eight digits of hours are the most that can be written.
        assert!(deadline <= Duration::from_secs(3600) * 99_999_999);
    }
}
