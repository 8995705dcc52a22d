//! Outages of every kind, by seed: whatever happens to the brokers, the databases, the
//! collector and its host, what was acknowledged is stored, nothing is twice, and
//! everything goes on within a backoff once the last fault has ended.
//!
//! Short form: one seed, some faults, and some seconds of all at once. Full form
//! (`tests/campaign chaos`): all faults, one after the other, for HOLDFAST_TEST_SEEDS seeds
//! in a row, each with the verdict on its own events; then all at random together for
//! HOLDFAST_TEST_STORM_MINUTES, with a verdict every ten. HOLDFAST_TEST_FAULT chooses by a part
//! of their name, and HOLDFAST_TEST_SEED replays one.

mod clickhouse;
mod cluster;
mod collector;
mod postgres;
mod queues;
mod site;

use crate::support::seed;
use crate::support::small_disk::passed_in_network;
use cluster::Cluster;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand::{Rng as _, SeedableRng as _};
use site::{STALL_MAX, Site};
use std::fmt::Debug;
use std::time::{Duration, Instant};

/// How long the longest form may take.
const LIMIT: Duration = Duration::from_secs(6 * 3600);

/// Faults of the short form.
const FEW: usize = 4;

/// All at once, in the short form.
const SHORT_STORM: Duration = Duration::from_secs(10);

/// After which a storm has its verdict and goes on with empty tables: an hour's rows would fill
/// the databases' disks.
const STRETCH: Duration = Duration::from_secs(600);

/// The shortest that a fault lasts.
const SHORTEST: Duration = Duration::from_millis(500);

/// Something that faults happen to.
trait Subject {
    type Fault: Copy + Debug + 'static;
    const FAULTS: &'static [Self::Fault];

    /// Makes it happen.
    async fn begin(&mut self, fault: Self::Fault, random: &mut StdRng);

    /// Ends it; returns once the subject answers.
    async fn end(&mut self, fault: Self::Fault);

    /// The longest that it lasts.
    fn longest(fault: Self::Fault) -> Duration;

    /// Whether it would be another fault beside one of another subject.
    fn needs_others_well(_fault: Self::Fault) -> bool {
        false
    }

    /// Waits until the subject is as before the fault, not only answers.
    async fn settle(&mut self) {}
}

/// One fault of one subject.
#[derive(Debug, Clone, Copy)]
enum Any {
    Cluster(cluster::Fault),
    ClickHouse(clickhouse::Fault),
    Postgres(postgres::Fault),
    Collector(collector::Fault),
    Queues(queues::Fault),
}

impl Any {
    fn all() -> Vec<Self> {
        let mut all = Vec::new();
        all.extend(Cluster::FAULTS.iter().map(|fault| Self::Cluster(*fault)));
        all.extend(
            clickhouse::ClickHouse::FAULTS
                .iter()
                .map(|fault| Self::ClickHouse(*fault)),
        );
        all.extend(
            postgres::Postgres::FAULTS
                .iter()
                .map(|fault| Self::Postgres(*fault)),
        );
        all.extend(
            collector::Host::FAULTS
                .iter()
                .map(|fault| Self::Collector(*fault)),
        );
        all.extend(queues::FAULTS.iter().map(|fault| Self::Queues(*fault)));
        all
    }

    fn name(self) -> String {
        format!("{self:?}")
            .replace(['(', ')'], " ")
            .trim()
            .to_owned()
    }
}

/// Begins a fault, lets it last, ends it; since when it is over.
async fn one<S: Subject>(subject: &mut S, fault: S::Fault, random: &mut StdRng) -> Instant {
    subject.begin(fault, random).await;
    tokio::time::sleep(random.random_range(SHORTEST..S::longest(fault))).await;
    subject.end(fault).await;
    Instant::now()
}

