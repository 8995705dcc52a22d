//! An answer on its way out: in work until it has left, and given in pieces over HTTP/2, so that
//! no more of one is copied to a connection than its peer takes. Made by `serve`, which gives it
//! to hyper.
//!
//! # Invariants
//! - A peer that gives an answer no room keeps no connection: of a piece that was given the time
//!   runs until the next is asked for (`activity`; tests/it/ports/windows.rs). Over HTTP/1 `io`
//!   has that time, as every answer goes by itself.
//! - An answer that has nothing to say yet, such as a watch, has all the time (there).

use super::activity::InWork;
use super::bounds::PIECE_BYTES;
use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll};

pub(super) struct Answer {
    body: Body,
    in_work: InWork,
    /// Whether it goes in pieces.
    in_pieces: bool,
    /// What is left of a frame.
    rest: Bytes,
}

impl Answer {
    pub(super) fn new(body: Body, in_work: InWork, in_pieces: bool) -> Self {
        Self {
            body,
            in_work,
            in_pieces,
            rest: Bytes::new(),
        }
    }

    /// The next piece of what is left. Copied, as hyper would keep all of it for its last piece.
    fn piece(&mut self) -> Frame<Bytes> {
        let piece = self.rest.split_to(self.rest.len().min(PIECE_BYTES));
        self.in_work.gave();
        Frame::data(Bytes::copy_from_slice(&piece))
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let answer = &mut *self;
        if !answer.in_pieces {
            return Pin::new(&mut answer.body).poll_frame(cx);
        }
        answer.in_work.is_asked();
        if !answer.rest.is_empty() {
            return Poll::Ready(Some(Ok(answer.piece())));
        }
        let frame = std::task::ready!(Pin::new(&mut answer.body).poll_frame(cx));
        let Some(Ok(frame)) = frame else {
            return Poll::Ready(frame);
        };
        match frame.into_data() {
            Ok(data) if data.len() > PIECE_BYTES => {
                answer.rest = data;
                Poll::Ready(Some(Ok(answer.piece())))
            }
            Ok(data) => {
                answer.in_work.gave();
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Err(trailers) => Poll::Ready(Some(Ok(trailers))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.body.size_hint();
        let rest = self.rest.len() as u64;
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint.set_lower(hint.lower().saturating_add(rest));
        hint
    }
}

#[cfg(test)]
mod tests {
    use super::super::activity::Activity;
    use super::*;
    use http_body_util::BodyExt as _;

    #[tokio::test]
    async fn pieces_are_the_whole() {
        let whole: Vec<u8> = (0..PIECE_BYTES * 3 + 17).map(|at| at as u8).collect();
        let activity = Activity::new(tokio::time::Instant::now());
        let mut answer = Answer::new(Body::from(whole.clone()), activity.begin(), true);
        assert_eq!(answer.size_hint().exact(), Some(whole.len() as u64));
        let mut seen = Vec::new();
        while let Some(frame) = answer.frame().await {
            let piece = frame.unwrap().into_data().unwrap();
            assert!(piece.len() <= PIECE_BYTES);
            seen.extend_from_slice(&piece);
            assert_eq!(answer.is_end_stream(), seen.len() == whole.len());
            let left = (whole.len() - seen.len()) as u64;
            assert_eq!(answer.size_hint().exact(), Some(left));
        }
        assert_eq!(seen, whole);
    }
}
