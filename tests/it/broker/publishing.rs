//! Publishing: each message gets its own confirm or return, whatever happens to the
//! others on its channel; the window bounds what is in flight; what AMQP cannot carry
//! is refused before it is sent.

use super::nodes::{healthy, session};
use super::{confirmed, make, take, to};
use futures::future::join_all;
use holdfast::broker::{HeaderValue, Outcome, PublishError, PublishOptions, Publisher, QueueType};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

#[tokio::test(flavor = "multi_thread")]
async fn five_thousand_messages_are_confirmed_and_consumed_equal() {
    let producer = session(healthy().await).await;
    make(&producer, "five_thousand", QueueType::Quorum).await;
    let publisher = Publisher::open(&producer).await.unwrap();
    let message = |number: usize| {
        let mut message = to("five_thousand", format!("body {number}"));
        message.message_id = Some(format!("id-{number}"));
        message.content_type = Some("application/json".into());
        message.timestamp_s = Some(1_700_000_000 + number as u64);
        message.headers.set("x-number", number as i64);
        let list = HeaderValue::List(vec!["a".into(), "b".into()]);
        message.headers.set("x-list", list);
        message
    };
    let mut confirms = vec![];
    for number in 0..5_000 {
        confirms.push(publisher.publish(&message(number)).await.unwrap());
    }
    for confirm in confirms {
        assert_eq!(confirm.await, Ok(Outcome::Confirmed));
    }
    let consumer = session(healthy().await).await;
    let taken = take(&consumer, "five_thousand", 5_000).await;
    for (number, delivery) in taken.into_iter().enumerate() {
        assert_eq!(delivery.message, message(number));
        assert!(!delivery.redelivered);
    }
    producer.close().await;
    consumer.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_in_flight_are_told_apart_from_the_unroutable_among_them() {
    let session = session(healthy().await).await;
    make(&session, "told_apart", QueueType::Quorum).await;
    make(&session, "told_apart_classic", QueueType::Classic).await;
    let publisher = Publisher::open(&session).await.unwrap();
    for round in 0..5 {
        let mut confirms = vec![];
        for number in 0..1_000 {
            // Two queues that confirm at their own pace, and every tenth without a queue.
            let queue = match number % 10 {
                3 => "nowhere",
                1 | 5 => "told_apart_classic",
                _ => "told_apart",
            };
            confirms.push(publisher.publish(&to(queue, "x")).await.unwrap());
        }
        for (number, confirm) in confirms.into_iter().enumerate() {
            let outcome = confirm.await.unwrap();
            let is_right = match number % 10 {
                3 => matches!(outcome, Outcome::Unroutable { code: 312, .. }),
                _ => outcome == Outcome::Confirmed,
            };
            assert!(is_right, "{round} {number} {outcome:?}");
        }
    }
    session.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_publishers_on_one_channel_get_their_own_confirms() {
    let session = session(healthy().await).await;
    make(&session, "concurrent", QueueType::Classic).await;
    let publisher = Arc::new(Publisher::open(&session).await.unwrap());
    let tasks = (0..8).map(|task| {
        let publisher = Arc::clone(&publisher);
        tokio::spawn(async move {
            for number in 0..500 {
                let lost = (task + number) % 7 == 0;
                let queue = if lost { "nowhere" } else { "concurrent" };
                let confirm = publisher.publish(&to(queue, "x")).await.unwrap();
                let outcome = confirm.await.unwrap();
                assert_eq!(outcome == Outcome::Confirmed, !lost, "{task} {number}");
            }
        })
    });
    for task in join_all(tasks).await {
        task.unwrap();
    }
    session.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_publishes_do_not_confuse_the_others() {
    let session = session(healthy().await).await;
    make(&session, "dropped", QueueType::Classic).await;
    let publisher = Publisher::open(&session).await.unwrap();
    let mut kept = vec![];
    for number in 0..2_000 {
        let lost = number % 3 == 0;
        let queue = if lost { "nowhere" } else { "dropped" };
        let message = to(queue, vec![0; 2_000]);
        match number % 4 {
            // Dropped after one poll, while it is being written; dropped while it is confirmed.
            0 => drop(timeout(Duration::ZERO, publisher.publish(&message)).await),
            1 => drop(publisher.publish(&message).await.unwrap()),
            _ => kept.push((number, lost, publisher.publish(&message).await.unwrap())),
        }
    }
    for (number, lost, confirm) in kept {
        let outcome = confirm.await.unwrap();
        assert_eq!(outcome == Outcome::Confirmed, !lost, "{number}");
    }
    session.close().await;
}

#[tokio::test]
async fn publishing_waits_for_the_window() {
    let session = session(healthy().await).await;
    make(&session, "window", QueueType::Quorum).await;
    let options = PublishOptions {
        window: 1,
        ..PublishOptions::default()
    };
    let publisher = Publisher::open_with(&session, options).await.unwrap();
    for _ in 0..20 {
        // Each of these can begin only when the one before was confirmed.
        drop(publisher.publish(&to("window", "x")).await.unwrap());
    }
    confirmed(&publisher, &to("window", "x")).await;
    session.close().await;
}

#[tokio::test]
async fn what_amqp_cannot_carry_is_invalid_and_harms_nothing() {
    let session = session(healthy().await).await;
    make(&session, "valid", QueueType::Classic).await;
    let options = PublishOptions {
        max_body: 1_000,
        ..PublishOptions::default()
    };
    let publisher = Publisher::open_with(&session, options).await.unwrap();
    let mut bad = [
        to(&"k".repeat(256), ""),
        to("valid", vec![0; 1_001]),
        to("valid", ""),
        to("valid", ""),
    ];
    bad[2].headers.set("big", "x".repeat(110 * 1024));
    bad[3].message_id = Some("x".repeat(256));
    for message in bad {
        let error = publisher.publish(&message).await.unwrap_err();
        assert!(matches!(error, PublishError::Invalid(_)) && !error.is_retryable());
    }
    let mut large = to("valid", "");
    large.headers.set("large", "x".repeat(95 * 1024));
    confirmed(&publisher, &large).await;
    session.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_ten_megabytes_goes_both_ways() {
    let session = session(healthy().await).await;
    make(&session, "large", QueueType::Quorum).await;
    let body: Vec<u8> = (0..10_000_000_u32)
        .map(|number| (number ^ (number >> 9)) as u8)
        .collect();
    let body = bytes::Bytes::from(body);
    let publisher = Publisher::open(&session).await.unwrap();
    confirmed(&publisher, &to("large", body.clone())).await;
    let taken = take(&session, "large", 1).await;
    assert!(taken[0].message.body == body);
    session.close().await;
}
