//! Clients on both doors, each with its own connection and one request in flight at a
//! time; each request carries a token that is found again in files, answers and rows.
//! Called by `recording`.
//!
//! # Invariants
//! - A request's content follows from the seed, the client and its number.
//! - The token is at the beginning of the request and, as another mark, at its end.
//! - Every call is acknowledged, or the load panics: no request is sent twice.

use holdfast::event::proto::event::EventOf;
use holdfast::event::proto::event_service_client::EventServiceClient;
use holdfast::event::proto::{Event, Events, Header, PageOpenedEvent};
use prost::Message as _;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use std::fmt;
use std::ops::Range;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Names a request.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(pub u64);

const HEAD: &[u8; 4] = b"tkn-";
const TAIL: &[u8; 4] = b"end-";
const DIGITS: usize = 16;
pub const TOKEN_LEN: usize = 4 + DIGITS;

/// An end of a request.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Mark {
    Head(Token),
    Tail(Token),
}

impl Token {
    pub fn text(self) -> String {
        format!("tkn-{:016x}", self.0)
    }

    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("tkn-")?;
        u64::from_str_radix(digits, 16).ok().map(Self)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

/// The marks in these bytes, in order.
pub fn marks(bytes: &[u8]) -> impl Iterator<Item = Mark> + '_ {
    bytes
        .windows(TOKEN_LEN)
        .filter(|window| window[3] == b'-')
        .filter_map(|window| {
            let digits = std::str::from_utf8(&window[4..]).ok()?;
            let token = || u64::from_str_radix(digits, 16).ok().map(Token);
            match window.first_chunk::<4>()? {
                HEAD => token().map(Mark::Head),
                TAIL => token().map(Mark::Tail),
                _ => None,
            }
        })
}

/// The tokens in these bytes, in order.
pub fn tokens(bytes: &[u8]) -> impl Iterator<Item = Token> + '_ {
    marks(bytes).filter_map(|mark| match mark {
        Mark::Head(token) => Some(token),
        Mark::Tail(_) => None,
    })
}

/// A request as it was sent.
#[derive(Debug, Clone)]
pub struct Request {
    pub token: Token,
    /// What the journal must hold.
    pub content: Vec<u8>,
}

impl Request {
    pub fn marks(&self) -> [Mark; 2] {
        [Mark::Head(self.token), Mark::Tail(self.token)]
    }
}

/// A small request that follows from its token alone.
pub fn small(token: Token) -> Request {
    let mut random = StdRng::seed_from_u64(token.0);
    let content = events(token, &mut random, false).encode_to_vec();
    Request { token, content }
}

/// How much a load is.
#[derive(Debug, Clone)]
pub struct Load {
    pub seed: u64,
    /// Numbers of its clients: even ones speak gRPC, odd ones HTTP. Two loads of one
    /// recording have different numbers.
    pub clients: Range<u64>,
    /// Requests of each client.
    pub requests: u64,
    pub grpc: u16,
    pub http: u16,
}

/// Every so many requests one is longer than several blocks of the journal.
const LARGE_EVERY: u64 = 37;
const LARGE_BYTES: usize = 200 << 10;

/// Sends it all; the requests, each acknowledged.
pub async fn run(load: &Load) -> Vec<Request> {
    let tasks: Vec<_> = load
        .clients
        .clone()
        .map(|client| tokio::spawn(visit(load.clone(), client)))
        .collect();
    let mut sent = Vec::new();
    for task in tasks {
        sent.extend(task.await.unwrap());
    }
    sent
}

async fn visit(load: Load, client: u64) -> Vec<Request> {
    let mut random = StdRng::seed_from_u64(load.seed ^ (client << 32));
    let mut sent = Vec::new();
    let mut door = if client.is_multiple_of(2) {
        let address = format!("http://127.0.0.1:{}", load.grpc);
        Door::Grpc(EventServiceClient::connect(address).await.unwrap())
    } else {
        let stream = TcpStream::connect(("127.0.0.1", load.http)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Door::Http(stream)
    };
    for number in 0..load.requests {
        let token = Token(client << 32 | number);
        let is_large = (number + client) % LARGE_EVERY == LARGE_EVERY - 1;
        let events = events(token, &mut random, is_large);
        let content = events.encode_to_vec();
        match &mut door {
            Door::Grpc(client) => {
                let answer = client.dispatch(events).await.unwrap();
                assert_eq!(answer.get_ref().status, "SUCCESS");
            }
            Door::Http(stream) => post(stream, &events).await,
        }
        sent.push(Request { token, content });
    }
    sent
}

enum Door {
    Grpc(EventServiceClient<tonic::transport::Channel>),
    Http(TcpStream),
}

fn events(token: Token, random: &mut StdRng, is_large: bool) -> Events {
    let padding = if is_large {
        LARGE_BYTES
    } else {
        match random.random_range(0..10) {
            0..6 => random.random_range(0..1500),
            6..9 => random.random_range(1500..10_000),
            _ => random.random_range(10_000..40_000),
        }
    };
    // Letters above 'f', so that no mark is made by chance.
    let mut text: String = (0..padding)
        .map(|_| char::from(random.random_range(b'g'..=b'z')))
        .collect();
    text.push_str(&format!("end-{:016x}", token.0));
    Events {
        header: Some(Header {
            device_id: token.text(),
            ..Header::default()
        }),
        events: vec![Event {
            id: token.text(),
            timestamp: "1700000000000".to_owned(),
            current_url: String::new(),
            event_of: Some(EventOf::PageOpenedEvent(PageOpenedEvent {
                page_query_id: text,
            })),
        }],
    }
}

/// One `POST /events` on a connection that stays open.
async fn post(stream: &mut TcpStream, events: &Events) {
    let event = &events.events[0];
    let Some(EventOf::PageOpenedEvent(page)) = &event.event_of else {
        panic!("made above");
    };
    let body = serde_json::json!({
        "header": { "deviceId": event.id },
        "events": [{
            "id": event.id, "timestamp": event.timestamp,
            "pageOpenedEvent": { "pageQueryId": page.page_query_id },
        }],
    })
    .to_string();
    let request = format!(
        "POST /events HTTP/1.1\r\nHost: holdfast\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    loop {
        let n = stream.read_buf(&mut answer).await.unwrap();
        assert!(n > 0, "closed without an answer");
        let text = String::from_utf8_lossy(&answer);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head.lines().find_map(|line| {
            line.to_ascii_lowercase()
                .strip_prefix("content-length: ")?
                .parse()
                .ok()
        });
        if length.is_none_or(|length: usize| body.len() >= length) {
            assert!(head.starts_with("HTTP/1.1 200"), "{text}");
            return;
        }
    }
}
