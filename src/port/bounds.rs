//! The bounds of a connection: what an operator sets, and what is fixed. Filled by `app` and
//! `admin`, kept by `serve`, `activity` and `io`.

use std::time::Duration;

/// What an operator sets for the connections of a port.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Connections of the port.
    pub connections_max: usize,
    /// Connections of one peer's address.
    pub per_address_max: usize,
    /// From the connection to the whole head of its first request, with the handshakes; and
    /// later from a head's first byte to its last.
    pub header_time: Duration,
    /// How long a connection may stay without a request in work.
    pub idle_time: Duration,
    /// How long a peer may take none of the bytes that it is sent.
    pub write_time: Duration,
    /// How long a connection may last at all, where it may not last for ever.
    pub life: Option<Duration>,
}

/// Bytes of one request's headers, over HTTP/1 with its request line: browsers and gRPC
/// libraries send some hundred, a client behind proxies with tokens a few thousand.
pub(super) const HEADER_BYTES_MAX: usize = 32 << 10;

/// Streams of one HTTP/2 connection: a client library opens one connection and puts its
/// calls on it, several hundred at a time under load.
pub(super) const STREAMS_MAX: u32 = 1024;

/// How often a silent HTTP/2 peer is asked whether it is there: its place is free after this
/// and [`PING_TIMEOUT`], also where no reset arrives.
pub(super) const PING_PERIOD: Duration = Duration::from_secs(30);

/// How long it may take to say so.
pub(super) const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// How long nothing may come of a peer before its host is asked whether the connection is still
/// there: over HTTP/1 a watch of health may last for ever, and of a host that vanished without a
/// word nothing else frees the place.
pub(super) const PROBE_AFTER: Duration = Duration::from_secs(60);

/// How long after one such question the next is asked.
pub(super) const PROBE_PERIOD: Duration = Duration::from_secs(20);

/// Questions without an answer that end a connection: a lost packet or two are nothing.
pub(super) const PROBES_MAX: u32 = 3;

/// HTTP/2 streams that a peer has reset before they were looked at. Well-behaved clients
/// cancel a handful at a time; more is a flood (CVE-2023-44487), and ends the connection.
pub(super) const PENDING_RESETS_MAX: usize = 20;

/// HTTP/2 streams that a connection makes us reset for its mistakes, before it ends.
pub(super) const OWN_RESETS_MAX: usize = 256;

/// Bytes of an answer that wait in one HTTP/2 stream: answers are a few bytes, and the
/// metrics some hundred thousand, which are made as fast as they are taken.
pub(super) const SEND_BUFFER_BYTES: usize = 64 << 10;

/// Bytes of an answer that are given to an HTTP/2 stream at once: a stream whose peer gives it no
/// room holds so many, and in a `write_time` a slow one has room for them.
pub(super) const PIECE_BYTES: usize = 4 << 10;

/// After an accept that failed for want of a descriptor or memory: long enough not to spin,
/// and short enough that clients notice nothing.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
