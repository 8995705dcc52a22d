//! A broker that holds its connections and says nothing (SIGSTOP): every wait on it
//! ends within its limit, and what was given up leaves nothing behind.

use super::nodes::{broker_with, session, troubled};
use super::{confirmed, make, next, to};
use crate::support::eventually;
use holdfast::broker::{
    Options, PublishError, PublishOptions, Publisher, QueueType, SessionState, Subscription,
};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// What a loaded machine may add to a limit.
const SLACK: Duration = Duration::from_secs(2);

/// lapin's threads in this process, by id: one for each connection, those of other
/// tests among them.
pub struct Threads(BTreeSet<String>);

impl Threads {
    pub fn now() -> Self {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        let of_lapin = tasks.filter_map(|task| {
            let path = task.ok()?.path();
            let name = std::fs::read_to_string(path.join("comm")).ok()?;
            let id = path.file_name()?.to_str()?.to_owned();
            name.starts_with("lapin-io").then_some(id)
        });
        Self(of_lapin.collect())
    }

    /// Those that have come since.
    pub fn added(&self) -> Self {
        Self(&Self::now().0 - &self.0)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Waits for the end of these. Other tests' connections end soon as well.
    pub async fn gone(&self) {
        let limit = Duration::from_secs(20);
        eventually("lapin's threads end", limit, || async {
            self.0.is_disjoint(&Self::now().0)
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_broker_ends_publishes_and_closing_within_their_limits() {
    let node = troubled().await;
    let publishing = session(&node).await;
    make(&publishing, "frozen", QueueType::Quorum).await;
    let limit = Duration::from_secs(2);
    let limits = PublishOptions {
        confirm_timeout: limit,
        write_timeout: limit,
        ..PublishOptions::default()
    };
    let publisher = Publisher::open_with(&publishing, limits).await.unwrap();
    confirmed(&publisher, &to("frozen", "before")).await;
    let consumer = session(&node).await;
    let mut subscription = Subscription::open(&consumer, "frozen", 1, "")
        .await
        .unwrap();
    next(&mut subscription).await;
    node.pause().await;
    let since = Instant::now();
    let confirm = publisher.publish(&to("frozen", "x")).await.unwrap();
    let end = confirm.await;
    assert!(matches!(end, Err(PublishError::Lost(_))), "{end:?}");
    assert!(since.elapsed() < limit + SLACK, "{:?}", since.elapsed());
    // More than the sockets' buffers hold: the write itself does not end.
    let since = Instant::now();
    let mut end = Ok(());
    for _ in 0..6 {
        let large = to("frozen", vec![0; 4_000_000]);
        end = publisher.publish(&large).await.map(drop);
        if end.is_err() {
            break;
        }
    }
    assert!(matches!(end, Err(PublishError::Lost(_))), "{end:?}");
    assert!(since.elapsed() < limit + SLACK, "{:?}", since.elapsed());
    // Each of the two has its own limit, 5 s for a session.
    let since = Instant::now();
    subscription.close().await;
    publishing.clone().close().await;
    assert!(since.elapsed() < Duration::from_secs(10) + SLACK);
    assert_eq!(publishing.state(), SessionState::Closed);
    node.resume().await;
    consumer.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_on_a_frozen_broker_leave_no_threads_behind() {
    let node = troubled().await;
    let limit = Duration::from_millis(300);
    let options = Options {
        connect_timeout: limit,
        ..Options::default()
    };
    let broker = broker_with(&node, options);
    node.pause().await;
    let before = Threads::now();
    for _ in 0..5 {
        let since = Instant::now();
        let error = broker.session().await.unwrap_err();
        assert!(!error.needs_operator(), "{error}");
        assert!(since.elapsed() < limit + SLACK, "{:?}", since.elapsed());
    }
    // Before the broker goes on: it must not take its answer to end them.
    before.added().gone().await;
    node.resume().await;
}
