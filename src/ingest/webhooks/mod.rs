//! The doors of partners' webhooks: one lane for each route. Called by `app`, which
//! builds the lanes; its routes are part of the HTTP port's.
//!
//! # Invariants
//! - 200 means durable, as for dispatch; nothing is dropped after it.
//! - A lane's bounds are its own: a flood of one webhook is answered 429 and delays no other
//!   door (tests/it/webhooks.rs).
//! - A body takes room as it comes, and a request its turn once it is proven: who sends slowly,
//!   or proves nothing, closes the lane for nobody else, and one address has half of its room
//!   (there, `who_proves_nothing_closes_no_lane`).
//! - A large body holds up no other request while it is read (`readers`), and takes its place
//!   in the lane until then, also when its sender hangs up.
//! - Unverified bodies are not parsed; credentials are neither kept nor logged.

mod verify;

pub use verify::{Proofs, Verifier};

use super::bodies::{request_bytes, whole};
use super::callers::Caller;
use super::door::Door;
use super::encoded::{DECODER_BYTES_MAX, Encoded, decoder_bytes};
use super::readers::Readers;
use super::refusal::Refusal;
use crate::event::scan::{FIELDS_MAX, ScanError};
use crate::event::shape::{self, Excess};
use crate::event::webhook::{Source, Stored};
use crate::port::{Peer, Places, Short};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use std::sync::Arc;
use std::time::Duration;

/// How long a body may take to arrive: senders give up after 5 s, and a slow one holds
/// room in its lane.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Large bodies that a lane reads at the same time. They are rare, one is read in some hundredths
/// of a second, and lanes wait neither for each other nor for the other doors.
const READ_AT_ONCE_MAX: usize = 1;

/// The bounds of a lane.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Requests in work.
    pub in_flight_max: usize,
    /// Bytes of one body.
    pub body_bytes_max: usize,
    /// Bytes of all bodies in work.
    pub waiting_bytes_max: usize,
}

/// The way of one source's webhooks into the journal.
#[derive(Debug)]
pub struct Lane {
    source: Source,
    door: Door,
    proofs: Proofs,
    body_bytes_max: usize,
    requests: Places,
    bytes: Places,
    /// Bytes of what decompresses their bodies.
    decoders: Places,
    readers: Readers,
}

impl Lane {
    /// A lane with nothing in it.
    #[must_use]
    pub fn new(source: Source, door: Door, proofs: Proofs, bounds: Bounds) -> Self {
        let decoders_bytes = bounds.in_flight_max.saturating_mul(DECODER_BYTES_MAX);
        Self {
            source,
            door,
            proofs,
            body_bytes_max: bounds.body_bytes_max,
            requests: halved(bounds.in_flight_max, 1),
            // At least one body that is as large as one may be.
            bytes: halved(bounds.waiting_bytes_max, bounds.body_bytes_max),
            decoders: halved(decoders_bytes, DECODER_BYTES_MAX),
            readers: Readers::new(READ_AT_ONCE_MAX),
        }
    }

    async fn take(self: &Arc<Self>, request: Request) -> Result<(), Refusal> {
        let (parts, body) = request.into_parts();
        let whose = Caller::nobody(parts.extensions.get::<Peer>()).whose();
        let encoded = parts.extensions.get::<Encoded>();
        let verifier = self.proofs.now();
        if !self.says_it_fits(&parts.headers) {
            return Err(Refusal::TooLarge(self.body_bytes_max));
        }
        if !verifier.may_be_genuine(self.source, &parts.headers) {
            return Err(Refusal::Unverified);
        }
        let decoder = self.decoders.take(whose, decoder_bytes(encoded));
        let decoder = decoder.map_err(|_: Short| Refusal::Busy)?;
        let room = self.bytes.take(whose, request_bytes(&parts.headers));
        let mut room = room.map_err(|_: Short| Refusal::Busy)?;
        let mut body_bytes = 0;
        let grow = |bytes: usize| {
            body_bytes += bytes;
            if body_bytes > self.body_bytes_max {
                return Err(Refusal::TooLarge(self.body_bytes_max));
            }
            // What comes first is in the room of the head.
            let more = body_bytes.saturating_sub(room.count());
            room.grow(more).map_err(|_: Short| Refusal::Busy)
        };
        let read = whole(body, grow, |_| {
            if encoded.is_some_and(Encoded::is_too_large) {
                Refusal::TooLarge(self.body_bytes_max)
            } else {
                Refusal::BadWebhook("the body broke off".to_owned())
            }
        });
        let read = tokio::time::timeout(BODY_TIMEOUT, read).await;
        let body = read.map_err(|_| Refusal::Slow)??;
        drop(decoder);
        if !verifier.is_genuine(self.source, &parts.headers, &body) {
            return Err(Refusal::Unverified);
        }
        let turn = self.requests.take(whose, 1);
        let turn = turn.map_err(|_: Short| Refusal::Busy)?;
        let held = Arc::new((room, turn));
        let (lane, until_read) = (Arc::clone(self), Arc::clone(&held));
        let reading = (&self.readers, (whose, body.len()));
        let read = move || {
            let _until_read = until_read;
            shape::bounded(&body, FIELDS_MAX).map_err(|excess| match excess {
                Excess::Values(max) => ScanError::TooManyFields(max).into(),
                Excess::Depth => Refusal::BadWebhook(excess.to_string()),
            })?;
            let stored = lane.stored(&parts.headers, verifier.header(), body);
            stored.map_err(Refusal::BadWebhook)
        };
        let taken = self.door.accept_webhook(self.source, reading, read).await;
        drop(held);
        taken
    }

    /// Whether a body is no larger than one may be, as far as its head tells.
    fn says_it_fits(&self, headers: &HeaderMap) -> bool {
        let told = headers.get(header::CONTENT_LENGTH);
        let told = told.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
        told.is_none_or(|length| length <= self.body_bytes_max)
    }

    fn stored(
        &self,
        headers: &HeaderMap,
        proof: Option<&str>,
        body: Bytes,
    ) -> Result<Stored, String> {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_bytes()));
        Stored::of(self.source, headers, proof, body)
    }
}

/// Places of which one address has half, and at least so many.
fn halved(all_max: usize, least: usize) -> Places {
    Places::new(all_max, all_max.div_ceil(2).max(least).min(all_max))
}

/// The routes of all lanes, with and without the trailing slash.
pub fn routes<S: Clone + Send + Sync + 'static>(lanes: Vec<Lane>) -> Router<S> {
    let mut router = Router::new();
    for lane in lanes {
        let path = lane.source.path();
        let lane = Arc::new(lane);
        for path in [path.to_owned(), format!("{path}/")] {
            router = router.route(&path, post(receive).with_state(Arc::clone(&lane)));
        }
    }
    router
}

async fn receive(State(lane): State<Arc<Lane>>, request: Request) -> Response {
    match lane.take(request).await {
        // Senders look at the status alone; the body has always been empty.
        Ok(()) => StatusCode::OK.into_response(),
        Err(refusal) => {
            let refusal = lane.door.refused(refusal);
            let (status, text, retry_after) = refusal.to_http();
            let mut response = (status, text).into_response();
            if let Some(seconds) = retry_after {
                let headers = response.headers_mut();
                headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
            }
            response
        }
    }
}
