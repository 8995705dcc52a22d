//! Seeds of what comes from RabbitMQ: messages for every handler, and frames.

use super::rows::HANDLERS;
use super::seeds::{RICH, Seed, seed};
use crate::config::Handler;
use crate::consume::handlers::tests::SAMPLES;
use crate::event::descriptor::schema;
use crate::event::json;
use prost::Message as _;

/// A value of AMQP with its name.
fn named(name: &str, kind: u8, value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![name.len() as u8];
    bytes.extend(name.as_bytes());
    bytes.push(kind);
    bytes.extend(value);
    bytes
}

fn long(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes(), bytes].concat()
}

fn text(name: &str, value: &str) -> Vec<u8> {
    named(name, b'S', &long(value.as_bytes()))
}

/// Headers as producers and RabbitMQ set them, with every kind of value.
fn table() -> Vec<u8> {
    let death = [
        named("count", b'l', &3i64.to_be_bytes()),
        text("reason", "rejected"),
        named("time", b'T', &1_700_000_000u64.to_be_bytes()),
        named(
            "routing-keys",
            b'A',
            &long(&[b"S".to_vec(), long(b"k")].concat()),
        ),
    ]
    .concat();
    [
        text("x-bb-requestid", "5"),
        text("X-BB-OS", "ios"),
        named(
            "x-death",
            b'A',
            &long(&[b"F".to_vec(), long(&death)].concat()),
        ),
        named("x-retry-count", b'I', &2i32.to_be_bytes()),
        named("b", b'b', &[0xff]),
        named("B", b'B', &[0xff]),
        named("t", b't', &[1]),
        named("s", b's', &[1, 2]),
        named("u", b'u', &[1, 2]),
        named("i", b'i', &[0, 0, 0, 9]),
        named("f", b'f', &1.5f32.to_be_bytes()),
        named("d", b'd', &f64::NAN.to_be_bytes()),
        named("D", b'D', &[2, 0, 0, 1, 0]),
        named("x", b'x', &long(b"\xff\0")),
        named("V", b'V', b""),
        named("CC", b'A', &long(&[b"S".to_vec(), long(b"other")].concat())),
    ]
    .concat()
}

