//! Which send told a client that its request is durable. Called by `recording`.
//!
//! # Invariants
//! - A connection has one request in flight at a time (the clients' duty): an answer
//!   belongs to the last token that arrived on its connection.
//! - HTTP/1.1: the acknowledgement is the send with `HTTP/1.1 200`. HTTP/2: the send
//!   with the first byte of the first HEADERS frame on the request's stream; frames of
//!   the connection (SETTINGS, PING, WINDOW_UPDATE) and of no stream are none.
//! - Its moment is the start of that send.

use super::load::{TOKEN_LEN, Token, tokens};
use super::log::{Handle, Log, Op};
use std::collections::HashMap;

/// Frame types and sizes of HTTP/2 (RFC 9113, 4.1 and 6.2).
const FRAME_HEAD: usize = 9;
const HEADERS: u8 = 1;

/// What every HTTP/2 connection begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0";

#[derive(Default)]
struct Connection {
    is_http2: bool,
    /// The end of what arrived, so that a token cut in two is seen.
    tail: Vec<u8>,
    token: Option<Token>,
    /// HTTP/2: what has left of a frame's head, and what is left of its payload.
    head: Vec<u8>,
    head_at: usize,
    payload_left: usize,
    last_stream: u32,
}

/// Each acknowledged token and the operation number of its send.
pub fn acks(log: &Log) -> HashMap<Token, usize> {
    let mut connections: HashMap<Handle, Connection> = HashMap::new();
    let mut acks = HashMap::new();
    for op in log.ops.iter() {
        match op {
            Op::Accept { handle } => {
                connections.insert(*handle, Connection::default());
            }
            Op::Received { handle, data } => {
                let connection = connections.get_mut(handle).expect("accepted before");
                connection.received(log.bytes(data));
            }
            Op::Sent {
                start,
                sent: Some(sent),
            } => {
                let Op::Send { handle, len, data } = &log.ops[*start] else {
                    panic!("a result without its send");
                };
                let connection = connections.get_mut(handle).expect("accepted before");
                // /metrics answers are longer than what is logged; no answer to a
                // request with a token is.
                assert!(
                    data.len() == *len || connection.token.is_none(),
                    "an answer of {len} bytes"
                );
                let data = &log.bytes(data)[..(*sent).min(data.len())];
                let answered = if connection.is_http2 {
                    connection.sent_http2(data, *start)
                } else {
                    data.starts_with(b"HTTP/1.1 200").then_some(*start)
                };
                if let Some(at) = answered
                    && let Some(token) = connection.token.take()
                {
                    let old = acks.insert(token, at);
                    assert_eq!(old, None, "{token:?} was answered twice");
                }
            }
            _ => {}
        }
    }
    acks
}

impl Connection {
    fn received(&mut self, data: &[u8]) {
        if data.starts_with(PREFACE) {
            self.is_http2 = true;
        }
        self.tail.extend(data);
        if let Some(token) = tokens(&self.tail).next() {
            self.token = Some(token);
        }
        let keep = self.tail.len().min(TOKEN_LEN - 1);
        self.tail.drain(..self.tail.len() - keep);
    }

    /// Reads what left; the send in which an answer on a new stream began.
    fn sent_http2(&mut self, mut data: &[u8], at: usize) -> Option<usize> {
        let mut answered = None;
        while !data.is_empty() {
            if self.payload_left > 0 {
                let n = self.payload_left.min(data.len());
                self.payload_left -= n;
                data = &data[n..];
                continue;
            }
            if self.head.is_empty() {
                self.head_at = at;
            }
            let n = (FRAME_HEAD - self.head.len()).min(data.len());
            self.head.extend(&data[..n]);
            data = &data[n..];
            if self.head.len() == FRAME_HEAD {
                let head = std::mem::take(&mut self.head);
                self.payload_left = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
                let stream = u32::from_be_bytes(head[5..9].try_into().unwrap()) & (u32::MAX >> 1);
                if head[3] == HEADERS && stream > self.last_stream {
                    assert_eq!(answered, None, "two answers in one send");
                    self.last_stream = stream;
                    answered = Some(self.head_at);
                }
            }
        }
        answered
    }
}
