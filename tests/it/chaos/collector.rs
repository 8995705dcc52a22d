//! What can happen to the collector itself and to its host. Used by `site`.
//!
//! # Invariants
//! - A fault's end returns once the collector accepts.
//! - One that ended is started again with what it left, as systemd would.

use super::Subject;
use super::site::MEMORY_MAX_KIB;
use crate::support::collector::Collector;
use crate::support::small_disk::{Hog, SmallDisk, run};
use crate::support::{Scratch, eventually};
use rand::Rng as _;
use rand::rngs::StdRng;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    Killed,
    /// SIGTERM.
    Restarted,
    /// SIGSTOP.
    Frozen,
    /// It gets no more memory.
    OutOfMemory,
    /// It gets no more descriptors.
    OutOfDescriptors,
    /// Its disk is full to the last byte.
    DiskFull,
    /// The clock goes a day forward, and comes back.
    ClockForward,
    /// The clock goes a day back, and forward again.
    ClockBack,
}

/// The collector's disk: the journal's bounds below leave it some 200 MiB.
const DISK_BYTES: u64 = 400 << 20;

/// The journal's bounds on it.
const CONFIG: &str = "[journal]\ngeneration_bytes = \"2MiB\"\nmin_free_bytes = \"64MiB\"\nreserve_bytes = \"32MiB\"\n[connections]\nmax = 300\n";

/// How soon it accepts, on a machine that does much else.
const ACCEPTS: Duration = Duration::from_secs(60);

/// Connections that strangers open while there are no descriptors.
const STRANGERS: usize = 30;

pub struct Host {
    pub collector: Collector,
    disk: SmallDisk,
    hog: Option<Hog>,
    strangers: Vec<TcpStream>,
    /// What is added to the time, as libfaketime reads it.
    clock: PathBuf,
    /// The most memory that any of its lives had, KiB.
    pub peak_memory_kib: u64,
    /// How often it ended by itself.
    pub deaths: usize,
}

