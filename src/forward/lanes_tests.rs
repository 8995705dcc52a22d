//! Lanes against a log in memory: random reads, fresh lanes, confirms and new sessions.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

#[derive(Debug, Clone)]
enum Step {
    /// So many requests come.
    Come(u64),
    /// The backlog's reader, or the fresh lane's, reads up to so many.
    Read(bool, u64),
    /// Fresh requests get a lane.
    Lead,
    /// The broker confirms some of what is on its way.
    Confirm(usize, u64),
    /// The session is lost: what is not delivered begins anew.
    Lose,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0u64..20).prop_map(Step::Come),
        4 => (any::<bool>(), 0u64..15).prop_map(|(fresh, count)| Step::Read(fresh, count)),
        2 => Just(Step::Lead),
        4 => (0usize..10, any::<u64>()).prop_map(|(count, order)| Step::Confirm(count, order)),
        1 => Just(Step::Lose),
    ]
}

/// What a way out with lanes does, without its broker.
struct World {
    lanes: Lanes,
    /// The sequence after the last request. Each one divisible by seven is lost.
    end: u64,
    readers: [u64; 2],
    on_their_way: Vec<u64>,
    /// How often each request was read since the session began.
    read: BTreeMap<u64, u32>,
    passed: BTreeMap<u64, bool>,
}

fn is_lost(seq: u64) -> bool {
    seq.is_multiple_of(7)
}

impl World {
    fn note(&mut self, taken: Option<(Span, Vec<Passed>)>) {
        if let Some((span, _)) = taken {
            for seq in span.first.0..span.end.0 {
                assert!(
                    !self.on_their_way.contains(&seq),
                    "{seq} is passed too early"
                );
                self.passed.insert(seq, true);
            }
        }
    }

    fn read(&mut self, fresh: bool, count: u64) {
        if fresh && !self.lanes.leads() {
            return;
        }
        let which = usize::from(fresh);
        let limit = if fresh {
            u64::MAX
        } else {
            self.lanes.limit().0
        };
        let to = (self.readers[which] + count).min(self.end).min(limit);
        for seq in self.readers[which]..to {
            if !is_lost(seq) {
                assert!(!self.passed.contains_key(&seq), "{seq} is read again");
                *self.read.entry(seq).or_default() += 1;
                self.on_their_way.push(seq);
                self.lanes.add(fresh, Seq(seq), 1, Tally::default());
            }
        }
        self.readers[which] = to;
        self.lanes.reach(fresh, Seq(to));
        let taken = self.lanes.take_read(fresh);
        self.note(taken);
        if !fresh && let Some(to) = self.lanes.jump() {
            self.readers[0] = to.0;
        }
        self.lanes.forget();
    }

    fn confirm(&mut self, seq: u64) {
        self.on_their_way.retain(|other| *other != seq);
        self.lanes.done(Seq(seq));
        let taken = self.lanes.take(Seq(seq));
        self.note(taken);
        self.lanes.forget();
    }

    /// The cursor of what is passed.
    fn lose(&mut self) {
        let next = (1..).find(|seq| !self.passed.contains_key(seq)).unwrap();
        let mut ahead: Vec<Span> = Vec::new();
        for seq in self.passed.keys().copied().filter(|seq| *seq > next) {
            match ahead.last_mut() {
                Some(last) if last.end == Seq(seq) => last.end = Seq(seq + 1),
                _ => ahead.push(Span {
                    first: Seq(seq),
                    end: Seq(seq + 1),
                }),
            }
        }
        self.lanes = Lanes::new(Seq(next), &ahead);
        self.readers = [next; 2];
        self.on_their_way.clear();
        self.read.clear();
    }
}

#[test]
fn what_is_delivered_to_the_end_is_led_on() {
    let span = |first, end| Span {
        first: Seq(first),
        end: Seq(end),
    };
    let mut lanes = Lanes::new(Seq(1), &[span(500, 1000)]);
    assert_eq!(lanes.lead(Seq(1000)), Some(Seq(1000)));
    assert!(lanes.leads() && lanes.segments.len() == 2);
    // Once, and from then on as any.
    assert_eq!(lanes.lead(Seq(1000)), None);
    assert_eq!(lanes.limit(), Seq(500));
    lanes.add(true, Seq(1000), 1, Tally::default());
    lanes.reach(true, Seq(1001));
    assert_eq!((lanes.in_flight(true), lanes.in_flight(false)), (1, 0));
    assert_eq!(lanes.take_read(true).map(|taken| taken.0), None);
    lanes.done(Seq(1000));
    let taken = lanes.take(Seq(1000)).map(|taken| taken.0);
    assert_eq!(taken, Some(span(1000, 1001)));
    assert_eq!(lanes.lead(Seq(2000)), Some(Seq(2000)));
    // The backlog's reader comes to what was ahead, and goes on behind it.
    lanes.reach(false, Seq(500));
    assert_eq!(lanes.jump(), Some(Seq(1001)));
    assert!(lanes.leads());
    lanes.reach(false, Seq(2000));
    assert_eq!(lanes.jump(), Some(Seq(2000)));
    assert!(!lanes.leads());
    // Nothing to lead: what is ahead is all that there is.
    assert_eq!(lanes.lead(Seq(2000)), None);
    assert!(!lanes.leads());
}

proptest! {
    #[test]
    fn whatever_leads_everything_is_read_once_and_passed_at_last(
        steps in proptest::collection::vec(step(), 1..80)
    ) {
        let mut world = World {
            lanes: Lanes::new(Seq(1), &[]),
            end: 1,
            readers: [1; 2],
            on_their_way: Vec::new(),
            read: BTreeMap::new(),
            passed: BTreeMap::new(),
        };
        for step in steps {
            match step {
                Step::Come(count) => world.end += count,
                Step::Read(fresh, count) => world.read(fresh, count),
                Step::Lead => {
                    if let Some(at) = world.lanes.lead(Seq(world.end)) {
                        world.readers[1] = at.0;
                    }
                }
                Step::Confirm(count, order) => {
                    for at in 0..count {
                        if world.on_their_way.is_empty() {
                            break;
                        }
                        let which = (order as usize).wrapping_add(at * 7919);
                        let seq = world.on_their_way[which % world.on_their_way.len()];
                        world.confirm(seq);
                    }
                }
                Step::Lose => world.lose(),
            }
            prop_assert!(world.read.values().all(|times| *times == 1));
            let in_flight = world.lanes.in_flight(true) + world.lanes.in_flight(false);
            prop_assert!(in_flight >= world.on_their_way.len());
        }
        // Both readers to the end, everything confirmed: nothing is left.
        for _ in 0..200 {
            world.read(true, 50);
            world.read(false, 50);
            while let Some(seq) = world.on_their_way.last().copied() {
                world.confirm(seq);
            }
        }
        prop_assert!(!world.lanes.leads());
        prop_assert_eq!(world.lanes.segments.len(), 1);
        let all: Vec<u64> = world.passed.keys().copied().collect();
        prop_assert_eq!(all, (1..world.end).collect::<Vec<_>>());
    }
}
