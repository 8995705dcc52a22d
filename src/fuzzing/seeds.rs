//! The seeds of the corpus, made of real values: what a sender, a broker or this service
//! itself writes. More files lie beside them: what libFuzzer has found to reach more code,
//! named by its hash (`tests/fuzz keep`), and former findings, if there are any.

use super::seeds_amqp::messages;
use crate::event::descriptor::schema;
use crate::event::json;
use prost::Message as _;
use ring::hmac;

/// A seed: its target, its name, its bytes.
pub(crate) type Seed = (&'static str, String, Vec<u8>);

const EVENTS: &str = include_str!("../../examples/events.ndjson");

pub(super) const RICH: &str = r#"{"header":{"deviceId":"d","userId":"-7","utmReferrer":"é\u0001"},"events":[
{"id":"a","timestamp":"1","widgetViewEvent":{"recoInfoKV":{"k":"v"}}},
{"id":"b","timestamp":"99999999999999999999","completePurchaseEvent":{"productIds":["1","-2","300"],"chargeableAmount":1.5}},
{"id":"c","timestamp":"soon","launchEvent":{}},{"timestamp":"5","testEvent":{}},{},
{"id":"f","timestamp":"3","goToPaymentsEvent":{"chargeableAmount":3.4028235e38}},
{"id":"g","timestamp":"4","goToPaymentsEvent":{"chargeableAmount":"NaN"}}]}"#;

pub(super) fn all() -> Vec<Seed> {
    let mut seeds = requests();
    seeds.extend(webhooks());
    seeds.extend(messages());
    seeds.extend(operators());
    seeds.extend(answers());
    seeds.extend(proofs());
    seeds.extend(crate::journal::fuzzing::seeds());
    seeds
}

pub(super) fn seed(target: &'static str, name: &str, bytes: impl Into<Vec<u8>>) -> Seed {
    (target, name.to_owned(), bytes.into())
}

/// A field of a protobuf message with a length.
fn field(number: u32, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    prost::encoding::bytes::encode(number, &value.to_vec(), &mut bytes);
    bytes
}

fn requests() -> Vec<Seed> {
    let encoded = |text: &str| {
        let batch = json::parse(&schema().events, text.as_bytes()).unwrap();
        batch.encode_to_vec()
    };
    let header = field(4, &field(8, b"d"));
    let event = |case: &[u8]| field(5, &[&field(4, b"e"), &field(5, b"7"), case].concat());
    let unknown = event(&field(1000, b"hi"));
    let many = (0..40).flat_map(|number| event(&field(1000 + number, b"")));
    let group = [0xc3, 0x3e, 0xc4, 0x3e];
    let mut seeds = vec![
        seed("envelope", "rich", encoded(RICH)),
        seed("envelope", "empty", ""),
        seed("envelope", "no_header", event(b"")),
        seed("envelope", "unknown", [header.clone(), unknown].concat()),
        seed(
            "envelope",
            "many_unknown",
            header.iter().copied().chain(many).collect::<Vec<_>>(),
        ),
        seed(
            "envelope",
            "group",
            [&header[..], &group, &event(&group)].concat(),
        ),
        seed(
            "envelope",
            "two_headers",
            [&header[..], &header, &event(&field(9, b""))].concat(),
        ),
        seed(
            "envelope",
            "two_cases",
            event(&[field(9, b""), field(10, b"")].concat()),
        ),
        seed(
            "envelope",
            "map_of_another_kind",
            [
                &header[..],
                &event(&field(13, b"\xb8\x01\x06\x0a\x01k\x12\x01v")),
            ]
            .concat(),
        ),
        seed("json_events", "rich", RICH),
        seed("json_events", "examples", EVENTS),
        seed("json_events", "two", "{\"events\":[]} {\"header\":null}"),
        seed("indexes", "range", "edge-1\n0-3,7,9-10"),
        seed("indexes", "last", "edge-1\n4294967294-4294967295"),
        seed("indexes", "reverse", "a b\n5,4,4-9"),
        seed("indexes", "bare", "0-499"),
    ];
    for (at, line) in EVENTS.lines().enumerate() {
        seeds.push(seed("envelope", &format!("example_{at}"), encoded(line)));
        seeds.push(seed("json_events", &format!("example_{at}"), line));
    }
    seeds
}

