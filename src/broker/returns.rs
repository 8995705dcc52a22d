//! Which publish a returned message belongs to.
//!
//! Called by `publish` only.
//!
//! The broker returns an unroutable message before it confirms it, but not directly before: other
//! confirms come between, and one confirm may cover many publishes. lapin keeps returned messages
//! in a queue and gives the next one to whichever publish is confirmed next, so with several in
//! flight a routed message is reported as returned, and a returned one as confirmed, which would
//! be a loss. So each publish carries its number in a header, and this file puts the two together
//! again, by facts of lapin that `lapin_is_modelled` restates:
//!
//! - A completion takes the oldest returned message that is waiting, if any. So a completion that
//!   took none proves that every message returned before it has been taken by completions before.
//! - The messages are returned in the order of their publishes, and each before its own
//!   completion. So taking number `n` proves it for all up to `n`, and so does having seen the
//!   completion of every publish that was started.
//!
//! # Invariants
//! - A publish is `Confirmed` only when it is certain that its message was not returned, and
//!   `Unroutable` only for its own message, in whatever order lapin completes
//!   (`every_interleaving_finds_the_own_message`).
//! - When everything has completed, everything is decided (same test).

use std::collections::BTreeMap;

use super::publish::Outcome;

/// A message that the broker returned: the number of its publish, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Returned {
    pub(super) number: u64,
    pub(super) code: u16,
    pub(super) text: String,
}

/// What lapin reported for the publish `number`: acknowledged or not, and a returned message that
/// may be another publish's.
#[derive(Clone, Debug)]
pub(super) struct Completion {
    pub(super) number: u64,
    /// The round in which the publish became visible to its owner.
    pub(super) entered: u64,
    pub(super) acked: bool,
    pub(super) took: Option<Returned>,
}

/// Decides outcomes. Holds one entry for each publish that is complete and undecided.
#[derive(Debug, Default)]
pub(super) struct Matcher {
    returned: BTreeMap<u64, (u16, String)>,
    /// Highest number that was returned so far.
    reached: Option<u64>,
    /// Acknowledged publishes which took another's message, with the round they were seen in.
    waiting: BTreeMap<u64, u64>,
}

impl Matcher {
    /// Takes one round's completions: all that there were when the round ended, in any order.
    /// `quiet` says that every publish ever started has completed. Returns what is decided.
    pub(super) fn settle(
        &mut self,
        round: u64,
        seen: Vec<Completion>,
        quiet: bool,
    ) -> Vec<(u64, Outcome)> {
        // First all returned messages, as they may belong to any completion of the same round.
        // A publish that entered by round r and completed later with none proves the point for
        // all that was seen in round r.
        let mut proven: Option<u64> = None;
        for completion in &seen {
            match &completion.took {
                Some(message) => {
                    self.reached = self.reached.max(Some(message.number));
                    self.returned
                        .insert(message.number, (message.code, message.text.clone()));
                }
                None => {
                    let entered = completion.entered;
                    proven = Some(proven.map_or(entered, |least| least.min(entered)));
                }
            }
        }
        let mut decided = Vec::with_capacity(seen.len());
        for completion in seen {
            if !completion.acked {
                self.returned.remove(&completion.number);
                decided.push((completion.number, Outcome::Nacked));
            } else if completion.took.is_none() {
                decided.push((completion.number, self.outcome(completion.number)));
            } else {
                self.waiting.insert(completion.number, round);
            }
        }
        let clear: Vec<u64> = self
            .waiting
            .iter()
            .filter(|&(number, &seen)| {
                quiet
                    || self.reached >= Some(*number)
                    || (seen < round && proven.is_some_and(|entered| entered <= seen))
            })
            .map(|(number, _)| *number)
            .collect();
        for number in clear {
            self.waiting.remove(&number);
            decided.push((number, self.outcome(number)));
        }
        decided
    }

    fn outcome(&mut self, number: u64) -> Outcome {
        match self.returned.remove(&number) {
            Some((code, text)) => Outcome::Unroutable { code, text },
            None => Outcome::Confirmed,
        }
    }
}

#[cfg(test)]
#[path = "returns_tests.rs"]
mod tests;
