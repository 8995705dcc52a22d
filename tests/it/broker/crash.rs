//! A broker that is killed: everything on its sessions ends with an error at once, and
//! what it had confirmed is there when it is back.

use super::nodes::{broker_with, session, troubled};
use super::{SOON, make, next, to};
use holdfast::broker::{Options, Outcome, Publisher, QueueType, Subscription};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use tokio::task::block_in_place;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_killed_under_a_window_of_publishes_loses_only_what_was_not_confirmed() {
    let mut node = troubled().await;
    let publishing = session(&node).await;
    make(&publishing, "killed", QueueType::Quorum).await;
    block_in_place(|| node.settle_queues());
    let publisher = Publisher::open(&publishing).await.unwrap();
    let consumer = session(&node).await;
    let mut subscription = Subscription::open(&consumer, "killed", 10, "")
        .await
        .unwrap();
    let mut confirms = vec![];
    let mut killed = None;
    for number in 0..5_000_u32 {
        if number == 2_000 {
            // In the midst of the publishes.
            block_in_place(|| node.kill());
            killed = Some(Instant::now());
        }
        let message = to("killed", number.to_be_bytes().to_vec());
        match publisher.publish(&message).await {
            Ok(confirm) => confirms.push((number, confirm)),
            Err(error) => assert!(error.is_retryable(), "{error}"),
        }
    }
    let mut confirmed = BTreeSet::new();
    for (number, confirm) in confirms {
        match confirm.await {
            Ok(outcome) => {
                assert_eq!(outcome, Outcome::Confirmed);
                confirmed.insert(number);
            }
            Err(error) => assert!(error.is_retryable(), "{error}"),
        }
    }
    let took = killed.unwrap().elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!(confirmed.len() <= 2_000, "{}", confirmed.len());
    assert!(!publisher.is_open());
    publishing.closed().await;
    // The consumer may have deliveries in hand, then the error.
    let end = loop {
        let next = subscription.next().await;
        if let Err(error) = next.expect("an error comes before the end") {
            break error;
        }
    };
    assert!(end.needs_session(), "{end}");

    // It comes back by itself, and has everything that was confirmed.
    let broker = broker_with(&node, Options::default());
    let back = tokio::spawn(async move { broker.connect_forever(CancellationToken::new()).await });
    node.start().await;
    let session = timeout(SOON, back).await.unwrap().unwrap().unwrap();
    let mut subscription = Subscription::open(&session, "killed", 1_000, "")
        .await
        .unwrap();
    while !confirmed.is_empty() {
        let delivery = next(&mut subscription).await;
        let body = delivery.message.body[..].try_into().unwrap();
        confirmed.remove(&u32::from_be_bytes(body));
        subscription.acker().ack(&[delivery.tag]).await.unwrap();
    }
    session.close().await;
}
