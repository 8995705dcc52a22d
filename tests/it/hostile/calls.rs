//! Calls of the gRPC port, as grpc-web over HTTP/1: frames, codings, content types, and
//! protobuf that is none, is no batch, or is too much.

use super::wire::{Case, Port, Want, request};

const INVALID: Want = Want::Code(&[3]);
const OUT_OF_RANGE: Want = Want::Code(&[11]);
/// What tonic says of frames that are none.
const NO_FRAME: Want = Want::Code(&[3, 11, 12, 13, 15, 2]);
const PATH: &str = "/event.EventService/dispatch";
const PROTO: &str = "Content-Type: application/grpc-web+proto\r\n";

fn frame(flag: u8, message: &[u8]) -> Vec<u8> {
    let mut frame = vec![flag];
    frame.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    frame.extend(message);
    frame
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn field(number: u64, wire: u64, value: &[u8]) -> Vec<u8> {
    [&varint(number << 3 | wire), value].concat()
}

fn holder(number: u64, value: &[u8]) -> Vec<u8> {
    field(number, 2, &[&varint(value.len() as u64), value].concat())
}

/// A batch with a header and these bytes after it.
fn with_header(rest: &[u8]) -> Vec<u8> {
    [&holder(4, &holder(8, b"d")), rest].concat()
}

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |name: String, message: Vec<u8>, want: Want| {
        let bytes = request("POST", PATH, PROTO, &frame(0, &message));
        cases.push(Case::new(format!("call: {name}"), Port::Grpc, bytes, want));
    };
    for (name, message, want) in messages() {
        add(name, message, want);
    }
    cases.extend(frames());
    cases
}

fn messages() -> Vec<(String, Vec<u8>, Want)> {
    let mut messages = Vec::new();
    let mut add =
        |name: &str, message: Vec<u8>, want: Want| messages.push((name.to_owned(), message, want));
    add("nothing", Vec::new(), INVALID);
    add("no header", holder(5, &holder(4, b"h")), INVALID);
    add("an empty device", holder(4, &holder(8, b"")), INVALID);
    add("0xff", vec![0xff; 64], INVALID);
    add("field 0", with_header(&field(0, 0, &[1])), INVALID);
    add(
        "a number of 11 bytes",
        with_header(&field(1000, 0, &[0xff; 11])),
        INVALID,
    );
    add(
        "a number beyond 64 bits",
        with_header(&field(
            1000,
            0,
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2],
        )),
        INVALID,
    );
    add(
        "a key beyond 32 bits",
        with_header(&[&varint(1 << 40)[..], &[0]].concat()),
        INVALID,
    );
    for wire in [0, 1, 3, 4, 5, 6, 7] {
        add(
            &format!("events of wire type {wire}"),
            with_header(&field(5, wire, &[1; 8])),
            INVALID,
        );
        let id = holder(5, &field(4, wire, &[1; 8]));
        add(
            &format!("an id of wire type {wire}"),
            with_header(&id),
            INVALID,
        );
    }
    add(
        "a length beyond its end",
        with_header(&field(5, 2, &varint(1000))),
        INVALID,
    );
    add(
        "a length beyond 2^31",
        with_header(&field(5, 2, &varint(1 << 31))),
        INVALID,
    );
    add(
        "a length beyond 2^63",
        with_header(&field(5, 2, &varint(u64::MAX))),
        INVALID,
    );
    add(
        "an event longer than its batch",
        with_header(&holder(5, &field(4, 2, &varint(50)))),
        INVALID,
    );
    for (name, text) in [
        ("a byte", &b"\xff"[..]),
        ("an overlong sequence", b"\xc0\xaf"),
        ("a surrogate", b"\xed\xa0\x80"),
        ("a sequence cut off", b"\xe2\x82"),
    ] {
        add(
            &format!("{name} that is no UTF-8, as an id"),
            with_header(&holder(5, &holder(4, text))),
            INVALID,
        );
        add(
            &format!("{name} that is no UTF-8, as a device"),
            holder(4, &holder(8, text)),
            INVALID,
        );
        let map = holder(5, &holder(13, &holder(23, &holder(1, text))));
        add(
            &format!("{name} that is no UTF-8, in a map"),
            with_header(&map),
            Want::Code(&[3]),
        );
    }
    let group = |depth: usize, end: u64| {
        [
            field(1000, 3, &[]).repeat(depth),
            field(end, 4, &[]).repeat(depth),
        ]
        .concat()
    };
    add(
        "a group that never ends",
        with_header(&field(1000, 3, &[])),
        INVALID,
    );
    add(
        "the end of a group alone",
        with_header(&field(1000, 4, &[])),
        INVALID,
    );
    add(
        "a group with another's end",
        with_header(&group(1, 1001)),
        INVALID,
    );
    add(
        "100,000 groups within each other",
        with_header(&group(100_000, 1000)),
        INVALID,
    );
    let mut deep = Vec::new();
    for _ in 0..120 {
        deep = holder(5, &deep);
    }
    add(
        "an event in an event",
        with_header(&[&deep[..], &[0xff]].concat()),
        INVALID,
    );
    add(
        "20,000 events",
        with_header(&[0x2a, 0].repeat(20_000)),
        OUT_OF_RANGE,
    );
    add(
        "500,000 events",
        with_header(&[0x2a, 0].repeat(500_000)),
        OUT_OF_RANGE,
    );
    let numbers = holder(5, &holder(18, &holder(9, &vec![1; 600_000])));
    add(
        "a list of 600,000 numbers",
        with_header(&numbers),
        OUT_OF_RANGE,
    );
    let unknown = holder(5, &field(1, 0, &[1]).repeat(510_000));
    add(
        "510,000 unknown fields",
        with_header(&unknown),
        Want::Code(&[11]),
    );
    add(
        "1.2 MB",
        with_header(&holder(5, &holder(4, &vec![b'x'; 1_200_000]))),
        OUT_OF_RANGE,
    );
    messages
}

