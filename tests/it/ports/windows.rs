//! HTTP/2 clients that give an answer no room, and one that has nothing to read yet.

use super::{LIMIT, have_ended};
use crate::support::collector::{Collector, get, send};
use crate::support::{Scratch, eventually};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http2;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::time::Duration;
use tokio::net::TcpStream;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

/// How long an answer may wait for its reader: longer than this test's own calls take on a machine
/// that does much else.
const SLOW_READER: &str = "[connections]\nwrite_timeout = \"3s\"\n";

/// All bounds pass while a stream waits.
const BOUNDS: &str = "[connections]\nwrite_timeout = \"1s\"\nidle_timeout = \"3s\"\n";

type Client = http2::SendRequest<Empty<Bytes>>;

/// A connection whose streams have room for so many bytes.
async fn connect(port: u16, window_bytes: u32) -> Client {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(window_bytes);
    let (client, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn metrics(client: &mut Client, port: u16) -> Response<Incoming> {
    client.ready().await.unwrap();
    let request = Request::get(format!("http://127.0.0.1:{port}/metrics"));
    let request = request.body(Empty::new()).unwrap();
    client.send_request(request).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_gives_an_answer_no_room_is_let_go() {
    let scratch = Scratch::new("port_windows");
    let mut collector = Collector::new(&scratch, SLOW_READER);
    collector.start().await;
    let port = collector.http;
    // Nothing ever reads these answers.
    let mut held = Vec::new();
    for window_bytes in [0, 1, 5000] {
        let mut client = connect(port, window_bytes).await;
        let answer = metrics(&mut client, port).await;
        assert_eq!(answer.status(), 200);
        held.push((client, answer));
        have_ended(&collector, "http", "slow_reader", held.len() as f64).await;
    }
    // As many pages wait as may: others of this address are told so, and then there is room.
    let mut client = connect(port, 0).await;
    let mut refused = 0;
    for _ in 0..20 {
        let answer = metrics(&mut client, port).await;
        refused += usize::from(answer.status() == 503);
        held.push((client.clone(), answer));
    }
    assert_eq!(refused, 12);
    have_ended(&collector, "http", "slow_reader", 4.0).await;
    eventually("pages are free", LIMIT, || async {
        get(port, "/metrics").is_some_and(|(status, _)| status == 200)
    })
    .await;
    // Who reads gets all of it, in pieces.
    let mut client = connect(port, 5000).await;
    let page = metrics(&mut client, port).await.into_body().collect().await;
    let page = String::from_utf8(page.unwrap().to_bytes().to_vec()).unwrap();
    assert!(page.len() > 10_000, "{}", page.len());
    let series = |page: &str| page.lines().filter(|line| line.starts_with('#')).count();
    assert_eq!(series(&page), series(&get(port, "/metrics").unwrap().1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_nothing_to_read_yet_stays() {
    let scratch = Scratch::new("port_watch");
    let mut collector = Collector::new(&scratch, BOUNDS);
    collector.start().await;
    let endpoint = tonic::transport::Endpoint::from_shared(collector.address());
    let channel = endpoint.unwrap().connect().await.unwrap();
    let mut health = HealthClient::new(channel);
    let watch = health.watch(HealthCheckRequest::default()).await;
    let mut watch = watch.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status, 1);
    // Longer than a connection may do nothing, and than an answer may wait for its reader.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let switched = send(collector.http, "PUT", "/heartbeat/?beat=false", b"");
    assert_eq!(switched.unwrap().0, 200);
    let next = tokio::time::timeout(LIMIT, watch.message()).await.unwrap();
    assert_eq!(next.unwrap().unwrap().status, 2);
}
