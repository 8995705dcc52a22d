//! The doors of partners' webhooks: one lane for each route. Called by `app`, which
//! builds the lanes; its routes are part of the HTTP port's.
//!
//! # Invariants
//! - 200 means durable, as for dispatch; nothing is dropped after it.
//! - A lane's bounds are taken before its body is read, and are its own: a flood of one
//!   webhook is answered 429 and delays no other door (tests/it/webhooks).
//! - Unverified bodies are not parsed; credentials are neither kept nor logged.

mod verify;

pub use verify::Verifier;

use super::door::Door;
use super::refusal::Refusal;
use crate::event::scan::FIELDS_MAX;
use crate::event::shape;
use crate::event::webhook::{Source, Stored};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How long a body may take to arrive: senders give up after 5 s, and a slow one holds a
/// place in its lane.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

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
    verifier: Verifier,
    body_bytes_max: usize,
    requests: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
}

impl Lane {
    /// A lane with nothing in it.
    #[must_use]
    pub fn new(source: Source, door: Door, verifier: Verifier, bounds: Bounds) -> Self {
        Self {
            source,
            door,
            verifier,
            body_bytes_max: bounds.body_bytes_max,
            requests: Arc::new(Semaphore::new(bounds.in_flight_max)),
            bytes: Arc::new(Semaphore::new(bounds.waiting_bytes_max)),
        }
    }

    async fn take(&self, request: Request) -> Result<(), Refusal> {
        let (parts, body) = request.into_parts();
        let _place = self.place(&parts.headers)?;
        let read = axum::body::to_bytes(body, self.body_bytes_max);
        let body = match tokio::time::timeout(BODY_TIMEOUT, read).await {
            Err(_) => return Err(Refusal::Slow),
            Ok(Err(error)) => return Err(self.unread(&error)),
            Ok(Ok(body)) => body,
        };
        if !self.verifier.is_genuine(self.source, &parts.headers, &body) {
            return Err(Refusal::Unverified);
        }
        let bounded = shape::bounded(&body, FIELDS_MAX);
        bounded.map_err(|excess| Refusal::BadWebhook(excess.to_string()))?;
        let stored = self.stored(&parts.headers, body);
        let stored = stored.map_err(Refusal::BadWebhook)?;
        self.door.accept_webhook(self.source, &stored).await
    }

    /// Room for one request, as long as it is in work.
    fn place(&self, headers: &HeaderMap) -> Result<[OwnedSemaphorePermit; 2], Refusal> {
        let told = headers.get(header::CONTENT_LENGTH);
        let told = told.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
        // Compressed and chunked bodies tell no length: they take the most they may be.
        let length = told.unwrap_or(self.body_bytes_max);
        if length > self.body_bytes_max {
            return Err(Refusal::TooLarge(self.body_bytes_max));
        }
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        let request = Arc::clone(&self.requests).try_acquire_owned();
        let bytes = Arc::clone(&self.bytes).try_acquire_many_owned(length);
        Ok([
            request.map_err(|_| Refusal::Busy)?,
            bytes.map_err(|_| Refusal::Busy)?,
        ])
    }

    fn unread(&self, error: &axum::Error) -> Refusal {
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            if cause.is::<http_body_util::LengthLimitError>() {
                return Refusal::TooLarge(self.body_bytes_max);
            }
            source = cause.source();
        }
        Refusal::BadWebhook("the body broke off".to_owned())
    }

    fn stored(&self, headers: &HeaderMap, body: Bytes) -> Result<Stored, String> {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_bytes()));
        Stored::of(self.source, headers, self.verifier.header(), body)
    }
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