pub(super) fn messages() -> Vec<Seed> {
    let message = |handler: Handler, kind: u8, table: &[u8], body: &[u8]| {
        let at = HANDLERS.iter().position(|(known, _)| *known == handler);
        let length = (table.len() as u16).to_be_bytes();
        [&[at.unwrap() as u8, kind][..], &length, table, body].concat()
    };
    let ours = [
        text("x-holdfast-host", "edge-1"),
        named("x-holdfast-seq", b'l', &7i64.to_be_bytes()),
        text("x-holdfast-indexes", "0-6"),
        named(
            "x-holdfast-received-at-ms",
            b'l',
            &1_700_000_000_000i64.to_be_bytes(),
        ),
        text("x-holdfast-reason", "no id"),
    ]
    .concat();
    let mut seeds = vec![
        seed(
            "amqp_message",
            "events",
            message(Handler::Events, 1, &ours, RICH.as_bytes()),
        ),
        seed(
            "amqp_message",
            "error_events",
            message(Handler::ErrorEvents, 1, &ours, RICH.as_bytes()),
        ),
        seed(
            "amqp_message",
            "headers",
            message(
                Handler::TraceLog,
                0,
                &table(),
                br#"{"uri":"/x","requestHeaders":{"a":"b"}}"#,
            ),
        ),
        seed(
            "amqp_message",
            "flat_json",
            message(
                Handler::FlatJson,
                0,
                b"",
                br#"{"id":"1","at":"2023-11-14 22:13:20","count":null,"note":"n"}"#,
            ),
        ),
    ];
    let batch = json::parse(&schema().events, RICH.as_bytes()).unwrap();
    let bytes = batch.encode_to_vec();
    seeds.push(seed(
        "amqp_message",
        "protobuf",
        message(Handler::Events, 2, &ours, &bytes),
    ));
    let line = RICH.replace('\n', "");
    let small = r#"{"header":{"deviceId":"d"},"events":[{"id":"a","timestamp":"1"}]}"#;
    let who = |entries: &str| {
        let host = text("x-holdfast-host", "edge-1");
        [host, text("x-holdfast-documents", entries)].concat()
    };
    let of_three = "7:0:1700000000000:0-6;7:1:1700000000000:8;9:0:1700000000001:0";
    let lines = format!("{line}\n{small}\n{{\"not\": \"events\"}}\n");
    for (name, handler, kind, entries, body) in [
        ("documents", Handler::Events, 4, of_three, lines.as_str()),
        (
            "documents_of_errors",
            Handler::ErrorEvents,
            4,
            of_three,
            &lines,
        ),
        ("documents_alone", Handler::Events, 4, "7:0:5:0", small),
        ("documents_too_few", Handler::Events, 4, of_three, small),
        (
            "documents_out_of_order",
            Handler::Events,
            4,
            "9:0:5:0;7:0:5:0",
            "{}\n{}",
        ),
        (
            "documents_of_another_type",
            Handler::Events,
            1,
            "7:0:5:0",
            small,
        ),
    ] {
        let bytes = message(handler, kind, &who(entries), body.as_bytes());
        seeds.push(seed("amqp_message", name, bytes));
    }
    for (handler, body) in SAMPLES {
        let bytes = message(*handler, 1, &text("x-bb-deviceid", "d"), body.as_bytes());
        seeds.push(seed("amqp_message", &format!("{handler:?}"), bytes));
    }
    let call = r#"{"userId":"u","eventName":"n","eventTime":"2023-11-14T22:13:20+0000","eventData":{"a":1}}"#;
    for (handler, body) in [
        (Handler::WebEngageCall, call),
        (
            Handler::WebEngageUserCall,
            r#"{"userId":"u","attributes":{}}"#,
        ),
        (
            Handler::GraphyCall,
            r#"{"name":"signup","Email":"a@b.example","Mobile Number":"+911234567890","x-eg-id":"g","receive-timestamp":1700000000}"#,
        ),
    ] {
        let bytes = message(handler, 1, b"", body.as_bytes());
        seeds.push(seed("amqp_message", &format!("{handler:?}"), bytes));
    }
    seeds.extend(frames());
    seeds
}

fn frames() -> Vec<Seed> {
    let frame = |kind: u8, payload: &[u8]| {
        let head = [&[kind, 0, 1][..], &long(payload)].concat();
        [head, vec![0xce]].concat()
    };
    let content_header = |table: &[u8]| {
        let mut payload = vec![0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
        payload.extend(0xb000u16.to_be_bytes());
        payload.extend(b"\x04text");
        payload.extend(long(table));
        payload.push(2);
        frame(2, &payload)
    };
    let nested = |levels: usize, kind: u8| {
        let name: &[u8] = if kind == b'F' { b"\x01n" } else { b"" };
        let mut value = [name, b"t\x01"].concat();
        for _ in 1..levels {
            value = [name, &[kind], &long(&value)].concat();
        }
        [named("deep", kind, &long(&value)), text("end", "FFAA")].concat()
    };
    let stream = [
        frame(1, b"\0\x3c\0\x3c method"),
        content_header(&table()),
        frame(3, b"{\"a\":1}"),
        frame(8, b""),
        content_header(&nested(40, b'F')),
    ]
    .concat();
    let large = [2, 0, 1, 0xff, 0xff, 0xff, 0xff];
    let pieces = |piece: u8, bytes: &[u8]| [&[piece], bytes].concat();
    vec![
        seed("amqp_shallow", "stream", pieces(7, &stream)),
        seed(
            "amqp_shallow",
            "cut",
            pieces(0, &stream[..stream.len() - 9]),
        ),
        seed(
            "amqp_shallow",
            "tables",
            pieces(200, &content_header(&nested(60, b'F'))),
        ),
        seed(
            "amqp_shallow",
            "lists",
            pieces(99, &content_header(&nested(60, b'A'))),
        ),
        seed("amqp_shallow", "table_alone", pieces(1, &nested(50, b'F'))),
        seed("amqp_shallow", "values_alone", pieces(1, &table())),
        seed("amqp_shallow", "large", pieces(1, &large)),
        seed(
            "amqp_shallow",
            "large_behind_others",
            pieces(255, &[&stream[..], &large, &stream].concat()),
        ),
    ]
}
