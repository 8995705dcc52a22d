//! Messages of several documents, on real servers: the rows are those of single messages,
//! whatever is broken in the middle of one, and whatever is killed.

use crate::outages::connected;
use crate::support::collector::Collector;
use crate::support::judge::{
    judge_clickhouse, judge_postgres, postgres, query_clickhouse, query_postgres,
};
use crate::support::load::{self, Progress};
use crate::support::raw::Caller;
use crate::support::scripts::Script;
use crate::support::servers::{Kind, Server, Stack};
use crate::support::shop::{Expected, Visitor};
use crate::support::{Scratch, eventually, load_events, seed};
use holdfast::broker::{Broker, Message, Options, Outcome, Publisher, Session, Subscription};
use holdfast::event::documents::{DOCUMENTS, DOCUMENTS_HEADER, Document};
use holdfast::event::identity::Seq;
use holdfast::event::proto::event::EventOf;
use holdfast::event::proto::{Event, Events, Header, TestEvent};
use prost::Message as _;
use serde_json::Value as Json;
use std::collections::HashMap;
use std::time::{Duration, Instant};

const ARRIVAL: Duration = Duration::from_secs(600);

/// As an operator switches it on.
const ON: &str = "[forward]\ndocuments_per_message = 200\n";

/// Requests of one to three events each.
const REQUESTS: usize = 1_500;

/// Times of events, so that two runs send the same.
const NOW_MS: i64 = 1_760_000_000_000;

fn confirmed(collector: &Collector) -> f64 {
    collector.metric("holdfast_forward_messages_total{outcome=\"confirmed\"}")
}

fn documents(collector: &Collector) -> f64 {
    collector.metric("holdfast_forward_documents_total")
}

/// A small batch after the other, in one order; what their rows must be.
async fn dispatch_small(collector: &Collector) -> HashMap<String, Expected> {
    let mut visitor = Visitor::new(1, 0, NOW_MS);
    let caller = Caller::connect(&collector.address()).await;
    let mut rows = HashMap::new();
    for _ in 0..REQUESTS {
        let batch = visitor.batch(3);
        caller
            .dispatch(batch.request.encode_to_vec())
            .await
            .unwrap();
        rows.extend(batch.rows);
    }
    rows
}

/// All rows of both databases, but for what differs between two runs: when a row was written,
/// and the host's name.
async fn rows(stack: &Stack) -> [Vec<Json>; 2] {
    let sql = "SELECT * EXCEPT(insert_timestamp, ingest_host) FROM events FINAL ORDER BY event_id";
    let of_clickhouse = query_clickhouse(&stack.clickhouse, sql).await.unwrap();
    let pool = postgres(&stack.postgres).await;
    let sql = "SELECT (to_jsonb(e) - 'insert_timestamp' - 'ingest_host')::text FROM events e \
               ORDER BY event_id COLLATE \"C\"";
    let of_postgres = query_postgres(&pool, sql).await.unwrap();
    pool.close().await;
    [of_clickhouse, of_postgres]
}

/// Takes the load while the broker is away, so that much is in one read; then the rows.
async fn run(name: &str, more: &str) -> ([Vec<Json>; 2], f64, f64) {
    let scratch = Scratch::new(name);
    let mut stack = Stack::new(&scratch);
    stack.clickhouse.start().await;
    stack.postgres.start().await;
    let mut collector = Collector::new(&scratch, &format!("{}{more}", stack.config()));
    collector.start().await;
    let sent = dispatch_small(&collector).await;
    stack.rabbitmq.start().await;
    let began = Instant::now();
    collector.delivered("rabbitmq", ARRIVAL).await;
    eprintln!("{name}: forwarded in {:?}", began.elapsed());
    judge_clickhouse(&stack.clickhouse, &sent, ARRIVAL)
        .await
        .assert_complete("ClickHouse");
    judge_postgres(&stack.postgres, &sent, ARRIVAL)
        .await
        .assert_complete("Postgres");
    let rows = rows(&stack).await;
    let (messages, documents) = (confirmed(&collector), documents(&collector));
    assert!(collector.terminate().success());
    (rows, messages, documents)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_the_same_whether_documents_share_messages_or_not() {
    let (apart, messages, documents) = run("coalesced_off", "").await;
    assert_eq!(messages, documents, "one document each, unless switched on");
    let (together, fewer, as_many) = run("coalesced_on", ON).await;
    eprintln!("{documents} documents in {messages} messages, and in {fewer}");
    assert_eq!(as_many, documents);
    assert!(fewer * 8.0 < messages, "{fewer} messages of {messages}");
    assert!(apart[0].len() > REQUESTS);
    for (apart, together) in apart.iter().zip(&together) {
        assert_eq!(apart.len(), together.len());
        for (one, other) in apart.iter().zip(together) {
            assert_eq!(one, other);
        }
    }
}

/// However fast the forwarder is, what comes one by one shares messages; but the first, which
/// found it idle.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_one_by_one_gathers() {
    const EVENTS: usize = 300;
    let scratch = Scratch::new("coalesced_gathers");
    let mut server = Server::new(Kind::RabbitMq, &scratch);
    server.start().await;
    let more = format!("[rabbitmq]\nurls = [\"{}\"]\n{ON}", server.amqp_url());
    let mut collector = Collector::new(&scratch, &more);
    collector.start().await;
    connected(&collector).await;
    let caller = Caller::connect(&collector.address()).await;
    for at in 0..EVENTS {
        let batch = Events {
            header: Some(Header {
                device_id: "d".to_owned(),
                ..Header::default()
            }),
            events: vec![Event {
                id: format!("e-{at}"),
                timestamp: NOW_MS.to_string(),
                event_of: Some(EventOf::TestEvent(TestEvent::default())),
                ..Event::default()
            }],
        };
        caller.dispatch(batch.encode_to_vec()).await.unwrap();
        if at == 0 {
            eventually("the first went alone", ARRIVAL, || async {
                confirmed(&collector) == 1.0
            })
            .await;
        }
    }
    collector.delivered("rabbitmq", ARRIVAL).await;
    let (messages, documents) = (confirmed(&collector), documents(&collector));
    eprintln!("{documents} documents in {messages} messages");
    assert_eq!(documents, EVENTS as f64);
    assert!(messages * 3.0 < documents, "{messages} messages");
    assert!(collector.terminate().success());
}

