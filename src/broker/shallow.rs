//! Takes the depth out of foreign messages' headers before lapin reads them. Called by `wire`.
//!
//! AMQP's tables and lists hold tables and lists. A frame of 128 KiB has room for 26,000 of
//! them, one in another, and RabbitMQ passes such a message on. lapin reads them by recursion,
//! on a thread with 2 MiB of stack that is not ours to choose, and whoever clones or drops what
//! it read recurses, too: an overflowing stack ends the process, and the message is still in the
//! queue when it starts again. So a value that is nested too deeply is marked as bytes (AMQP's
//! `x`) where it stands: a table, a list and bytes have the same form, a length and so many
//! bytes, and one byte of the frame says which.
//!
//! # Invariants
//! - Of what lapin reads in a message's headers, nothing is nested deeper than [`DEPTH_MAX`]
//!   (`what_is_nested_too_deeply_becomes_bytes`, `headers_that_are_nested_beyond_measure_arrive`).
//! - All other bytes are handed on as they came (`other_bytes_stay_as_they_are`), however they
//!   are read (the fuzzers' `amqp_shallow`): a frame that ends the connection does not take along
//!   those before it (`what_came_whole_before_a_frame_that_is_too_large_is_handed_on`).
//! - Where a broker says why it ends the TLS connection, its word is the error, even where a
//!   write finds the connection gone first (`the_brokers_word_comes_before_a_failed_write`).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::io::{AsyncRead, AsyncWrite};

/// How deep values may be nested. Brokers' own headers (`x-death`) have three levels.
pub(super) const DEPTH_MAX: usize = 32;

/// Bytes that are read from the socket at a time.
const READ_BYTES: usize = 32 << 10;

/// The kind of a frame with a message's headers, in its first byte.
const CONTENT_HEADER: u8 = 2;

/// A frame's kind, channel and length.
const FRAME_HEAD_BYTES: usize = 7;

/// Bytes of a frame of headers, which is held until it is whole. lapin has room for 32 frames
/// of 128 KiB, so that it cannot read a larger one.
const HEADER_FRAME_BYTES_MAX: usize = 4 << 20;

/// A connection whose reader gets shallow headers.
#[derive(Debug)]
pub(super) struct Shallow<S> {
    inner: S,
    frames: Frames,
}

impl<S> Shallow<S> {
    pub(super) fn new(inner: S) -> Self {
        Self {
            inner,
            frames: Frames::default(),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Shallow<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        to: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let Self { inner, frames } = &mut *self;
        loop {
            let given = frames.give(to);
            if given > 0 || to.is_empty() {
                return Poll::Ready(Ok(given));
            }
            if let Some(frame_bytes) = frames.too_large {
                let text = format!("a message's headers in a frame of {frame_bytes} bytes");
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, text)));
            }
            if ready!(frames.fill(inner, cx))? == 0 {
                // A frame that was cut off is of no use to anyone.
                return Poll::Ready(Ok(0));
            }
        }
    }
}

impl<S: AsyncRead + Unpin> Shallow<S> {
    /// What came of a write; where it failed, with what the broker had said before that. A broker
    /// that misses a client's certificate says so in an alert after the client's handshake
    /// (RFC 8446, 4.4.2.4), and then resets a connection that the client writes to already.
    fn explained<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        Poll::Ready(
            ready!(written).map_err(|error| match self.frames.fill(&mut self.inner, cx) {
                Poll::Ready(Err(word)) if word.kind() == io::ErrorKind::InvalidData => word,
                _ => error,
            }),
        )
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Shallow<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.explained(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, slices);
        self.explained(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(cx);
        self.explained(cx, flushed)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(cx)
    }
}

/// What was read and not handed on yet.
#[derive(Debug, Default)]
struct Frames {
    bytes: Vec<u8>,
    /// Bytes that were handed on.
    given: usize,
    /// Bytes that may be handed on.
    ready: usize,
    /// Bytes after those that belong to a frame that goes on as it comes.
    passing: usize,
    /// Bytes of a frame of headers that there is no room for. It is the last one, and the error
    /// is due when what came before it was handed on.
    too_large: Option<usize>,
}

impl Frames {
    /// Reads once, and looks at what was read.
    fn fill<S: AsyncRead + Unpin>(
        &mut self,
        from: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let end = self.bytes.len();
        self.bytes.resize(end + READ_BYTES, 0);
        let read = Pin::new(from).poll_read(cx, &mut self.bytes[end..]);
        let count = match &read {
            Poll::Ready(Ok(count)) => *count,
            Poll::Ready(Err(_)) | Poll::Pending => 0,
        };
        self.bytes.truncate(end + count);
        if count > 0 {
            self.advance();
        }
        read
    }

