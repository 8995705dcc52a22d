//! What an administrator does to a queue: deletes it, or makes it anew with other
//! arguments. A queue's messages go with it, and what is published before it is there again
//! goes to the other queues alone; so clients pause, and both tables have all, before it goes.
//! Used by the tests of this directory.

use super::site::{STALL_MAX, Site};
use super::{Subject as _, cluster};
use crate::support::eventually;
use holdfast::broker::{Broker, DeclareMode, Options, Queue, QueueType, Topology, declare};
use std::time::Instant;

/// What an administrator does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A queue is deleted under its consumers.
    Deleted,
    /// It was made anew with other arguments, which the broker says by closing the channel of
    /// whoever declares it; then the only node that has it is down for a while.
    DeclaredOtherwise,
}

pub const FAULTS: [Fault; 2] = [Fault::Deleted, Fault::DeclaredOtherwise];

/// What the collector says of events that wait.
const HOLDS: &str = "a queue's node is down; what is for it waits";

/// Both take all events.
const QUEUES: [&str; 2] = ["grpc_clickhouse_event_q", "grpc_postgres_event_q"];

/// Meets it; since when it is over.
pub async fn meet(site: &mut Site, fault: Fault) -> Instant {
    site.judge().await;
    let bindings = site.cluster.bindings();
    match fault {
        Fault::Deleted => deleted(site, &bindings).await,
        Fault::DeclaredOtherwise => {
            assert!(site.host.collector.terminate().success());
            let url = &site.cluster.urls()[0];
            let options = Options {
                urls: vec![url.clone()],
                ..Options::default()
            };
            let session = Broker::new(options).unwrap().session().await.unwrap();
            for queue in QUEUES {
                site.cluster.delete_queue(queue);
                let other = Topology {
                    exchanges: vec![],
                    queues: vec![Queue {
                        name: queue.into(),
                        bindings: vec![],
                    }],
                };
                let warnings = declare(&session, &other, DeclareMode::Active, QueueType::Classic);
                assert_eq!(warnings.await.unwrap(), vec![]);
            }
            session.close().await;
            site.host.collector.start().await;
            let begun = Instant::now();
            site.clients.start();
            site.stall(begun, STALL_MAX).await;
            are_there(site, "classic", &bindings).await;
            // And goes on so.
            site.stall(Instant::now(), STALL_MAX).await;
            without_their_node(site).await;
            site.judge().await;
            deleted(site, &bindings).await
        }
    }
}

/// Stops the node that has both queues, and only that one has them: events wait for it, and go
/// nowhere else.
async fn without_their_node(site: &mut Site) {
    let said = || {
        let log = site.host.collector.log();
        log.matches(HOLDS).count()
    };
    let before = said();
    site.cluster.stop_first();
    eventually("events wait for their queues", STALL_MAX, || async {
        said() > before
    })
    .await;
    site.cluster.end(cluster::Fault::NodeRestarted).await;
    site.stall(Instant::now(), STALL_MAX).await;
    site.cluster.settle().await;
}

/// Deletes both, and waits until the collector has made them again; since when that is over.
async fn deleted(site: &mut Site, bindings: &[String]) -> Instant {
    for queue in QUEUES {
        site.cluster.delete_queue(queue);
    }
    let over = Instant::now();
    are_there(site, "quorum", bindings).await;
    site.clients.start();
    over
}

/// Waits until the collector has both queues, of that kind, and all that binds them: what is
/// published before the last binding is there goes to the other queue alone.
async fn are_there(site: &Site, kind: &str, bindings: &[String]) {
    eventually(
        &format!("both queues are there, {kind}, and bound"),
        STALL_MAX,
        || async {
            QUEUES
                .iter()
                .all(|queue| site.cluster.has_queue(queue, kind))
                && site.cluster.bindings() == bindings
        },
    )
    .await;
}