/// A document's body: one event.
fn body(id: &str, timestamp: &str, text: &str) -> String {
    let params = serde_json::json!({ "testParam1": text });
    serde_json::json!({
        "header": { "deviceId": "d" },
        "events": [{ "id": id, "timestamp": timestamp, "testEvent": params }],
    })
    .to_string()
}

/// A message of documents as a host of another name would send it; its requests count from 1.
fn message_of(host: &str, bodies: &[String]) -> Message {
    let single = |(body, seq): (&String, u64)| {
        let document = Document {
            seq: Seq(seq),
            part: 0,
            received_at_ms: NOW_MS,
            indexes: "0".to_owned(),
        };
        let mut message = Message {
            exchange: "grpc_event.tx".into(),
            routing_key: "TestEvent".into(),
            content_type: Some("application/json".into()),
            body: body.clone().into(),
            ..Message::default()
        };
        message.tell(host, &document);
        (document, message)
    };
    Message::join(host, bodies.iter().zip(1..).map(single).collect()).unwrap()
}

async fn session(server: &Server) -> Session {
    let options = Options {
        urls: vec![server.amqp_url()],
        ..Options::default()
    };
    Broker::new(options).unwrap().session().await.unwrap()
}

async fn publish(server: &Server, message: &Message) {
    let session = session(server).await;
    let publisher = Publisher::open(&session).await.unwrap();
    let outcome = publisher.publish(message).await.unwrap().await.unwrap();
    assert_eq!(outcome, Outcome::Confirmed);
    session.close().await;
}

/// Takes so many messages out of a queue.
async fn letters(server: &Server, queue: &str, count: usize) -> Vec<Message> {
    let session = session(server).await;
    let mut subscription = Subscription::open(&session, queue, 100, "").await.unwrap();
    let mut letters = Vec::new();
    for _ in 0..count {
        let next = tokio::time::timeout(Duration::from_secs(120), subscription.next());
        let delivery = next.await.expect("a letter comes").unwrap().unwrap();
        subscription.acker().ack(&[delivery.tag]).await.unwrap();
        letters.push(delivery.message);
    }
    session.close().await;
    letters
}

async fn ids(stack: &Stack, table: &str) -> [Vec<(String, u64)>; 2] {
    let of = |rows: Vec<Json>| -> Vec<(String, u64)> {
        let of_row = |row: &Json| {
            let id = row["event_id"].as_str().unwrap().to_owned();
            (id, row["ingest_seq"].as_u64().unwrap())
        };
        let mut ids: Vec<_> = rows.iter().map(of_row).collect();
        ids.sort();
        ids
    };
    let sql = format!("SELECT event_id, ingest_seq FROM {table} FINAL");
    let of_clickhouse = query_clickhouse(&stack.clickhouse, &sql).await.unwrap();
    let pool = postgres(&stack.postgres).await;
    let sql = format!("SELECT row_to_json(e)::text FROM {table} e");
    let of_postgres = query_postgres(&pool, &sql).await.unwrap();
    pool.close().await;
    [of(of_clickhouse), of(of_postgres)]
}

