//! What a call takes while it lasts: its message from when it is decompressed, its head as it is
//! in memory; and what takes none of the room of events.

use super::LIMIT;
use crate::support::collector::Collector;
use crate::support::raw::dispatch;
use crate::support::{Scratch, eventually, http_client};
use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use futures::future::join_all;
use holdfast::event::proto::{Events, Header};
use http_body_util::StreamBody;
use hyper::body::{Bytes, Frame, Incoming};
use hyper::client::conn::http2;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use std::convert::Infallible;
use std::io::Write as _;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

const HELD: &str = "holdfast_ingest_body_bytes";
const MESSAGE_BYTES: usize = 900 << 10;

/// A room of 8 MiB, of which one address has half, for messages of up to one.
const ROOM: &str = "[ingest]\nmax_request_bytes = \"1MiB\"\nmax_body_bytes = \"8MiB\"\n";

type Piece = Result<Frame<Bytes>, Infallible>;
type Client = http2::SendRequest<StreamBody<UnboundedReceiver<Piece>>>;

async fn connect(port: u16) -> Client {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let builder = http2::Builder::new(TokioExecutor::new());
    let (client, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    client
}

/// One message of a call, compressed.
fn message(bytes: &[u8]) -> Bytes {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(bytes).unwrap();
    let small = gzip.finish().unwrap();
    let length = u32::try_from(small.len()).unwrap().to_be_bytes();
    [&[1][..], &length, &small].concat().into()
}

/// Calls with these headers; the answer, once there is one, and what goes on with the body.
fn call(
    client: &Client,
    headers: &[(String, String)],
) -> (
    tokio::task::JoinHandle<Response<Incoming>>,
    UnboundedSender<Piece>,
) {
    let (sender, body) = unbounded();
    let mut request = Request::post("http://edge/event.EventService/dispatch")
        .header("content-type", "application/grpc")
        .header("grpc-encoding", "gzip");
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let request = request.body(StreamBody::new(body)).unwrap();
    let mut client = client.clone();
    let answer = tokio::spawn(async move {
        client.ready().await.unwrap();
        client.send_request(request).await.unwrap()
    });
    (answer, sender)
}

fn status(answer: &Response<Incoming>) -> &str {
    answer.headers()["grpc-status"].to_str().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_counts_before_its_call_ends() {
    const CALLS: usize = 20;
    // With what requests take beside their messages.
    const FIT: usize = 4;
    let scratch = Scratch::new("port_messages");
    let mut collector = Collector::new(&scratch, ROOM);
    collector.start().await;
    let client = connect(collector.grpc).await;
    let before_kib = collector.resident_memory_kib();
    let zeros = message(&vec![0; MESSAGE_BYTES]);
    let mut waiting = Vec::new();
    for _ in 0..CALLS {
        let (answer, sender) = call(&client, &[]);
        sender
            .unbounded_send(Ok(Frame::data(zeros.clone())))
            .unwrap();
        waiting.push((answer, sender));
    }
    eventually("the others are refused", LIMIT, || async {
        let refused = waiting.iter().filter(|(answer, _)| answer.is_finished());
        refused.count() == CALLS - FIT
    })
    .await;
    let held = collector.metric(HELD) as usize;
    assert!((FIT * MESSAGE_BYTES..4 << 20).contains(&held), "{held}");
    let more_kib = collector.resident_memory_kib().saturating_sub(before_kib);
    assert!(more_kib < 16 << 10, "{more_kib} KiB more");
    let mut ended = 0;
    for (answer, sender) in waiting {
        if answer.is_finished() {
            assert_eq!(status(&answer.await.unwrap()), "14");
            ended += 1;
        }
        drop(sender);
    }
    assert_eq!(ended, CALLS - FIT);
    eventually("the room is free", LIMIT, || async {
        collector.metric(HELD) == 0.0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_has_one_message() {
    let scratch = Scratch::new("port_one_message");
    let mut collector = Collector::new(&scratch, ROOM);
    collector.start().await;
    let client = connect(collector.grpc).await;
    let (answer, sender) = call(&client, &[]);
    // Many more than two, each of which would be decompressed and thrown away.
    let one = message(b"");
    let many: Vec<u8> = std::iter::repeat_n(&one[..], 1000)
        .flatten()
        .copied()
        .collect();
    sender.unbounded_send(Ok(Frame::data(many.into()))).unwrap();
    let answer = tokio::time::timeout(LIMIT, answer).await.unwrap().unwrap();
    assert_eq!(status(&answer), "3");
    let said = answer.headers()["grpc-message"].to_str().unwrap();
    assert!(said.contains("one%20message"), "{said}");
    let malformed = "holdfast_ingest_requests_total{door=\"grpc\",outcome=\"malformed\"}";
    assert_eq!(collector.metric(malformed), 1.0);
    drop(sender);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_message_is_counted_once() {
    let scratch = Scratch::new("port_no_message");
    let mut collector = Collector::new(&scratch, &format!("{ROOM}max_request_events = 2\n"));
    collector.start().await;
    let counted = |door: &str, outcome: &str| {
        collector.metric(&format!(
            "holdfast_ingest_requests_total{{door=\"{door}\",outcome=\"{outcome}\"}}"
        ))
    };
    let client = connect(collector.grpc).await;
    let dispatched = async |bytes: Bytes| {
        let (answer, sender) = call(&client, &[]);
        sender.unbounded_send(Ok(Frame::data(bytes))).unwrap();
        drop(sender);
        let answer = tokio::time::timeout(LIMIT, answer).await.unwrap().unwrap();
        status(&answer).to_owned()
    };
    // What cannot be decompressed, a kind of message that there is not, and none at all.
    for bytes in [&b"\x01\0\0\0\x03xxx"[..], b"\x07\0\0\0\0", b""] {
        assert_ne!(dispatched(bytes.into()).await, "0", "{bytes:?}");
    }
    assert_eq!(counted("grpc", "malformed"), 3.0);
    // Three events, which the door refuses, and one byte too much, which never comes there.
    assert_eq!(dispatched(message(&[0x2a, 0].repeat(3))).await, "11");
    assert_eq!(counted("grpc", "too_large"), 1.0);
    let over = message(&vec![0; (1 << 20) + 1]);
    assert_eq!(dispatched(over).await, "11");
    assert_eq!(counted("grpc", "too_large"), 2.0);
    // What is cut off counts as that alone.
    assert_eq!(
        dispatched([message(b""), message(b"")].concat().into()).await,
        "3"
    );
    assert_eq!(counted("grpc", "malformed"), 4.0);
    let client = http_client();
    let url = format!("http://127.0.0.1:{}/events", collector.http);
    let posted = async |encoding: &str, body: &'static str| {
        let request = client.post(&url).body(body);
        let request = request.header("content-encoding", encoding);
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(posted("gzip", "no gzip").await, 400);
    assert_eq!(counted("http", "malformed"), 1.0);
    let events = r#"{"events":[{},{},{}]}"#;
    assert_eq!(posted("identity", events).await, 413);
    assert_eq!(counted("http", "too_large"), 1.0);
    assert_eq!(counted("http", "malformed"), 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_counts_as_it_is_in_memory() {
    let scratch = Scratch::new("port_heads");
    let mut collector = Collector::new(&scratch, ROOM);
    collector.start().await;
    let client = connect(collector.grpc).await;
    let headers: Vec<_> = (0..600)
        .map(|at| (format!("x-{at}"), String::new()))
        .collect();
    let (_answer, sender) = call(&client, &headers);
    eventually("the head is counted", LIMIT, || async {
        collector.metric(HELD) > 70_000.0
    })
    .await;
    drop(sender);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_watches_takes_no_room_of_events() {
    let scratch = Scratch::new("port_aside");
    let room = "[ingest]\nmax_request_bytes = \"1MiB\"\nmax_body_bytes = \"4MiB\"\n";
    let mut collector = Collector::new(&scratch, room);
    collector.start().await;
    let endpoint = tonic::transport::Endpoint::from_shared(collector.address());
    let channel = endpoint.unwrap().connect().await.unwrap();
    let health = HealthClient::new(channel);
    let mut watches = Vec::new();
    for _ in 0..100 {
        let watch = health.clone().watch(HealthCheckRequest::default()).await;
        let mut watch = watch.unwrap().into_inner();
        assert_eq!(watch.message().await.unwrap().unwrap().status, 1);
        watches.push(watch);
    }
    assert_eq!(collector.metric(HELD), 0.0);
    let header = Header {
        device_id: "d".to_owned(),
        ..Header::default()
    };
    let batch = Events {
        header: Some(header),
        ..Events::default()
    };
    let answer = dispatch(&collector.address(), batch.encode_to_vec()).await;
    assert_eq!(answer.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn decoders_take_room_of_bodies() {
    const REQUESTS: usize = 40;
    let scratch = Scratch::new("port_decoders");
    let mut collector = Collector::new(&scratch, ROOM);
    collector.start().await;
    // Half of 8 MiB for one address: so many decoders of 256 KiB, with their heads. Of a lane's 64
    // requests half may have one.
    for (path, coding, fit, status) in [
        ("/events", "zstd", 15, "503"),
        ("/events", "identity", REQUESTS, ""),
        ("/vidooly/event/", "zstd", 32, "429"),
        ("/vidooly/event/", "identity", REQUESTS, ""),
    ] {
        let mut open = Vec::new();
        for _ in 0..REQUESTS {
            let mut stream = TcpStream::connect(("127.0.0.1", collector.http))
                .await
                .unwrap();
            let head = format!(
                "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\nContent-Encoding: {coding}\r\n\r\n"
            );
            stream.write_all(head.as_bytes()).await.unwrap();
            open.push(stream);
        }
        let (door, outcome) = match status {
            "503" => ("http", "no_room"),
            _ => ("vidooly", "busy"),
        };
        let series =
            format!("holdfast_ingest_requests_total{{door=\"{door}\",outcome=\"{outcome}\"}}");
        if !status.is_empty() {
            eventually("the others are refused", LIMIT, || async {
                collector.metric(&series) >= (REQUESTS - fit) as f64
            })
            .await;
        }
        // Those for which there is room wait for their bodies.
        let answers = open.iter_mut().map(async |stream| {
            let mut answer = [0; 12];
            let read = stream.read_exact(&mut answer);
            let read = tokio::time::timeout(Duration::from_secs(1), read).await;
            read.ok().map(|read| {
                read.unwrap();
                assert_eq!(answer, format!("HTTP/1.1 {status}").as_bytes());
            })
        });
        let refused = join_all(answers).await.into_iter().flatten().count();
        assert_eq!(REQUESTS - refused, fit, "{path} {coding}");
        if status == "503" {
            let held = collector.metric(HELD) as usize;
            assert!((fit * (256 << 10)..4 << 20).contains(&held), "{held}");
        }
        drop(open);
        eventually("the room is free", LIMIT, || async {
            collector.metric(HELD) == 0.0
        })
        .await;
    }
}
