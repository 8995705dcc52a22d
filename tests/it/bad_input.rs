//! Bad input gets a clear error and loses nothing: refused at the door, or set
//! aside with its reason while everything beside it goes on. On real servers.

use crate::support::collector::{Collector, send};
use crate::support::judge::{postgres, query_clickhouse, query_postgres};
use crate::support::raw::dispatch;
use crate::support::servers::{Server, Stack};
use crate::support::{Scratch, eventually};
use holdfast::event::proto::event::EventOf;
use holdfast::event::proto::{Event, Events, Header, TestEvent};
use lapin::options::{BasicGetOptions, BasicPublishOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Connection, ConnectionProperties};
use prost::Message as _;
use serde_json::Value as Json;
use std::time::Duration;
use tonic::Code;

const ARRIVAL: Duration = Duration::from_secs(60);

struct Site {
    stack: Stack,
    collector: Collector,
    _scratch: Scratch,
}

impl Site {
    /// A stack and a collector; `more` is added to its configuration.
    async fn start(name: &str, more: &str) -> Self {
        let scratch = Scratch::new(name);
        let stack = Stack::start(&scratch).await;
        let config = stack
            .config()
            .replacen("[rabbitmq]\n", &format!("[rabbitmq]\n{more}"), 1);
        let mut collector = Collector::new(&scratch, &config);
        collector.start().await;
        Self {
            stack,
            collector,
            _scratch: scratch,
        }
    }

    async fn send(&self, bytes: Vec<u8>) -> Result<Option<u64>, tonic::Status> {
        dispatch(&self.collector.address(), bytes).await
    }

    /// Waits for the row of this event in a table of both databases.
    async fn rows(&self, table: &str, id: &str) -> [Json; 2] {
        [
            clickhouse_row(&self.stack.clickhouse, table, id).await,
            postgres_row(&self.stack.postgres, table, id).await,
        ]
    }
}

async fn clickhouse_row(server: &Server, table: &str, id: &str) -> Json {
    let sql = format!("SELECT * FROM {table} FINAL WHERE event_id = '{id}'");
    let mut found = Json::Null;
    eventually(&format!("{id} in ClickHouse {table}"), ARRIVAL, || {
        let rows = query_clickhouse(server, &sql);
        async { rows.await.is_ok_and(|rows| !rows.is_empty()) }
    })
    .await;
    for row in query_clickhouse(server, &sql).await.unwrap() {
        assert!(found.is_null(), "{id} is there twice");
        found = row;
    }
    found
}

async fn postgres_row(server: &Server, table: &str, id: &str) -> Json {
    let sql = format!("SELECT row_to_json(e)::text FROM {table} e WHERE event_id = '{id}'");
    let pool = postgres(server).await;
    eventually(&format!("{id} in Postgres {table}"), ARRIVAL, || async {
        let rows = query_postgres(&pool, &sql).await;
        rows.is_ok_and(|rows| !rows.is_empty())
    })
    .await;
    let mut rows = query_postgres(&pool, &sql).await.unwrap();
    assert_eq!(rows.len(), 1, "{id}");
    pool.close().await;
    rows.remove(0)
}

fn event(id: &str, timestamp: &str, text: &str) -> Event {
    Event {
        id: id.into(),
        timestamp: timestamp.into(),
        current_url: String::new(),
        event_of: Some(EventOf::TestEvent(TestEvent {
            test_param1: text.into(),
            test_param2: 7,
        })),
    }
}

fn batch(device: Option<&str>, events: Vec<Event>) -> Events {
    Events {
        header: device.map(|device| Header {
            device_id: device.into(),
            ..Header::default()
        }),
        events,
    }
}

fn good(id: &str) -> Vec<u8> {
    batch(Some("d"), vec![event(id, "1700000000000", "good")]).encode_to_vec()
}

