//! Tests of `shallow`: frames in pieces of any size, and values nested in any way.

use super::*;
use futures::io::AsyncReadExt as _;
use proptest::prelude::*;

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![kind, 0, 1];
    frame.extend((payload.len() as u32).to_be_bytes());
    frame.extend(payload);
    frame.push(0xce);
    frame
}

fn long(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes(), bytes].concat()
}

/// A content header with a content type, these headers and a delivery mode.
fn content_header(table: &[u8]) -> Vec<u8> {
    let mut payload = vec![0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
    payload.extend(0xb000u16.to_be_bytes());
    payload.extend(b"\x04text");
    payload.extend(long(table));
    payload.push(2);
    payload
}

/// A table with a value of so many levels, and something behind it.
fn nested(levels: usize, kind: u8) -> Vec<u8> {
    let name: &[u8] = if kind == b'F' { b"\x01n" } else { b"" };
    let mut value = [name, b"t\x01"].concat();
    for _ in 1..levels {
        value = [name, &[kind], &long(&value)].concat();
    }
    [
        &b"\x04deep"[..],
        &[kind],
        &long(&value),
        b"\x03endS",
        &long(b"FFAA"),
    ]
    .concat()
}

/// How deep lapin would go.
fn depth(table: &[u8]) -> usize {
    fn length<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
        let (head, tail) = rest.split_first_chunk::<4>().unwrap();
        let (inner, tail) = tail.split_at(u32::from_be_bytes(*head) as usize);
        *rest = tail;
        inner
    }
    fn value(kind: u8, rest: &mut &[u8]) -> usize {
        match kind {
            b'F' => 1 + depth(length(rest)),
            b'A' => {
                let mut items = length(rest);
                let mut deepest = 0;
                while let Some((kind, tail)) = items.split_first() {
                    items = tail;
                    deepest = deepest.max(value(*kind, &mut items));
                }
                1 + deepest
            }
            b'S' | b'x' => {
                length(rest);
                0
            }
            b't' => {
                *rest = &rest[1..];
                0
            }
            other => panic!("{other}"),
        }
    }
    let (mut rest, mut deepest) = (table, 0);
    while let Some((length, tail)) = rest.split_first() {
        rest = &tail[usize::from(*length)..];
        let (kind, tail) = rest.split_first().unwrap();
        rest = tail;
        deepest = deepest.max(value(*kind, &mut rest));
    }
    deepest
}

/// A connection that gives pieces of these sizes.
struct Pieces<'a>(&'a [u8], std::iter::Cycle<std::slice::Iter<'a, usize>>);

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        to: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let size = self.1.next().copied().unwrap_or(1);
        let count = size.min(to.len()).min(self.0.len());
        let (piece, rest) = self.0.split_at(count);
        to[..count].copy_from_slice(piece);
        self.0 = rest;
        Poll::Ready(Ok(count))
    }
}

/// Reads all through [`Shallow`]: what is handed on, and how it ends.
fn read(bytes: &[u8], sizes: &[usize]) -> (Vec<u8>, io::Result<usize>) {
    let mut shallow = Shallow::new(Pieces(bytes, sizes.iter().cycle()));
    let mut out = Vec::new();
    let end = futures::executor::block_on(shallow.read_to_end(&mut out));
    (out, end)
}

/// What is handed on of a connection that ends well.
fn through(bytes: &[u8], sizes: &[usize]) -> Vec<u8> {
    let (out, end) = read(bytes, sizes);
    end.unwrap();
    out
}

#[test]
fn what_is_nested_too_deeply_becomes_bytes() {
    for kind in [b'F', b'A'] {
        for levels in [1, 2, DEPTH_MAX - 1, DEPTH_MAX, DEPTH_MAX + 1, 500] {
            let table = nested(levels, kind);
            assert_eq!(depth(&table), levels);
            let mut payload = content_header(&table);
            let before = payload.clone();
            assert_eq!(flatten(&mut payload), Some(()));
            let changed = before.iter().zip(&payload).filter(|(a, b)| a != b).count();
            // The headers themselves are the first level.
            let is_too_deep = levels >= DEPTH_MAX;
            assert_eq!(changed, usize::from(is_too_deep), "{levels}");
            let at = payload.len() - 1 - table.len();
            let after = &payload[at..payload.len() - 1];
            assert_eq!(depth(after), levels.min(DEPTH_MAX - 1));
            assert!(after.ends_with(b"FFAA"));
        }
        // As many as fit a frame: nothing here recurses.
        let each = if kind == b'F' { 7 } else { 5 };
        let mut inside = Vec::new();
        for level in (0..130_000 / each).rev() {
            let name: &[u8] = if kind == b'F' { b"\x01n" } else { b"" };
            inside.extend([name, &[kind], &((level * each) as u32).to_be_bytes()].concat());
        }
        let table = [&b"\x04deep"[..], &[kind], &long(&inside)].concat();
        let mut payload = content_header(&table);
        assert_eq!(flatten(&mut payload), Some(()));
        let at = payload.len() - 1 - table.len();
        assert_eq!(depth(&payload[at..payload.len() - 1]), DEPTH_MAX - 1);
    }
}