fn webhooks() -> Vec<Seed> {
    let signature = |key: &[u8], body: &str| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, key);
        hmac::sign(&key, body.as_bytes())
    };
    let hex = |tag: hmac::Tag| {
        tag.as_ref()
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect::<String>()
    };
    let base64 = |tag: hmac::Tag| {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(tag)
    };
    let body = r#"{"userId":"u","eventName":"n","eventTime":"1700000000001","eventData":{"n":9007199254740993}}"#;
    let order = r#"{"id":820982911946154508,"email":"jon@example.com","total_price":"403.00"}"#;
    let envelope = r#"{"storeUrl":"shop.example","eventName":"view","eventTime":1700000000123,"eventData":{"a":[1]},"eventId":"e"}"#;
    let branch = r#"{"id":"5","name":"OPEN","timestamp":1700000000123,"user_data":{"os":"IOS","idfa":null},"event_timestamp":1700000000000,"n":1e2}"#;
    let graphy =
        r#"{"Email":"a@b.example","Mobile Number":"+911234567890","First Name":"é","course":"c"}"#;
    let headers = "x-bb-requestid: 5\nx-bb-deviceid: d\naccept-language: en\ncookie: c\nx-a: 1\nx-a: 2\nauthorization: Bearer t\nx-proof: p\n";
    let mut seeds = vec![
        seed(
            "webhooks",
            "vidooly",
            format!("vidooly\n{headers}\n{{\"name\":\"web session start\"}}"),
        ),
        seed("webhooks", "branch", format!("branch\n{headers}\n{branch}")),
        seed(
            "webhooks",
            "graphy",
            format!("graphy\nSpayee-Event: signup\n{headers}\n{graphy}"),
        ),
        seed(
            "webhooks",
            "webengage_event",
            format!("webengage_event\n{headers}\n{body}"),
        ),
        seed(
            "webhooks",
            "webengage_user",
            "webengage_user\n\n{\"userId\":\"u\",\"attributes\":{\"a\":1}}",
        ),
        seed("webhooks", "shopify", format!("shopify\n\n{envelope}")),
        seed(
            "webhooks",
            "shopify_native",
            format!(
                "shopify\nx-shopify-topic: orders/create\nx-shopify-shop-domain: s.example\nx-shopify-event-id: 7\nx-shopify-triggered-at: 2023-11-14T22:13:20.5Z\nx-shopify-hmac-sha256: x\n\n{order}"
            ),
        ),
        seed(
            "webhooks",
            "unnamed",
            "branch\n\n{\"name\":5,\"name\":\"x\"}",
        ),
        seed(
            "webhooks",
            "record",
            [
                &37u32.to_le_bytes()[..],
                br#"{"x-bb-os":["ios"],"accept":["*/*"]}"#,
                b" ",
                body.as_bytes(),
            ]
            .concat(),
        ),
        seed(
            "webhook_signatures",
            "none",
            format!("none branch\n\n{body}"),
        ),
        seed(
            "webhook_signatures",
            "secret",
            format!("secret branch\nx-proof: new\n\n{body}"),
        ),
        seed(
            "webhook_signatures",
            "wrong",
            format!("secret branch\nx-proof: ne\n\n{body}"),
        ),
        seed(
            "webhook_signatures",
            "native_unsigned",
            format!("none shopify\nx-shopify-topic: t\n\n{order}"),
        ),
    ];
    let tag = || signature(b"Jefe", body);
    let native = base64(signature(b"app", order));
    for (name, shown) in [
        ("hex", hex(tag())),
        ("base64", base64(tag())),
        ("prefixed", format!("sha256={}", hex(tag()))),
        ("other_key", hex(signature(b"another key", body))),
        ("no_key", hex(signature(b"none", body))),
    ] {
        let text = format!("hmac graphy\nx-proof: {shown}\n\n{body}");
        seeds.push(seed("webhook_signatures", name, text));
    }
    let text = format!("hmac shopify\nx-shopify-hmac-sha256: {native}\n\n{order}");
    seeds.push(seed("webhook_signatures", "native", text));
    seeds
}

