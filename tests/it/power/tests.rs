//! The proofs on the collector as it is.

use super::order;
use super::recording::Recorded;
use crate::support::collector::binary;
use crate::support::{Scratch, seed};

/// Connections and requests of each: a group commit takes several at a time.
const CLIENTS: u64 = 12;
const REQUESTS: u64 = 50;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledgement_leaves_after_the_sync_that_covers_it() {
    let scratch = Scratch::new("order");
    let settings = [("HOLDFAST__JOURNAL__GENERATION_BYTES", "1MiB")];
    let mut collector = Recorded::new(binary(), &scratch, &settings);
    collector.start().await;
    collector.load(seed(), 0..CLIENTS, REQUESTS).await;
    let recording = collector.finish();
    let verdict = order::prove(&recording);
    eprintln!("{} acknowledgements were judged", verdict.checked);
    assert_eq!(verdict.checked as u64, CLIENTS * REQUESTS);
    verdict.assert_holds("order of the system calls");
}
