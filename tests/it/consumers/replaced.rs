//! A worker that replaces its subscription while messages are under way to it: what came by the
//! one before is acknowledged there, and what had not come yet comes by the next.

use super::{ARRIVAL, Site};
use crate::support::eventually;
use serde_json::json;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

const QUEUE: &str = "webengage_ch_event_q";

/// Messages after which a worker takes more, and as many as it may hold before.
const FIRST: usize = 8;

/// Messages that come before the line stops, and while it has stopped.
const BEFORE: u64 = 4;
const WHILE: u64 = FIRST as u64;

/// How long a cancel is not answered: longer than a batch waits, so that all that came is
/// written and acknowledged when the worker looks at its subscription again.
const CANCEL_TAKES: Duration = Duration::from_millis(500);

/// A way to the broker by which what it sends can be stopped. Of what goes by a channel it
/// holds back all but the first [`FIRST`] messages until a cancel is answered, as a broker
/// may do whose queues work side by side with its channels.
struct Line {
    port: u16,
    is_open: watch::Sender<bool>,
}

impl Line {
    async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (is_open, opened) = watch::channel(true);
        let line = Self {
            port: listener.local_addr().unwrap().port(),
            is_open,
        };
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let far = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                let (mut near_says, near_hears) = near.into_split();
                let (far_says, mut far_hears) = far.into_split();
                tokio::spawn(async move {
                    tokio::io::copy(&mut near_says, &mut far_hears).await.ok();
                });
                tokio::spawn(pass(far_says, near_hears, opened.clone()));
            }
        });
        line
    }
}

/// One frame (AMQP 0-9-1, 2.3.5): its channel, what it is, and all its bytes.
struct Frame {
    channel: u16,
    what: What,
    bytes: Vec<u8>,
}

#[derive(PartialEq)]
enum What {
    Delivery,
    Content,
    CancelOk,
    Other,
}

impl Frame {
    async fn read(from: &mut OwnedReadHalf) -> Option<Self> {
        let mut bytes = vec![0; 7];
        from.read_exact(&mut bytes).await.ok()?;
        let payload_bytes = u32::from_be_bytes(bytes[3..].try_into().unwrap());
        bytes.resize(7 + payload_bytes as usize + 1, 0);
        from.read_exact(&mut bytes[7..]).await.ok()?;
        let what = match (bytes[0], &bytes[7..]) {
            (1, [0, 60, 0, 60, ..]) => What::Delivery,
            (1, [0, 60, 0, 31, ..]) => What::CancelOk,
            (2 | 3, _) => What::Content,
            _ => What::Other,
        };
        let channel = u16::from_be_bytes([bytes[1], bytes[2]]);
        Some(Self {
            channel,
            what,
            bytes,
        })
    }
}

/// What a channel has passed on and what it holds back.
#[derive(Default)]
struct Way {
    deliveries: usize,
    held: Vec<u8>,
    is_cancelled: bool,
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut opened: watch::Receiver<bool>) {
    let mut ways: std::collections::HashMap<u16, Way> = Default::default();
    while let Some(frame) = Frame::read(&mut from).await {
        if opened.wait_for(|is_open| *is_open).await.is_err() {
            return;
        }
        let way = ways.entry(frame.channel).or_default();
        way.deliveries += usize::from(frame.what == What::Delivery);
        let is_message = matches!(frame.what, What::Delivery | What::Content);
        let mut bytes = frame.bytes;
        if is_message && way.deliveries > FIRST && !way.is_cancelled {
            way.held.append(&mut bytes);
        } else if frame.what == What::CancelOk {
            tokio::time::sleep(CANCEL_TAKES).await;
            way.is_cancelled = true;
            bytes.append(&mut way.held);
        }
        if to.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_under_way_to_a_replaced_subscription_comes_by_the_next() {
    let consumers = format!(
        "[[consumer]]\nqueue = \"{QUEUE}\"\nworkers = 1\nbatch_age = \"20ms\"\n\
         [log]\nlevel = \"info,holdfast::consume=debug\"\n"
    );
    let mut line = None;
    let site = Site::start_by("replaced", &consumers, "", async |rabbitmq| {
        let opened = line.insert(Line::to(rabbitmq.port).await);
        format!("amqp://guest:guest@127.0.0.1:{}", opened.port)
    })
    .await;
    let line = line.unwrap();
    let publish = async |user: u64| {
        let event = json!({"appType": "USER", "userId": format!("u{user}"), "eventName": "n",
            "eventTime": "2023-11-14T22:13:20Z", "eventData": {}});
        site.publish("webengage_event.dx", "EVENT", &event.to_string())
            .await;
    };
    for user in 0..BEFORE {
        publish(user).await;
    }
    eventually("the first are rows", ARRIVAL, || async {
        site.count("webengage_events").await == BEFORE
    })
    .await;
    // The broker sends as many as the worker may hold, and they are all under way.
    line.is_open.send(false).unwrap();
    for user in BEFORE..BEFORE + WHILE {
        publish(user).await;
    }
    assert_eq!(site.held(QUEUE, WHILE).await, WHILE);
    line.is_open.send(true).unwrap();
    // Half of them come after the cancel. Nothing comes after them that would wake a worker.
    eventually("all are rows", ARRIVAL, || async {
        site.count("webengage_events").await == BEFORE + WHILE
    })
    .await;
    let log = site.collector.log();
    let replaced = log.matches("another prefetch").count();
    assert_eq!(replaced, 1, "it replaced its subscription:\n{log}");
    assert!(!log.contains("trying again"), "no worker ended:\n{log}");
}
