//! The HTTP door: heartbeat, metrics, and events as protobuf JSON. Called by
//! `app`, which serves the routes.
//!
//! # Invariants
//! - 200 means durable, as for dispatch. Routes answer with and without the
//!   trailing slash.
//! - What a body is read into is bounded for all of its documents together, and so is what is
//!   said of one (tests `bodies_of_very_many_documents_are_refused`,
//!   `what_is_said_of_a_document_is_short`); so is how many are read at a time (`readers`).
//! - A batch of too many events is never made (test `events_are_counted_before_they_are_made`).
//! - Only so many pages of metrics wait for their readers (tests/it/ports/windows.rs).
//! - The heartbeat is switched by whom `ingest.heartbeat_from` lets, and a switch is logged
//!   (tests/it/http.rs, `the_heartbeat_is_switched_by_whom_the_configuration_lets`).

use super::bodies::{Bodies, Charge, Who, holding};
use super::callers::Caller;
use super::door::Door;
use super::encoded;
use super::figures::Figures;
use super::health::Health;
use super::readers::Readers;
use super::refusal::Refusal;
use super::webhooks::{self, Lane};
use crate::config::HeartbeatFrom;
use crate::event::descriptor::schema;
use crate::event::json;
use crate::event::limits;
use crate::event::scan::{FIELDS_MAX, ScanError};
use crate::event::shape::{self, Excess};
use crate::port::{Peer, Places};
use axum::body::Body;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use bytes::BytesMut;
use futures::stream::{self, StreamExt as _};
use prost::Message as _;
use serde_json::value::RawValue;
use std::collections::HashMap;
use tower_http::decompression::RequestDecompressionLayer;
use uuid::Uuid;

/// The header with a request's id, in requests, answers and queues.
const REQUEST_ID: &str = "x-bb-requestid";

/// Batches of one `POST /events` that are made durable at the same time: enough to
/// share a sync, few enough not to crowd out other clients.
const APPENDS_AT_ONCE: usize = 64;

/// Pages of metrics on their way out, all together; one address may have half. A page is some
/// hundred KiB, and a reader is slow to be found slow.
const METRICS_PAGES_MAX: usize = 16;

/// What proxies (RFC 7239, RFC 9110 7.6.3, and their older custom) and browsers add to a request
/// that somebody else wants.
const OF_ANOTHER: [&str; 6] = [
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-real-ip",
    "via",
    "origin",
];

#[derive(Clone)]
struct App {
    door: Door,
    health: Health,
    figures: Figures,
    heartbeat_from: HeartbeatFrom,
    /// Pages of metrics on their way out.
    pages: Places,
    /// Turns to parse events.
    readers: Readers,
}

/// The routes of the HTTP port.
pub fn routes(
    door: Door,
    (health, heartbeat_from): (Health, HeartbeatFrom),
    figures: Figures,
    request_bytes_max: usize,
    bodies: Bodies,
    lanes: Vec<Lane>,
) -> Router {
    let events = || {
        // Inside of the decompression: what counts is what is in memory.
        let watched = (bodies.clone(), door.clone());
        post(take_events).layer(from_fn_with_state(watched, watch))
    };
    let beat = || get(read_beat).put(set_beat);
    Router::new()
        .route("/heartbeat", beat())
        .route("/heartbeat/", beat())
        .route("/metrics", get(render_metrics))
        .route("/metrics/", get(render_metrics))
        .route("/events", events())
        .route("/events/", events())
        .merge(webhooks::routes(lanes))
        .layer(DefaultBodyLimit::max(request_bytes_max))
        .layer(RequestDecompressionLayer::new())
        .layer(from_fn_with_state(request_bytes_max, encoded::bound))
        .layer(super::grpc::cors())
        .layer(from_fn(stamp))
        .with_state(App {
            door,
            health,
            figures,
            heartbeat_from,
            pages: Places::new(METRICS_PAGES_MAX, METRICS_PAGES_MAX / 2),
            readers: Readers::of_events(),
        })
}

/// Bounds the bodies of events.
async fn watch(
    State((bodies, door)): State<(Bodies, Door)>,
    request: Request,
    next: Next,
) -> Response {
    let answer = |refusal: &Refusal| refuse(refusal, 0);
    let next = async |request: http::Request<_>| next.run(request.map(Body::new)).await;
    bodies
        .watch(&door, Who::Clients, request, next, answer)
        .await
}

/// Gives each request an id, whatever the client calls it, and each answer the same;
/// and keeps robots out.
async fn stamp(mut request: Request, next: Next) -> Response {
    let id = Uuid::new_v4().to_string();
    let id = HeaderValue::from_str(&id).unwrap_or(HeaderValue::from_static("-"));
    request.headers_mut().insert(REQUEST_ID, id.clone());
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id);
    headers.insert("x-robots-tag", HeaderValue::from_static("noindex"));
    response
}

