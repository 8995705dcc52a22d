//! Declaring: what exists is used as it is, what is missing or refused is named, and
//! one object's trouble is not the others'.

use super::nodes::{healthy, session, troubled};
use super::{confirmed, make, plain_queue};
use holdfast::broker::{
    Binding, Broker, ConsumeError, DeclareMode, Exchange, ExchangeKind, Message, Object, Options,
    Publisher, Queue, QueueType, Subscription, Topology, Trouble, declare, depth,
};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::block_in_place;

fn exchange(name: &str, kind: ExchangeKind) -> Exchange {
    Exchange {
        name: name.into(),
        kind,
    }
}

fn bound_queue(name: &str, exchange: &str, key: &str) -> Queue {
    Queue {
        name: name.into(),
        bindings: vec![Binding {
            exchange: exchange.into(),
            key: key.into(),
        }],
    }
}

/// A message that goes through an exchange.
fn through(exchange: &str, key: &str) -> Message {
    Message {
        exchange: exchange.into(),
        routing_key: key.into(),
        ..Message::default()
    }
}

#[tokio::test]
async fn a_classic_queue_where_quorum_is_wanted_is_used_with_a_warning() {
    let session = session(healthy().await).await;
    let topology = Topology {
        exchanges: vec![exchange("used.tx", ExchangeKind::Topic)],
        queues: vec![bound_queue("used_q", "used.tx", "*")],
    };
    make(&session, "used_q", QueueType::Classic).await;
    let warnings = declare(&session, &topology, DeclareMode::Active, QueueType::Quorum)
        .await
        .unwrap();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].is_usable());
    assert_eq!(warnings[0].object, Object::Queue("used_q".into()));
    let text = warnings[0].to_string();
    assert!(text.contains("x-queue-type"), "{text}");
    // The other way round, and an exchange of another kind.
    let mut other = topology.clone();
    other.exchanges[0].kind = ExchangeKind::Direct;
    let warnings = declare(&session, &other, DeclareMode::Active, QueueType::Classic)
        .await
        .unwrap();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].is_usable());
    assert_eq!(warnings[0].object, Object::Exchange("used.tx".into()));
    let publisher = Publisher::open(&session).await.unwrap();
    confirmed(&publisher, &through("used.tx", "any")).await;
    session.close().await;
}

#[tokio::test]
async fn passive_names_what_is_missing() {
    let session = session(healthy().await).await;
    make(&session, "there_q", QueueType::Quorum).await;
    let mut topology = plain_queue("there_q");
    topology.queues.extend(plain_queue("absent_q").queues);
    let absent = exchange("absent.dx", ExchangeKind::Direct);
    topology.exchanges.push(absent);
    // Twice: the first look has made nothing.
    for _ in 0..2 {
        let warnings = declare(&session, &topology, DeclareMode::Passive, QueueType::Quorum)
            .await
            .unwrap();
        let missing: Vec<_> = warnings
            .iter()
            .map(|warning| (warning.object.clone(), warning.trouble))
            .collect();
        let expected = [
            Object::Exchange("absent.dx".into()),
            Object::Queue("absent_q".into()),
        ];
        let expected = expected.map(|object| (object, Trouble::Missing));
        assert_eq!(missing, expected, "{warnings:?}");
        let off = declare(&session, &topology, DeclareMode::Off, QueueType::Quorum).await;
        assert_eq!(off, Ok(vec![]));
    }
    let error = Subscription::open(&session, "absent_q", 1, "")
        .await
        .unwrap_err();
    assert!(!error.needs_session());
    assert!(
        matches!(&error, ConsumeError::NoQueue { queue, .. } if queue == "absent_q"),
        "{error}"
    );
    session.close().await;
}

#[tokio::test]
async fn one_refused_object_does_not_stop_the_others() {
    let session = session(healthy().await).await;
    let topology = Topology {
        exchanges: vec![
            exchange("amq.reserved", ExchangeKind::Topic),
            exchange("fine.dx", ExchangeKind::Direct),
        ],
        queues: vec![
            bound_queue("amq.reserved_q", "fine.dx", "k"),
            bound_queue("unbound_q", "never.dx", "k"),
            bound_queue(&"n".repeat(256), "fine.dx", "k"),
            bound_queue("fine_q", "fine.dx", "k"),
        ],
    };
    let warnings = declare(&session, &topology, DeclareMode::Active, QueueType::Quorum)
        .await
        .unwrap();
    let text: Vec<_> = warnings.iter().map(ToString::to_string).collect();
    let trouble: Vec<_> = warnings.iter().map(|warning| warning.trouble).collect();
    let expected = [
        Trouble::Failed,
        Trouble::Failed,
        Trouble::Missing,
        Trouble::Failed,
    ];
    assert_eq!(trouble, expected, "{text:#?}");
    assert!(
        text[2].contains("unbound_q") && text[2].contains("never.dx"),
        "{text:#?}"
    );
    let publisher = Publisher::open(&session).await.unwrap();
    confirmed(&publisher, &through("fine.dx", "k")).await;
    session.close().await;
}

