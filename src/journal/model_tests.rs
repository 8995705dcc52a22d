//! Random operations, crashes and reopenings against a plain model in memory.

use super::tests::{content, options, read_all, record};
use super::*;
use crate::event::identity::Seq;
use crate::event::tally::{Tally, TypeKey};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::path::Path;
use tempfile::TempDir;

#[derive(Debug, Clone)]
enum Operation {
    /// Appends some records of this size at the same time.
    Append(usize, usize),
    /// A way out delivers up to this share of what is durable.
    Deliver(usize, f64),
    /// A way out delivers this part of what is durable, wherever it lies.
    Lead(usize, f64, f64),
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
        3 => (0usize..2, 0.0f64..=1.0, 0.0f64..=1.0)
            .prop_map(|(way, from, to)| Operation::Lead(way, from.min(to), from.max(to))),
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
    /// Each way out: what it has passed, and what of it is known to be saved.
    passed: [BTreeSet<u64>; 2],
    saved: [BTreeSet<u64>; 2],
    skipped: [u64; 2],
}

impl Model {
    /// The first sequence that a way out has not passed.
    fn next(&self, way: usize) -> u64 {
        (1..).find(|seq| !self.passed[way].contains(seq)).unwrap()
    }

    fn end(&self) -> u64 {
        self.records.len() as u64 + 1
    }
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
            model: Model::default(),
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
                    .map(|record| self.journal().append(record.clone(), None));
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
                let from = self.model.next(*way);
                let to = from + ((self.model.end() - from) as f64 * share) as u64;
                let passed = self.passed(from..to);
                self.cursor(*way).advance(Seq(to), &passed);
                self.model.passed[*way].extend(from..to);
            }
            Operation::Lead(way, from, to) => {
                if !self.cursor(*way).may_lead() {
                    return;
                }
                let place = |share: f64| 1 + ((self.model.end() - 1) as f64 * share) as u64;
                let (from, to) = (place(*from), place(*to));
                let passed = self.passed(from..to);
                let (first, end) = (Seq(from), Seq(to));
                assert!(self.cursor(*way).deliver(Span { first, end }, &passed));
                self.model.passed[*way].extend(from..to);
            }
            Operation::Tidy => self.tidy(),
            Operation::Read => self.compare().await,
            Operation::Skip(way, count) => {
                let from = self.model.next(*way);
                let to = (from + count).min(self.model.end());
                let left = (from..to).filter(|seq| !self.model.passed[*way].contains(seq));
                let left = left.count() as u64;
                let plan = self.journal().skip(WAYS[*way], Seq(to), false).unwrap();
                assert_eq!(plan.events.total(), left);
                let done = self.journal().skip(WAYS[*way], Seq(to), true).unwrap();
                assert_eq!(done, plan);
                self.model.passed[*way].extend(from..to);
                self.model.saved[*way] = self.model.passed[*way].clone();
                self.model.skipped[*way] += left;
            }
            Operation::Close => {
                let journal = self.journal.take().unwrap();
                journal.close();
                drop(journal);
                self.model.saved = self.model.passed.clone();
                self.reopen().await;
            }
            Operation::Kill => {
                self.journal.take().unwrap().crash();
                self.reopen().await;
            }
        }
    }

    fn cursor(&self, way: usize) -> std::sync::Arc<Cursor> {
        self.journal().cursor(WAYS[way]).unwrap()
    }

    fn passed(&self, seqs: std::ops::Range<u64>) -> Vec<Passed> {
        let one = |seq| Passed {
            seq: Seq(seq),
            events: event(self.model.records[seq as usize - 1].0),
            dead_lettered: Tally::default(),
        };
        seqs.map(one).collect()
    }

    fn journal(&self) -> &Journal {
        self.journal.as_ref().unwrap()
    }

    fn tidy(&mut self) {
        self.journal().tidy_now();
        self.model.saved = self.model.passed.clone();
    }

    async fn reopen(&mut self) {
        self.journal = Some(Self::open(self.dir.path()));
        for (way, name) in WAYS.iter().enumerate() {
            let cursor = self.journal().cursor(name).unwrap();
            let (next, ahead) = cursor.place();
            let mut found: BTreeSet<u64> = (1..next.0).collect();
            for span in ahead {
                found.extend(span.first.0..span.end.0);
            }
            let (saved, passed) = (&self.model.saved[way], &self.model.passed[way]);
            assert!(
                saved.is_subset(&found) && found.is_subset(passed),
                "{saved:?} {found:?} {passed:?}"
            );
            self.model.passed[way].clone_from(&found);
            self.model.saved[way] = found;
        }
        assert_eq!(self.journal().losses(), []);
        self.compare().await;
    }

    async fn compare(&mut self) {
        let oldest = self.model.next(0).min(self.model.next(1));
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
            let passed = self.model.passed[way].len() as u64;
            assert_eq!(of.ledger.purged.total(), self.model.skipped[way]);
            let done = of.ledger.delivered.total() + of.ledger.purged.total();
            assert_eq!(done, passed);
            assert_eq!(of.next.0 - 1 + of.ahead_requests, passed);
            let pending = self.model.records.len() as u64 - passed;
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
