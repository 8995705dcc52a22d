//! Messages whose headers are nested as deeply as a frame allows, from a producer that
//! writes AMQP itself: no client library would.

use super::nodes::{healthy, session};
use super::{confirmed, make, next, to};
use crate::support::servers::Server;
use holdfast::broker::{Message, Publisher, QueueType, Subscription};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;

/// A connection with one channel, by hand.
struct Hand(TcpStream);

impl Hand {
    async fn open(server: &Server) -> Self {
        let url = server.amqp_url();
        let (login, place) = url
            .strip_prefix("amqp://")
            .unwrap()
            .split_once('@')
            .unwrap();
        let (user, password) = login.split_once(':').unwrap();
        let (address, _) = place.split_once('/').unwrap_or((place, ""));
        let mut hand = Self(TcpStream::connect(address).await.unwrap());
        hand.0.write_all(b"AMQP\0\0\x09\x01").await.unwrap();
        hand.expect(10, 10).await;
        let plain = format!("\0{user}\0{password}");
        let mut start_ok = long(b"");
        start_ok.extend(short("PLAIN"));
        start_ok.extend(long(plain.as_bytes()));
        start_ok.extend(short("C"));
        hand.method(0, 10, 11, &start_ok).await;
        hand.expect(10, 30).await;
        // Channels, frames of 128 KiB, no heartbeat.
        hand.method(0, 10, 31, b"\x00\x0a\x00\x02\x00\x00\x00\x00")
            .await;
        hand.method(0, 10, 40, b"\x01/\0\0").await;
        hand.expect(10, 41).await;
        hand.method(1, 20, 10, b"\0").await;
        hand.expect(20, 11).await;
        // Confirms.
        hand.method(1, 85, 10, b"\0").await;
        hand.expect(85, 11).await;
        hand
    }

    async fn frame(&mut self, kind: u8, channel: u16, payload: &[u8]) {
        let mut frame = vec![kind];
        frame.extend(channel.to_be_bytes());
        frame.extend(u32::try_from(payload.len()).unwrap().to_be_bytes());
        frame.extend(payload);
        frame.push(0xce);
        self.0.write_all(&frame).await.unwrap();
    }

    async fn method(&mut self, channel: u16, class: u16, method: u16, arguments: &[u8]) {
        let mut payload = class.to_be_bytes().to_vec();
        payload.extend(method.to_be_bytes());
        payload.extend(arguments);
        self.frame(METHOD, channel, &payload).await;
    }

    async fn expect(&mut self, class: u16, method: u16) {
        let mut head = [0; 7];
        self.0.read_exact(&mut head).await.unwrap();
        let length = u32::from_be_bytes([head[3], head[4], head[5], head[6]]);
        let mut payload = vec![0; length as usize + 1];
        self.0.read_exact(&mut payload).await.unwrap();
        let wanted = [class.to_be_bytes(), method.to_be_bytes()].concat();
        let said = String::from_utf8_lossy(&payload);
        assert!(payload.starts_with(&wanted), "{class}.{method}: {said}");
    }

    /// Publishes to a queue, with this table as headers, and waits for the confirm.
    async fn publish(&mut self, queue: &str, table: &[u8], body: &[u8]) {
        let arguments = [&b"\0\0"[..], &short(""), &short(queue), b"\0"].concat();
        self.method(1, 60, 40, &arguments).await;
        let mut header = 60u16.to_be_bytes().to_vec();
        header.extend([0, 0]);
        header.extend((body.len() as u64).to_be_bytes());
        // Headers, and a delivery mode.
        header.extend(0x3000u16.to_be_bytes());
        header.extend(long(table));
        header.push(2);
        self.frame(HEADER, 1, &header).await;
        self.frame(BODY, 1, body).await;
        self.expect(60, 80).await;
    }
}

fn short(text: &str) -> Vec<u8> {
    [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()
}

fn long(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap();
    [&length.to_be_bytes(), bytes].concat()
}

/// A table with a text, and a value that is nested so deeply.
fn nested(levels: usize, tables: bool) -> Vec<u8> {
    let each = if tables { 6 } else { 5 };
    let mut table = [short("who"), b"S".to_vec(), long(b"me")].concat();
    table.extend(short("deep"));
    table.push(if tables { b'F' } else { b'A' });
    // Built from the outside in: each level's length is that of all within it.
    let mut inside = Vec::new();
    let mut rest = (levels - 1) * each;
    for _ in 1..levels {
        if tables {
            inside.push(0);
        }
        inside.push(if tables { b'F' } else { b'A' });
        rest -= each;
        inside.extend(u32::try_from(rest).unwrap().to_be_bytes());
    }
    table.extend(long(&inside));
    table
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_are_nested_beyond_measure_arrive() {
    let node = healthy().await;
    let session = session(node).await;
    make(&session, "nested", QueueType::Quorum).await;
    make(&session, "nested_again", QueueType::Quorum).await;
    let mut hand = Hand::open(node).await;
    // The last fill a frame of 128 KiB.
    let depths = [(3, true), (33, true), (10_000, true), (10_000, false)];
    let depths = depths.into_iter().chain([(21_800, true), (26_100, false)]);
    let mut subscription = Subscription::open(&session, "nested", 10, "")
        .await
        .unwrap();
    let mut back = Subscription::open(&session, "nested_again", 10, "")
        .await
        .unwrap();
    let publisher = Publisher::open(&session).await.unwrap();
    for (levels, tables) in depths {
        let body = format!("{levels} {tables}");
        hand.publish("nested", &nested(levels, tables), body.as_bytes())
            .await;
        let delivery = next(&mut subscription).await;
        let message = &delivery.message;
        assert_eq!(message.body, body.as_bytes());
        assert_eq!(message.headers.text("who").as_deref(), Some("me"));
        assert!(message.headers.get("deep").is_some());
        subscription.acker().ack(&[delivery.tag]).await.unwrap();
        if levels > 10_000 {
            // Too large for a publish of ours, of which it is said.
            continue;
        }
        // As it goes to an error queue, and comes from there.
        let copy = Message {
            exchange: String::new(),
            routing_key: "nested_again".to_owned(),
            ..message.clone()
        };
        confirmed(&publisher, &copy).await;
        let returned = next(&mut back).await;
        assert_eq!(returned.message.headers, message.headers, "{body}");
        back.acker().ack(&[returned.tag]).await.unwrap();
    }
    // What follows on the same connection is whole.
    confirmed(&publisher, &to("nested", "plain")).await;
    assert_eq!(&next(&mut subscription).await.message.body[..], b"plain");
    session.close().await;
}
