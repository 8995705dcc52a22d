//! What must hold of foreign messages' headers on their way through this folder. Called by
//! `crate::fuzzing` alone, and compiled for it alone.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::io::{AsyncRead, AsyncReadExt as _};
use lapin::BasicProperties;
use lapin::types::parsing::parse_field_table;
use lapin::types::{AMQPValue, FieldTable};

use super::message::Message;
use super::refusals::{DEFAULT_EXCHANGE, place_in, size_in};
use super::shallow::{DEPTH_MAX, Shallow, flatten};

/// A connection that gives so many bytes at a time.
struct Pieces<'a>(&'a [u8], usize);

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        to: &mut [u8],
    ) -> Poll<std::io::Result<usize>> {
        let count = self.1.min(to.len()).min(self.0.len());
        let (piece, rest) = self.0.split_at(count);
        to[..count].copy_from_slice(piece);
        self.0 = rest;
        Poll::Ready(Ok(count))
    }
}

/// What lapin gets of these bytes, and whether the connection ended with an error.
fn through(bytes: &[u8], piece: usize) -> (Vec<u8>, bool) {
    let mut shallow = Shallow::new(Pieces(bytes, piece));
    let mut out = Vec::new();
    let read = futures::executor::block_on(shallow.read_to_end(&mut out));
    (out, read.is_err())
}

/// Frames of a broker. The bytes: how many are read at a time (1), and what is read.
pub(crate) fn shallow(data: &[u8]) {
    let Some((piece, bytes)) = data.split_first() else {
        return;
    };
    let (whole, failed) = through(bytes, usize::MAX);
    // Each read has its price: 16 of them show all that a hundred thousand would.
    let piece = (usize::from(*piece) + 1).max(bytes.len() / 16);
    assert_eq!(
        through(bytes, piece),
        (whole.clone(), failed),
        "it matters how bytes come"
    );
    assert!(whole.len() <= bytes.len());
    for (after, before) in whole.iter().zip(bytes) {
        let is_marked = *after == b'x' && matches!(before, b'F' | b'A');
        assert!(after == before || is_marked, "{before} became {after}");
    }
    if !failed {
        assert_eq!(
            through(&whole, usize::MAX).0,
            whole,
            "a second time changes more"
        );
    }
    let mut table = bytes.to_vec();
    if let Some(read) = read_table(&mut table) {
        let deepest = read.inner().values().map(depth).max().unwrap_or(0);
        assert!(deepest < DEPTH_MAX, "{deepest} levels in the headers");
    }
}

/// How deep lapin's value goes.
fn depth(value: &AMQPValue) -> usize {
    match value {
        AMQPValue::FieldTable(table) => {
            1 + table.inner().values().map(depth).max().unwrap_or_default()
        }
        AMQPValue::FieldArray(list) => {
            1 + list.as_slice().iter().map(depth).max().unwrap_or_default()
        }
        _ => 0,
    }
}

/// Reads a table as lapin reads it on a connection. What it cannot read, it refuses; what
/// [`flatten`] could not walk through to the end is not given to it here, as lapin would
/// read it before the place where it breaks, in whatever depth.
fn read_table(table: &mut [u8]) -> Option<FieldTable> {
    let mut payload = vec![0; 12];
    payload.extend((1u16 << 13).to_be_bytes());
    payload.extend(u32::try_from(table.len()).ok()?.to_be_bytes());
    payload.extend_from_slice(table);
    let before = payload.clone();
    flatten(&mut payload)?;
    let mut again = payload.clone();
    assert_eq!(flatten(&mut again), Some(()));
    assert_eq!(again, payload, "a second time changes more");
    assert_eq!(before.len(), payload.len());
    let (rest, table) = parse_field_table(&payload[14..]).ok()?;
    assert!(rest.is_empty(), "lapin sees another end of the headers");
    Some(table)
}

/// A delivery with these headers, encoded as AMQP does it without their length. `None`
/// where lapin refuses them.
pub(crate) fn received(table: &[u8], kind: Option<&str>, body: &[u8]) -> Option<Message> {
    let headers = read_table(&mut table.to_vec())?;
    let mut properties = BasicProperties::default()
        .with_headers(headers)
        .with_message_id("m-1".into())
        .with_timestamp(1_700_000_000);
    if let Some(kind) = kind {
        properties = properties.with_content_type(kind.into());
    }
    let message = Message::from_wire("e".into(), "k".into(), &properties, body.to_vec());
    // Published again it is the same, but for what would change its fate.
    let sent = message.to_properties(7).expect("its names came over AMQP");
    let again = Message::from_wire("e".into(), "k".into(), &sent, body.to_vec());
    let mut wanted = message.clone();
    for name in ["CC", "BCC", "x-delivery-count", "x-acquired-count"] {
        wanted.headers.remove(name);
    }
    // As text: some numbers are not equal to themselves.
    assert_eq!(format!("{again:?}"), format!("{wanted:?}"));
    // Set aside and sent again, it is the same as the first time that it was.
    let parcel = message.to_parcel();
    let kept = serde_json::to_string(&parcel).expect("a parcel is JSON");
    let read = serde_json::from_str(&kept).expect("it was written as one");
    assert_eq!(parcel, read);
    let letter = Message::of_parcel(read, kind.unwrap_or_default(), Bytes::copy_from_slice(body));
    assert_eq!(letter.to_parcel().headers, parcel.headers);
    Some(message)
}

/// What is read in the words of a broker that refuses.
pub(crate) fn refusal(text: &str) {
    if let Some(most) = size_in(text) {
        assert!(
            text.contains(&most.to_string()),
            "{most} does not stand there"
        );
    }
    if let Some((exchange, key)) = place_in(text) {
        assert!(text.contains(&exchange) || text.contains(DEFAULT_EXCHANGE));
        assert!(key.is_none_or(|key| text.contains(&key)));
    }
}
