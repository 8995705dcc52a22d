//! The targets without a fuzzer: the whole corpus, and changes of it, other ones each time.
//!
//! `HOLDFAST_TEST_FUZZ_SECONDS` sets for how long, all targets together (6; the gate takes two
//! minutes); `HOLDFAST_TEST_SEED` replays a run.

use super::{TARGETS, Target, mutate, run, seeds};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Files of one target's corpus, and bytes of all: it is for a repository, and the suite
/// replays it. `tests/fuzz keep` stops at 100 files, which leaves room for seeds and findings;
/// what else a fuzzer collects stays where it ran.
const FILES_MAX: usize = 150;
const BYTES_MAX: usize = 1 << 20;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

fn corpus(target: &Target) -> Vec<(PathBuf, Vec<u8>)> {
    let dir = root().join("corpus").join(target.name);
    let paths = names(&dir).into_iter().map(|name| dir.join(name));
    paths
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect()
}

/// Feeds a target; `from` says where the bytes came from.
fn feed(target: &Target, bytes: &[u8], from: &str) {
    let fed = catch_unwind(AssertUnwindSafe(|| run(target.name, bytes)));
    if fed.is_err() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/fuzz/found");
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join(target.name);
        fs::write(&path, bytes).unwrap();
        panic!(
            "{} has a finding, from {from}; the bytes are in {}",
            target.name,
            path.display()
        );
    }
}

#[test]
fn every_target_is_fuzzed() {
    let wanted: Vec<_> = TARGETS
        .iter()
        .map(|target| target.name.to_owned())
        .collect();
    let binaries: Vec<_> = wanted.iter().map(|name| format!("{name}.rs")).collect();
    assert_eq!(names(&root().join("fuzz_targets")), binaries);
    assert_eq!(names(&root().join("corpus")), wanted);
    assert_eq!(CHANGED, wanted);
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let mut bytes = 0;
    for target in &TARGETS {
        let name = target.name;
        let bin = format!("name = \"{name}\"\npath = \"fuzz_targets/{name}.rs\"");
        assert!(manifest.contains(&bin), "{name} has no [[bin]]");
        let source = fs::read_to_string(root().join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(source.contains(&format!("run(\"{name}\", data)")), "{name}");
        let files = corpus(target);
        assert!((1..=FILES_MAX).contains(&files.len()), "{name}");
        bytes += files.iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
    }
    assert!(bytes <= BYTES_MAX, "the corpus has {bytes} bytes");
    for name in names(&root().join("dictionaries")) {
        let target = name.strip_suffix(".dict").unwrap();
        assert!(wanted.iter().any(|wanted| wanted == target), "{name}");
    }
}

/// `HOLDFAST_TEST_WRITE_SEEDS` writes them anew, after a format or a target has changed.
#[test]
fn the_seeds_are_in_the_corpus() {
    let is_written = std::env::var_os("HOLDFAST_TEST_WRITE_SEEDS").is_some();
    for (target, name, bytes) in seeds::all() {
        let path = root().join("corpus").join(target).join(&name);
        if is_written {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &bytes).unwrap();
        }
        let kept = fs::read(&path).unwrap_or_default();
        assert_eq!(kept, bytes, "{}", path.display());
    }
}

#[test]
fn the_corpus_finds_nothing() {
    for target in &TARGETS {
        for (path, bytes) in corpus(target) {
            feed(target, &bytes, &path.display().to_string());
        }
        feed(target, b"", "nothing");
    }
}

/// One target's share of the time.
fn changes_find_nothing(name: &str) {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let seed = number("HOLDFAST_TEST_SEED").unwrap_or_else(rand::random);
    let seconds = number("HOLDFAST_TEST_FUZZ_SECONDS").unwrap_or(6);
    eprintln!("HOLDFAST_TEST_SEED={seed}");
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    let seeds: Vec<_> = corpus(target).into_iter().map(|(_, bytes)| bytes).collect();
    let until = Instant::now() + Duration::from_secs(seconds) / TARGETS.len() as u32;
    let mut round = 0;
    while Instant::now() < until || round < 10 {
        let bytes = mutate::change(&seeds, seed.wrapping_add(round));
        let from = format!("HOLDFAST_TEST_SEED={seed}, round {round}");
        feed(target, &bytes, &from);
        round += 1;
    }
    eprintln!("{name}: {round} changes");
}

/// A test for each target, so that several take their time at once.
macro_rules! changes_of_the_corpus_find_nothing {
    ($($name:ident)*) => {
        /// Those that have a test.
        const CHANGED: &[&str] = &[$(stringify!($name)),*];

        mod changes_of_the_corpus_find_nothing {
            $(
                #[test]
                fn $name() {
                    super::changes_find_nothing(stringify!($name));
                }
            )*
        }
    };
}

changes_of_the_corpus_find_nothing! {
    admin_api
    amqp_message
    amqp_shallow
    answers
    config
    dotenv
    envelope
    indexes
    journal_block
    journal_files
    journal_record
    json_events
    proofs
    webhook_signatures
    webhooks
}

#[test]
fn changes_can_be_replayed() {
    let seeds = [b"one".to_vec(), b"another".to_vec()];
    let made = |number| mutate::change(&seeds, number);
    assert!((0..100).all(|number| made(number) == made(number)));
    assert!((0..100).any(|number| made(number) != made(number + 1)));
    assert!((0..100).filter(|n| !seeds.contains(&made(*n))).count() > 50);
}

#[test]
#[should_panic(expected = "has a finding")]
fn a_finding_fails_the_test() {
    let bad = Target {
        name: "no such target",
        run: |_| {},
    };
    feed(&bad, b"", "a test");
}

#[test]
fn fuzzing_for_no_time_is_refused() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz");
    for seconds in [
        "0",
        "00",
        "-1",
        "1.5",
        "5m",
        "1e3",
        "99999999999",
        "envelope",
    ] {
        let mut fuzz = Command::new(&script);
        let output = fuzz.args([seconds, "no such target"]).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(64), "{seconds}: {said}");
        let wanted = format!("fuzz: {seconds} is no number of seconds, from 1 to 999999999\n");
        assert_eq!(said, wanted);
    }
}