    /// Hands on what may be.
    fn give(&mut self, to: &mut [u8]) -> usize {
        let count = to.len().min(self.ready - self.given);
        to[..count].copy_from_slice(&self.bytes[self.given..self.given + count]);
        self.given += count;
        if self.given == self.ready {
            self.bytes.drain(..self.given);
            (self.given, self.ready) = (0, 0);
        }
        count
    }

    /// Finds what may be handed on.
    fn advance(&mut self) {
        loop {
            let passed = self.passing.min(self.bytes.len() - self.ready);
            self.ready += passed;
            self.passing -= passed;
            let Some(head) = self.bytes[self.ready..].first_chunk::<FRAME_HEAD_BYTES>() else {
                return;
            };
            let [kind, _, _, length @ ..] = *head;
            let length = u32::from_be_bytes(length) as usize;
            // A byte marks its end.
            let frame_bytes = FRAME_HEAD_BYTES + length + 1;
            if kind != CONTENT_HEADER {
                self.passing = frame_bytes;
                continue;
            }
            if frame_bytes > HEADER_FRAME_BYTES_MAX {
                self.too_large = Some(frame_bytes);
                return;
            }
            let payload = self.ready + FRAME_HEAD_BYTES;
            let Some(payload) = self.bytes.get_mut(payload..payload + length) else {
                return;
            };
            if flatten(payload).is_none() {
                // lapin reads it in the same order, and says so.
                tracing::debug!("a message's headers are malformed");
            }
            self.passing = frame_bytes;
        }
    }
}

/// Marks what is nested too deeply in the headers of a content header frame. `None` where it is
/// malformed; up to there it is done.
pub(super) fn flatten(payload: &mut [u8]) -> Option<()> {
    const HAS_CONTENT_TYPE: u16 = 1 << 15;
    const HAS_CONTENT_ENCODING: u16 = 1 << 14;
    const HAS_HEADERS: u16 = 1 << 13;
    const HAS_MORE_FLAGS: u16 = 1;
    // The class, a weight, and the length of the body.
    let mut at = 2 + 2 + 8;
    let flags = u16::from_be_bytes(*payload.get(at..)?.first_chunk()?);
    let mut last = flags;
    at += 2;
    while last & HAS_MORE_FLAGS != 0 {
        last = u16::from_be_bytes(*payload.get(at..)?.first_chunk()?);
        at += 2;
    }
    for flag in [HAS_CONTENT_TYPE, HAS_CONTENT_ENCODING] {
        if flags & flag != 0 {
            at += 1 + usize::from(*payload.get(at)?);
        }
    }
    if flags & HAS_HEADERS == 0 {
        return Some(());
    }
    let end = end_of(payload, at, payload.len())?;
    flatten_table(payload, at + 4, end)
}

/// The end of what begins at a place with its length, within something that ends at `limit`.
fn end_of(payload: &[u8], at: usize, limit: usize) -> Option<usize> {
    let length = u32::from_be_bytes(*payload.get(at..)?.first_chunk()?);
    let end = at + 4 + length as usize;
    (end <= limit).then_some(end)
}

fn flatten_table(payload: &mut [u8], from: usize, end: usize) -> Option<()> {
    // Where each table or list ends that this place is in, and whether it is a table.
    let mut open = vec![(end, true)];
    let mut at = from;
    while let Some(&(end, is_table)) = open.last() {
        if at == end {
            open.pop();
            continue;
        }
        if is_table {
            at += 1 + usize::from(*payload.get(at)?);
        }
        let kind_at = at;
        let kind = *payload.get(at)?;
        at += 1;
        match kind {
            b'F' | b'A' => {
                let inner_end = end_of(payload, at, end)?;
                if open.len() < DEPTH_MAX {
                    open.push((inner_end, kind == b'F'));
                    at += 4;
                } else {
                    payload[kind_at] = b'x';
                    at = inner_end;
                }
            }
            b'S' | b'x' => at = end_of(payload, at, end)?,
            b'V' => {}
            b't' | b'b' | b'B' => at += 1,
            b's' | b'U' | b'u' => at += 2,
            b'I' | b'i' | b'f' => at += 4,
            b'D' => at += 5,
            b'L' | b'l' | b'd' | b'T' => at += 8,
            _ => return None,
        }
        if at > end {
            return None;
        }
    }
    Some(())
}

#[cfg(test)]
#[path = "shallow_tests.rs"]
mod tests;
