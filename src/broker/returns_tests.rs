//! Tests of the matching of returned messages, against a model of lapin.
//!
//! Called by `cargo test` only, as a child module of `returns`.
//!
//! # Invariants
//! - those of `returns`.

use std::collections::{BTreeSet, VecDeque};

use proptest::prelude::*;

use super::*;

/// The broker returns and confirms, lapin completes; both in orders that the input chooses.
#[derive(Default)]
struct Model {
    queue: VecDeque<Returned>,
    unconfirmed: BTreeSet<u64>,
    completed: Vec<(u64, Option<Returned>)>,
}

impl Model {
    fn route(&mut self, number: u64, routable: bool) {
        if !routable {
            self.queue.push_back(Returned {
                number,
                code: 312,
                text: "NO_ROUTE".into(),
            });
        }
        self.unconfirmed.insert(number);
    }

    fn complete(&mut self, choice: usize) {
        let Some(number) = self
            .unconfirmed
            .iter()
            .nth(choice % self.unconfirmed.len().max(1))
            .copied()
        else {
            return;
        };
        self.unconfirmed.remove(&number);
        let took = self.queue.pop_front();
        self.completed.push((number, took));
    }
}

#[test]
fn lapin_is_modelled() {
    // Two returned messages wait, and the routed publish between them is confirmed first.
    let mut lapin = Model::default();
    lapin.route(0, false);
    lapin.route(1, true);
    lapin.complete(1);
    assert_eq!(
        lapin.completed[0].1.as_ref().map(|message| message.number),
        Some(0)
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn every_interleaving_finds_the_own_message(
        routable in proptest::collection::vec(any::<bool>(), 1..40),
        steps in proptest::collection::vec((0..4_u8, any::<usize>()), 0..200),
        late in proptest::collection::vec(any::<bool>(), 40),
    ) {
        let (mut lapin, mut matcher) = (Model::default(), Matcher::default());
        let (mut round, mut next, mut handed) = (0_u64, 0_usize, 0_usize);
        // When each publish became visible to the matcher's owner; completions of others are kept.
        let mut entered: BTreeMap<u64, u64> = BTreeMap::new();
        let mut outcomes: BTreeMap<u64, Outcome> = BTreeMap::new();
        let mut drain = |lapin: &mut Model, outcomes: &mut BTreeMap<u64, Outcome>, entered: &mut BTreeMap<u64, u64>, next: usize| {
            round += 1;
            // The owner takes in everything that was started before it looks at completions.
            for number in 0..next as u64 {
                entered.entry(number).or_insert(round);
            }
            let mut seen: Vec<_> = std::mem::take(&mut lapin.completed).into_iter()
                .map(|(number, took)| Completion { number, entered: entered[&number], acked: true, took })
                .collect();
            if late[round as usize % late.len()] {
                seen.reverse();
            }
            handed += seen.len();
            for (number, outcome) in matcher.settle(round, seen, handed == next) {
                assert!(outcomes.insert(number, outcome).is_none());
            }
        };
        for (step, choice) in steps {
            match step {
                0 | 1 if next < routable.len() => { lapin.route(next as u64, routable[next]); next += 1; }
                0..=2 => lapin.complete(choice),
                _ => drain(&mut lapin, &mut outcomes, &mut entered, next),
            }
        }
        while !lapin.unconfirmed.is_empty() {
            lapin.complete(7);
        }
        drain(&mut lapin, &mut outcomes, &mut entered, next);
        for (number, routable) in routable.iter().take(next).enumerate() {
            let confirmed = outcomes.get(&(number as u64)) == Some(&Outcome::Confirmed);
            prop_assert!(outcomes.contains_key(&(number as u64)), "{} undecided", number);
            prop_assert_eq!(confirmed, *routable, "{}", number);
        }
    }
}
