//! The life of a port: connections are accepted, each served in a task of its own, and at the
//! stop let go once their requests are answered. Called by `app` and `admin`.
//!
//! # Invariants
//! - Neither a failed accept nor a panic in a connection ends the port (tests
//!   `a_port_outlives_its_connections`, `an_accept_that_fails_is_said_once`).
//! - While the port is full, or an address has its part, further connections are closed at
//!   once, so that a client goes elsewhere instead of waiting for an answer (tests/it/ports).
//! - The place of a host that vanished is free again (test
//!   `a_host_that_is_silent_is_asked_whether_it_is_there`).
//! - After the stop no connection is accepted, and the port ends when the last one has.

use super::activity::{Activity, Reason};
use super::answer::Answer;
use super::bounds::{
    ACCEPT_PAUSE, Bounds, HEADER_BYTES_MAX, OWN_RESETS_MAX, PENDING_RESETS_MAX, PING_PERIOD,
    PING_TIMEOUT, PROBE_AFTER, PROBE_PERIOD, PROBES_MAX, SEND_BUFFER_BYTES, STREAMS_MAX,
};
use super::certificate;
use super::io::Watched;
use super::peer::Peer;
use super::places::{Place, Places, Short, Whose};
use super::tls::{Clients, Tls};
use crate::telemetry::{FOLLOWS_PANIC, Metrics, News};
use axum::body::Body;
use http::{Request, Response, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use rustix::net::sockopt;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tower::Service;

/// What a port is called, and how it treats its connections.
#[derive(Debug, Clone)]
pub struct Port {
    /// Its name in metrics and the log.
    pub name: &'static str,
    /// What each connection may take.
    pub bounds: Bounds,
    /// Where connections are counted.
    pub metrics: Metrics,
    /// How they are encrypted; `None`: not at all.
    pub encryption: Option<Encryption>,
}

/// How the connections of a port are encrypted.
#[derive(Debug, Clone)]
pub struct Encryption {
    /// Who we are.
    pub tls: Tls,
    /// Whether clients say who they are.
    pub clients: Clients,
}

/// What answers the requests of a port: a router, or something in front of one.
pub trait Answers:
    Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<S> Answers for S where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// What all connections of a port share.
struct Shared<A> {
    port: Port,
    answers: A,
    http: Builder<TokioExecutor>,
    stop: CancellationToken,
}

/// Serves until the stop, and then until the last connection has ended. Dropped, it ends all
/// of them at once.
pub async fn serve(
    listener: TcpListener,
    answers: impl Answers,
    port: Port,
    stop: CancellationToken,
) {
    let places = Places::new(port.bounds.connections_max, port.bounds.per_address_max);
    let shared = Arc::new(Shared {
        http: http(),
        answers,
        stop: stop.clone(),
        port,
    });
    shared.port.metrics.connections(shared.port.name, 0);
    let mut connections = JoinSet::new();
    let mut trouble = News::default();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(ended) = connections.join_next() => note(&shared.port, ended),
            accepted = listener.accept() => {
                if accepted.as_ref().is_err_and(is_gone) {
                    continue;
                }
                let Some((stream, address)) = look(shared.port.name, accepted, &mut trouble) else {
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                };
                match places.take(Whose::from(address.ip()), 1) {
                    Ok(place) => {
                        let place = Counted::new(place, &places, &shared);
                        connections.spawn(connection(place, stream, address));
                    }
                    Err(short) => {
                        shared.port.refused(address, short);
                        drop(stream);
                    }
                }
            }
        }
    }
    drop(listener);
    while let Some(ended) = connections.join_next().await {
        note(&shared.port, ended);
    }
}

/// The place of a connection, whose end shows at once.
struct Counted<A> {
    place: Option<Place>,
    places: Places,
    shared: Arc<Shared<A>>,
}

impl<A> Counted<A> {
    fn new(place: Place, places: &Places, shared: &Arc<Shared<A>>) -> Self {
        let port = &shared.port;
        port.metrics.connections(port.name, places.taken());
        Self {
            place: Some(place),
            places: places.clone(),
            shared: Arc::clone(shared),
        }
    }
}

impl<A> Drop for Counted<A> {
    fn drop(&mut self) {
        self.place = None;
        let port = &self.shared.port;
        port.metrics.connections(port.name, self.places.taken());
    }
}

impl Port {
    fn refused(&self, address: SocketAddr, short: Short) {
        let outcome = match short {
            Short::All => "no_place",
            Short::One => "address_full",
        };
        self.metrics.connection_ended(self.name, outcome);
        tracing::debug!(port = self.name, %address, %short, "connection refused");
    }
}

/// Whether an accept failed for the one connection alone, whose client has left.
fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}

/// What was accepted; `None` where the host lacks something that it may have again.
fn look(
    port: &'static str,
    accepted: io::Result<(TcpStream, SocketAddr)>,
    trouble: &mut News,
) -> Option<(TcpStream, SocketAddr)> {
    match accepted {
        Ok(accepted) => {
            if let Some(lasted) = trouble.over() {
                tracing::info!(port, ?lasted, "connections are accepted again");
            }
            Some(accepted)
        }
        Err(error) => {
            if trouble.is_new(&error.kind().to_string()) {
                tracing::warn!(port, %error, "connections cannot be accepted; trying again");
            } else {
                tracing::debug!(port, %error, "accept failed");
            }
            None
        }
    }
}

fn note(port: &Port, ended: Result<&'static str, JoinError>) {
    let outcome = ended.unwrap_or_else(|error| {
        tracing::error!(target: FOLLOWS_PANIC, port = port.name, %error, "a connection ended");
        "failed"
    });
    port.metrics.connection_ended(port.name, outcome);
}

