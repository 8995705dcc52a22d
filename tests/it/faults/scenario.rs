//! One fault at one step, from a load to the judgement of what arrived.

use super::steps::{Expect, Step, When};
use crate::support::collector::Collector;
use crate::support::faults::Faults;
use crate::support::judge::judge_sqlite;
use crate::support::traffic::{Book, Traffic};
use crate::support::{Scratch, eventually};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Small generations, so that each step comes several times a second.
const CONFIG: &str = "[journal]\nack_deadline = \"1s\"\ngeneration_bytes = \"1MiB\"\nmin_free_bytes = \"64MiB\"\nreserve_bytes = \"16MiB\"\n[sqlite]\n";

/// Clients of one scenario.
const CLIENTS: usize = 3;

/// How soon something must be seen that the machine can do at once.
const PROMPT: Duration = Duration::from_secs(30);

/// How long a collector that cannot start may take to say so.
const START_FAILS: Duration = Duration::from_secs(30);

/// How long after it answers a collector may take to accept.
const OPENS: Duration = Duration::from_secs(3);

/// The answers that are watched to see that something goes on, or does not.
const ANSWERS: usize = 12;

/// Which calls fail, and how.
#[derive(Debug, Clone)]
pub struct Fault {
    pub step: Step,
    pub errno: &'static str,
    pub is_short: bool,
    pub first: usize,
    /// `None`: all from the first on.
    pub count: Option<usize>,
}

impl Fault {
    pub fn name(&self) -> String {
        let short = if self.is_short { "+short" } else { "" };
        let count = self
            .count
            .map_or("all".to_owned(), |count| format!("{count}"));
        format!(
            "{} {}{short} from call {} on, {count}",
            self.step.name, self.errno, self.first
        )
    }

    fn rule(&self) -> String {
        let Step { kind, glob, .. } = self.step;
        let count = self.count.map_or("*".to_owned(), |count| count.to_string());
        let short = if self.is_short { "+short" } else { "" };
        format!("{kind} {glob} {} {count} {}{short}", self.first, self.errno)
    }
}

/// What happened, for the table.
#[derive(Debug, Default)]
pub struct Outcome {
    pub hits: usize,
    pub during: String,
    pub after: String,
    pub acked: usize,
    pub rows: usize,
}

/// Runs one; `Err` says what was wrong.
pub async fn run(number: usize, seed: u64, fault: &Fault) -> Outcome {
    let scratch = Scratch::new(&format!("faults_{number}"));
    let faults = Faults::new(&scratch.0);
    let mut collector = Collector::new(&scratch, CONFIG);
    collector.environment = faults.environment();
    let mut outcome = Outcome::default();
    let mut book = match fault.step.when {
        When::Running => running(&mut collector, &faults, seed, fault, &mut outcome).await,
        When::FirstStart => starting(&mut collector, &faults, fault, &mut outcome).await,
        When::Restart => restarting(&mut collector, &faults, seed, fault, &mut outcome).await,
    };
    outcome.hits = faults.hits().len();
    // A start may have fewer calls than a later one asks for.
    assert!(
        outcome.hits > 0 || fault.first > 1,
        "the fault was never hit"
    );
    assert_eq!(book.hung, 0, "calls were never answered");

    // Once more, with nothing left to fail.
    collector.environment.clear();
    collector.start().await;
    let more = Traffic::start(&collector, seed, CLIENTS..CLIENTS + 1);
    eventually("it takes requests after the restart", PROMPT, || async {
        more.heard("OK") >= 3
    })
    .await;
    let more = more.stop().await;
    collector.delivered("sqlite", Duration::from_secs(60)).await;
    outcome.acked = book.acked.len();
    book.add(more);
    let verdict = judge_sqlite(&collector.data_dir().join("events.sqlite"), &book);
    verdict.assert_complete("SQLite");
    assert!(collector.terminate().success());
    outcome.rows = verdict.rows;
    outcome
}

