//! Bounds on the socket's connections: how many, and how long each may live. Called by
//! `serve`, which gives this to axum as its listener.
//!
//! # Invariants
//! - A connection that says nothing, or never stops, ends (test
//!   `a_silent_connection_ends`); while all places are taken, others wait, and no longer than
//!   that (test `those_who_wait_get_the_places_of_the_silent`).

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream, unix};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;

/// After a failed accept (no file descriptor left): long enough not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// A listener whose connections are bounded.
pub(super) struct Bounded {
    listener: UnixListener,
    places: Arc<Semaphore>,
    life: Duration,
}

impl Bounded {
    pub(super) fn new(listener: UnixListener, connections_max: usize, life: Duration) -> Self {
        Self {
            listener,
            places: Arc::new(Semaphore::new(connections_max)),
            life,
        }
    }
}

impl axum::serve::Listener for Bounded {
    type Io = Connection;
    type Addr = unix::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let place = Arc::clone(&self.places).acquire_owned().await.ok();
            match self.listener.accept().await {
                Ok((stream, address)) => {
                    let connection = Connection {
                        stream,
                        end: Box::pin(tokio::time::sleep(self.life)),
                        _place: place,
                    };
                    return (connection, address);
                }
                Err(error) => {
                    tracing::warn!(%error, "admin: accept failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A connection that ends by itself.
pub(super) struct Connection {
    stream: UnixStream,
    end: Pin<Box<Sleep>>,
    _place: Option<OwnedSemaphorePermit>,
}

impl Connection {
    /// Who is at the other end, by the kernel.
    pub(super) fn peer(&self) -> io::Result<unix::UCred> {
        self.stream.peer_cred()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.end.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.stream).poll_read(cx, to)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.end.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::serve::Listener as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[tokio::test]
    async fn a_silent_connection_ends() {
        let dir = tempfile::tempdir().unwrap();
        let listener = super::super::listener::bind(dir.path()).unwrap();
        let mut bounded = Bounded::new(listener, 1, Duration::from_millis(20));
        let (client, (mut server, _)) = tokio::join!(
            super::super::listener::connect(dir.path()),
            bounded.accept()
        );
        let _client = client.unwrap();
        let error = server.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn those_who_wait_get_the_places_of_the_silent() {
        let dir = tempfile::tempdir().unwrap();
        let listener = super::super::listener::bind(dir.path()).unwrap();
        let connect = || super::super::listener::connect(dir.path());
        let bounded = Bounded::new(listener, 2, Duration::from_millis(300));
        let routes = axum::Router::new().fallback(async || "here");
        let server = tokio::spawn(async move { axum::serve(bounded, routes).await });
        let mut silent = Vec::new();
        for _ in 0..2 {
            silent.push(connect().await.unwrap());
        }
        let start = tokio::time::Instant::now();
        let mut asking = connect().await.unwrap();
        asking.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        asking.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with("here"), "{answer}");
        let waited = start.elapsed();
        assert!(
            waited > Duration::from_millis(200),
            "not bounded: {waited:?}"
        );
        server.abort();
    }
}