impl Site {
    /// One fault alone, and how soon all goes on after it.
    async fn meet(&mut self, fault: Any, random: &mut StdRng) {
        let begun = Instant::now();
        let over = match fault {
            Any::Cluster(fault) => one(&mut self.cluster, fault, random).await,
            Any::ClickHouse(fault) => one(&mut self.clickhouse, fault, random).await,
            Any::Postgres(fault) => one(&mut self.postgres, fault, random).await,
            Any::Collector(fault) => one(&mut self.host, fault, random).await,
            Any::Queues(fault) => queues::meet(self, fault).await,
        };
        let lasted = over - begun;
        let answers = self.clients.traffic().turn_page();
        let stall = self.stall(over, STALL_MAX).await;
        eprintln!(
            "| {} | {:.1} | {:.1} | {:.1} | {:.1} | {answers:?} |",
            fault.name(),
            lasted.as_secs_f64(),
            stall.acked.as_secs_f64(),
            stall.clickhouse.as_secs_f64(),
            stall.postgres.as_secs_f64(),
        );
        if let Any::Cluster(_) = fault {
            self.cluster.settle().await;
        }
    }

    /// Each of these alone, in any order.
    async fn meet_all(&mut self, mut faults: Vec<Any>, seed: u64) {
        let mut random = StdRng::seed_from_u64(seed);
        faults.shuffle(&mut random);
        eprintln!("seed {seed}");
        eprintln!(
            "| fault | lasted s | then acked after s | in ClickHouse | in Postgres | answers |"
        );
        eprintln!("|---|---|---|---|---|---|");
        for fault in faults {
            self.meet(fault, &mut random).await;
        }
        self.judge().await;
    }

    /// All subjects meet their faults at random, beside each other.
    async fn storm(&mut self, lasts: Duration, seed: u64) {
        let until = Instant::now() + lasts;
        let mut random = StdRng::seed_from_u64(seed);
        let mut more = || StdRng::seed_from_u64(random.random());
        let counts = tokio::join!(
            trouble(&mut self.cluster, until, more()),
            trouble(&mut self.clickhouse, until, more()),
            trouble(&mut self.postgres, until, more()),
            trouble(&mut self.host, until, more()),
        );
        let over = Instant::now();
        eprintln!("storm of {lasts:?}, seed {seed}: faults of each {counts:?}");
        let stall = self.stall(over, STALL_MAX).await;
        eprintln!("a new event: {stall:?}");
        self.judge().await;
    }
}

/// Faults at random until then; how many.
async fn trouble<S: Subject>(subject: &mut S, until: Instant, mut random: StdRng) -> usize {
    let faults = S::FAULTS
        .iter()
        .filter(|fault| !S::needs_others_well(**fault));
    let faults: Vec<_> = faults.copied().collect();
    let mut count = 0;
    while Instant::now() < until {
        tokio::time::sleep(random.random_range(SHORTEST..Duration::from_secs(8))).await;
        let fault = *faults.choose(&mut random).unwrap();
        one(subject, fault, &mut random).await;
        subject.settle().await;
        count += 1;
    }
    count
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable} is a number")),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_nothing_is_lost_and_nothing_is_twice() {
    let this = "chaos::whatever_happens_nothing_is_lost_and_nothing_is_twice";
    if passed_in_network(this, LIMIT) {
        return;
    }
    let first = seed();
    let wanted = std::env::var("HOLDFAST_TEST_FAULT").unwrap_or_default();
    let mut faults = Any::all();
    faults.retain(|fault| fault.name().contains(&wanted));
    assert!(!faults.is_empty(), "no fault is named like {wanted:?}");
    let seeds = number("HOLDFAST_TEST_SEEDS");
    let mut site = Site::start("chaos", first).await;
    for round in 0..seeds.unwrap_or(1) {
        let seed = first.wrapping_add(round);
        let mut faults = faults.clone();
        if seeds.is_none() && wanted.is_empty() {
            faults.shuffle(&mut StdRng::seed_from_u64(seed));
            faults.truncate(FEW);
        }
        site.meet_all(faults, seed).await;
        eprintln!(
            "seed {seed} passed, {} of {}",
            round + 1,
            seeds.unwrap_or(1)
        );
        site.clear().await;
        site.clients.start();
    }
    let lasts =
        number("HOLDFAST_TEST_STORM_MINUTES").map(|minutes| Duration::from_secs(60 * minutes));
    let mut left = lasts.unwrap_or(SHORT_STORM);
    for seed in (0..).map(|stretch| first.wrapping_add(stretch)) {
        let lasts = left.min(STRETCH);
        site.storm(lasts, seed).await;
        left -= lasts;
        if left.is_zero() {
            break;
        }
        site.clear().await;
        site.clients.start();
    }
    site.host.finish();
}
