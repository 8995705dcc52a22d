//! The calls of `event.EventService`: let through, decoded, handed to the door and answered.
//! Called by `grpc`, for native clients at once, for browsers through grpc-web.
//!
//! # Invariants
//! - Who may not send is refused before its body is read (`bodies`).
//! - What a call holds is counted from its first byte until it is answered: its message too,
//!   while its end does not come (`codec`).
//! - A refusal counts once, be it the door's, tonic's or that of `bodies` (tests/it/ports/messages.rs,
//!   `what_is_no_message_is_counted_once`).
//! - A request over the bound is OUT_OF_RANGE, which no client tries again (tests/it/hostile,
//!   bad_input).

use super::bodies::{Bodies, Charge, Watched, Who};
use super::callers::Caller;
use super::codec::RawCodec;
use super::door::Door;
use super::refusal::Refusal;
use crate::event::proto::Response as Answer;
use axum::body::Body;
use axum::extract::Request as HttpRequest;
use axum::response::Response as HttpResponse;
use bytes::Bytes;
use futures::future::BoxFuture;
use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tonic::codec::CompressionEncoding::{Gzip, Zstd};
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::server::{Grpc, UnaryService};
use tonic::{Request, Response, Status};
use tower::Service;

/// The path of a dispatch.
pub(super) const DISPATCH: &str = "/event.EventService/dispatch";

/// Response metadata: the host that made the batch durable.
pub(super) const HOST_KEY: &str = "x-holdfast-host";
/// Response metadata: the batch's sequence there.
pub(super) const SEQ_KEY: &str = "x-holdfast-seq";

/// The service; clones share its door.
#[derive(Debug, Clone)]
pub(super) struct Calls(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    request_bytes_max: usize,
    bodies: Bodies,
    door: Door,
}

impl Calls {
    /// Calls into a door, each with a message of at most so many bytes.
    pub(super) fn new(door: Door, request_bytes_max: usize, bodies: Bodies) -> Self {
        Self(Arc::new(Inner {
            request_bytes_max,
            bodies,
            door,
        }))
    }
}

impl Inner {
    async fn answer(&self, request: http::Request<Watched>) -> http::Response<tonic::body::Body> {
        let charge = request.extensions().get::<Charge>().cloned();
        let (Some(charge), DISPATCH) = (charge, request.uri().path()) else {
            return Status::unimplemented("").into_http();
        };
        let mut has_come = false;
        let dispatch = Dispatch {
            door: self.door.clone(),
            has_come: &mut has_come,
        };
        let response = Grpc::new(RawCodec::new(charge.clone()))
            .accept_compressed(Gzip)
            .accept_compressed(Zstd)
            .send_compressed(Gzip)
            .send_compressed(Zstd)
            .max_decoding_message_size(self.request_bytes_max)
            .unary(dispatch, request)
            .await;
        // What came to the door was counted there; what was cut off is by `bodies`.
        if has_come || charge.is_cut() {
            response
        } else {
            refused_before(&self.door, response)
        }
    }
}

impl Service<HttpRequest> for Calls {
    type Response = HttpResponse;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<HttpResponse, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequest) -> Self::Future {
        let Self(calls) = self.clone();
        Box::pin(async move {
            let (bodies, door) = (&calls.bodies, &calls.door);
            let next =
                async |request: http::Request<Watched>| calls.answer(request).await.map(Body::new);
            Ok(bodies
                .watch(door, Who::Clients, request, next, refuse)
                .await)
        })
    }
}

/// A refusal by someone in front of the handlers.
pub(super) fn refuse(refusal: &Refusal) -> HttpResponse {
    let answer = refusal.to_status().into_http::<tonic::body::Body>();
    answer.map(Body::new)
}

/// Counts what tonic refuses before any handler sees it: a request over the bound, and what is no
/// message. The first is OUT_OF_RANGE, or RESOURCE_EXHAUSTED where it was compressed, which
/// clients of this service take as "full, try again": it becomes OUT_OF_RANGE.
fn refused_before<B>(door: &Door, mut response: http::Response<B>) -> http::Response<B> {
    let headers = response.headers_mut();
    let code = headers.get(Status::GRPC_STATUS);
    if code.is_some_and(|code| code == "8" || code == "11") {
        headers.insert(Status::GRPC_STATUS, http::HeaderValue::from_static("11"));
        door.refused_too_large();
    } else {
        door.refused_malformed();
    }
    response
}

/// The one call.
struct Dispatch<'a> {
    door: Door,
    /// Whether a message has come here.
    has_come: &'a mut bool,
}

impl UnaryService<Bytes> for Dispatch<'_> {
    type Response = Answer;
    type Future = BoxFuture<'static, Result<Response<Answer>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        *self.has_come = true;
        let door = self.door.clone();
        Box::pin(async move { dispatch(&door, request).await })
    }
}

async fn dispatch(door: &Door, request: Request<Bytes>) -> Result<Response<Answer>, Status> {
    let deadline = client_deadline(request.metadata());
    let caller = request.extensions().get::<Caller>().cloned();
    let caller = caller.ok_or(Refusal::Unauthenticated);
    let caller = caller.map_err(|refusal| door.refused(refusal).to_status())?;
    let accepted = door
        .accept(&caller, request.into_inner(), deadline)
        .await
        .map_err(|refusal: Refusal| refusal.to_status())?;
    let mut response = Response::new(Answer {
        status: "SUCCESS".to_owned(),
        message: String::new(),
    });
    let metadata = response.metadata_mut();
    if let Ok(host) = MetadataValue::try_from(door.host()) {
        metadata.insert(HOST_KEY, host);
    }
    if let Some(seq) = accepted.seq {
        metadata.insert(SEQ_KEY, MetadataValue::from(seq.0));
    }
    Ok(response)
}

/// The client's own deadline, from `grpc-timeout` (gRPC over HTTP/2: up to eight
/// digits and a unit).
pub(super) fn client_deadline(metadata: &MetadataMap) -> Option<Duration> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let count: u32 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
    let one = match unit {
        "H" => Duration::from_secs(3600),
        "M" => Duration::from_secs(60),
        "S" => Duration::from_secs(1),
        "m" => Duration::from_millis(1),
        "u" => Duration::from_micros(1),
        "n" => Duration::from_nanos(1),
        _ => return None,
    };
    Some(one * count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_s_deadline_is_read() {
        for (text, ms) in [
            ("5S", Some(5000)),
            ("250m", Some(250)),
            ("1H", Some(3_600_000)),
            ("x", None),
            ("", None),
            ("S", None),
            ("5", None),
            ("123456789m", None),
        ] {
            let mut metadata = MetadataMap::new();
            metadata.insert("grpc-timeout", text.parse().unwrap());
            let deadline = client_deadline(&metadata).map(|d| d.as_millis());
            assert_eq!(deadline, ms, "{text}");
        }
    }
}
