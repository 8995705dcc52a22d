//! Random operations, crashes and reopenings against a plain model in memory.

use super::tests::{content, options, read_all, record};
use super::*;
use crate::event::identity::Seq;
use crate::event::tally::{Tally, TypeKey};
use proptest::prelude::*;
use std::path::Path;
use tempfile::TempDir;

#[derive(Debug, Clone)]
enum Operation {
    /// Appends some records of this size at the same time.
    Append(usize, usize),
    /// A way out delivers up to this share of what is durable.
    Deliver(usize, f64),
    /// Cursors are saved, what is delivered is deleted.
    Tidy,
    /// Everything is read from the oldest record on.
    Read,
    /// An operator skips a few records of a way out.
    Skip(usize, u64),
    Close,
    /// The process dies: what was written is there, nothing is closed.
    Kill,
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        6 => (1usize..6, prop_oneof![0usize..500, 1000usize..70_000, Just(200_000)])
            .prop_map(|(count, size)| Operation::Append(count, size)),
        3 => (0usize..2, 0.0f64..=1.0).prop_map(|(way, share)| Operation::Deliver(way, share)),
        2 => Just(Operation::Tidy),
        2 => Just(Operation::Read),
        1 => (0usize..2, 0u64..5).prop_map(|(way, count)| Operation::Skip(way, count)),
        1 => Just(Operation::Close),
        2 => Just(Operation::Kill),
    ]
}

const WAYS: [&str; 2] = ["a", "b"];

/// What should be so.
#[derive(Default)]
struct Model {
    /// Every acknowledged record from sequence 1, by its number and size.
    records: Vec<(usize, usize)>,
    /// Each way out: its position, and how far it is known to be saved.
    positions: [u64; 2],
    saved: [u64; 2],
    skipped: [u64; 2],
}

struct Life {
    dir: TempDir,
    journal: Option<Journal>,
    model: Model,
}

fn event(number: usize) -> Tally {
    let mut tally = Tally::default();
    tally.add(
        TypeKey::of_name(["LaunchEvent", "PageOpenedEvent"][number % 2]),
        1,
    );
    tally
}

impl Life {
    fn open(path: &Path) -> Journal {
        let mut options = options(path);
        options.limits.generation_bytes = 256 << 10;
        let journal = Journal::open(&options).unwrap();
        for way in WAYS {
            journal.cursor(way).unwrap();
        }
        journal
    }

    fn begin() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self {
            journal: Some(Self::open(dir.path())),
            dir,
            model: Model {
                positions: [1; 2],
                saved: [1; 2],
                ..Model::default()
            },
        }
    }

    async fn step(&mut self, operation: &Operation) {
        match operation {
            Operation::Append(count, size) => {
                let first = self.model.records.len();
                let records: Vec<_> = (0..*count)
                    .map(|i| {
                        let mut record = record(content(first + i, *size));
                        record.events = event(first + i);
                        record
                    })
                    .collect();
                let appends = records
                    .iter()
                    .map(|record| self.journal().append(record, None));
                let seqs = futures::future::join_all(appends).await;
                let mut places: Vec<_> = seqs
                    .into_iter()
                    .map(|s| s.unwrap().0)
                    .zip(first..)
                    .collect();
                places.sort_unstable();
                for (seq, number) in places {
                    self.model.records.push((number, *size));
                    assert_eq!(seq as usize, self.model.records.len(), "dense, in order");
                }
            }
            Operation::Deliver(way, share) => {
                let from = self.model.positions[*way];
                let end = self.model.records.len() as u64 + 1;
                let to = from + ((end - from) as f64 * share) as u64;
                let passed: Vec<_> = (from..to)
                    .map(|seq| Passed {
                        seq: Seq(seq),
                        events: event(self.model.records[seq as usize - 1].0),
                        dead_lettered: Tally::default(),
                    })
                    .collect();
                self.journal()
                    .cursor(WAYS[*way])
                    .unwrap()
                    .advance(Seq(to), &passed);
                self.model.positions[*way] = to;
            }
            Operation::Tidy => self.tidy(),
            Operation::Read => self.compare().await,
            Operation::Skip(way, count) => {
                let end = self.model.records.len() as u64 + 1;
                let from = self.model.positions[*way];
                let to = (from + count).min(end);
                let plan = self.journal().skip(WAYS[*way], Seq(to), false).unwrap();
                assert_eq!(plan.events.total(), to - from);
                let done = self.journal().skip(WAYS[*way], Seq(to), true).unwrap();
                assert_eq!(done, plan);
                self.model.positions[*way] = to;
                self.model.saved[*way] = to;
                self.model.skipped[*way] += to - from;
            }
            Operation::Close => {
                let journal = self.journal.take().unwrap();
                journal.close();
                drop(journal);
                self.model.saved = self.model.positions;
                self.reopen().await;
            }
            Operation::Kill => {
                self.journal.take().unwrap().crash();
                self.reopen().await;
            }
        }
    }

    fn journal(&self) -> &Journal {
        self.journal.as_ref().unwrap()
    }

    fn tidy(&mut self) {
        self.journal().tidy_now();
        self.model.saved = self.model.positions;
    }

    async fn reopen(&mut self) {
        self.journal = Some(Self::open(self.dir.path()));
        for (way, name) in WAYS.iter().enumerate() {
            let next = self.journal().cursor(name).unwrap().next().0;
            let (saved, position) = (self.model.saved[way], self.model.positions[way]);
            assert!(
                (saved..=position).contains(&next),
                "{saved} {next} {position}"
            );
            self.model.positions[way] = next;
            self.model.saved[way] = next;
        }
        assert_eq!(self.journal().losses(), []);
        self.compare().await;
    }

    async fn compare(&mut self) {
        let oldest = *self.model.positions.iter().min().unwrap();
        let found = read_all(self.journal(), Seq(oldest)).await;
        let expected = &self.model.records[oldest as usize - 1..];
        assert_eq!(found.len(), expected.len());
        for ((record, (number, size)), seq) in found.iter().zip(expected).zip(oldest..) {
            assert_eq!(record.seq, Seq(seq));
            assert!(record.content == content(*number, *size), "{seq}");
        }
        let ledger = self.journal().ledger();
        assert_eq!(ledger.accepted.total(), self.model.records.len() as u64);
        for (way, of) in ledger.ways.iter().enumerate() {
            assert!(of.adds_up, "{of:?}");
            let position = self.model.positions[way];
            assert_eq!(of.ledger.purged.total(), self.model.skipped[way]);
            let done = of.ledger.delivered.total() + of.ledger.purged.total();
            assert_eq!(done, position - 1);
            let pending = self.model.records.len() as u64 + 1 - position;
            assert_eq!(of.pending.total(), pending);
            assert_eq!(of.oldest_pending_at_ms.is_some(), pending > 0);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("HOLDFAST_TEST_LIVES").map_or(12, |text| text.parse().unwrap()),
        max_shrink_iters: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_journal_is_what_its_model_says(operations in proptest::collection::vec(operation(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut life = Life::begin();
            for operation in &operations {
                life.step(operation).await;
            }
            life.compare().await;
            life.journal().close();
        });
    }
}
