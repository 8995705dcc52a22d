//! Compressed bodies of the HTTP port, seen before they are decompressed: much may come that
//! becomes nothing, and whoever decompresses it takes memory of its own. A layer of `http`
//! around the one that decompresses; `bodies` and `webhooks` ask it.
//!
//! # Invariants
//! - What comes is bounded, whatever becomes of it (tests/it/hostile/bodies.rs, "a name in gzip
//!   that does not end" and "zstd's frames to skip").
//! - A decoder counts as room of the request that needs it (tests/it/ports/messages.rs,
//!   `decoders_take_room_of_bodies`).

use super::refusal::Refusal;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::header::CONTENT_ENCODING;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What gzip's decoder takes: its window of 32 KiB, its tables, a piece of the body.
const GZIP_BYTES: usize = 64 << 10;

/// What zstd's takes: its tables, and a block of 128 KiB before it is decompressed. Its window is
/// a second copy of what was decompressed, while it comes, and does not count.
const ZSTD_BYTES: usize = 256 << 10;

/// The most that a decoder takes.
pub(super) const DECODER_BYTES_MAX: usize = ZSTD_BYTES;

/// What a coding adds to a body that cannot be compressed, in parts of it and in bytes: a body of
/// the largest size may come in any coding.
const ADDED: (usize, usize) = (64, 4 << 10);

/// Of a request whose body is decompressed: among its extensions.
#[derive(Debug, Clone)]
pub(super) struct Encoded {
    /// Bytes that its decoder takes.
    pub(super) decoder_bytes: usize,
    /// Bytes of a body, decompressed.
    bytes_max: usize,
    is_too_large: Arc<AtomicBool>,
}

impl Encoded {
    /// Whether no more of the body comes for its compressed size.
    pub(super) fn is_too_large(&self) -> bool {
        self.is_too_large.load(Ordering::Relaxed)
    }

    /// What is said then.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        let refusal = Refusal::TooLarge(self.bytes_max);
        self.is_too_large().then_some(refusal)
    }
}

/// What a request's decoder takes.
pub(super) fn decoder_bytes(encoded: Option<&Encoded>) -> usize {
    encoded.map_or(0, |encoded| encoded.decoder_bytes)
}

/// Bounds a compressed body, of at most so many bytes when it is decompressed.
pub(super) async fn bound(
    State(bytes_max): State<usize>,
    mut request: Request,
    next: Next,
) -> Response {
    let coding = request.headers().get(CONTENT_ENCODING);
    let decoder_bytes = match coding.map(|coding| coding.as_bytes()) {
        Some(b"gzip") => GZIP_BYTES,
        Some(b"zstd") => ZSTD_BYTES,
        // There is no decoder for others.
        _ => return next.run(request).await,
    };
    let is_too_large = Arc::new(AtomicBool::new(false));
    request.extensions_mut().insert(Encoded {
        decoder_bytes,
        bytes_max,
        is_too_large: Arc::clone(&is_too_large),
    });
    let (part, bytes) = ADDED;
    let coded_max = bytes_max
        .saturating_add(bytes_max / part)
        .saturating_add(bytes);
    let request = request.map(|body| {
        Body::new(Limited::new(body, coded_max).map_err(move |error| {
            if error.is::<LengthLimitError>() {
                is_too_large.store(true, Ordering::Relaxed);
            }
            error
        }))
    });
    next.run(request).await
}
