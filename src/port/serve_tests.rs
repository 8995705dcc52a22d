//! A port on a loopback address, with clients that behave badly.

use super::*;
use axum::Router;
use axum::routing::get;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Generous, so that only what a test sets can end anything.
const BOUNDS: Bounds = Bounds {
    connections_max: 100,
    per_address_max: 100,
    header_time: Duration::from_secs(60),
    idle_time: Duration::from_secs(60),
    write_time: Duration::from_secs(60),
    life: None,
};

struct Served {
    address: SocketAddr,
    metrics: Metrics,
    stop: CancellationToken,
    port: tokio::task::JoinHandle<()>,
}

impl Served {
    async fn start(bounds: Bounds) -> Self {
        let router = Router::new()
            .route("/", get(async || "here"))
            .route("/panic", get(async || -> &str { panic!("on purpose") }))
            .route(
                "/slow",
                get(async || {
                    tokio::time::sleep(Duration::from_millis(500)).await;
                    "late"
                }),
            )
            .route(
                "/peer",
                get(async |request: axum::extract::Request| {
                    request
                        .extensions()
                        .get::<Peer>()
                        .unwrap()
                        .address
                        .to_string()
                }),
            );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (metrics, stop) = (Metrics::new(), CancellationToken::new());
        let port = Port {
            name: "http",
            bounds,
            metrics: metrics.clone(),
            encryption: None,
        };
        let port = tokio::spawn(serve(listener, router, port, stop.clone()));
        Self {
            address,
            metrics,
            stop,
            port,
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// What a client gets who asks once.
    async fn ask(&self, path: &str) -> String {
        said(
            self.connect().await,
            &format!("GET {path} HTTP/1.0\r\n\r\n"),
        )
        .await
    }

    /// How many connections ended like that.
    fn ended(&self, outcome: &str) -> u64 {
        let series = format!(
            "holdfast_port_connections_ended_total{{outcome=\"{outcome}\",port=\"http\"}} "
        );
        let text = self.metrics.render();
        let line = text.lines().find_map(|line| line.strip_prefix(&series));
        line.unwrap().parse().unwrap()
    }

    /// Waits until so many did.
    async fn have_ended(&self, outcome: &str, count: u64) {
        let until = Instant::now() + Duration::from_secs(20);
        while self.ended(outcome) < count {
            assert!(
                Instant::now() < until,
                "{outcome}: {}",
                self.metrics.render()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// All that comes back until the end.
async fn said(mut stream: TcpStream, what: &str) -> String {
    stream.write_all(what.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A reset ends it as well as a close.
    drop(stream.read_to_end(&mut answer).await);
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn a_port_outlives_its_connections() {
    let served = Served::start(BOUNDS).await;
    assert_eq!(served.ask("/panic").await, "");
    served.have_ended("failed", 1).await;
    assert!(
        said(served.connect().await, "nonsense\r\n\r\n")
            .await
            .contains(" 400 ")
    );
    drop(served.connect().await);
    assert!(served.ask("/").await.ends_with("here"));
    assert!(served.ask("/peer").await.contains("127.0.0.1:"));
    served.have_ended("closed", 3).await;
    assert!(
        served
            .metrics
            .render()
            .contains("holdfast_port_connections{port=\"http\"} 0")
    );
}

#[test]
fn an_accept_that_fails_is_said_once() {
    let mut trouble = News::default();
    let full = || -> io::Result<(TcpStream, SocketAddr)> { Err(io::Error::from_raw_os_error(24)) };
    assert!(!full().is_err_and(|error| is_gone(&error)));
    assert!(is_gone(&io::ErrorKind::ConnectionAborted.into()));
    assert!(look("http", full(), &mut trouble).is_none());
    assert!(trouble.is_there(), "it was said");
    assert!(look("http", full(), &mut trouble).is_none());
    assert!(!trouble.is_new(&io::Error::from_raw_os_error(24).kind().to_string()));
}

#[tokio::test]
async fn who_is_too_slow_or_silent_is_let_go() {
    let served = Served::start(Bounds {
        header_time: Duration::from_millis(200),
        idle_time: Duration::from_millis(600),
        ..BOUNDS
    })
    .await;
    let start = Instant::now();
    assert_eq!(said(served.connect().await, "").await, "");
    assert_eq!(
        said(served.connect().await, "GET / HTTP/1.1\r\nHost: ").await,
        ""
    );
    assert_eq!(served.ended("slow_head"), 2);
    assert!(
        start.elapsed() < Duration::from_millis(900),
        "{:?}",
        start.elapsed()
    );
    let ask = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let start = Instant::now();
    assert!(said(served.connect().await, ask).await.ends_with("here"));
    assert!(
        start.elapsed() >= Duration::from_millis(600),
        "kept alive until then"
    );
    assert_eq!(served.ended("idle"), 1);
    let half = said(served.connect().await, &format!("{ask}GET ")).await;
    assert!(half.ends_with("here"));
    // A request in work is neither.
    let late = said(served.connect().await, "GET /slow HTTP/1.0\r\n\r\n").await;
    assert!(late.ends_with("late"), "{late}");
}

#[tokio::test]
async fn one_address_has_its_part_and_a_full_port_refuses() {
    let served = Served::start(Bounds {
        connections_max: 3,
        per_address_max: 2,
        ..BOUNDS
    })
    .await;
    let held = [served.connect().await, served.connect().await];
    assert_eq!(served.ask("/").await, "");
    served.have_ended("address_full", 1).await;
    let other = tokio::net::TcpSocket::new_v4().unwrap();
    other.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let other = other.connect(served.address).await.unwrap();
    let ask = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut other = {
        let mut other = other;
        other.write_all(ask.as_bytes()).await.unwrap();
        other
    };
    let mut first = [0; 15];
    other.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200 OK");
    assert_eq!(served.ask("/").await, "");
    served.have_ended("no_place", 1).await;
    drop(held);
    served.have_ended("closed", 2).await;
    assert!(served.ask("/").await.ends_with("here"));
}

#[tokio::test]
async fn heads_that_are_too_large_are_refused() {
    let served = Served::start(BOUNDS).await;
    let large = "x".repeat(HEADER_BYTES_MAX);
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\nx-large: {large}\r\n\r\n");
    let answer = said(served.connect().await, &head).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    let fits = format!(
        "GET / HTTP/1.0\r\nx: {}\r\n\r\n",
        &large[..HEADER_BYTES_MAX / 2]
    );
    assert!(said(served.connect().await, &fits).await.ends_with("here"));
}

#[tokio::test]
async fn the_stop_answers_what_is_in_work_and_takes_nothing_new() {
    let mut served = Served::start(BOUNDS).await;
    let mut idle = served.connect().await;
    let slow = served.connect().await;
    let slow = tokio::spawn(said(slow, "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n"));
    tokio::time::sleep(Duration::from_millis(100)).await;
    served.stop.cancel();
    assert_eq!(idle.read(&mut [0; 9]).await.unwrap_or(0), 0);
    assert!(slow.await.unwrap().ends_with("late"));
    (&mut served.port).await.unwrap();
    assert!(TcpStream::connect(served.address).await.is_err());
}

/// In how many seconds the port's side of this connection asks its peer, if it does at all.
fn asks_in_s(client: &TcpStream) -> Option<u64> {
    let hex = |address: io::Result<SocketAddr>| format!(":{:04X}", address.unwrap().port());
    let (port, own) = (hex(client.peer_addr()), hex(client.local_addr()));
    let sockets = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    sockets.lines().find_map(|line| {
        let mut columns = line.split_whitespace().skip(1);
        let (local, remote) = (columns.next()?, columns.next()?);
        // The kind of a timer, and when it ends, in hundredths of a second.
        let timer = columns.nth(2)?.strip_prefix("02:")?;
        let is_it = local.ends_with(&port) && remote.ends_with(&own);
        is_it.then(|| u64::from_str_radix(timer, 16).unwrap() / 100)
    })
}

#[tokio::test]
async fn a_host_that_is_silent_is_asked_whether_it_is_there() {
    let served = Served::start(BOUNDS).await;
    let client = served.connect().await;
    let until = Instant::now() + Duration::from_secs(20);
    let in_s = loop {
        if let Some(in_s) = asks_in_s(&client) {
            break in_s;
        }
        assert!(Instant::now() < until, "no question");
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert!(in_s <= PROBE_AFTER.as_secs(), "{in_s} s");
}