impl Host {
    pub async fn start(scratch: &Scratch, more: &str) -> Self {
        let mut collector = Collector::new(scratch, &format!("{CONFIG}{more}"));
        let disk = SmallDisk::mount(&collector.data_dir(), DISK_BYTES);
        let clock = scratch.0.join("clock");
        collector.environment = [
            ("LD_PRELOAD", faketime()),
            ("FAKETIME_TIMESTAMP_FILE", clock.display().to_string()),
            ("FAKETIME_CACHE_DURATION", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec();
        let mut host = Self {
            collector,
            disk,
            hog: None,
            strangers: Vec::new(),
            clock,
            peak_memory_kib: 0,
            deaths: 0,
        };
        host.set_clock("+0");
        host.collector.start().await;
        host
    }

    fn set_clock(&self, offset: &str) {
        std::fs::write(&self.clock, offset).unwrap();
    }

    fn note_memory(&mut self) {
        if !self.collector.has_ended() {
            self.peak_memory_kib = self.peak_memory_kib.max(self.collector.peak_memory_kib());
        }
    }

    /// Ends it in order, and says what it needed.
    pub fn finish(&mut self) {
        self.note_memory();
        assert!(self.collector.terminate().success());
        let peak_kib = self.peak_memory_kib;
        assert!(peak_kib < MEMORY_MAX_KIB, "{peak_kib} KiB of memory");
        let log = self.collector.log();
        let panics = log.lines().filter(|line| line.contains("panicked"));
        let panics: Vec<_> = panics.collect();
        assert!(panics.is_empty(), "{panics:#?}");
        // A receipt may be missing for want of room, and for nothing else.
        let without = "no receipt of a generation: its rows";
        assert!(!log.contains(without), "receipts were lost");
    }

    /// A limit of the running process, `NAME=SOFT:HARD`.
    fn limit(&self, limit: &str) {
        let pid = self.collector.pid().to_string();
        run("prlimit", &[&format!("--{limit}"), "--pid", &pid]);
    }

    /// Lifts a limit, unless the process ends of it.
    async fn lift(&mut self, limit: &str) {
        let pid = self.collector.pid().to_string();
        let lifting = Command::new("prlimit")
            .args([&format!("--{limit}"), "--pid", &pid])
            .output();
        if !lifting.unwrap().status.success() {
            eventually("it has ended", ACCEPTS, || {
                std::future::ready(self.collector.has_ended())
            })
            .await;
        }
    }

    fn status(&self, name: &str) -> u64 {
        let file = format!("/proc/{}/status", self.collector.pid());
        let text = std::fs::read_to_string(file).unwrap();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    fn descriptors(&self) -> usize {
        let dir = format!("/proc/{}/fd", self.collector.pid());
        std::fs::read_dir(dir).unwrap().count()
    }
}

impl Subject for Host {
    type Fault = Fault;
    const FAULTS: &'static [Fault] = &[
        Fault::Killed,
        Fault::Restarted,
        Fault::Frozen,
        Fault::OutOfMemory,
        Fault::OutOfDescriptors,
        Fault::DiskFull,
        Fault::ClockForward,
        Fault::ClockBack,
    ];

    async fn begin(&mut self, fault: Fault, random: &mut StdRng) {
        self.note_memory();
        match fault {
            Fault::Killed => self.collector.kill(),
            Fault::Restarted => assert!(self.collector.terminate().success()),
            Fault::Frozen => self.collector.pause().await,
            Fault::OutOfMemory => {
                let more_kib = random.random_range(0..4_096);
                let bytes = (self.status("VmSize:") + more_kib) << 10;
                self.limit(&format!("as={bytes}:unlimited"));
            }
            Fault::OutOfDescriptors => {
                let most = self.descriptors() + random.random_range(0..4);
                self.limit(&format!("nofile={most}:"));
                let grpc = self.collector.grpc;
                let connect = || TcpStream::connect(("127.0.0.1", grpc)).unwrap();
                self.strangers = std::iter::repeat_with(connect).take(STRANGERS).collect();
            }
            Fault::DiskFull => {
                let mut hog = Hog::new(&self.disk);
                hog.fill();
                self.hog = Some(hog);
            }
            Fault::ClockForward => self.set_clock("+1d"),
            Fault::ClockBack => self.set_clock("-1d"),
        }
    }

    async fn end(&mut self, fault: Fault) {
        match fault {
            Fault::Killed | Fault::Restarted => {}
            Fault::Frozen => self.collector.resume().await,
            Fault::OutOfMemory => self.lift("as=unlimited:").await,
            Fault::OutOfDescriptors => {
                self.strangers.clear();
                self.lift("nofile=8192:").await;
            }
            Fault::DiskFull => {
                if let Some(hog) = self.hog.take() {
                    hog.leave(&self.disk);
                }
            }
            Fault::ClockForward | Fault::ClockBack => self.set_clock("+0"),
        }
        // What ends of a fault may do so a moment after it.
        eventually("the collector accepts", ACCEPTS, || {
            if self.collector.is_started() && self.collector.has_ended() {
                let status = self.collector.wait(Duration::ZERO);
                eprintln!("the collector ended by itself: {status}");
                self.deaths += 1;
            }
            if !self.collector.is_started() {
                self.collector.launch();
            }
            std::future::ready(self.collector.heartbeat() == Some(200))
        })
        .await;
    }

    fn longest(_fault: Fault) -> Duration {
        Duration::from_secs(4)
    }
}

/// The library that shifts a process's clock.
fn faketime() -> String {
    let libraries = std::fs::read_dir("/usr/lib").unwrap();
    let mut found = libraries.filter_map(|dir| {
        let file = dir.unwrap().path().join("faketime/libfaketimeMT.so.1");
        file.exists().then_some(file)
    });
    let file = found.next().expect("libfaketime is installed by tests/run");
    file.display().to_string()
}
