//! The parser of the HTTP door. Called by `crate::fuzzing` alone, and compiled for it alone.

use super::Refusal;

/// As `ingest.max_request_events` is by default.
const DOCUMENTS_MAX: usize = 10_000;

/// The batches of a body of `POST /events`, as protobuf.
pub(crate) fn parse(body: &[u8]) -> Result<Vec<Vec<u8>>, Refusal> {
    super::http::parse(body, DOCUMENTS_MAX)
}
