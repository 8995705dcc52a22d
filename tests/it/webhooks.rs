//! Partners' webhooks on the real binary: durable before 200, verified, in their tables
//! without a broker and in their queues with one, and in lanes of their own.

use crate::brokerless::sqlite3;
use crate::support::cli::holdfast;
use crate::support::collector::Collector;
use crate::support::load::{self, Progress};
use crate::support::servers::{CLICKHOUSE_PASSWORD, CLICKHOUSE_USER, Kind, Server};
use crate::support::{Scratch, eventually, http_client, load_events, seed};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::{Response, StatusCode};
use ring::hmac;
use std::time::{Duration, Instant};

const ARRIVAL: Duration = Duration::from_secs(60);

/// Path, headers, body, and the status of the answer.
type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str, StatusCode);

const VERIFIED: &str = "
[webhooks.branch]
verify = 'secret'
secrets = ['old', 'new']
max_body_bytes = '64KiB'
[webhooks.graphy]
verify = 'hmac'
header = 'X-Sign'
secrets = ['key']
[webhooks.shopify]
client_secrets = ['app']
";

async fn post(
    collector: &Collector,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<String>,
) -> Response {
    let url = format!("http://127.0.0.1:{}{path}", collector.http);
    let request = http_client().post(url).body(body.into());
    let request = headers.iter().fold(request, |request, (name, value)| {
        request.header(*name, *value)
    });
    request.send().await.unwrap()
}

