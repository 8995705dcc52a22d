//! A broker with a memory alarm: publishes wait for its end without a limit of their
//! own, only heartbeats end a blocked session, and closing one does not wait.

use super::frozen::Threads;
use super::nodes::{Troubled, broker_with, session, troubled};
use super::{confirmed, make, take, to};
use crate::support::eventually;
use holdfast::broker::{
    Confirm, Options, Outcome, PublishError, PublishOptions, Publisher, QueueType, Session,
    SessionState,
};
use std::time::Duration;
use tokio::time::{sleep, timeout};

const SHORT: Duration = Duration::from_secs(2);

/// A session that notices a dead broker after twice this time.
async fn impatient(node: &Troubled) -> Session {
    let options = Options {
        heartbeat: SHORT,
        ..Options::default()
    };
    broker_with(node, options).session().await.unwrap()
}

/// Raises the alarm and runs into it, with a publish that waits then.
async fn block(node: &Troubled, session: &Session, publisher: &Publisher, queue: &str) -> Confirm {
    confirmed(publisher, &to(queue, "before")).await;
    node.alarm(true);
    let confirm = publisher.publish(&to(queue, "first")).await.unwrap();
    let limit = Duration::from_secs(5);
    eventually("blocked", limit, || async { session.is_blocked() }).await;
    confirm
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_connection_keeps_its_publishes_until_the_alarm_ends() {
    let node = troubled().await;
    let publishing = impatient(&node).await;
    make(&publishing, "blocked", QueueType::Quorum).await;
    let limits = PublishOptions {
        confirm_timeout: 2 * SHORT,
        write_timeout: 2 * SHORT,
        ..PublishOptions::default()
    };
    let publisher = Publisher::open_with(&publishing, limits).await.unwrap();
    let first = block(&node, &publishing, &publisher, "blocked").await;
    let state = publishing.state();
    assert!(
        matches!(&state, SessionState::Blocked(reason) if !reason.is_empty()),
        "{state:?}"
    );
    let second = tokio::spawn(async move {
        let confirm = publisher.publish(&to("blocked", "second")).await.unwrap();
        // It goes back: dropped, it would end the wait for the first.
        (confirm.await, publisher)
    });
    // Another connection that only consumes is not blocked.
    let consumer = session(&node).await;
    let taken = take(&consumer, "blocked", 1).await;
    assert_eq!(taken[0].message.body, "before");
    // Beyond every limit there is: the confirm's, the write's, and twice the heartbeat.
    sleep(4 * SHORT).await;
    assert!(publishing.is_connected() && !second.is_finished());
    node.alarm(false);
    let bound = Duration::from_secs(5);
    let first = timeout(bound, first).await.unwrap();
    assert_eq!(first, Ok(Outcome::Confirmed));
    let (second, _publisher) = timeout(bound, second).await.unwrap().unwrap();
    assert_eq!(second, Ok(Outcome::Confirmed));
    assert_eq!(publishing.state(), SessionState::Open);
    let taken = take(&consumer, "blocked", 2).await;
    let bodies: Vec<_> = taken.into_iter().map(|one| one.message.body).collect();
    assert_eq!(bodies, ["first", "second"]);
    publishing.close().await;
    consumer.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_freezes_while_it_blocks_is_noticed_by_heartbeats() {
    let node = troubled().await;
    let session = impatient(&node).await;
    make(&session, "half_dead", QueueType::Classic).await;
    let publisher = Publisher::open(&session).await.unwrap();
    let confirm = block(&node, &session, &publisher, "half_dead").await;
    node.pause().await;
    let end = timeout(Duration::from_secs(10), confirm)
        .await
        .expect("it is noticed");
    assert!(matches!(end, Err(PublishError::Lost(_))), "{end:?}");
    assert_eq!(session.state(), SessionState::Closed);
    node.resume().await;
    node.alarm(false);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_session_closes_at_once_and_leaves_no_thread() {
    let node = troubled().await;
    let threads = Threads::now();
    let session = session(&node).await;
    make(&session, "closes", QueueType::Classic).await;
    let publisher = Publisher::open(&session).await.unwrap();
    let confirm = block(&node, &session, &publisher, "closes").await;
    let threads = threads.added();
    assert!(!threads.is_empty());
    let closed = timeout(Duration::from_secs(2), session.clone().close()).await;
    assert!(closed.is_ok());
    let end = timeout(Duration::from_secs(2), confirm).await;
    assert!(matches!(end, Ok(Err(PublishError::Lost(_)))), "{end:?}");
    drop((publisher, session));
    threads.gone().await;
    node.alarm(false);
}
