//! Bodies of `POST /events`: JSON that is none, that is no batch, that is too much.

use super::wire::{Case, Port, Want, request};
use std::io::Write as _;

const BAD: Want = Want::Status(&[400]);
const LARGE: Want = Want::Status(&[413]);

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |name: &str, body: Vec<u8>, want: Want| {
        let bytes = request(
            "POST",
            "/events",
            "Content-Type: application/json\r\n",
            &body,
        );
        cases.push(Case::new(format!("body: {name}"), Port::Http, bytes, want));
    };
    for (name, text) in TEXTS {
        add(name, text.as_bytes().to_vec(), BAD);
    }
    for (name, bytes) in BYTES {
        add(name, bytes.to_vec(), BAD);
    }
    for (name, field) in FIELDS {
        let text = format!(
            r#"{{"header":{{"deviceId":"d"}},"events":[{{"id":"h","timestamp":"1",{field}}}]}}"#
        );
        add(name, text.into_bytes(), BAD);
    }
    for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
        let deep = format!("{}1{}", open.repeat(100_000), close.repeat(100_000));
        add(&format!("100,000 levels of {open}"), deep.into_bytes(), BAD);
    }
    let whole = br#"{"header":{"deviceId":"d"},"events":[{"id":"h","timestamp":"1","launchEvent":{"appLaunchCount":"7"}}]}"#;
    for length in (1..whole.len()).step_by(9) {
        add(
            &format!("the first {length} bytes"),
            whole[..length].to_vec(),
            BAD,
        );
    }
    let events = |one: &str, count: usize| {
        let list = vec![one; count].join(",");
        format!(r#"{{"header":{{"deviceId":"d"}},"events":[{list}]}}"#).into_bytes()
    };
    add("20,000 events", events("{}", 20_000), LARGE);
    add("600,000 values", events(r#"{"id":"h"}"#, 90_000), LARGE);
    add("1.2 MB of blanks", vec![b' '; 1_200_000], LARGE);
    add("1.2 MB of brackets", vec![b'['; 1_200_000], LARGE);
    let long = format!(
        r#"{{"header":{{"deviceId":"{}"}},"events":[]}}"#,
        "d".repeat(1_200_000)
    );
    add("a text of 1.2 MB", long.into_bytes(), LARGE);
    cases.extend(coded(whole));
    let coding =
        "Content-Type: application/json\r\nX-Webhook-Secret: hunter2\r\nContent-Encoding: zstd\r\n";
    let bytes = request("POST", "/branch/event/", coding, &skipped());
    let name = "body: a webhook of zstd's frames to skip";
    cases.push(Case::new(name, Port::Http, bytes, LARGE));
    cases
}

/// Bodies with a content coding.
fn coded(whole: &[u8]) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |name: &str, coding: &str, body: &[u8], want: Want| {
        let lines = format!("Content-Type: application/json\r\nContent-Encoding: {coding}\r\n");
        let bytes = request("POST", "/events", &lines, body);
        cases.push(Case::new(
            format!("coding: {name}"),
            Port::Http,
            bytes,
            want,
        ));
    };
    let bomb = vec![b' '; 256 << 20];
    add("a bomb of gzip", "gzip", &gzip(&bomb), LARGE);
    add(
        "a bomb of zstd",
        "zstd",
        &zstd::encode_all(&bomb[..], 1).unwrap(),
        LARGE,
    );
    let twice = gzip(&gzip(&bomb));
    add(
        "a bomb in a bomb",
        "gzip, gzip",
        &twice,
        Want::Status(&[400, 413, 415]),
    );
    add("gzip cut off", "gzip", &gzip(whole)[..20], BAD);
    let mut broken = gzip(whole);
    let middle = broken.len() / 2;
    broken[middle] ^= 0xff;
    add("gzip with a wrong byte", "gzip", &broken, BAD);
    add("gzip that is none", "gzip", whole, BAD);
    add("zstd that is none", "zstd", whole, BAD);
    add("gzip said to be zstd", "zstd", &gzip(whole), BAD);
    // Nothing becomes of what comes, however much it is.
    let endless_name = [GZIP_HEAD_WITH_NAME, &[b'n'; 1_200_000][..]].concat();
    add(
        "a name in gzip that does not end",
        "gzip",
        &endless_name,
        LARGE,
    );
    add("zstd's frames to skip", "zstd", &skipped(), LARGE);
    add(
        "a coding that nobody knows",
        "rot13",
        whole,
        Want::Status(&[400, 415]),
    );
    add(
        "a coding that is not served",
        "br",
        whole,
        Want::Status(&[400, 415]),
    );
    cases
}

/// The head of gzip (RFC 1952, 2.3) with a name after it.
const GZIP_HEAD_WITH_NAME: &[u8] = b"\x1f\x8b\x08\x08\0\0\0\0\0\xff";

/// More than a MiB of frames that are to be skipped (RFC 8878, 3.1.2).
fn skipped() -> Vec<u8> {
    let frame = [&b"\x50\x2a\x4d\x18\0\0\x01\0"[..], &[0; 65_536]].concat();
    frame.repeat(19)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// What is no batch.
const TEXTS: &[(&str, &str)] = &[
    ("empty", ""),
    ("blanks", "  \n\t "),
    ("null", "null"),
    ("true", "true"),
    ("a number", "1"),
    ("a text", "\"x\""),
    ("a list", "[]"),
    (
        "a list of batches",
        r#"[{"header":{"deviceId":"d"},"events":[]}]"#,
    ),
    ("no header", r#"{"events":[{"id":"h","timestamp":"1"}]}"#),
    (
        "an empty device",
        r#"{"header":{"deviceId":""},"events":[]}"#,
    ),
    (
        "a device of null",
        r#"{"header":{"deviceId":null},"events":[]}"#,
    ),
    (
        "a device that is a number",
        r#"{"header":{"deviceId":7},"events":[]}"#,
    ),
    ("a header that is a list", r#"{"header":[],"events":[]}"#),
    (
        "events that are an object",
        r#"{"header":{"deviceId":"d"},"events":{}}"#,
    ),
    (
        "events that are a text",
        r#"{"header":{"deviceId":"d"},"events":"x"}"#,
    ),
    (
        "an event that is a number",
        r#"{"header":{"deviceId":"d"},"events":[1]}"#,
    ),
    (
        "an event that is null",
        r#"{"header":{"deviceId":"d"},"events":[null]}"#,
    ),
    (
        "an unknown key",
        r#"{"header":{"deviceId":"d"},"events":[],"more":1}"#,
    ),
    ("__proto__", r#"{"__proto__":{"deviceId":"d"},"events":[]}"#),
    (
        "a key twice",
        r#"{"header":{"deviceId":"d"},"header":{"deviceId":"e"},"events":[]}"#,
    ),
    (
        "something after it",
        r#"{"header":{"deviceId":"d"},"events":[]} x"#,
    ),
    (
        "a comma at the end",
        r#"{"header":{"deviceId":"d"},"events":[],}"#,
    ),
    (
        "a comment",
        r#"{"header":{"deviceId":"d"},/* */"events":[]}"#,
    ),
    ("single quotes", "{'header':{'deviceId':'d'},'events':[]}"),
    ("keys without quotes", "{header:{deviceId:\"d\"},events:[]}"),
    (
        "a byte order mark",
        "\u{feff}{\"header\":{\"deviceId\":\"d\"},\"events\":[]}",
    ),
    (
        "half a surrogate pair",
        r#"{"header":{"deviceId":"\ud800"},"events":[]}"#,
    ),
    (
        "an escape that is none",
        r#"{"header":{"deviceId":"\x41"},"events":[]}"#,
    ),
    (
        "a line end in a text",
        "{\"header\":{\"deviceId\":\"a\nb\"},\"events\":[]}",
    ),
    (
        "a good batch and a bad one",
        "{\"header\":{\"deviceId\":\"d\"},\"events\":[{\"id\":\"h\",\"timestamp\":\"1\"}]}\n{\"header\":1}",
    ),
    (
        "XML",
        "<?xml version=\"1.0\"?><!DOCTYPE a [<!ENTITY b SYSTEM \"file:///etc/passwd\">]><a>&b;</a>",
    ),
    ("a form", "header=x&events=y"),
];

const BYTES: &[(&str, &[u8])] = &[
    (
        "a byte that is no UTF-8",
        b"{\"header\":{\"deviceId\":\"\xff\"},\"events\":[]}",
    ),
    (
        "an overlong sequence",
        b"{\"header\":{\"deviceId\":\"\xc0\xaf\"},\"events\":[]}",
    ),
    (
        "a sequence cut off",
        b"{\"header\":{\"deviceId\":\"\xe2\x82\"},\"events\":[]}",
    ),
    (
        "a surrogate in UTF-8",
        b"{\"header\":{\"deviceId\":\"\xed\xa0\x80\"},\"events\":[]}",
    ),
    ("UTF-16", b"{\0\"\0h\0\"\0:\0{\0}\0}\0"),
    ("NUL", b"\0"),
    ("a protobuf message", b"\x22\x03\x42\x01d\x2a\x00"),
];

/// Fields of an event that are not what their type says.
const FIELDS: &[(&str, &str)] = &[
    (
        "two types in one event",
        r#""launchEvent":{},"testEvent":{}"#,
    ),
    ("a type twice", r#""launchEvent":{},"launchEvent":{}"#),
    ("an unknown type", r#""noEvent":{}"#),
    ("a type that is a text", r#""launchEvent":"x""#),
    ("a type that is a list", r#""launchEvent":[]"#),
    ("an unknown field", r#""launchEvent":{"no":1}"#),
    (
        "int64 that is a word",
        r#""launchEvent":{"appLaunchCount":"seven"}"#,
    ),
    (
        "int64 beyond its end",
        r#""launchEvent":{"appLaunchCount":"9223372036854775808"}"#,
    ),
    (
        "int64 with a fraction",
        r#""launchEvent":{"appLaunchCount":1.5}"#,
    ),
    (
        "int64 of 1e400",
        r#""launchEvent":{"appLaunchCount":1e400}"#,
    ),
    (
        "int64 that is a list",
        r#""launchEvent":{"appLaunchCount":[1]}"#,
    ),
    ("NaN", r#""launchEvent":{"appLaunchCount":NaN}"#),
    (
        "a number with a zero before it",
        r#""launchEvent":{"appLaunchCount":007}"#,
    ),
    ("a number in hex", r#""launchEvent":{"appLaunchCount":0x7}"#),
    ("a text that is a number", r#""testEvent":{"testParam1":1}"#),
    (
        "a map that is a list",
        r#""widgetViewEvent":{"recoInfoKV":[]}"#,
    ),
    (
        "a map with a number",
        r#""widgetViewEvent":{"recoInfoKV":{"a":1}}"#,
    ),
    (
        "a list that is none",
        r#""completePurchaseEvent":{"productIds":"1"}"#,
    ),
    (
        "a float that is a word",
        r#""completePurchaseEvent":{"chargeableAmount":"much"}"#,
    ),
    (
        "a float beyond its end",
        r#""completePurchaseEvent":{"chargeableAmount":1e39}"#,
    ),
];