async fn read_beat(State(app): State<App>) -> StatusCode {
    if app.health.is_serving() {
        StatusCode::OK
    } else {
        StatusCode::GONE
    }
}

/// `PUT /heartbeat/?beat=B`, where B is what Go's ParseBool reads.
async fn set_beat(
    State(app): State<App>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
    Query(query): Query<HashMap<String, String>>,
) -> StatusCode {
    // A listener for both kinds of address has the older ones in the newer form.
    let from = peer.map(|Extension(peer)| peer.address.ip().to_canonical());
    let is_loopback = from.is_some_and(|from| from.is_loopback());
    // A proxy on this host, and a browser on it that shows somebody's page, speak for others.
    let is_for_another = OF_ANOTHER.iter().any(|name| headers.contains_key(*name));
    let is_this_host = is_loopback && !is_for_another;
    if app.heartbeat_from == HeartbeatFrom::ThisHost && !is_this_host {
        return StatusCode::FORBIDDEN;
    }
    let beat = match query.get("beat").map(String::as_str) {
        Some("1" | "t" | "T" | "TRUE" | "true" | "True") => true,
        Some("0" | "f" | "F" | "FALSE" | "false" | "False") => false,
        _ => return StatusCode::BAD_REQUEST,
    };
    app.health.set_beat(beat, from);
    StatusCode::OK
}

async fn render_metrics(State(app): State<App>, peer: Option<Extension<Peer>>) -> Response {
    let peer = peer.as_ref().map(|Extension(peer)| peer);
    let place = match app.pages.take(Caller::nobody(peer).whose(), 1) {
        Ok(place) => place,
        Err(short) => {
            return (StatusCode::SERVICE_UNAVAILABLE, short.to_string()).into_response();
        }
    };
    let kind = HeaderValue::from_static("text/plain; version=0.0.4");
    let page = ([(header::CONTENT_TYPE, kind)], app.figures.scrape().await);
    holding(page.into_response(), place)
}

/// `POST /events`: one `event.Events` as protobuf JSON, or several one after the
/// other (newline-separated). All are parsed before any is kept.
async fn take_events(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Extension(charge): Extension<Charge>,
    // In one piece: one of very many small ones would take many times as much.
    body: Result<BytesMut, BytesRejection>,
) -> Response {
    let body = match body {
        Ok(body) => body.freeze(),
        Err(rejection) => {
            if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
                app.door.refused_too_large();
            } else if !charge.is_cut() {
                // It broke off, or cannot be decompressed.
                app.door.refused_malformed();
            }
            return rejection.into_response();
        }
    };
    // Who has sent more than its rate has nothing parsed, which takes longer than anything else.
    let may_send = app.door.open().and_then(|()| caller.is_within_rate());
    if let Err(refusal) = may_send {
        return refuse(&app.door.refused(refusal), 0);
    }
    let (of, events_max) = ((caller.whose(), body.len()), app.door.request_events_max());
    let parsing = move || {
        // The body's room is taken until it is read.
        let _until_read = charge;
        parse(&body, events_max)
    };
    let batches = match app.readers.read(of, Refusal::Malformed, parsing).await {
        Ok(batches) => batches,
        Err(refusal) => return refuse(&app.door.refused(refusal), 0),
    };
    let count = batches.len();
    let caller = caller.of_batches();
    let results: Vec<_> = stream::iter(batches)
        .map(|batch| app.door.accept(&caller, batch.into(), None))
        .buffered(APPENDS_AT_ONCE.min(app.door.batches_at_once_max()))
        .collect()
        .await;
    let accepted = results.iter().filter(|result| result.is_ok()).count();
    let refusal = Refusal::of_several(results.into_iter().filter_map(Result::err));
    match refusal {
        Some(refusal) => refuse(&refusal, accepted),
        None => {
            let answer = serde_json::json!({
                "status": "SUCCESS", "accepted": count, "host": app.door.host(),
            });
            axum::Json(answer).into_response()
        }
    }
}

/// The batches of a body, each of at most so many events; of batches there may be as many.
pub(super) fn parse(body: &[u8], events_max: usize) -> Result<Vec<Vec<u8>>, Refusal> {
    // Over all documents: each is another, however small.
    shape::bounded(body, FIELDS_MAX).map_err(|excess| match excess {
        Excess::Values(max) => ScanError::TooManyFields(max).into(),
        Excess::Depth => Refusal::Malformed(excess.to_string()),
    })?;
    let mut batches = Vec::new();
    let documents = serde_json::Deserializer::from_slice(body).into_iter::<&RawValue>();
    for (at, document) in documents.enumerate() {
        // What it says may quote the document, which may be all of the body.
        let bad = |error: String| {
            let error = limits::reason(&error);
            Refusal::Malformed(format!("document {}: {error}", at + 1))
        };
        if at == events_max {
            return Err(ScanError::TooManyEvents(events_max).into());
        }
        let document = document.map_err(|error| bad(error.to_string()))?;
        let text = document.get().as_bytes();
        shape::keys_are_unique(text).map_err(|error| bad(error.to_string()))?;
        // Before they are made: one is some bytes in the text, and some hundred in memory.
        let events = json::count_events(text).map_err(|error| bad(error.to_string()))?;
        if events > events_max {
            return Err(ScanError::TooManyEvents(events_max).into());
        }
        let batch = json::parse(&schema().events, text).map_err(|error| bad(error.to_string()))?;
        batches.push(batch.encode_to_vec());
    }
    if batches.is_empty() {
        return Err(Refusal::Malformed("the body is empty".to_owned()));
    }
    Ok(batches)
}