/// A way to a broker that passes everything up to a name, and nothing from there on.
async fn way_up_to(name: &'static [u8], target: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (near, _) = listener.accept().await.unwrap();
        let far = TcpStream::connect(("127.0.0.1", target)).await.unwrap();
        let (mut from_near, mut to_near) = near.into_split();
        let (mut from_far, mut to_far) = far.into_split();
        let back = tokio::spawn(async move { tokio::io::copy(&mut from_far, &mut to_near).await });
        let mut bytes = vec![0; 64 << 10];
        loop {
            let read = from_near.read(&mut bytes).await.unwrap();
            let bytes = &bytes[..read];
            if read == 0 || bytes.windows(name.len()).any(|part| part == name) {
                break;
            }
            to_far.write_all(bytes).await.unwrap();
        }
        back.await.ok();
    });
    port
}

#[tokio::test]
async fn what_is_not_answered_is_not_taken_for_missing() {
    let port = way_up_to(b"unanswered", healthy().await.port).await;
    let broker = Broker::new(Options {
        urls: vec![format!("amqp://guest:guest@127.0.0.1:{port}/%2f")],
        ..Options::default()
    });
    let session = broker.unwrap().session().await.unwrap();
    let queues = ["answered", "unanswered"].map(|name| Queue {
        name: name.into(),
        bindings: vec![],
    });
    let topology = Topology {
        exchanges: vec![],
        queues: queues.into(),
    };
    let error = declare(&session, &topology, DeclareMode::Active, QueueType::Classic)
        .await
        .unwrap_err();
    assert!(error.reason.contains("no answer"), "{error}");
    assert!(error.object.contains("unanswered"), "{error}");
    session.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_does_not_answer_is_away_and_the_others_are_declared() {
    let node = troubled().await;
    let session = session(&node).await;
    let topology = |names: &[&str]| Topology {
        exchanges: vec![],
        queues: names
            .iter()
            .map(|name| Queue {
                name: (*name).into(),
                bindings: vec![],
            })
            .collect(),
    };
    let active = async |names: &[&str]| {
        let topology = topology(names);
        let declared = declare(&session, &topology, DeclareMode::Active, QueueType::Classic);
        declared.await.unwrap()
    };
    assert_eq!(active(&["silent"]).await, vec![]);
    // As a queue is whose node was killed, in RabbitMQ from 3.11 on: the broker asks a process
    // that is not there any more, for a minute.
    let name = "rabbit_misc:r(<<\"/\">>, queue, <<\"silent\">>)";
    let eval = |expression: &str| block_in_place(|| node.rabbitmqctl(&["eval", expression]));
    eval(&format!(
        "{{ok, Q}} = rabbit_amqqueue:lookup({name}), \
         mnesia:dirty_write(rabbit_queue, amqqueue:set_pid(Q, spawn(fun() -> ok end)))."
    ));
    let warnings = active(&["silent", "behind"]).await;
    let told: Vec<_> = warnings
        .iter()
        .map(|w| (w.object.to_string(), w.trouble))
        .collect();
    assert_eq!(told.len(), 1, "{warnings:?}");
    assert!(
        told[0].0.contains("silent") && told[0].1 == Trouble::Away,
        "{told:?}"
    );
    // From now on it holds up nobody for long, and is asked for all the same.
    let began = Instant::now();
    assert_eq!(active(&["silent", "behind"]).await.len(), 1);
    assert!(began.elapsed() < Duration::from_secs(8), "as at first");
    let looked = depth(&session, "silent").await;
    assert!(looked.is_err_and(|error| error.is_away));
    let behind = topology(&["behind"]);
    let passive = declare(&session, &behind, DeclareMode::Passive, QueueType::Classic);
    assert_eq!(passive.await.unwrap(), vec![], "it was made");
    eval(&format!(
        "[Q] = mnesia:dirty_read(rabbit_durable_queue, {name}), mnesia:dirty_write(rabbit_queue, Q)."
    ));
    assert_eq!(active(&["silent"]).await, vec![]);
    session.close().await;
}