fn frames() -> Vec<Case> {
    let mut cases = Vec::new();
    let good = with_header(&[]);
    let mut add = |name: &str, lines: &str, body: Vec<u8>, want: Want| {
        let bytes = request("POST", PATH, lines, &body);
        cases.push(Case::new(format!("frame: {name}"), Port::Grpc, bytes, want));
    };
    add("none", PROTO, Vec::new(), NO_FRAME);
    add("half of its head", PROTO, vec![0, 0, 0], NO_FRAME);
    add(
        "longer than its body",
        PROTO,
        [&[0, 0, 0, 1, 0][..], b"x"].concat(),
        NO_FRAME,
    );
    add(
        "of 4 GB",
        PROTO,
        vec![0, 0xff, 0xff, 0xff, 0xff],
        OUT_OF_RANGE,
    );
    add(
        "with a flag that nobody knows",
        PROTO,
        frame(7, &good),
        NO_FRAME,
    );
    add("compressed by nothing", PROTO, frame(1, &good), NO_FRAME);
    let bomb = vec![0; 256 << 20];
    let zstd = zstd::encode_all(&bomb[..], 1).unwrap();
    add(
        "a bomb of zstd",
        &format!("{PROTO}grpc-encoding: zstd\r\n"),
        frame(1, &zstd),
        OUT_OF_RANGE,
    );
    let gzip = {
        use std::io::Write as _;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&bomb).unwrap();
        encoder.finish().unwrap()
    };
    add(
        "a bomb of gzip",
        &format!("{PROTO}grpc-encoding: gzip\r\n"),
        frame(1, &gzip),
        OUT_OF_RANGE,
    );
    add(
        "gzip that is none",
        &format!("{PROTO}grpc-encoding: gzip\r\n"),
        frame(1, &good),
        NO_FRAME,
    );
    add(
        "a coding that nobody knows",
        &format!("{PROTO}grpc-encoding: rot13\r\n"),
        frame(1, &good),
        Want::Code(&[12]),
    );
    let text = "Content-Type: application/grpc-web-text+proto\r\n";
    add("text that is no base64", text, b"!!!!".to_vec(), NO_FRAME);
    add("base64 cut off", text, b"AAAAAA".to_vec(), NO_FRAME);
    for kind in [
        "application/json",
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/grpc-web+json2",
        "multipart/form-data",
        "image/png",
        "",
    ] {
        let lines = format!("Content-Type: {kind}\r\n");
        let want = Want::Status(&[400, 404, 405, 415]);
        add(&format!("of type {kind:?}"), &lines, frame(0, &good), want);
    }
    cases
}