async fn running(
    collector: &mut Collector,
    faults: &Faults,
    seed: u64,
    fault: &Fault,
    outcome: &mut Outcome,
) -> Book {
    collector.start().await;
    let traffic = Traffic::start(collector, seed, 0..CLIENTS);
    eventually("requests are taken", PROMPT, || async {
        traffic.heard("OK") >= 20
    })
    .await;
    faults.set(&fault.rule());
    eventually("the fault is hit", PROMPT, || async {
        !faults.hits().is_empty()
    })
    .await;
    traffic.turn_page();
    // A single failure may be over before anybody looks, and may hit a write that
    // nothing depends on: sled writes once more when a sealed store ends.
    let is_lasting = fault.count.is_none();
    let expect = match fault.step.expect(fault.errno) {
        Expect::Fenced if !is_lasting && fault.step.name != "append: fdatasync" => {
            eventually("it is fenced, or goes on", PROMPT, || async {
                collector.heartbeat() == Some(410) || traffic.heard("OK") >= 10 * ANSWERS
            })
            .await;
            if collector.heartbeat() == Some(410) {
                Expect::Fenced
            } else {
                Expect::Unhurt
            }
        }
        expect => expect,
    };
    match expect {
        Expect::Fenced => fenced(collector, &traffic).await,
        Expect::Refused if is_lasting => {
            eventually("requests are refused for want of space", PROMPT, || async {
                traffic.heard("ResourceExhausted") > 0
            })
            .await;
        }
        Expect::Unhurt => {
            eventually("acknowledgements go on", PROMPT, || async {
                traffic.heard("OK") >= ANSWERS
            })
            .await;
        }
        Expect::Refused | Expect::Any => {
            eventually("clients are answered", PROMPT, || async {
                traffic.heard_in_all() >= ANSWERS
            })
            .await;
        }
    }
    assert!(!collector.has_ended(), "it died");
    outcome.during = describe(&traffic.turn_page(), collector.heartbeat());
    if expect == Expect::Fenced {
        // What is durable goes out, although nothing comes in.
        collector.delivered("sqlite", PROMPT).await;
    }
    faults.lift();
    traffic.turn_page();
    let is_fenced = collector.heartbeat() == Some(410);
    match expect {
        Expect::Refused | Expect::Unhurt => {
            eventually("requests are taken again by themselves", PROMPT, || async {
                traffic.heard("OK") >= ANSWERS
            })
            .await;
            assert_eq!(collector.heartbeat(), Some(200));
        }
        Expect::Fenced | Expect::Any if is_fenced => fenced(collector, &traffic).await,
        Expect::Fenced => panic!("the fence went away by itself"),
        Expect::Any => {
            eventually("requests are taken, or it is fenced", PROMPT, || async {
                traffic.heard("OK") >= ANSWERS || collector.heartbeat() == Some(410)
            })
            .await;
        }
    }
    if collector.heartbeat() == Some(200) {
        let before = oldest_generation(collector);
        eventually("delivered generations are deleted", PROMPT, || async {
            oldest_generation(collector) > before + 1
        })
        .await;
    }
    assert!(!collector.has_ended(), "it died");
    outcome.after = describe(&traffic.turn_page(), collector.heartbeat());
    // Killed under load, so that nothing is put right by a clean stop.
    collector.kill();
    traffic.stop().await
}

/// The lowest number of a generation, whole or half deleted; 0 when there is none.
fn oldest_generation(collector: &Collector) -> u64 {
    let entries = std::fs::read_dir(collector.data_dir().join("generations")).unwrap();
    let number = |entry: std::io::Result<std::fs::DirEntry>| {
        let name = entry.ok()?.file_name().into_string().ok()?;
        name.rsplit_once('-')?.1.parse().ok()
    };
    entries.filter_map(number).min().unwrap_or(0)
}

/// Health says that nothing is taken, and nothing is.
async fn fenced(collector: &Collector, traffic: &Traffic) {
    eventually("health says that it is fenced", PROMPT, || async {
        collector.heartbeat() == Some(410)
    })
    .await;
    // An acknowledgement of before may still be on its way to its client.
    traffic.turn_page();
    eventually("every client is answered", PROMPT, || async {
        traffic.all_answered()
    })
    .await;
    traffic.turn_page();
    eventually("clients are answered", PROMPT, || async {
        traffic.heard_in_all() >= ANSWERS
    })
    .await;
    let answers = traffic.answers();
    assert_eq!(answers.keys().collect::<Vec<_>>(), ["Unavailable"]);
}

async fn starting(
    collector: &mut Collector,
    faults: &Faults,
    fault: &Fault,
    outcome: &mut Outcome,
) -> Book {
    faults.set(&fault.rule());
    outcome.during = started(collector, fault).await;
    faults.lift();
    outcome.after = "restart".to_owned();
    Book::default()
}

async fn restarting(
    collector: &mut Collector,
    faults: &Faults,
    seed: u64,
    fault: &Fault,
    outcome: &mut Outcome,
) -> Book {
    collector.start().await;
    let traffic = Traffic::start(collector, seed, 0..CLIENTS);
    eventually("requests are taken", PROMPT, || async {
        traffic.heard("OK") >= 100
    })
    .await;
    collector.kill();
    let book = traffic.stop().await;
    faults.set(&fault.rule());
    outcome.during = started(collector, fault).await;
    faults.lift();
    outcome.after = "restart".to_owned();
    book
}

/// Starts it with the fault: it accepts, or it ends with an error; it neither hangs
/// nor panics. It does not run afterwards.
async fn started(collector: &mut Collector, fault: &Fault) -> String {
    collector.launch();
    let begun = Instant::now();
    let result = loop {
        if collector.has_ended() {
            let status = collector.wait(PROMPT);
            assert_eq!(status.code(), Some(1), "{status}: {}", collector.log());
            break "ends with an error".to_owned();
        }
        match collector.heartbeat() {
            Some(200) => {
                collector.kill();
                break "accepts".to_owned();
            }
            // The doors are bound a moment before they open.
            Some(status) if begun.elapsed() > OPENS => {
                collector.kill();
                break format!("starts, health {status}");
            }
            _ => {}
        }
        assert!(begun.elapsed() < START_FAILS, "neither starts nor ends");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    if fault.step.expect(fault.errno) == Expect::Unhurt {
        assert_eq!(result, "accepts");
    }
    result
}

fn describe(answers: &BTreeMap<String, usize>, heartbeat: Option<u16>) -> String {
    let heard: Vec<_> = answers
        .iter()
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    format!("{}, health {}", heard.join(" "), heartbeat.unwrap_or(0))
}