/// Waits until so many rows are in a table of both databases.
async fn have_rows(stack: &Stack, table: &str, counts: [usize; 2]) {
    eventually(&format!("{counts:?} rows of {table}"), ARRIVAL, || async {
        let ids = ids(stack, table).await;
        [ids[0].len(), ids[1].len()] == counts
    })
    .await;
}

fn is_empty(server: &Server, queue: &str) -> bool {
    let queues = server.rabbitmqctl(&["-q", "list_queues", "name", "messages"]);
    let line = queues.lines().find(|line| {
        let mut words = line.split_whitespace();
        words.next() == Some(queue)
    });
    line.is_some_and(|line| line.split_whitespace().nth(1) == Some("0"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn poison_in_the_middle_of_a_message_goes_alone() {
    let scratch = Scratch::new("coalesced_poison");
    let stack = Stack::start(&scratch).await;
    let mut collector = Collector::new(&scratch, &stack.config());
    collector.start().await;
    connected(&collector).await;
    let long = "l".repeat(60);
    let good = |id: &str| body(id, "1700000000000", "x");
    let documents = [
        good("first"),
        // No document at all.
        "{\"not\": \"events\"}".to_owned(),
        good("second"),
        // Refused by a rule of ours, and by Postgres alone.
        body("timeless", "soon", "x"),
        good(&long),
        good("last"),
    ];
    publish(&stack.rabbitmq, &message_of("edge-9", &documents)).await;
    have_rows(&stack, "events", [4, 3]).await;
    // ClickHouse takes the long id; Postgres's error table has it, and both the timeless one.
    have_rows(&stack, "error_events", [1, 2]).await;
    let [of_clickhouse, of_postgres] = ids(&stack, "events").await;
    let expect = |ids: &[(&str, u64)]| -> Vec<(String, u64)> {
        ids.iter()
            .map(|(id, seq)| ((*id).to_owned(), *seq))
            .collect()
    };
    let three = [("first", 1), ("last", 6), ("second", 3)];
    assert_eq!(of_postgres, expect(&three));
    let four = [("first", 1), ("last", 6), (long.as_str(), 5), ("second", 3)];
    assert_eq!(of_clickhouse, expect(&four));
    let [of_clickhouse, of_postgres] = ids(&stack, "error_events").await;
    assert_eq!(of_clickhouse, expect(&[("timeless", 4)]));
    assert_eq!(of_postgres, expect(&[(long.as_str(), 5), ("timeless", 4)]));
    // What is no document ends where nobody can read it, alone, and as it came.
    for queue in [
        "grpc_clickhouse_event_error_q_error",
        "grpc_postgres_event_q_error_error",
    ] {
        let letter = letters(&stack.rabbitmq, queue, 1).await.remove(0);
        assert_eq!(letter.body, documents[1]);
        assert_eq!(letter.content_type.as_deref(), Some("application/json"));
        assert_eq!(letter.message_id.as_deref(), Some("edge-9-2-0"));
        assert_eq!(letter.headers.int("x-holdfast-seq"), Some(2));
        assert_eq!(letter.headers.get(DOCUMENTS_HEADER), None);
        let reason = letter
            .headers
            .text("x-holdfast-reason")
            .unwrap()
            .into_owned();
        assert!(reason.contains("not protobuf JSON"), "{reason}");
    }
    let series = |outcome| {
        format!(
            "holdfast_consumer_rows_total{{consumer=\"grpc_postgres_event_q\",outcome=\"{outcome}\"}}"
        )
    };
    let counted = ["written", "retried", "refused", "unreadable"].map(series);
    let counted = counted.map(|series| collector.metric(&series));
    assert_eq!(counted, [3.0, 2.0, 2.0, 1.0], "two retries of one event");
    for queue in ["grpc_clickhouse_event_q", "grpc_postgres_event_q"] {
        let is_settled = || async { is_empty(&stack.rabbitmq, queue) };
        eventually(&format!("{queue} is settled"), ARRIVAL, is_settled).await;
    }

    // One that does not agree with itself goes whole, and none of it is written.
    let mut odd = message_of("edge-9", &[good("odd-1"), good("odd-2")]);
    odd.body = format!("{}\n", good("odd-1")).into();
    publish(&stack.rabbitmq, &odd).await;
    let queue = "grpc_clickhouse_event_error_q_error";
    let letter = letters(&stack.rabbitmq, queue, 1).await.remove(0);
    assert_eq!(
        (&letter.body, letter.content_type.as_deref()),
        (&odd.body, Some(DOCUMENTS))
    );
    assert_eq!(
        letter.headers.get(DOCUMENTS_HEADER),
        odd.headers.get(DOCUMENTS_HEADER)
    );
    let reason = letter
        .headers
        .text("x-holdfast-reason")
        .unwrap()
        .into_owned();
    assert!(reason.contains("1 lines, and 2 documents"), "{reason}");
    // Mended and sent to its queue again, as a replay does, it is two rows.
    let mut mended = letter;
    mended.exchange = String::new();
    mended.routing_key = "grpc_clickhouse_event_q".into();
    mended.body = format!("{}\n{}\n", good("odd-1"), good("odd-2")).into();
    publish(&stack.rabbitmq, &mended).await;
    have_rows(&stack, "events", [6, 3]).await;
    assert!(collector.terminate().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unroutable_message_of_documents_is_set_aside_one_by_one() {
    let scratch = Scratch::new("coalesced_unroutable");
    let mut stack = Stack::new(&scratch);
    stack.clickhouse.start().await;
    stack.postgres.start().await;
    // No queue is bound to this exchange.
    let lonely = "[rabbitmq]\nexchange = \"lonely.tx\"\n";
    let config = stack.config().replacen("[rabbitmq]\n", lonely, 1);
    let mut collector = Collector::new(&scratch, &format!("{config}{ON}"));
    collector.start().await;
    let sent = dispatch_small(&collector).await;
    stack.rabbitmq.start().await;
    collector.delivered("rabbitmq", ARRIVAL).await;
    have_rows(&stack, "error_events", [sent.len(); 2]).await;
    let ids = ids(&stack, "error_events").await;
    for ids in &ids {
        assert!(
            ids.iter()
                .all(|(id, seq)| sent.contains_key(id) && *seq > 0)
        );
        assert_eq!(ids.len(), sent.len());
    }
    let unroutable = collector.metric("holdfast_forward_messages_total{outcome=\"unroutable\"}");
    assert!(
        unroutable * 8.0 < REQUESTS as f64,
        "{unroutable} went together"
    );
    assert!(collector.terminate().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_the_broker_is_killed_under_messages_of_documents() {
    let scratch = Scratch::new("coalesced_killed");
    let mut stack = Stack::start(&scratch).await;
    let mut collector = Collector::new(&scratch, &format!("{}{ON}", stack.config()));
    collector.start().await;
    connected(&collector).await;
    stack.rabbitmq.settle_queues();
    let events = load_events();
    let progress = Progress::default();
    let outages = async {
        progress.reached(events / 8).await;
        stack.server(Kind::RabbitMq).kill();
        progress.reached(events / 2).await;
        let before = documents(&collector);
        stack.server(Kind::RabbitMq).start().await;
        // Again, mid-way of what piled up.
        eventually("documents are confirmed", ARRIVAL, || async {
            documents(&collector) > before + 100.0
        })
        .await;
        stack.server(Kind::RabbitMq).kill();
        stack.server(Kind::RabbitMq).start().await;
    };
    let (acked, ()) = tokio::join!(
        load::run(&collector, seed(), events, 16, progress.clone()),
        outages
    );
    assert_eq!(acked.failed_calls, 0);
    crate::outages::judge(&collector, &stack, &acked).await;
    let (messages, documents) = (confirmed(&collector), documents(&collector));
    eprintln!("{documents} documents in {messages} messages");
    assert!(documents > messages * 2.0);
    let lost = "holdfast_ledger_adds_up{way=\"rabbitmq\"}";
    assert_eq!(collector.metric(lost), 1.0);
    assert!(collector.terminate().success());
}

#[tokio::test]
async fn a_foreign_reader_takes_messages_of_documents_line_by_line() {
    let scratch = Scratch::new("coalesced_foreign");
    let mut rabbitmq = Server::new(Kind::RabbitMq, &scratch);
    rabbitmq.start().await;
    let url = rabbitmq.amqp_url();
    let config = format!("[rabbitmq]\nurls = [\"{url}\"]\n{ON}");
    let mut collector = Collector::new(&scratch, &config);
    collector.start().await;
    connected(&collector).await;
    let stubs = scratch.0.join("stubs").display().to_string();
    let record = scratch.0.join("dispatched.jsonl").display().to_string();
    let grpc = format!("127.0.0.1:{}", collector.grpc);
    let limit = Duration::from_secs(130);
    let python = |script: &str, arguments: &[&str]| {
        let running = Script::start_python(&scratch, script, arguments);
        async move { running.ends(limit).await }
    };
    python("read_queue.py", &["bind", &stubs, &url]).await;
    // What comes meanwhile is in one read.
    rabbitmq.stop();
    python("dispatch.py", &["send", &stubs, &grpc, &record]).await;
    rabbitmq.start().await;
    collector.delivered("rabbitmq", ARRIVAL).await;
    let said = python("read_queue.py", &["check", &stubs, &url, &record]).await;
    eprintln!("{said}");
    assert!(!said.contains(", 0 messages held several"), "{said}");
}
