//! Clients that are slow, silent, greedy or too many, at the real process, while others work.

use super::have_ended;
use crate::support::Scratch;
use crate::support::collector::{Collector, get};
use crate::support::raw::dispatch;
use holdfast::event::proto::{Events, Header};
use prost::Message as _;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

const BOUNDS: &str = "[connections]\nmax = 40\nmax_per_address = 20\nheader_timeout = \"2s\"\nidle_timeout = \"3s\"\nwrite_timeout = \"1s\"\n[ingest]\nbody_timeout = \"2s\"\n";

fn batch() -> Vec<u8> {
    let header = Header {
        device_id: "phone-1".to_owned(),
        ..Header::default()
    };
    Events {
        header: Some(header),
        ..Events::default()
    }
    .encode_to_vec()
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let limit = Some(Duration::from_secs(20));
    stream.set_read_timeout(limit).unwrap();
    stream
}

/// What comes until the connection ends, and how long that took.
fn rest(mut stream: TcpStream) -> (String, Duration) {
    let start = Instant::now();
    let mut answer = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answer) {
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "it did not end");
    }
    (
        String::from_utf8_lossy(&answer).into_owned(),
        start.elapsed(),
    )
}

/// Sends a byte now and then, until nobody takes it.
fn trickle(mut stream: TcpStream) -> (String, Duration) {
    let start = Instant::now();
    let sending = stream.try_clone().unwrap();
    std::thread::spawn(move || {
        let mut sending = sending;
        while sending.write_all(b"x").is_ok() {
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    let mut answer = [0; 4096];
    let count = stream.read(&mut answer).unwrap_or(0);
    let answer = String::from_utf8_lossy(&answer[..count]).into_owned();
    (answer, start.elapsed())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_slow_the_silent_and_the_greedy_are_let_go_and_others_work() {
    let scratch = Scratch::new("port_bounds");
    let mut collector = Collector::new(&scratch, BOUNDS);
    collector.start().await;
    let address = collector.address();
    let (http, grpc) = (collector.http, collector.grpc);

    // A head that never ends, and one that never begins, on both ports.
    for port in [http, grpc] {
        let mut slow = connect(port);
        slow.write_all(b"GET /heartbeat/ HTTP/1.1\r\nx: ").unwrap();
        let (answer, took) = trickle(slow);
        assert!(
            answer.is_empty() && took < Duration::from_secs(10),
            "{answer} {took:?}"
        );
        let (answer, took) = rest(connect(port));
        assert!(
            answer.is_empty() && took < Duration::from_secs(10),
            "{answer} {took:?}"
        );
    }
    have_ended(&collector, "http", "slow_head", 2.0).await;
    have_ended(&collector, "grpc", "slow_head", 2.0).await;

    // A body that trickles: 408, and on the gRPC port (by grpc-web) DEADLINE_EXCEEDED.
    let mut slow = connect(http);
    slow.write_all(b"POST /events HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n")
        .unwrap();
    let (answer, took) = trickle(slow);
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(took < Duration::from_secs(10), "{took:?}");
    let mut slow = connect(grpc);
    slow.write_all(b"POST /event.EventService/dispatch HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc-web+proto\r\nContent-Length: 1000\r\n\r\n\0\0\0\x03\0").unwrap();
    let (answer, _) = trickle(slow);
    assert!(answer.contains("grpc-status: 4"), "{answer}");
    for door in ["http", "grpc"] {
        let series = format!("holdfast_ingest_requests_total{{door=\"{door}\",outcome=\"slow\"}}");
        assert_eq!(collector.metric(&series), 1.0, "{door}");
    }

    // Kept alive, and then idle.
    let mut idle = connect(http);
    idle.write_all(b"GET /heartbeat/ HTTP/1.1\r\nHost: a\r\n\r\n")
        .unwrap();
    let (answer, took) = rest(idle);
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(took > Duration::from_secs(2), "{took:?}");
    have_ended(&collector, "http", "idle", 1.0).await;

    // Asks again and again, and never reads.
    let mut deaf = connect(http);
    deaf.set_write_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let ask = "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n".repeat(1000);
    let ended = loop {
        if let Err(error) = deaf.write_all(ask.as_bytes()) {
            break error;
        }
    };
    assert_ne!(ended.kind(), ErrorKind::WouldBlock, "nobody ended it");
    have_ended(&collector, "http", "slow_reader", 1.0).await;

    // A head that is too large.
    let mut large = connect(http);
    let head = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(40_000));
    drop(large.write_all(head.as_bytes()));
    let (answer, _) = rest(large);
    assert!(
        answer.starts_with("HTTP/1.1 431 ") || answer.is_empty(),
        "{answer}"
    );

    // All of one address's places are taken; another address still works.
    let held: Vec<_> = (0..30).map(|_| connect(grpc)).collect();
    have_ended(&collector, "grpc", "address_full", 10.0).await;
    let other = tokio::net::TcpSocket::new_v4().unwrap();
    other.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let other = other
        .connect(format!("127.0.0.1:{grpc}").parse().unwrap())
        .await
        .unwrap();
    let mut other = other.into_std().unwrap();
    other.set_nonblocking(false).unwrap();
    let frame = batch();
    let length = frame.len() as u32 + 5;
    let head = format!(
        "POST /event.EventService/dispatch HTTP/1.0\r\nContent-Type: application/grpc-web+proto\r\nContent-Length: {length}\r\n\r\n"
    );
    let prefix = (frame.len() as u32).to_be_bytes();
    let request = [head.as_bytes(), &[0], &prefix, &frame].concat();
    other.write_all(&request).unwrap();
    let (answer, _) = rest(other);
    assert!(answer.contains("grpc-status:0"), "{answer}");
    drop(held);

    // And after all that it is as it was.
    let open = "holdfast_port_connections{port=\"grpc\"}";
    crate::support::eventually("their places are free", super::LIMIT, || async {
        collector.metric(open) == 0.0
    })
    .await;
    assert_eq!(dispatch(&address, batch()).await.unwrap(), None);
    assert_eq!(get(http, "/heartbeat/").unwrap().0, 200);
    assert!(collector.terminate().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_handshake_and_a_flood_of_bodies_hold_up_nobody() {
    let scratch = Scratch::new("port_rooms");
    super::identities::Issuer::new()
        .issue("localhost")
        .install(&scratch.0);
    let tls = super::identities::section(&scratch.0, "http = \"off\"\n");
    let more = "[connections]\nheader_timeout = \"1s\"\n[ingest]\nmax_request_bytes = \"1MiB\"\nmax_body_bytes = \"4MiB\"\nmax_in_flight = 2\n";
    let mut collector = Collector::new(&scratch, &format!("{tls}{more}"));
    collector.start().await;
    // The first bytes of a ClientHello, and nothing more.
    let mut half = connect(collector.grpc);
    half.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01])
        .unwrap();
    let (_, took) = rest(half);
    assert!(took < Duration::from_secs(10), "{took:?}");
    have_ended(&collector, "grpc", "handshake", 1.0).await;

    // Bodies without end, more of them than requests may be in work: they take no turns.
    let part = vec![b' '; 500_000];
    let open = |stream: &mut TcpStream| {
        stream
            .write_all(b"POST /events HTTP/1.1\r\nHost: a\r\nContent-Length: 900000\r\n\r\n")
            .unwrap();
        stream.write_all(&part).unwrap();
    };
    let fresh = |_| {
        let mut stream = connect(collector.http);
        open(&mut stream);
        stream
    };
    let mut held: Vec<_> = (0..4).map(fresh).collect();
    let line = br#"{"header":{"deviceId":"d"},"events":[]}"#;
    let send = || crate::support::collector::send(collector.http, "POST", "/events", line);
    assert_eq!(send().unwrap().0, 200, "others have their turn");
    let held_bytes = "holdfast_ingest_body_bytes";
    crate::support::eventually("the parts are in", super::LIMIT, || async {
        collector.metric(held_bytes) >= 4.0 * part.len() as f64
    })
    .await;
    // Four fill what one address may have: more find no room, are told so, and may come again.
    let mut more: Vec<_> = (0..3).map(fresh).collect();
    let read = |stream: &mut TcpStream, limit| {
        stream.set_read_timeout(Some(limit)).unwrap();
        let mut answer = [0; 4096];
        let count = stream.read(&mut answer).ok()?;
        Some(String::from_utf8_lossy(&answer[..count]).to_ascii_lowercase())
    };
    for stream in &mut more {
        let answer = read(stream, super::LIMIT).unwrap();
        assert!(answer.starts_with("http/1.1 503 "), "{answer}");
        assert!(answer.contains("retry-after: "), "{answer}");
    }
    for stream in &mut held {
        let answer = read(stream, Duration::from_millis(100));
        assert_eq!(answer, None, "those before them wait on");
    }
    drop(held);
    crate::support::eventually("there is room again", super::LIMIT, || async {
        send().is_some_and(|(status, _)| status == 200)
    })
    .await;
    assert!(collector.terminate().success());
}