#[test]
fn a_frame_that_lapin_has_no_room_for_is_an_error() {
    let mut shallow = Shallow::new(&b"\x02\0\x01\xff\xff\xff\xff....."[..]);
    let mut out = Vec::new();
    let read = futures::executor::block_on(shallow.read_to_end(&mut out));
    assert_eq!(read.unwrap_err().kind(), io::ErrorKind::InvalidData);
}

#[test]
fn what_came_whole_before_a_frame_that_is_too_large_is_handed_on() {
    let before = [
        frame(1, b"a method"),
        frame(CONTENT_HEADER, &content_header(b"")),
        frame(3, b"a body"),
    ]
    .concat();
    let large = (HEADER_FRAME_BYTES_MAX as u32).to_be_bytes();
    let bytes = [&before[..], b"\x02\0\x01", &large, b"its beginning"].concat();
    for size in [1, 7, before.len(), before.len() + 7, READ_BYTES] {
        let (out, end) = read(&bytes, &[size]);
        assert_eq!(out, before, "{size} at a time");
        assert_eq!(end.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
    // It stays an error: nothing behind it is taken for a frame.
    let mut shallow = Shallow::new(&bytes[..]);
    let mut out = Vec::new();
    for _ in 0..2 {
        let end = futures::executor::block_on(shallow.read_to_end(&mut out));
        assert_eq!(end.unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(out, before);
    }
}

/// A connection that was reset after its peer had said something.
struct Reset(Option<io::Result<Vec<u8>>>);

impl AsyncRead for Reset {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        to: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let said = self.0.take().unwrap_or_else(|| Ok(Vec::new()));
        Poll::Ready(said.map(|bytes| {
            to[..bytes.len()].copy_from_slice(&bytes);
            bytes.len()
        }))
    }
}

impl AsyncWrite for Reset {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[test]
fn the_brokers_word_comes_before_a_failed_write() {
    use futures::io::AsyncWriteExt as _;
    let alert = || {
        let word = io::Error::new(io::ErrorKind::InvalidData, "CertificateRequired");
        Shallow::new(Reset(Some(Err(word))))
    };
    let slices = [io::IoSlice::new(b"AMQP")];
    let errors = futures::executor::block_on(async {
        [
            alert().write(b"AMQP").await.unwrap_err(),
            alert().write_vectored(&slices).await.unwrap_err(),
            alert().flush().await.unwrap_err(),
        ]
    });
    for error in errors {
        assert_eq!(error.to_string(), "CertificateRequired");
    }
    // What else came is still to be read, and nothing at all is no word.
    for came in [frame(1, b"a method"), Vec::new()] {
        let mut shallow = Shallow::new(Reset(Some(Ok(came.clone()))));
        let mut read = Vec::new();
        futures::executor::block_on(async {
            let error = shallow.write(b"AMQP").await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
            shallow.read_to_end(&mut read).await.unwrap();
        });
        assert_eq!(read, came);
    }
}

fn any_value() -> impl Strategy<Value = Vec<u8>> {
    let leaf = prop_oneof![
        Just(b"t\x01".to_vec()),
        proptest::collection::vec(any::<u8>(), 0..9).prop_map(|b| [&b"S"[..], &long(&b)].concat()),
        proptest::collection::vec(any::<u8>(), 0..9).prop_map(|b| [&b"x"[..], &long(&b)].concat()),
    ];
    leaf.prop_recursive(80, 200, 3, |inner| {
        (any::<bool>(), proptest::collection::vec(inner, 0..3)).prop_map(|(is_table, items)| {
            let name: &[u8] = if is_table { b"\x02ab" } else { b"" };
            let items: Vec<u8> = items.iter().flat_map(|i| [name, i].concat()).collect();
            [if is_table { b"F" } else { b"A" }, &long(&items)[..]].concat()
        })
    })
}

proptest! {
    #[test]
    fn other_bytes_stay_as_they_are(
        frames in proptest::collection::vec((1u8..9, proptest::collection::vec(any::<u8>(), 0..300)), 0..20),
        sizes in proptest::collection::vec(1usize..400, 1..9),
        value in any_value(),
    ) {
        let mut bytes = Vec::new();
        let mut expected = Vec::new();
        for (kind, payload) in frames {
            // Of foreign bytes as headers nothing is known but that they do no harm.
            let kind = if kind == CONTENT_HEADER { 3 } else { kind };
            bytes.extend(frame(kind, &payload));
            expected.extend(frame(kind, &payload));
            let mut header = content_header(&[&b"\x01v"[..], &value].concat());
            bytes.extend(frame(CONTENT_HEADER, &header));
            prop_assert_eq!(flatten(&mut header), Some(()));
            expected.extend(frame(CONTENT_HEADER, &header));
        }
        prop_assert_eq!(through(&bytes, &sizes), expected);
    }

    #[test]
    fn foreign_bytes_never_panic(mut payload in proptest::collection::vec(any::<u8>(), 0..400), tags in any::<bool>()) {
        if tags {
            let table = payload.iter().map(|b| b"FAx\0\x01St"[usize::from(*b) % 7]).collect::<Vec<_>>();
            payload = content_header(&table);
        }
        let length = payload.len();
        let done = flatten(&mut payload);
        prop_assert!(done.is_none() || payload.len() == length);
    }
}