fn operators() -> Vec<Seed> {
    let api = |which: u8, text: &str| [&[which], text.as_bytes()].concat();
    let shipped = include_str!("../../systemd/holdfast.toml");
    let older = "ENV=PRODUCTION\nPORT=8017\nGIN_PORT=8019\nRABBIT_HOST=rabbit\nRABBIT_PORT=5672\nRABBIT_USER=u\nRABBIT_PASSWORD=p\nCLICKHOUSE_HOST=c\nCLICKHOUSE_DB_NAMES=a,b\nPOSTGRES_HOST=p\nEVENT_EXCHANGE=grpc_event.tx\nWEBENGAGE_URL=http://w\n";
    vec![
        seed(
            "admin_api",
            "skip",
            api(
                0,
                r#"{"way":"rabbitmq","to":5,"apply":true,"sudo_user":"op"}"#,
            ),
        ),
        seed(
            "admin_api",
            "purge",
            api(1, r#"{"to":7,"way":"all","quarantine":null}"#),
        ),
        seed(
            "admin_api",
            "pace",
            api(2, r#"{"max_rate":0,"backlog_share":0.75}"#),
        ),
        seed(
            "admin_api",
            "drill",
            api(3, r#"{"outage":"broker_down","seconds":5}"#),
        ),
        seed("admin_api", "drain", api(4, r#"{"on":true}"#)),
        seed("admin_api", "reload", api(5, "{}")),
        seed("admin_api", "host", api(6, "edge-1.example.org:8020")),
        seed("admin_api", "host_v4", api(6, "127.0.0.1:8020")),
        seed("admin_api", "host_v6", api(6, "[::1]:8020")),
        seed(
            "admin_api",
            "authority",
            api(7, "https://localhost:8020/look"),
        ),
        seed("admin_api", "query", api(8, "coarse=true&after=17")),
        seed("config", "nothing", ""),
        seed("config", "shipped", shipped),
        seed("config", "older", format!("\0{older}")),
        seed(
            "config",
            "sections",
            format!(
                "{SECTIONS}\0HOLDFAST__JOURNAL__MAX_BYTES=2GiB\nHOLDFAST__RABBITMQ__URLS=amqp://a,amqp://b\nHOLDFAST__LOG__LEVEL=debug"
            ),
        ),
        seed(
            "config",
            "mistakes",
            "[journal]\nmax_bytes = \"lots\"\nack_deadline = 5\n[[consumer]]\nqueue = \"new\"\n[[consumer]]\nqueue = \"other\"\nhandler = \"nothing\"\n[nonsense]\na = 1",
        ),
        seed("dotenv", "older", older),
        seed(
            "dotenv",
            "forms",
            "\u{feff}# a comment\nA=1\nexport B = two\r\n\nC='a $b \\ #c'\nD=\"e\nf\" # more\nE=\nA=2\nF=x=y \t ",
        ),
        seed(
            "dotenv",
            "broken",
            "A=1\nhunter2 hunter2\nC=hunter2 hunter2\nD='a\nb' hunter2\nF='hunter2\n1\n2",
        ),
        seed("dotenv", "no_utf8", *b"A=1\nB=\xff"),
        seed("dotenv", "variables", "A=1\nB=${A}$A\nC=\"${A\"\nD=$"),
    ]
}

const SECTIONS: &str = r#"
[data]
dir = "d"
[grpc]
listen = "127.0.0.1:1"
[admin]
listen = "off"
names = ["edge"]
[connections]
max = 100
idle_timeout = "1m 30s"
[journal]
queue_bytes = "64MiB"
[ingest]
max_request_bytes = "1MiB"
[rabbitmq]
urls = ["amqps://u:p@rabbit/v"]
queue_type = "classic"
[clickhouse]
url = "http://c:8123"
databases = ["a", "b"]
[postgres]
url = "postgres://u:p@h/d"
[webhooks.branch]
verify = "hmac"
secrets = ["s"]
[webhooks.shopify]
client_secrets = ["c"]
[clicks]
[sentry]
dsn = "https://k@sentry.example/1"
[[consumer]]
queue = "grpc_clickhouse_event_q"
workers = 4
batch_age = "2s"
[[consumer]]
queue = "visits_q"
exchange = "visits.tx"
keys = ["*"]
handler = "flat_json"
sink = "clickhouse"
table = "visits"
columns = { id = "text", at = "time", count = "int?" }
row_key = ["id"]
"#;

fn answers() -> Vec<Seed> {
    let texts = [
        (
            "too_large",
            "PRECONDITION_FAILED - message size 2097152 is larger than configured max size 1048576",
        ),
        ("no_exchange", "NOT_FOUND - no exchange 'a.tx' in vhost '/'"),
        (
            "topic",
            "ACCESS_REFUSED - access to topic 'k' in exchange 'c.tx' in vhost '/' refused for user 'u'",
        ),
        (
            "cannot_parse",
            "Code: 27. DB::Exception: Cannot parse input: expected '\"' before: 'x': (at row 1)",
        ),
        (
            "too_many_parts",
            "Code: 252. DB::Exception: Too many partitions for single INSERT block (more than 100)",
        ),
        (
            "of_a_view",
            "Code: 27. DB::Exception: x: while pushing to view db.v",
        ),
        (
            "of_a_proxy",
            "<html><head><title>413 Request Entity Too Large</title>",
        ),
        (
            "launches",
            "[\"d\",\"7\",\"3\",\"first\",\"y\",\"z\",\"0\",\"b\"]\n[\"d\",\"\",\"2\",\"second\",\"y\",\"\",\"1\",\"c\"]",
        ),
        ("seconds", "120"),
        ("date", "Wed, 21 Oct 2026 07:28:00 GMT"),
        (
            "error",
            "{\"response\":{\"status\":\"error\",\"message\":\"bad user\"}}",
        ),
    ];
    let seeds = texts.map(|(name, text)| seed("answers", name, text));
    seeds.to_vec()
}

fn proofs() -> Vec<Seed> {
    let texts = [
        ("token", "\nauthorization: Bearer hf_0123456789\n\n"),
        (
            "two_tokens",
            "\nauthorization: Bearer a\nauthorization: Bearer b\n\n",
        ),
        ("basic", "\nauthorization: Basic YTpi\ngrpc-timeout: 5S\n\n"),
        ("timeout", "\ngrpc-timeout: 99999999H\n\n"),
    ];
    let seeds = texts.map(|(name, text)| seed("proofs", name, text));
    seeds.to_vec()
}
