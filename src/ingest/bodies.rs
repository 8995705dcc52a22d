//! The bodies of requests on their way in: whose they are, how long one may take, and how much
//! memory all of them take together until they are answered. A layer around the handlers of `grpc` and
//! `http`; webhooks have their lanes' bounds instead.
//!
//! # Invariants
//! - Nothing is read of who may not send (`callers`).
//! - A body that is not whole in time is refused as `Slow`, however it trickles (tests/it/ports,
//!   `the_slow_the_silent_and_the_greedy_are_let_go_and_others_work`).
//! - Bodies are counted as they come, decompressed ones as they are then and with their decoder
//!   while they come (`encoded`, which says what is not; test
//!   `a_decoder_takes_room_while_a_body_comes` in `http`), and heads as they are in memory: no
//!   more than the room is ever held, no peer's address has more than half of it, and it comes back (there, `half_a_handshake_and_a_flood_of_bodies_hold_up_nobody`, and
//!   tests/it/ports/messages.rs).
//! - What brings no events takes no room of what does (there,
//!   `who_watches_takes_no_room_of_events`).

use super::callers::{Caller, Callers};
use super::door::Door;
use super::encoded::{Encoded, decoder_bytes};
use super::refusal::Refusal;
use crate::port::{Peer, Place, Places, Short};
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::response::Response;
use bytes::BytesMut;
use http::HeaderMap;
use http_body_util::BodyExt as _;
use hyper::body::{Frame, SizeHint};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// What a request counts beside its body and its headers: its stream, its task.
const REQUEST_BYTES: usize = 4 << 10;

/// What a header takes beside its name and value, which over HTTP/2 may be a byte on the wire:
/// its places in a map, with its share of what a map keeps free.
const HEADER_BYTES: usize = 128;

/// Room for requests that bring no events, all together: those of health and reflection. A watch
/// takes some KiB for as long as it lasts, so that some thousand clients may watch.
const ASIDE_BYTES_MAX: usize = 64 << 20;

/// The room of all bodies, shared by clones.
#[derive(Debug, Clone)]
pub struct Bodies {
    places: Places,
    time: Duration,
    callers: Callers,
}

/// Whom a route is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    /// Everybody: health, reflection.
    Anybody,
    /// The clients of the configuration, where it has some.
    Clients,
}

impl Bodies {
    /// Room for so many bytes; a body may take so long.
    #[must_use]
    pub fn new(bytes_max: usize, time: Duration, callers: Callers) -> Self {
        Self {
            places: Places::new(bytes_max, bytes_max.div_ceil(2)),
            time,
            callers,
        }
    }

    /// The room beside it of requests that bring no events, so that they take none of it.
    pub(super) fn aside(&self) -> Self {
        Self {
            places: Places::new(ASIDE_BYTES_MAX, ASIDE_BYTES_MAX / 2),
            ..self.clone()
        }
    }

    /// What all bodies hold now.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.places.taken()
    }

    /// Lets a request through to its handler, and has `answer` say why where it may not be
    /// sent, or its body is cut off.
    pub(super) async fn watch(
        &self,
        door: &Door,
        who: Who,
        request: Request,
        next: impl AsyncFnOnce(http::Request<Watched>) -> Response,
        answer: fn(&Refusal) -> Response,
    ) -> Response {
        let peer = request.extensions().get::<Peer>();
        let caller = match who {
            Who::Anybody => Ok(Caller::nobody(peer)),
            Who::Clients => self.callers.identify(request.headers(), peer),
        };
        let caller = match caller {
            Ok(caller) => caller,
            Err(refusal) => return answer(&door.refused(refusal)),
        };
        let encoded = request.extensions().get::<Encoded>().cloned();
        let take = |bytes| self.places.take(caller.whose(), bytes);
        let (Ok(place), Ok(decoder)) = (
            take(request_bytes(request.headers())),
            take(decoder_bytes(encoded.as_ref())),
        ) else {
            return answer(&door.refused(Refusal::NoRoom));
        };
        let charge = Charge(Arc::new(Mutex::new(Held { place, cut: None })));
        let end = Instant::now() + self.time;
        let mut request = request.map(|body| {
            let charge = charge.clone();
            Watched {
                body,
                charge,
                encoded,
                end,
                timer: None,
                _decoder: decoder,
            }
        });
        request.extensions_mut().insert(charge.clone());
        request.extensions_mut().insert(caller);
        let response = next(request).await;
        match charge.cut() {
            Some(refusal) => answer(&door.refused(refusal)),
            // A watch has its answer for as long as it wants.
            None if who == Who::Anybody => holding(response, charge),
            None => response,
        }
    }
}