fn reason(row: &Json) -> &str {
    row["error_reason"].as_str().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_requests_are_refused_and_bad_events_are_set_aside_with_their_reason() {
    let site = Site::start("bad_input", "").await;

    // No header, and a header without a device: refused, kept for diagnosis.
    for (id, device) in [("no-header", None), ("no-device", Some(""))] {
        let bytes = batch(device, vec![event(id, "1", "x")]).encode_to_vec();
        let status = site.send(bytes).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(status.message(), "Incomplete event");
        for row in site.rows("error_events", id).await {
            assert!(reason(&row).contains("incomplete event"), "{row}");
        }
    }

    // Truncated protobuf: refused, nothing kept.
    let mut truncated = good("truncated");
    truncated.truncate(truncated.len() - 3);
    let status = site.send(truncated).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(
        status.message().contains("not a valid Events message"),
        "{status:?}"
    );

    // 100 MB: refused without being taken in.
    let large = batch(Some("d"), vec![event("large", "1", &"x".repeat(100 << 20))]);
    let status = site.send(large.encode_to_vec()).await.unwrap_err();
    assert!(
        matches!(status.code(), Code::OutOfRange | Code::ResourceExhausted),
        "{status:?}"
    );

    // Millions of events in a few megabytes: refused before any of them is made.
    let mut many = batch(Some("d"), vec![]).encode_to_vec();
    many.extend([0x2a, 0].repeat(7 << 20));
    let status = site.send(many).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange);
    assert_eq!(
        status.message(),
        "more than 10000 events; send smaller batches"
    );
    let many = format!(
        r#"{{"header":{{"deviceId":"d"}},"events":[{}{{}}]}}"#,
        "{},".repeat(4 << 20)
    );
    let (status, answer) = send(site.collector.http, "POST", "/events", many.as_bytes()).unwrap();
    assert_eq!(status, 413);
    assert!(answer.contains("more than 500000 fields"), "{answer}");
    let memory = site.collector.peak_memory_kib();
    assert!(memory < 400 * 1024, "{memory} KiB");

    // A timestamp that is none: the event is set aside, its neighbour is stored.
    let bytes = batch(
        Some("d"),
        vec![
            event("soon", "soon", "x"),
            event("beside", "1700000000000", "x"),
        ],
    );
    let seq = site.send(bytes.encode_to_vec()).await.unwrap();
    for row in site.rows("error_events", "soon").await {
        assert!(reason(&row).contains("\"soon\""), "{row}");
        assert_eq!(row["ingest_seq"].as_u64(), seq);
    }
    for row in site.rows("events", "beside").await {
        assert_eq!(row["ingest_index"], 1);
    }

    // No type at all: stored under the name that tables in the field know.
    let mut untyped = event("untyped", "1700000000000", "x");
    untyped.event_of = None;
    let bytes = batch(Some("d"), vec![untyped]).encode_to_vec();
    site.send(bytes).await.unwrap();
    for row in site.rows("events", "untyped").await {
        assert_eq!(row["event_name"], "<nil>");
    }

    // A type that this build does not know: stored with its bytes.
    let mut unknown = event("unknown", "1700000000000", "");
    unknown.event_of = None;
    let mut unknown = unknown.encode_to_vec();
    unknown.extend([0xc2, 0x0c, 0x03, b'n', b'e', b'w']); // field 200
    let mut bytes = batch(Some("d"), vec![]).encode_to_vec();
    bytes.extend([0x2a, u8::try_from(unknown.len()).unwrap()]);
    bytes.extend(&unknown);
    site.send(bytes).await.unwrap();
    for row in site.rows("events", "unknown").await {
        assert_eq!(row["event_name"], "Unknown.200");
        assert_eq!(row["event_params"]["unknownField"], 200);
        let kept = row["event_params"]["eventProtobuf"].as_str().unwrap();
        use base64::Engine as _;
        let kept = base64::engine::general_purpose::STANDARD
            .decode(kept)
            .unwrap();
        assert_eq!(kept, unknown);
    }

    // Values that Postgres refuses: there set aside, their neighbours stored, and
    // ClickHouse has them all.
    let long = "l".repeat(60);
    let bytes = batch(
        Some("d"),
        vec![
            event("before", "1700000000000", "x"),
            event(&long, "1700000000000", "x"),
            event("nul", "1700000000000", "a\0b"),
            event("after", "1700000000000", "x"),
        ],
    );
    site.send(bytes.encode_to_vec()).await.unwrap();
    for id in ["before", "after"] {
        site.rows("events", id).await;
    }
    for id in [&long, "nul"] {
        clickhouse_row(&site.stack.clickhouse, "events", id).await;
        let row = postgres_row(&site.stack.postgres, "error_events", id).await;
        assert!(!reason(&row).is_empty());
    }
    let retried =
        "holdfast_consumer_rows_total{consumer=\"grpc_postgres_event_q\",outcome=\"retried\"}";
    assert_eq!(
        site.collector.metric(retried),
        4.0,
        "two events, two retries each"
    );
    let refused =
        "holdfast_consumer_rows_total{consumer=\"grpc_postgres_event_q\",outcome=\"refused\"}";
    assert_eq!(site.collector.metric(refused), 2.0);

    // After all that the path is open.
    site.send(good("last")).await.unwrap();
    site.rows("events", "last").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poison_message_goes_to_the_error_queue_and_the_others_go_on() {
    let site = Site::start("poison", "").await;
    site.send(good("first")).await.unwrap();
    site.rows("events", "first").await;
    let connection = amqp(&site.stack.rabbitmq).await;
    let channel = connection.create_channel().await.unwrap();
    for body in [&b"{\"not\": \"events\"}"[..], b"\xff\xfe", b""] {
        channel
            .basic_publish(
                "".into(),
                "grpc_clickhouse_event_q".into(),
                BasicPublishOptions::default(),
                body,
                BasicProperties::default(),
            )
            .await
            .unwrap();
    }
    site.send(good("second")).await.unwrap();
    site.rows("events", "second").await;
    // Consumer 2 cannot read them either: they end in its error queue.
    let queue = "grpc_clickhouse_event_error_q_error";
    for _ in 0..3 {
        let mut got = None;
        let until = std::time::Instant::now() + ARRIVAL;
        while got.is_none() {
            assert!(std::time::Instant::now() < until, "not in {queue}");
            let get = channel.basic_get(queue.into(), BasicGetOptions { no_ack: true });
            got = get.await.unwrap();
        }
        let headers = got.unwrap().delivery.properties.headers().clone().unwrap();
        let reason = headers.inner().get("x-holdfast-reason").unwrap();
        let reason = reason.as_long_string().unwrap().to_string();
        assert!(reason.contains("not protobuf JSON"), "{reason}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unroutable_type_is_set_aside_and_named() {
    let site = Site::start("unroutable", "exchange = \"lonely.tx\"\n").await;
    // Only TestEvent has a queue on this exchange.
    crate::outages::connected(&site.collector).await;
    let connection = amqp(&site.stack.rabbitmq).await;
    let channel = connection.create_channel().await.unwrap();
    let options = QueueDeclareOptions::default();
    channel
        .queue_declare("mine".into(), options, FieldTable::default())
        .await
        .unwrap();
    channel
        .queue_bind(
            "mine".into(),
            "lonely.tx".into(),
            "TestEvent".into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        )
        .await
        .unwrap();
    let mut untyped = event("unroutable", "1700000000000", "x");
    untyped.event_of = None;
    let events = vec![untyped, event("routable", "1700000000000", "x")];
    site.send(batch(Some("d"), events).encode_to_vec())
        .await
        .unwrap();
    for row in site.rows("error_events", "unroutable").await {
        assert!(reason(&row).contains("no queue is bound"), "{row}");
    }
    let mut got = None;
    let until = std::time::Instant::now() + ARRIVAL;
    while got.is_none() {
        assert!(std::time::Instant::now() < until);
        let get = channel.basic_get("mine".into(), BasicGetOptions { no_ack: true });
        got = get.await.unwrap();
    }
    assert!(String::from_utf8_lossy(&got.unwrap().delivery.data).contains("routable"));
    site.collector.delivered("rabbitmq", ARRIVAL).await;
}

async fn amqp(server: &Server) -> Connection {
    Connection::connect(&server.amqp_url(), ConnectionProperties::default())
        .await
        .unwrap()
}
