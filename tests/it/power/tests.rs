//! The proofs on the collector as it is.

use super::cuts::{Cut, Plan};
use super::recording::{self, Recorded, Recording, life};
use super::{campaign, forwarding, order, second};
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

/// Cuts of the short form; `HOLDFAST_TEST_CUTS` gives the long one's number.
const RANDOM_CUTS: usize = 60;
const STEP_CUTS: usize = 60;

/// How many images go through a second cut.
const SECOND_EVERY: usize = 10;

/// On how many the collector is started.
const RESTART_EVERY: usize = 40;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_at_any_moment_loses_nothing_that_was_acknowledged() {
    let seed = seed();
    let scratch;
    let recording = match std::env::var_os(recording::AGAIN) {
        Some(kept) => Recording::read(std::path::Path::new(&kept)),
        None => {
            scratch = Scratch::new("power_cuts");
            life(binary(), &scratch, seed).await
        }
    };
    let long: Option<usize> = std::env::var("HOLDFAST_TEST_CUTS")
        .ok()
        .map(|text| text.parse().expect("HOLDFAST_TEST_CUTS is a number"));
    let only = std::env::var("HOLDFAST_TEST_CUT")
        .ok()
        .map(|text| Cut::parse(&text).expect("HOLDFAST_TEST_CUT is OPERATION.VARIANT"));
    let plan = Plan {
        seed,
        random: long.unwrap_or(RANDOM_CUTS),
        steps: if long.is_some() {
            None
        } else {
            Some(STEP_CUTS)
        },
        second_every: SECOND_EVERY,
        restart: Some((RESTART_EVERY, binary().to_owned())),
        only,
        until: None,
    };
    order::prove(&recording).assert_holds("order of the system calls");
    let verdict = campaign::prove(&recording, &plan);
    verdict.assert_holds("power cuts");
    assert!(plan.only.is_some() || verdict.checked >= plan.random);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_no_queue_takes_is_not_passed_before_the_error_queue_has_it() {
    let scratch = Scratch::new("forward_unroutable");
    let verdict = forwarding::prove_unroutable(binary(), &scratch, seed()).await;
    verdict.assert_holds("unroutable messages");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_was_not_confirmed_is_sent_again() {
    let scratch = Scratch::new("forward_unconfirmed");
    let verdict = forwarding::prove_unconfirmed(binary(), &scratch, seed()).await;
    verdict.assert_holds("unconfirmed messages");
}

/// The process of a second cut; nothing to do in the suite itself.
#[test]
fn opens_the_image_it_is_given() {
    if let Some(image) = std::env::var_os(second::IMAGE) {
        second::live(std::path::Path::new(&image));
    }
}
