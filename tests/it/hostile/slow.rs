//! Inputs that take their time, or more of it than they may: each ends by a bound.

use super::wire::{Case, Port, Want, request};
use std::time::Duration;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame of HTTP/2 (RFC 9113, 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// What a client of HTTP/2 sends first.
pub fn opening() -> Vec<u8> {
    [PREFACE, &frame(4, 0, 0, &[])].concat()
}

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for port in [Port::Http, Port::Grpc] {
        let mut add = |name: &str, parts: Vec<Vec<u8>>, pause_ms: u64| {
            cases.push(Case {
                name: format!("{name} at {port:?}"),
                port,
                parts,
                pause: Duration::from_millis(pause_ms),
                want: Want::Ends,
            });
        };
        add("silence", vec![Vec::new()], 0);
        add("half a head", vec![b"POST /events HT".to_vec()], 0);
        let trickle = |start: &str| {
            let mut parts = vec![start.as_bytes().to_vec()];
            parts.extend(std::iter::repeat_n(b"X: y\r\n".to_vec(), 40));
            parts
        };
        add(
            "a head that trickles",
            trickle("POST /events HTTP/1.1\r\nHost: a\r\n"),
            150,
        );
        let body = |length: &str| {
            let head = format!("POST /events HTTP/1.1\r\nHost: a\r\n{length}\r\n\r\n");
            let mut parts = vec![head.into_bytes()];
            parts.extend(std::iter::repeat_n(b"1\r\n \r\n".to_vec(), 40));
            parts
        };
        if port == Port::Http {
            add(
                "a body that never comes",
                body("Content-Length: 1000")[..1].to_vec(),
                0,
            );
            add("a body that trickles", body("Content-Length: 1000"), 150);
            add(
                "chunks without end",
                body("Transfer-Encoding: chunked"),
                150,
            );
        }
        add("half a preface", vec![PREFACE[..10].to_vec()], 0);
        add("a preface and nothing", vec![PREFACE.to_vec()], 0);
        add("HTTP/2 and nothing", vec![opening()], 0);
        add(
            "a frame of 16 MB",
            vec![[opening(), vec![0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1]].concat()],
            0,
        );
        add(
            "a frame of an odd length",
            vec![[opening(), frame(4, 0, 0, &[1, 2, 3])].concat()],
            0,
        );
        add(
            "data of no stream",
            vec![[opening(), frame(0, 0, 1, b"x")].concat()],
            0,
        );
        add(
            "headers of stream 0",
            vec![[opening(), frame(1, 5, 0, &[0x82])].concat()],
            0,
        );
        add(
            "headers of an even stream",
            vec![[opening(), frame(1, 5, 2, &[0x82])].concat()],
            0,
        );
        add(
            "headers that are none",
            vec![[opening(), frame(1, 5, 1, &[0xff; 200])].concat()],
            0,
        );
        add(
            "a window beyond its end",
            vec![[opening(), frame(8, 0, 0, &[0x7f, 0xff, 0xff, 0xff])].concat()],
            0,
        );
        add(
            "a window of nothing",
            vec![[opening(), frame(8, 0, 0, &[0; 4])].concat()],
            0,
        );
        // Continuations without an end (CVE-2024-27316).
        let mut endless = vec![[opening(), frame(1, 0, 1, &[0x82])].concat()];
        let more: Vec<u8> = (0..500)
            .flat_map(|_| {
                frame(
                    9,
                    0,
                    1,
                    &[b"\x40\x01x\x7f\x81\x01", &[b'y'; 200][..]].concat(),
                )
            })
            .collect();
        endless.extend(std::iter::repeat_n(more, 20));
        add("continuations without end", endless, 10);
        // Streams that are reset as soon as they are opened (CVE-2023-44487).
        let rapid: Vec<u8> = (0..5000u32)
            .flat_map(|at| {
                [
                    frame(1, 5, 2 * at + 1, &[0x83, 0x86, 0x84]),
                    frame(3, 0, 2 * at + 1, &8u32.to_be_bytes()),
                ]
                .concat()
            })
            .collect();
        add("rapid resets", vec![[opening(), rapid].concat()], 0);
    }
    cases.push(Case::new(
        "an upgrade to nothing",
        Port::Http,
        request("POST", "/nothing", "Upgrade: websocket\r\n", b""),
        Want::Status(&[400, 404]),
    ));
    cases
}
