//! `holdfast::broker` against a real RabbitMQ: what its invariants promise, one test
//! each. Most tests share one node that nothing happens to (`healthy`); those that
//! kill, freeze or alarm a broker take turns at another (`troubled`).

mod alarms;
mod browsing;
mod connecting;
mod consuming;
mod crash;
mod frozen;
mod nested;
mod nodes;
mod publishing;
mod refusals;
mod topology;

use holdfast::broker::{
    DeclareMode, Delivery, Message, Outcome, Publisher, Queue, QueueType, Session, Subscription,
    Topology, declare,
};
use std::time::Duration;
use tokio::time::timeout;

/// How soon a broker that works hands out what it has.
const SOON: Duration = Duration::from_secs(20);

/// A queue without bindings, reached by its name.
fn plain_queue(name: &str) -> Topology {
    Topology {
        exchanges: vec![],
        queues: vec![Queue {
            name: name.into(),
            bindings: vec![],
        }],
    }
}

/// Declares such a queue.
async fn make(session: &Session, name: &str, kind: QueueType) {
    let warnings = declare(session, &plain_queue(name), DeclareMode::Active, kind)
        .await
        .unwrap();
    assert_eq!(warnings, vec![]);
}

/// A message to such a queue.
fn to(queue: &str, body: impl Into<bytes::Bytes>) -> Message {
    Message {
        routing_key: queue.into(),
        body: body.into(),
        ..Message::default()
    }
}

/// Publishes and waits for the broker's word, which is yes.
async fn confirmed(publisher: &Publisher, message: &Message) {
    let confirm = publisher.publish(message).await.unwrap();
    assert_eq!(confirm.await, Ok(Outcome::Confirmed));
}

async fn next(subscription: &mut Subscription) -> Delivery {
    let next = timeout(SOON, subscription.next()).await;
    next.expect("a delivery comes soon").unwrap().unwrap()
}

/// Takes so many messages off a queue, acknowledged in groups of at most 500.
async fn take(session: &Session, queue: &str, count: usize) -> Vec<Delivery> {
    let mut subscription = Subscription::open(session, queue, 1_000, "").await.unwrap();
    let acker = subscription.acker();
    let (mut taken, mut acked) = (vec![], 0);
    while taken.len() < count {
        taken.push(next(&mut subscription).await);
        if taken.len() == acked + 500 || taken.len() == count {
            acker.ack_all(taken[acked..].to_vec()).await.unwrap();
            acked = taken.len();
        }
    }
    assert_eq!(acker.open_deliveries(), 0);
    subscription.close().await;
    taken
}