/// What a request takes in memory without its body.
pub(super) fn request_bytes(headers: &HeaderMap) -> usize {
    let bytes = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + HEADER_BYTES);
    REQUEST_BYTES + bytes.sum::<usize>()
}

/// An answer that holds something until it has left.
pub(super) fn holding(response: Response, held: impl Send + Unpin + 'static) -> Response {
    response.map(|body| Body::new(Holding { body, _held: held }))
}

struct Holding<T> {
    body: Body,
    _held: T,
}

impl<T: Unpin> HttpBody for Holding<T> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The whole of a body, in one piece: one of very many small ones would take many times as much
/// for their list.
///
/// # Errors
/// What ended it, and what `grow` says to a piece.
pub(super) async fn whole(
    mut body: Body,
    mut grow: impl FnMut(usize) -> Result<(), Refusal>,
    broken: impl Fn(&axum::Error) -> Refusal,
) -> Result<Bytes, Refusal> {
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        // What else there is are trailers.
        if let Ok(data) = frame.map_err(|error| broken(&error))?.into_data() {
            grow(data.len())?;
            bytes.extend_from_slice(&data);
        }
    }
    Ok(bytes.freeze())
}

/// The room that one request holds, until the last clone is dropped.
#[derive(Debug, Clone)]
pub(super) struct Charge(Arc<Mutex<Held>>);

#[derive(Debug)]
struct Held {
    place: Place,
    cut: Option<Refusal>,
}

impl Charge {
    fn lock(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The request takes so many bytes now, decompressed.
    ///
    /// # Errors
    /// When there is no room for them; the request is cut off then.
    pub(super) fn at_least(&self, bytes: usize) -> Result<(), Refusal> {
        let mut held = self.lock();
        let more = bytes.saturating_sub(held.place.count());
        let grown = held.place.grow(more);
        drop(held);
        grown.map_err(|_: Short| self.cut_off(Refusal::NoRoom))
    }

    fn came(&self, bytes: usize) -> Result<(), Refusal> {
        let grown = self.lock().place.grow(bytes);
        grown.map_err(|_: Short| self.cut_off(Refusal::NoRoom))
    }

    /// The request is refused for this, whatever its handler makes of it.
    pub(super) fn cut_off(&self, why: Refusal) -> Refusal {
        self.lock().cut = Some(why.clone());
        why
    }

    /// Whether the request is refused for something, which then counts.
    pub(super) fn is_cut(&self) -> bool {
        self.lock().cut.is_some()
    }

    fn cut(&self) -> Option<Refusal> {
        self.lock().cut.take()
    }
}

/// A body that counts and has its time.
pub(super) struct Watched {
    body: Body,
    charge: Charge,
    encoded: Option<Encoded>,
    end: Instant,
    /// Made when the body lets us wait, which most never do.
    timer: Option<Pin<Box<Sleep>>>,
    /// What decompresses it goes with it, and not with what it has become.
    _decoder: Place,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let watched = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut watched.body).poll_frame(cx) {
            if let Some(Ok(frame)) = &frame
                && let Some(data) = frame.data_ref()
                && let Err(why) = watched.charge.came(data.len())
            {
                return Poll::Ready(Some(Err(axum::Error::new(why))));
            }
            if let Some(Err(_)) = &frame
                && let Some(why) = watched.encoded.as_ref().and_then(Encoded::refusal)
            {
                let why = watched.charge.cut_off(why);
                return Poll::Ready(Some(Err(axum::Error::new(why))));
            }
            // One that always has a byte ready would never wait for its timer.
            if frame.is_none() || Instant::now() < watched.end {
                return Poll::Ready(frame);
            }
        } else {
            let end = watched.end;
            let timer = watched
                .timer
                .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(end)));
            ready!(timer.as_mut().poll(cx));
        }
        let why = watched.charge.cut_off(Refusal::Slow);
        Poll::Ready(Some(Err(axum::Error::new(why))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