/// The answer to a request of which `accepted` batches are durable; sending all
/// of it again is harmless.
fn refuse(refusal: &Refusal, accepted: usize) -> Response {
    let (status, text, retry_after) = refusal.to_http();
    let answer = serde_json::json!({
        "status": "ERROR", "message": text, "accepted": accepted,
    });
    let mut response = (status, axum::Json(answer)).into_response();
    if status == StatusCode::UNAUTHORIZED {
        let scheme = HeaderValue::from_static("Bearer");
        response
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, scheme);
    }
    if let Some(seconds) = retry_after {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::Callers;
    use std::task::Poll;
    use std::time::Duration;
    use tower::Service as _;

    fn outcome(body: &str) -> Result<usize, (&'static str, String)> {
        parse(body.as_bytes(), 3)
            .map(|batches| batches.len())
            .map_err(|refusal| (refusal.outcome(), refusal.to_string()))
    }

    #[test]
    fn bodies_of_very_many_documents_are_refused() {
        assert_eq!(outcome("{}{} {}"), Ok(3));
        assert_eq!(outcome("{}{}{}{}").unwrap_err().0, "too_large");
        // Each of them by itself has few values.
        let many = r#"{"events":[{}]}"#.repeat(FIELDS_MAX / 2);
        assert_eq!(outcome(&many).unwrap_err().0, "too_large");
        let deep = "[".repeat(shape::DEPTH_MAX + 1);
        assert_eq!(outcome(&deep).unwrap_err().0, "malformed");
    }

    #[tokio::test]
    async fn a_decoder_takes_room_while_a_body_comes() {
        let dir = tempfile::tempdir().unwrap();
        let door = crate::ingest::door::tests::door(dir.path(), 4);
        let bodies = Bodies::new(8 << 20, Duration::from_secs(20), Callers::default());
        let held = bodies.clone();
        let read = async move |body: BytesMut| format!("{body:?} {}", held.held_bytes());
        let mut app = Router::new()
            .route("/", post(read))
            .layer(from_fn_with_state((bodies.clone(), door), watch))
            .layer(RequestDecompressionLayer::new())
            .layer(from_fn_with_state(1 << 20, encoded::bound));
        let body = zstd::encode_all(&b"text"[..], 0).unwrap();
        let mut pieces = vec![body];
        let came = bodies.clone();
        let body = Body::from_stream(stream::poll_fn(move |_| {
            let piece = pieces.pop();
            assert!(came.held_bytes() > 256 << 10, "its decoder is there");
            Poll::Ready(piece.map(Ok::<_, std::io::Error>))
        }));
        let request = Request::post("/").header("content-encoding", "zstd");
        let answer = app.call(request.body(body).unwrap()).await.unwrap();
        let answer = axum::body::to_bytes(answer.into_body(), 1 << 10)
            .await
            .unwrap();
        let answer = String::from_utf8(answer.to_vec()).unwrap();
        let bytes = answer.strip_prefix("b\"text\" ").unwrap();
        assert!(bytes.parse::<usize>().unwrap() < 64 << 10, "{answer}");
        assert_eq!(bodies.held_bytes(), 0);
    }

    #[test]
    fn events_are_counted_before_they_are_made() {
        let of = |events: &[&str]| format!(r#"{{"\u0065vents":[{}]}}"#, events.join(","));
        assert_eq!(outcome(&of(&["{}"; 3])), Ok(1));
        let three = of(&["{}"; 3]);
        assert_eq!(outcome(&format!("{three}{three}{three}")), Ok(3));
        // What no event is, is not looked at where there are too many.
        for events in [["{}"; 4], ["{}", "{}", "{}", "\"\""]] {
            let (outcome, text) = outcome(&of(&events)).unwrap_err();
            assert_eq!(outcome, "too_large");
            assert_eq!(text, "more than 3 events; send smaller batches");
        }
    }

    #[test]
    fn what_is_said_of_a_document_is_short() {
        let key = "k".repeat(1 << 20);
        for body in [
            format!("{{\"{key}\":1}}"),
            format!("{{\"events\":\"{key}\"}}"),
            format!("{{\"{key}\":1,\"{key}\":2}}"),
        ] {
            let (outcome, text) = outcome(&body).unwrap_err();
            assert_eq!(outcome, "malformed");
            assert!(text.len() < 2000, "{} bytes", text.len());
        }
    }
}
