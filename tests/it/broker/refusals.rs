//! What the broker refuses by closing the channel: it costs one channel, and nothing behind it
//! waits for it.

use super::nodes::{broker_with, healthy, troubled};
use super::{confirmed, make, to};
use holdfast::broker::{
    DeclareMode, Exchange, ExchangeKind, Message, Options, Outcome, PublishError, Publisher,
    QueueType, Topology, declare,
};
use tokio::task::block_in_place;

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_too_large_ends_one_channel_and_is_invalid_then() {
    let node = troubled().await;
    let limit = |bytes: u64| {
        let set = format!("application:set_env(rabbit, max_message_size, {bytes}).");
        block_in_place(|| node.rabbitmqctl(&["eval", &set]));
    };
    limit(1 << 20);
    let broker = broker_with(&node, Options::default());
    let session = broker.session().await.unwrap();
    make(&session, "sizes", QueueType::Classic).await;
    let large = to("sizes", vec![0; 2 << 20]);
    let publisher = Publisher::open(&session).await.unwrap();
    // Nobody knows yet, and what is in flight with it is lost with it.
    let confirm = publisher.publish(&large).await.unwrap();
    let error = confirm.await.unwrap_err();
    assert!(matches!(error, PublishError::Lost(_)), "{error}");
    assert!(error.to_string().contains("1048576"), "{error}");
    assert!(!publisher.is_open() && session.is_connected());
    // The next channel, also of another session with this broker, stands.
    let other = broker.session().await.unwrap();
    let publisher = Publisher::open(&other).await.unwrap();
    let error = publisher.publish(&large).await.unwrap_err();
    assert!(matches!(error, PublishError::Invalid(_)), "{error}");
    assert!(error.to_string().contains("at most 1048576"), "{error}");
    confirmed(&publisher, &to("sizes", vec![0; 1 << 20])).await;
    assert!(publisher.is_open());
    limit(128 << 20);
    for session in [session, other] {
        session.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_are_larger_than_a_frame_are_invalid_and_end_nothing() {
    let node = troubled().await;
    let limit = |bytes: u64| {
        let set = format!("application:set_env(rabbit, frame_max, {bytes}).");
        block_in_place(|| node.rabbitmqctl(&["eval", &set]));
    };
    limit(32 << 10);
    let session = broker_with(&node, Options::default()).session().await;
    limit(128 << 10);
    let session = session.unwrap();
    make(&session, "frames", QueueType::Classic).await;
    let publisher = Publisher::open(&session).await.unwrap();
    let headed = |bytes: usize| {
        let mut message = to("frames", vec![0; 100 << 10]);
        message.headers.set("x-large", "x".repeat(bytes));
        message
    };
    let error = publisher.publish(&headed(40 << 10)).await.unwrap_err();
    assert!(matches!(error, PublishError::Invalid(_)), "{error}");
    assert!(error.to_string().contains("at most 28672"), "{error}");
    confirmed(&publisher, &headed(27 << 10)).await;
    assert!(publisher.is_open());
    session.close().await;
}

#[tokio::test]
async fn a_missing_exchange_ends_one_channel_and_is_unroutable_then() {
    let broker = broker_with(healthy().await, Options::default());
    let session = broker.session().await.unwrap();
    make(&session, "beside", QueueType::Classic).await;
    let message = Message {
        exchange: "it's missing".into(),
        routing_key: "k".into(),
        ..Message::default()
    };
    let publisher = Publisher::open(&session).await.unwrap();
    let confirm = publisher.publish(&message).await.unwrap();
    let error = confirm.await.unwrap_err();
    assert!(matches!(error, PublishError::Lost(_)), "{error}");
    let publisher = Publisher::open(&session).await.unwrap();
    let outcome = publisher.publish(&message).await.unwrap().await.unwrap();
    let Outcome::Unroutable { code: 404, text } = outcome else {
        panic!("{outcome:?}");
    };
    assert!(text.contains("it's missing"), "{text}");
    confirmed(&publisher, &to("beside", "x")).await;
    // Once it is declared, it is asked again.
    let topology = Topology {
        exchanges: vec![Exchange {
            name: message.exchange.clone(),
            kind: ExchangeKind::Topic,
        }],
        queues: vec![],
    };
    declare(&session, &topology, DeclareMode::Active, QueueType::Classic)
        .await
        .unwrap();
    let outcome = publisher.publish(&message).await.unwrap().await.unwrap();
    assert!(
        matches!(outcome, Outcome::Unroutable { code: 312, .. }),
        "{outcome:?}"
    );
    session.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_that_is_forbidden_ends_one_channel_and_is_unroutable_then() {
    let node = troubled().await;
    block_in_place(|| {
        node.rabbitmqctl(&["add_user", "narrow", "secret"]);
        node.rabbitmqctl(&["set_permissions", "narrow", ".*", "amq.default", ".*"]);
    });
    let url = format!("amqp://narrow:secret@127.0.0.1:{}/%2f", node.port);
    let options = Options {
        urls: vec![url],
        ..Options::default()
    };
    let session = holdfast::broker::Broker::new(options)
        .unwrap()
        .session()
        .await
        .unwrap();
    make(&session, "narrow", QueueType::Classic).await;
    let message = Message {
        exchange: "amq.topic".into(),
        routing_key: "k".into(),
        ..Message::default()
    };
    let publisher = Publisher::open(&session).await.unwrap();
    let lost = publisher.publish(&message).await.unwrap().await;
    assert!(matches!(lost, Err(PublishError::Lost(_))), "{lost:?}");
    let publisher = Publisher::open(&session).await.unwrap();
    let outcome = publisher.publish(&message).await.unwrap().await.unwrap();
    assert!(
        matches!(outcome, Outcome::Unroutable { code: 403, .. }),
        "{outcome:?}"
    );
    confirmed(&publisher, &to("narrow", "x")).await;
    session.close().await;
    block_in_place(|| node.rabbitmqctl(&["delete_user", "narrow"]));
}
