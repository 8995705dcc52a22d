//! Consuming: the end of a subscription is never silent, and nothing is acknowledged
//! but what was asked for, once.

use super::nodes::{healthy, session};
use super::{confirmed, make, next, to};
use holdfast::broker::{ConsumeError, Delivery, Publisher, QueueType, SettleError, Subscription};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::task::block_in_place;
use tokio::time::timeout;

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_deleted_under_its_consumer_is_an_error() {
    let node = healthy().await;
    for kind in [QueueType::Quorum, QueueType::Classic] {
        let session = session(node).await;
        let name = format!("deleted_{kind:?}");
        make(&session, &name, kind).await;
        let mut subscription = Subscription::open(&session, &name, 10, "mine")
            .await
            .unwrap();
        block_in_place(|| node.rabbitmqctl(&["delete_queue", &name]));
        let end = timeout(Duration::from_secs(10), subscription.next())
            .await
            .expect("not silence");
        assert_eq!(end, Some(Err(ConsumeError::Cancelled { queue: name })));
        assert_eq!(subscription.next().await, None);
        session.close().await;
    }
}

#[tokio::test]
async fn a_cancelled_subscription_hands_out_what_came_and_gives_the_rest_back() {
    const MESSAGES: u16 = 600;
    let session = session(healthy().await).await;
    make(&session, "cancelled", QueueType::Quorum).await;
    let publisher = Publisher::open(&session).await.unwrap();
    for number in 0..MESSAGES {
        confirmed(&publisher, &to("cancelled", number.to_be_bytes().to_vec())).await;
    }
    let mut subscription = Subscription::open(&session, "cancelled", MESSAGES, "")
        .await
        .unwrap();
    let mut seen = BTreeSet::new();
    let mut take = |delivery: Delivery| seen.insert(delivery.message.body.to_vec());
    let first = next(&mut subscription).await;
    subscription.acker().ack(&[first.tag]).await.unwrap();
    take(first);
    subscription.cancel().await.unwrap();
    while let Some(delivery) = timeout(Duration::from_secs(10), subscription.next())
        .await
        .expect("it ends")
    {
        let delivery = delivery.unwrap();
        subscription.acker().ack(&[delivery.tag]).await.unwrap();
        take(delivery);
    }
    assert_eq!(subscription.next().await, None);
    assert_eq!(subscription.acker().open_deliveries(), 0);
    subscription.close().await;
    // Nothing is lost between the two, and nothing that was acknowledged comes again.
    let mut other = Subscription::open(&session, "cancelled", 10, "")
        .await
        .unwrap();
    while seen.len() < usize::from(MESSAGES) {
        let delivery = next(&mut other).await;
        other.acker().ack(&[delivery.tag]).await.unwrap();
        assert!(seen.insert(delivery.message.body.to_vec()));
    }
    session.close().await;
}

#[tokio::test]
async fn a_tag_is_good_once_and_on_its_own_subscription() {
    let session = session(healthy().await).await;
    make(&session, "tags", QueueType::Quorum).await;
    let publisher = Publisher::open(&session).await.unwrap();
    for number in 0..10 {
        confirmed(&publisher, &to("tags", vec![number])).await;
    }
    let mut subscription = Subscription::open(&session, "tags", 10, "").await.unwrap();
    let mut tags = vec![];
    for _ in 0..10 {
        tags.push(next(&mut subscription).await.tag);
    }
    let acker = subscription.acker();
    acker.ack(&[tags[4], tags[1]]).await.unwrap();
    assert_eq!(acker.ack(&[tags[4]]).await, Err(SettleError::NotOpen(1)));
    acker.requeue(&[tags[2]]).await.unwrap();
    acker
        .ack(&[tags[0], tags[3], tags[5], tags[8]])
        .await
        .unwrap();
    let again = next(&mut subscription).await;
    assert!(again.redelivered && again.message.body[..] == [2]);
    assert_eq!(acker.open_deliveries(), 4);
    let mut other = Subscription::open(&session, "tags", 10, "").await.unwrap();
    let strange = other.acker().ack(&[tags[6]]).await;
    assert_eq!(strange, Err(SettleError::NotOpen(1)));
    // Closing gives the rest back, and only the rest.
    subscription.close().await;
    let mut left = BTreeSet::new();
    for _ in 0..4 {
        let delivery = next(&mut other).await;
        left.insert(delivery.message.body[0]);
        other.acker().ack(&[delivery.tag]).await.unwrap();
    }
    assert_eq!(left, [2, 6, 7, 9].into());
    session.close().await;
}