fn http() -> Builder<TokioExecutor> {
    let mut http = Builder::new(TokioExecutor::new());
    http.http1()
        // `activity` has this time, which knows a head's first byte.
        .header_read_timeout(None)
        .max_buf_size(HEADER_BYTES_MAX);
    http.http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .keep_alive_interval(PING_PERIOD)
        .keep_alive_timeout(PING_TIMEOUT)
        .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
        .max_local_error_reset_streams(OWN_RESETS_MAX)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .max_header_list_size(u32::try_from(HEADER_BYTES_MAX).unwrap_or(u32::MAX));
    http
}

/// Serves one connection; how it ended, for the metrics.
async fn connection(
    place: Counted<impl Answers>,
    stream: TcpStream,
    address: SocketAddr,
) -> &'static str {
    let shared = &place.shared;
    let bounds = &shared.port.bounds;
    let start = Instant::now();
    let activity = Activity::new(start);
    // Answers are small and whole; waiting for more to send would only delay them.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY");
    }
    if let Err(error) = probe(&stream) {
        tracing::debug!(%error, "SO_KEEPALIVE");
    }
    let mut peer = Peer {
        address,
        certificate: None,
    };
    let served = async {
        let Some(encryption) = &shared.port.encryption else {
            return requests(shared, stream, peer, &activity).await;
        };
        let shaken = handshake(encryption, stream);
        match timeout_at(start + bounds.header_time, shaken).await {
            Ok(Ok(stream)) => {
                let (_, session) = stream.get_ref();
                let shown = session.peer_certificates().and_then(<[_]>::first);
                peer.certificate = shown.map(|shown| Arc::new(certificate::client(shown)));
                requests(shared, stream, peer, &activity).await
            }
            Ok(Err(error)) => {
                tracing::debug!(port = shared.port.name, %address, %error, "no handshake");
                "handshake"
            }
            Err(_) => "handshake",
        }
    };
    match bounds.life {
        None => served.await,
        Some(life) => timeout_at(start + life, served)
            .await
            .unwrap_or("slow_reader"),
    }
}

/// Has a silent peer's host asked whether it is there.
fn probe(stream: &TcpStream) -> io::Result<()> {
    sockopt::set_tcp_keepidle(stream, PROBE_AFTER)?;
    sockopt::set_tcp_keepintvl(stream, PROBE_PERIOD)?;
    sockopt::set_tcp_keepcnt(stream, PROBES_MAX)?;
    Ok(sockopt::set_socket_keepalive(stream, true)?)
}

async fn handshake(encryption: &Encryption, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
    let acceptor = encryption.tls.acceptor(encryption.clients);
    let acceptor = acceptor.ok_or_else(|| io::Error::other("no issuer of client certificates"))?;
    acceptor.accept(stream).await
}

/// Serves the requests of a connection.
async fn requests<S>(
    shared: &Shared<impl Answers>,
    stream: S,
    peer: Peer,
    activity: &Arc<Activity>,
) -> &'static str
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let bounds = &shared.port.bounds;
    let stream = Watched::new(stream, Arc::clone(activity), bounds.write_time);
    let answers = {
        let (activity, answers, peer) =
            (Arc::clone(activity), shared.answers.clone(), peer.clone());
        service_fn(move |request: Request<Incoming>| {
            let in_work = activity.begin();
            let is_http2 = request.version() == Version::HTTP_2;
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(peer.clone());
            let answer = answers.clone().call(request);
            async move {
                let answer: Response<Body> = answer.await?;
                Ok::<_, Infallible>(answer.map(|body| Answer::new(body, in_work, is_http2)))
            }
        })
    };
    let mut served = pin!(shared.http.serve_connection(TokioIo::new(stream), answers));
    let mut stopped = pin!(shared.stop.cancelled());
    let mut due = pin!(sleep_until(Instant::now() + bounds.header_time));
    let (mut is_stopping, mut last_call) = (false, None);
    let outcome = poll_fn(|cx| {
        if !is_stopping && stopped.as_mut().poll(cx).is_ready() {
            is_stopping = true;
            served.as_mut().graceful_shutdown();
        }
        loop {
            if let Poll::Ready(ended) = served.as_mut().poll(cx) {
                return Poll::Ready(ended.map_err(|error| {
                    tracing::debug!(port = shared.port.name, ?peer, %error, "connection failed");
                    let is_slow = activity.was_too_slow();
                    if is_slow { "slow_reader" } else { "failed" }
                }));
            }
            let (at, reason) = activity.until(bounds, cx.waker());
            let at = match (reason, last_call) {
                // The answer to a request that came after the last call has its time to leave.
                (Reason::Idle, Some(call)) => {
                    Instant::max(call, at - bounds.idle_time + bounds.header_time)
                }
                _ => at,
            };
            if due.deadline() != at {
                due.as_mut().reset(at);
            }
            ready!(due.as_mut().poll(cx));
            match reason {
                Reason::SlowHead => return Poll::Ready(Err("slow_head")),
                Reason::SlowReader => return Poll::Ready(Err("slow_reader")),
                Reason::Look => {}
                Reason::Idle if last_call.is_none() && activity.is_http2() => {
                    // So that a request which is on its way is answered, or known not to be.
                    served.as_mut().graceful_shutdown();
                    last_call = Some(Instant::now() + bounds.header_time);
                }
                Reason::Idle => return Poll::Ready(Err("idle")),
            }
        }
    })
    .await;
    match outcome {
        Ok(()) if last_call.is_some() => "idle",
        Ok(()) => "closed",
        Err(outcome) => outcome,
    }
}

#[cfg(test)]
#[path = "serve_tests.rs"]
mod tests;
