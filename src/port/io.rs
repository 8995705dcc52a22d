//! The bytes of a connection, watched: what comes is told to `activity`, and a peer that takes
//! nothing of what it is sent loses the connection. Called by `serve`, which gives it to hyper.
//!
//! # Invariants
//! - A write that makes no progress for `write_time` fails; each byte that is taken begins
//!   the time anew (test `who_reads_nothing_is_given_up`).

use super::activity::Activity;
use std::future::Future as _;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// A stream that tells what comes and does not wait for ever.
pub(super) struct Watched<S> {
    stream: S,
    activity: Arc<Activity>,
    write_time: Duration,
    /// While the peer takes nothing: until when.
    stuck: Option<Pin<Box<Sleep>>>,
}

impl<S> Watched<S> {
    pub(super) fn new(stream: S, activity: Arc<Activity>, write_time: Duration) -> Self {
        Self {
            stream,
            activity,
            write_time,
            stuck: None,
        }
    }

    /// What came of an attempt to send.
    fn bounded<T>(
        &mut self,
        cx: &mut Context<'_>,
        attempt: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if attempt.is_ready() {
            return attempt;
        }
        let time = self.write_time;
        let stuck = self
            .stuck
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(time)));
        if stuck.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.activity.reads_too_slowly();
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// The same where success means that the peer took bytes.
    fn wrote(
        &mut self,
        cx: &mut Context<'_>,
        attempt: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if attempt.is_ready() {
            self.stuck = None;
        }
        self.bounded(cx, attempt)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = to.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, to);
        if read.is_ready() {
            self.activity.came(&to.filled()[before..]);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let attempt = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.wrote(cx, attempt)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let attempt = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.wrote(cx, attempt)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let attempt = Pin::new(&mut self.stream).poll_flush(cx);
        self.bounded(cx, attempt)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let attempt = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.bounded(cx, attempt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::time::Instant;

    const TIME: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn who_reads_nothing_is_given_up() {
        let (ours, mut theirs) = tokio::io::duplex(8);
        let activity = Activity::new(Instant::now());
        let mut ours = Watched::new(ours, Arc::clone(&activity), TIME);
        let start = Instant::now();
        let reading = tokio::spawn(async move {
            let mut bytes = [0; 8];
            for _ in 0..3 {
                tokio::time::sleep(TIME - Duration::from_secs(1)).await;
                theirs.read_exact(&mut bytes).await.unwrap();
            }
            theirs
        });
        let error = ours.write_all(&[0; 1000]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let took = start.elapsed();
        assert!(took >= TIME * 3 && took < TIME * 5, "{took:?}");
        assert!(activity.was_too_slow());
        drop(reading.await.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn who_reads_at_leisure_is_not() {
        let (ours, mut theirs) = tokio::io::duplex(8);
        let activity = Activity::new(Instant::now());
        let mut ours = Watched::new(ours, Arc::clone(&activity), TIME);
        let sending = tokio::spawn(async move { ours.write_all(&[0; 100]).await });
        let mut taken = 0;
        while taken < 100 {
            tokio::time::sleep(TIME - Duration::from_secs(1)).await;
            let count = theirs.read(&mut [0; 8]).await.unwrap();
            assert!(count > 0, "given up after {taken}");
            taken += count;
        }
        sending.await.unwrap().unwrap();
        assert!(!activity.was_too_slow());
    }
}