fn sign(key: &str, body: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes());
    STANDARD.encode(hmac::sign(&key, body.as_bytes()).as_ref())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn webhooks_without_a_broker_are_rows_or_letters() {
    let scratch = Scratch::new("webhooks_sqlite");
    let mut collector = Collector::new(&scratch, VERIFIED);
    collector.start().await;
    let ok = StatusCode::OK;

    let branch = r#"{"id":"b1","name":"install","timestamp":1700000000001,"content_items":[{"n":9007199254740993}]}"#;
    let answer = post(
        &collector,
        "/branch/event/",
        &[("x-webhook-secret", "new"), ("x-bb-requestid", "mine")],
        branch,
    )
    .await;
    assert_eq!(answer.status(), ok);
    let id = answer.headers()["x-bb-requestid"]
        .to_str()
        .unwrap()
        .to_owned();
    assert_eq!(id.len(), 36, "{id}");
    assert_eq!(answer.headers()["x-robots-tag"], "noindex");
    assert_eq!(answer.text().await.unwrap(), "");

    let graphy = r#"{"Learner Email":"a@b.c"}"#;
    let signed = sign("key", graphy);
    let headers = [
        ("x-sign", signed.as_str()),
        ("Spayee-Event", "signup"),
        ("Cookie", "hunter2"),
    ];
    assert_eq!(
        post(&collector, "/graphy/event", &headers, graphy)
            .await
            .status(),
        ok
    );

    let event = r#"{"userId":"u","eventName":"n","eventTime":"1700000000001","eventData":{}}"#;
    assert_eq!(
        post(&collector, "/webengage/event", &[], event)
            .await
            .status(),
        ok
    );

    let envelope = r#"{"storeUrl":"s","eventName":"n","eventTime":1700000000001,"eventData":{}}"#;
    assert_eq!(
        post(&collector, "/shopify/event/", &[], envelope)
            .await
            .status(),
        ok
    );
    let order = r#"{"id":9007199254740993}"#;
    let signed = sign("app", order);
    let native = [
        ("X-Shopify-Topic", "orders/create"),
        ("X-Shopify-Hmac-Sha256", signed.as_str()),
        ("X-Shopify-Event-Id", "e1"),
        ("X-Shopify-Triggered-At", "2023-11-14T22:13:20.001Z"),
    ];
    // Shopify sends again what it was not answered in time.
    for _ in 0..2 {
        assert_eq!(
            post(&collector, "/shopify/event", &native, order)
                .await
                .status(),
            ok
        );
    }
    // A name that is no text killed a worker before; one without a name was dropped.
    for bad in [
        r#"{"id":"b2","name":5,"timestamp":1700000000001}"#,
        r#"{"id":"b3","timestamp":1700000000001}"#,
    ] {
        let headers = [("x-webhook-secret", "old")];
        assert_eq!(
            post(&collector, "/branch/event/", &headers, bad)
                .await
                .status(),
            ok
        );
    }
    assert_eq!(
        post(&collector, "/vidooly/event/", &[], r#"{"name":"view"}"#)
            .await
            .status(),
        ok
    );

    collector.delivered("sqlite", ARRIVAL).await;
    let rows = collector.data_dir().join("events.sqlite");
    let count = |table: &str| sqlite3(&rows, &format!("select count(*) from {table}"));
    assert_eq!(count("branch_events"), "1");
    assert_eq!(count("graphy_events"), "1");
    assert_eq!(count("webengage_events"), "1");
    assert_eq!(count("shopify_events"), "2");
    let kept = sqlite3(&rows, "select headers from graphy_events");
    assert!(
        kept.contains("Spayee-Event") && !kept.contains("hunter2"),
        "{kept}"
    );
    assert!(!kept.contains("X-Sign"), "{kept}");
    let items = sqlite3(&rows, "select content_items, ingest_seq from branch_events");
    assert!(items.contains("9007199254740993"), "{items}");
    let letters = collector.data_dir().join("dead_letters.sqlite");
    let letters = sqlite3(
        &letters,
        "select event_name, reason from dead_letters order by id",
    );
    assert_eq!(letters.lines().count(), 3, "{letters}");
    assert!(letters.contains("(webhook branch)|name"), "{letters}");
    assert!(
        letters.contains("(webhook vidooly)|no consumer takes"),
        "{letters}"
    );
    // The ledger says the same, and the journal's tools read webhooks.
    let series = "holdfast_ledger_events{state=\"dead_lettered\",type=\"(webhook branch)\",way_out=\"sqlite\"}";
    let metrics = crate::support::collector::get(collector.http, "/metrics")
        .unwrap()
        .1;
    assert!(metrics.contains("(webhook branch)"), "{series}: {metrics}");
    collector.terminate();
    assert!(!collector.log().contains("hunter2"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn webhooks_are_refused_with_the_status_that_says_why() {
    let scratch = Scratch::new("webhooks_refused");
    let mut collector = Collector::new(&scratch, VERIFIED);
    collector.start().await;
    let secret = [("x-webhook-secret", "old")];
    let large = format!(r#"{{"name":"{}"}}"#, "x".repeat(70_000));
    let unauthorized = StatusCode::UNAUTHORIZED;
    let bad = StatusCode::BAD_REQUEST;
    let native = [
        ("X-Shopify-Topic", "orders/create"),
        ("X-Shopify-Hmac-Sha256", "AAAA"),
    ];
    let nobody = format!("{{\"attributes\":[{}1]}}", "1,".repeat(100 << 10));
    let somebody = nobody.replacen('{', "{\"userId\":\"u\",", 1);
    let cases: [Case<'_>; 14] = [
        ("/branch/event/", &[], "{}", unauthorized),
        (
            "/branch/event/",
            &[("x-webhook-secret", "wrong")],
            "{}",
            unauthorized,
        ),
        ("/branch/event/", &secret, "[]", bad),
        ("/branch/event/", &secret, "{", bad),
        (
            "/branch/event",
            &secret,
            &large,
            StatusCode::PAYLOAD_TOO_LARGE,
        ),
        ("/graphy/event/", &[("x-sign", "AAAA")], "{}", unauthorized),
        ("/shopify/event/", &native, "{}", unauthorized),
        ("/shopify/event/", &[], r#"{"eventName":"n"}"#, bad),
        ("/webengage/event/", &[], r#"{"eventTime":"1"}"#, bad),
        (
            "/webengage/event/",
            &[],
            r#"{"userId":"u","eventTime":"soon"}"#,
            bad,
        ),
        ("/webengage/event/users", &[], r#"{"attributes":{}}"#, bad),
        // These are read on a thread of their own.
        ("/webengage/event/users", &[], &nobody, bad),
        ("/webengage/event/users", &[], &nobody[1..], bad),
        ("/webengage/event/users", &[], &somebody, StatusCode::OK),
    ];
    for (path, headers, body, status) in cases {
        let answer = post(&collector, path, headers, body).await;
        assert_eq!(answer.status(), status, "{path} {body:.80}");
        assert!(answer.headers().contains_key("x-bb-requestid"));
    }
    let chunked = reqwest::Body::wrap(http_body_util::Full::new(bytes::Bytes::from(large.clone())));
    let url = format!("http://127.0.0.1:{}/branch/event/", collector.http);
    let request = http_client()
        .post(url)
        .header("x-webhook-secret", "old")
        .body(chunked);
    assert_eq!(
        request.send().await.unwrap().status(),
        StatusCode::PAYLOAD_TOO_LARGE
    );
    let missing = post(&collector, "/nowhere/", &[], "").await;
    assert_eq!(missing.status(), StatusCode::NOT_FOUND);
    assert!(missing.headers().contains_key("x-bb-requestid"));
    let counted = |outcome: &str| {
        collector.metric(&format!(
            "holdfast_ingest_requests_total{{door=\"branch\",outcome=\"{outcome}\"}}"
        ))
    };
    assert_eq!(
        (
            counted("unverified"),
            counted("malformed"),
            counted("too_large")
        ),
        (2.0, 2.0, 2.0)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_are_replaced_without_a_restart() {
    let scratch = Scratch::new("webhooks_rotation");
    let mut collector = Collector::new(&scratch, VERIFIED);
    collector.start().await;
    let file = collector.dir.join("holdfast.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let body = r#"{"id":"b1","name":"OPEN","timestamp":1700000000001}"#;
    let branch = async |secret: &str| {
        let headers = [("x-webhook-secret", secret)];
        post(&collector, "/branch/event/", &headers, body)
            .await
            .status()
    };
    let order = r#"{"id":1}"#;
    let shopify = async |secret: &str| {
        let signed = sign(secret, order);
        let native = [
            ("X-Shopify-Topic", "orders/create"),
            ("X-Shopify-Hmac-Sha256", signed.as_str()),
            ("X-Shopify-Event-Id", "e1"),
            ("X-Shopify-Triggered-At", "2023-11-14T22:13:20.001Z"),
        ];
        post(&collector, "/shopify/event/", &native, order)
            .await
            .status()
    };
    let (ok, no) = (StatusCode::OK, StatusCode::UNAUTHORIZED);
    assert_eq!((branch("old").await, branch("next").await), (ok, no));
    assert_eq!((shopify("app").await, shopify("next app").await), (ok, no));
    let reload = format!("reload --config {}", file.display());
    let next = text
        .replace("['old', 'new']", "['new', 'next']")
        .replace("['app']", "['next app']");
    assert_ne!(next, text);
    std::fs::write(&file, &next).unwrap();
    let said = holdfast(&reload);
    assert_eq!(said.code, 0, "{said:?}");
    for key in ["webhooks.branch.secrets", "webhooks.shopify.client_secrets"] {
        assert!(said.text().contains(key), "{said:?}");
    }
    assert!(!said.text().contains("restart"), "{said:?}");
    assert!(!said.text().contains("next app") && !collector.log().contains("next app"));
    assert_eq!((branch("old").await, branch("next").await), (no, ok));
    assert_eq!((shopify("app").await, shopify("next app").await), (no, ok));
    // A mistake changes nothing.
    std::fs::write(&file, next.replace("['new', 'next']", "[]")).unwrap();
    assert_eq!(holdfast(&reload).code, 1);
    assert_eq!((branch("old").await, branch("next").await), (no, ok));
    assert!(collector.terminate().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_of_a_killed_collector_was_durable() {
    let scratch = Scratch::new("webhooks_killed");
    let mut collector = Collector::new(&scratch, "");
    collector.start().await;
    for number in 0..50 {
        let body = format!(
            r#"{{"userId":"u","eventName":"n{number}","eventTime":"1700000000001","eventData":{{}}}}"#
        );
        assert_eq!(
            post(&collector, "/webengage/event/", &[], body)
                .await
                .status(),
            StatusCode::OK
        );
    }
    collector.kill();
    collector.start().await;
    collector.delivered("sqlite", ARRIVAL).await;
    let rows = collector.data_dir().join("events.sqlite");
    let count = sqlite3(
        &rows,
        "select count(distinct event_name), count(*) from webengage_events",
    );
    assert_eq!(count, "50|50");
}

/// So many of these fill what one address may have of a lane of 1 MiB: half of it, of which
/// each takes what a request does, and its head.
const FILLING: usize = 128;

/// A request whose body never comes.
async fn hold(collector: &Collector) -> tokio::net::TcpStream {
    use tokio::io::AsyncWriteExt as _;
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", collector.http)).await;
    let mut stream = stream.unwrap();
    let start = b"POST /branch/event/ HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{";
    stream.write_all(start).await.unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_one_webhook_does_not_delay_the_other_doors() {
    let scratch = Scratch::new("webhooks_flood");
    let lanes = "[webhooks.branch]\nmax_in_flight = 4\nmax_body_bytes = '256KiB'\nmax_waiting_bytes = '1MiB'\n";
    let mut collector = Collector::new(&scratch, lanes);
    collector.start().await;
    // Requests that hold their place: headers and half a body, for as long as the test
    // runs. One that met the test's own look in the lane was refused, so there are more of
    // them until the lane is full.
    let mut held = Vec::new();
    let until = Instant::now() + Duration::from_secs(30);
    let mut status = StatusCode::OK;
    let mut more = FILLING;
    while status != StatusCode::TOO_MANY_REQUESTS {
        assert!(Instant::now() < until, "the lane is not full: {status}");
        for _ in 0..std::mem::replace(&mut more, 4) {
            held.push(hold(&collector).await);
        }
        status = post(&collector, "/branch/event/", &[], r#"{"name":"n"}"#)
            .await
            .status();
    }
    let refused = post(&collector, "/branch/event/", &[], r#"{"name":"n"}"#).await;
    assert!(refused.headers().contains_key("retry-after"));
    // All other lanes answer, and at once.
    let started = Instant::now();
    let event = r#"{"userId":"u","eventName":"n","eventTime":"1700000000001","eventData":{}}"#;
    assert_eq!(
        post(&collector, "/webengage/event/", &[], event)
            .await
            .status(),
        StatusCode::OK
    );
    assert_eq!(
        post(&collector, "/vidooly/event/", &[], "{}")
            .await
            .status(),
        StatusCode::OK
    );
    assert_eq!(collector.heartbeat(), Some(200));
    let events = load_events().min(2000);
    let book = load::run(&collector, seed(), events, 8, Progress::default()).await;
    assert_eq!(book.rows.len(), events);
    assert!(
        started.elapsed() < Duration::from_secs(8),
        "{:?}",
        started.elapsed()
    );
    // The places are free again once the bodies are given up.
    eventually("the lane is free", Duration::from_secs(20), || async {
        post(&collector, "/branch/event/", &[], r#"{"name":"n"}"#)
            .await
            .status()
            == StatusCode::OK
    })
    .await;
    drop(held);
}

/// Chunks without an end, from an address.
async fn open_ended(
    collector: &Collector,
    from: [u8; 4],
    path: &str,
    chunk: &[u8],
) -> tokio::net::TcpStream {
    use tokio::io::AsyncWriteExt as _;
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    let to = ([127, 0, 0, 1], collector.http).into();
    let mut stream = socket.connect(to).await.unwrap();
    let length = chunk.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n{length:x}\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // Who is refused at once may be gone.
    drop(stream.write_all(chunk).await);
    stream
}

/// The beginning of the answer, where it comes soon.
async fn answered(stream: &mut tokio::net::TcpStream, limit: Duration) -> Option<String> {
    use tokio::io::AsyncReadExt as _;
    let mut answer = [0; 12];
    let read = tokio::time::timeout(limit, stream.read_exact(&mut answer)).await;
    read.ok()?.unwrap();
    Some(String::from_utf8_lossy(&answer).into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_proves_nothing_closes_no_lane() {
    let scratch = Scratch::new("webhooks_unproven");
    let lanes = "[webhooks.branch]\nverify = 'secret'\nsecrets = ['s']\n\
         [webhooks.graphy]\nmax_in_flight = 2\nmax_body_bytes = '256KiB'\nmax_waiting_bytes = '512KiB'\n";
    let mut collector = Collector::new(&scratch, lanes);
    collector.start().await;
    // Without the secret nothing is waited for.
    let mut unproven = open_ended(&collector, [127, 0, 0, 1], "/branch/event/", b" ").await;
    let said = answered(&mut unproven, Duration::from_secs(20)).await;
    assert_eq!(said.as_deref(), Some("HTTP/1.1 401"));
    // Bodies that tell no length take the room of what has come, and no turn: four have room of
    // what one address may have.
    let chunk = vec![b' '; 60_000];
    let mut held = Vec::new();
    for _ in 0..20 {
        held.push(open_ended(&collector, [127, 0, 0, 2], "/graphy/event/", &chunk).await);
    }
    // All are refused that will be, before the first body is given up.
    let busy = "holdfast_ingest_requests_total{door=\"graphy\",outcome=\"busy\"}";
    eventually("the others are refused", Duration::from_secs(8), || async {
        collector.metric(busy) >= 16.0
    })
    .await;
    let mut refused = 0;
    for stream in &mut held {
        if let Some(said) = answered(stream, Duration::from_millis(500)).await {
            assert_eq!(said, "HTTP/1.1 429");
            refused += 1;
        }
    }
    assert!((16..20).contains(&refused), "{refused}");
    // Another address has its half, and all of the turns.
    let event = format!("{{\"event\":\"{}\"}}", "x".repeat(200_000));
    for _ in 0..3 {
        let answer = post(&collector, "/graphy/event/", &[], event.as_str()).await;
        assert_eq!(answer.status(), StatusCode::OK);
    }
    drop(held);
    let values = format!("[1{}]", ",1".repeat(600_000));
    let answer = post(&collector, "/vidooly/event/", &[], values).await;
    assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn webhooks_reach_their_exchanges_keys_and_tables() {
    let scratch = Scratch::new("webhooks_broker");
    let mut broker = Server::new(Kind::RabbitMq, &scratch);
    let mut clickhouse = Server::new(Kind::ClickHouse, &scratch);
    broker.start().await;
    clickhouse.start().await;
    let more = format!(
        "[rabbitmq]
urls = ['{}']
[clickhouse]
url = '{}'
database = 'holdfast'
user = '{CLICKHOUSE_USER}'
password = '{CLICKHOUSE_PASSWORD}'
{VERIFIED}",
        broker.amqp_url(),
        clickhouse.clickhouse_url(),
    );
    let mut collector = Collector::new(&scratch, &more);
    collector.start().await;
    let branch = r#"{"id":"b1","name":"web session start","timestamp":1700000000001}"#;
    let secret = [("x-webhook-secret", "old")];
    assert_eq!(
        post(&collector, "/branch/event/", &secret, branch)
            .await
            .status(),
        StatusCode::OK
    );
    let event = r#"{"userId":"u","eventName":"n","eventTime":"1700000000001","eventData":{}}"#;
    assert_eq!(
        post(&collector, "/webengage/event/", &[], event)
            .await
            .status(),
        StatusCode::OK
    );
    let envelope = r#"{"storeUrl":"s","eventName":"n","eventTime":1700000000001,"eventData":{}}"#;
    assert_eq!(
        post(&collector, "/shopify/event/", &[], envelope)
            .await
            .status(),
        StatusCode::OK
    );
    // No queue takes these: they are in the dead letters, not gone.
    assert_eq!(
        post(&collector, "/vidooly/event/", &[], r#"{"name":"view"}"#)
            .await
            .status(),
        StatusCode::OK
    );
    collector.delivered("rabbitmq", ARRIVAL).await;
    for table in ["branch_events", "webengage_events", "shopify_events"] {
        eventually(table, ARRIVAL, || async {
            let sql =
                format!("select toString(ingest_seq) seq, ingest_host host from {table} final");
            let rows = crate::support::judge::query_clickhouse(&clickhouse, &sql).await;
            rows.is_ok_and(|rows| rows.len() == 1 && rows[0]["host"] != "")
        })
        .await;
    }
    let letters = collector.data_dir().join("dead_letters.sqlite");
    let letters = sqlite3(&letters, "select event_name, reason from dead_letters");
    assert!(letters.contains("VIEW"), "{letters}");
}
