//! One TCP connection opened by lapin's means, with a handle that can always end it.
//!
//! Called by `connection` only.
//!
//! lapin drives each connection from a thread of its own, and that thread waits for the socket: on
//! a broker that is frozen or gone without a word, a connection that was given up (a timed-out
//! handshake, a close that is not answered, a close while an alarm blocks writing) would keep its
//! thread, its buffers and its socket for as long as the kernel does. [`Wire`] shuts the socket
//! down when it is dropped, which ends the thread.
//!
//! lapin gets the stream through [`Shallow`], which see.
//!
//! # Invariants
//! - When a [`Wire`] is dropped, lapin's thread for it ends
//!   (`attempts_on_a_frozen_broker_leave_no_threads_behind`).

use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Mutex, PoisonError};

use std::time::{Duration, Instant};

use async_rs::traits::Reactor;
use async_rs::util::RuntimeParts;
use async_rs::{Runtime, Tokio};
use futures::Stream;
use futures::io::{AsyncRead, AsyncWrite};
use lapin::tcp::{AsyncTcpStream, RustlsConnector};
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{Connection, ConnectionProperties};

use super::shallow::Shallow;
use crate::trust::TrustFiles;

/// Tokio's reactor, with streams that lapin can read whatever is in them.
#[derive(Clone, Debug)]
struct ShallowReactor(Tokio);

impl Reactor for ShallowReactor {
    /// Plain or not: lapin is given one that is open already.
    type TcpStream = Shallow<AsyncTcpStream<<Tokio as Reactor>::TcpStream>>;
    type Sleep = <Tokio as Reactor>::Sleep;

    fn register<H: io::Read + io::Write + AsFd + AsRawFd + Send + 'static>(
        &self,
        socket: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        self.0.register(socket)
    }

    fn sleep(&self, duration: Duration) -> Self::Sleep {
        self.0.sleep(duration)
    }

    fn interval(&self, duration: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.0.interval(duration)
    }

    fn tcp_connect_addr(
        &self,
        address: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        let connecting = self.0.tcp_connect_addr(address);
        async move { Ok(Shallow::new(AsyncTcpStream::Plain(connecting.await?))) }
    }
}

/// Ends the TCP connection when dropped.
#[derive(Debug)]
pub(super) struct Wire(TcpStream);

impl Wire {
    /// Ends the TCP connection now, in both directions.
    pub(super) fn shut(&self) {
        if let Err(error) = self.0.shutdown(Shutdown::Both)
            && error.kind() != io::ErrorKind::NotConnected
        {
            tracing::debug!(%error, "a broker socket could not be shut down");
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.shut();
    }
}

/// Opens one connection. There is no time limit here: the caller may drop the future at any point,
/// which ends the socket too.
pub(super) async fn open(
    uri: AMQPUri,
    properties: ConnectionProperties,
    trust: &TrustFiles,
) -> lapin::Result<(Connection, Wire)> {
    let runtime = Runtime::tokio_current();
    let host = uri.authority.host.as_str();
    let addresses: Vec<SocketAddr> = tokio::net::lookup_host((host, uri.authority.port))
        .await?
        .collect();
    // Sets TCP_NODELAY, and tries the addresses one after another.
    let stream = AsyncTcpStream::connect(&runtime, addresses).await?;
    let wire = match &stream {
        AsyncTcpStream::Plain(plain) => Wire(plain.get_ref().as_fd().try_clone_to_owned()?.into()),
        _ => return Err(io::Error::other("a fresh connection is plain TCP").into()),
    };
    let stream = match uri.scheme {
        AMQPScheme::AMQP => stream,
        AMQPScheme::AMQPS => {
            // Anew for each connection: certificates are renewed. A disk may not answer.
            let files = trust.clone();
            let config = tokio::task::spawn_blocking(move || files.read());
            let config = config.await.map_err(io::Error::other)?;
            // Not lapin's own, which adds the system's authorities to ours.
            let connector = RustlsConnector::from(config.map_err(io::Error::other)?);
            stream.into_rustls(&connector, host).await?
        }
    };
    // For lapin it is a plain stream, as all that is under it is done here.
    let stream = AsyncTcpStream::Plain(Shallow::new(stream));
    let reactor = ShallowReactor(Tokio::current());
    let runtime = Runtime::new(RuntimeParts::new(Tokio::current(), reactor));
    // lapin asks for the stream through a closure so that it can reconnect by itself. It must not:
    // there is one stream, and a second request is an error.
    let once = Mutex::new(Some(stream));
    let give = async move |_, _| {
        let stream = once.lock().unwrap_or_else(PoisonError::into_inner).take();
        stream.ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionAborted).into())
    };
    let connection = Connection::connector(uri, runtime, give, properties).await?;
    Ok((connection, wire))
}
