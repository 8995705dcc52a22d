//! A disk that is full to the last byte, for real: what was acknowledged goes out
//! without a free byte, and requests are taken again by themselves once that has made
//! room.

use crate::support::collector::Collector;
use crate::support::judge::judge_clickhouse_book;
use crate::support::servers::{Kind, Server};
use crate::support::small_disk::{Hog, SmallDisk, passed_in_namespace};
use crate::support::traffic::{Book, Traffic};
use crate::support::{Scratch, eventually, seed};
use std::collections::BTreeSet;
use std::time::Duration;

/// The collector's disk.
const DISK_BYTES: u64 = 300 << 20;

/// How long filling and draining it may take.
const PATIENCE: Duration = Duration::from_secs(240);

/// Clients: enough to reach the bound soon, although each is slowed.
const CLIENTS: usize = 12;

/// The floor and the reserve leave about 200 MiB to the journal.
const JOURNAL: &str = "[journal]\ngeneration_bytes = \"4MiB\"\nmin_free_bytes = \"64MiB\"\nreserve_bytes = \"32MiB\"\n";

struct Scene {
    /// Unmounted after the servers and the collector are gone.
    collector: Collector,
    rabbitmq: Server,
    clickhouse: Server,
    disk: SmallDisk,
    _scratch: Scratch,
}

impl Scene {
    async fn new(name: &str) -> Self {
        let scratch = Scratch::new(name);
        let rabbitmq = Server::new(Kind::RabbitMq, &scratch);
        let mut clickhouse = Server::new(Kind::ClickHouse, &scratch);
        clickhouse.start().await;
        let config = format!(
            "{JOURNAL}[rabbitmq]\nurls = [\"{}\"]\n{}",
            rabbitmq.amqp_url(),
            clickhouse.clickhouse_section(),
        );
        let collector = Collector::new(&scratch, &config);
        let disk = SmallDisk::mount(&collector.data_dir(), DISK_BYTES);
        Self {
            collector,
            rabbitmq,
            clickhouse,
            disk,
            _scratch: scratch,
        }
    }

    fn pressure(&self) -> u64 {
        let series = "holdfast_journal_state{what=\"pressure\"}";
        self.collector.metric(series) as u64
    }

    fn generations(&self) -> usize {
        let dir = self.collector.data_dir().join("generations");
        std::fs::read_dir(dir).unwrap().count()
    }

    fn reserve_bytes(&self) -> u64 {
        let file = self.collector.data_dir().join("reserve");
        std::fs::metadata(file).map_or(0, |meta| meta.len())
    }

    /// Loads until requests are refused; the levels that were seen on the way.
    async fn load_until_refused(&self, seed: u64) -> (Book, BTreeSet<u64>) {
        let traffic = Traffic::start(&self.collector, seed, 0..CLIENTS);
        let mut levels = BTreeSet::new();
        eventually("requests are refused", PATIENCE, || {
            levels.insert(self.pressure());
            async { traffic.heard("ResourceExhausted") >= 20 }
        })
        .await;
        levels.insert(self.pressure());
        // One that lasts for a second may have come and gone between two looks.
        let log = self.collector.log();
        for (level, name) in [(1, "warn"), (2, "slow"), (3, "refuse")] {
            if log.contains(&format!("pressure=\"{name}\"")) {
                levels.insert(level);
            }
        }
        (traffic.stop().await, levels)
    }

    /// The neighbour takes the last byte, and what the reserve gives back.
    async fn fill(&self, hog: &mut Hog) {
        eventually("the disk is full and the reserve gone", PATIENCE, || {
            hog.fill();
            async { self.disk.free() == 0 && self.reserve_bytes() == 0 }
        })
        .await;
    }

    /// Requests are refused, each at once, and the collector is well otherwise.
    async fn assert_refusing(&self, seed: u64, clients: std::ops::Range<usize>) -> Book {
        let traffic = Traffic::start(&self.collector, seed, clients);
        eventually("clients are answered", PATIENCE, || async {
            traffic.heard_in_all() >= 30
        })
        .await;
        let answers = traffic.answers();
        assert_eq!(answers.keys().collect::<Vec<_>>(), ["ResourceExhausted"]);
        assert_eq!(self.collector.heartbeat(), Some(200), "it is not fenced");
        traffic.stop().await
    }

    /// RabbitMQ comes, and the neighbour goes on taking each byte that is freed, until
    /// some generations were delivered; then the rest goes out, requests are taken
    /// again, and everything arrives.
    async fn drain(mut self, mut hog: Hog, mut book: Book, seed: u64) {
        let before = self.generations();
        self.rabbitmq.start().await;
        let mut free_most = 0;
        eventually("generations go without a free byte", PATIENCE, || {
            free_most = free_most.max(self.disk.free());
            hog.fill();
            async { self.generations() + 4 <= before }
        })
        .await;
        eprintln!("{before} generations, 4 delivered; at most {free_most} bytes were free");
        eventually(
            "requests are taken again by themselves",
            PATIENCE,
            || async { self.pressure() < 3 },
        )
        .await;
        let traffic = Traffic::start(&self.collector, seed, 40..44);
        eventually("requests are taken again", PATIENCE, || async {
            traffic.heard("OK") >= 30
        })
        .await;
        book.add(traffic.stop().await);
        assert_eq!(book.hung, 0, "calls were never answered");
        self.collector.delivered("rabbitmq", PATIENCE).await;
        judge_clickhouse_book(&self.clickhouse, &book, PATIENCE)
            .await
            .assert_complete("ClickHouse");
        eventually("the reserve is made again", PATIENCE, || async {
            self.reserve_bytes() == 32 << 20
        })
        .await;
        eprintln!("{} events acknowledged, all there", book.acked.len());
        assert!(self.collector.terminate().success());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_full_to_the_last_byte_loses_nothing_and_drains_by_itself() {
    if passed_in_namespace(
        "disk_full::a_disk_full_to_the_last_byte_loses_nothing_and_drains_by_itself",
    ) {
        return;
    }
    let seed = seed();
    let mut scene = Scene::new("disk_full").await;
    scene.collector.start().await;
    let (mut book, levels) = scene.load_until_refused(seed).await;
    assert_eq!(levels, BTreeSet::from([0, 1, 2, 3]), "levels on the way");
    assert!(scene.disk.free() > 32 << 20, "others have had their room");
    let mut hog = Hog::new(&scene.disk);
    scene.fill(&mut hog).await;
    book.add(scene.assert_refusing(seed, 20..22).await);
    scene.drain(hog, book, seed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_on_a_full_disk_delivers_what_is_there_and_takes_requests_once_there_is_room() {
    if passed_in_namespace(
        "disk_full::a_start_on_a_full_disk_delivers_what_is_there_and_takes_requests_once_there_is_room",
    ) {
        return;
    }
    let seed = seed();
    let mut scene = Scene::new("disk_full_start").await;
    scene.collector.start().await;
    let (mut book, _) = scene.load_until_refused(seed).await;
    let mut hog = Hog::new(&scene.disk);
    scene.fill(&mut hog).await;
    scene.collector.kill();
    hog.fill();
    assert_eq!(scene.disk.free(), 0);
    scene.collector.start().await;
    book.add(scene.assert_refusing(seed, 20..22).await);
    scene.drain(hog, book, seed).await;
}
