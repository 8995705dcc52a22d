//! Negative controls: the collector with one promise broken on purpose, built from a
//! patched copy of the sources, must fail the proof of that promise, and for the right
//! reason. A proof that passes a broken collector proves nothing.
//!
//! A control is a file in tests/controls: which text of which source becomes what, and
//! which fault each proof must find then. The text must be there exactly once: a
//! control that no longer applies is a failure, and is written anew. All controls are in one
//! build; what each replaces asks `crate::is_control`, which goes by the folder that the binary
//! is in, and there is one for each.

use super::cuts::Plan;
use super::recording::life;
use super::verdict::{Fault, Verdict};
use super::{campaign, forwarding, order};
use crate::support::{Scratch, root, seed};
use serde::Deserialize;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Control {
    edit: Vec<Edit>,
    proof: Vec<Proof>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Edit {
    file: String,
    find: String,
    replace: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Proof {
    name: String,
    finds: Fault,
}

/// One build for all of them.
static BUILD: Mutex<()> = Mutex::new(());

/// What is copied; dependencies come from the main target directory.
const SOURCES: [&str; 5] = ["src", "proto", "build.rs", "Cargo.toml", "Cargo.lock"];

/// Cuts that a broken collector gets before it counts as passed.
const RANDOM_CUTS: usize = 150;
const STEP_CUTS: usize = 250;

impl Control {
    fn read(name: &str) -> Self {
        let path = root().join("tests/controls").join(format!("{name}.toml"));
        let text = std::fs::read_to_string(&path).unwrap();
        toml::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    fn all() -> Vec<(String, Self)> {
        let mut names: Vec<_> = std::fs::read_dir(root().join("tests/controls"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
            .collect();
        names.sort();
        let read = |name: String| (name.clone(), Self::read(&name));
        names.into_iter().map(read).collect()
    }

    /// A source with this control's edits.
    fn patched(&self, name: &str, file: &Path, mut text: String) -> String {
        let asks = format!("crate::is_control(\"{name}\")");
        for edit in self
            .edit
            .iter()
            .filter(|edit| Path::new(&edit.file) == file)
        {
            let times = text.matches(&edit.find).count();
            assert_eq!(
                times, 1,
                "the control {name} no longer applies: its text is {times} times in {}",
                edit.file
            );
            assert!(
                edit.replace.contains(&asks),
                "{name} does not ask whether it is meant"
            );
            text = text.replace(&edit.find, &edit.replace);
        }
        text
    }
}

/// What the patched library is told by.
const IS_CONTROL: &str = r#"
/// Whether the binary is this control's.
pub(crate) fn is_control(name: &str) -> bool {
    static NAME: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    let of_folder = || {
        let binary = std::env::current_exe().ok()?;
        Some(binary.parent()?.file_name()?.to_str()?.to_owned())
    };
    NAME.get_or_init(of_folder).as_deref() == Some(name)
}
"#;

/// Builds the controls and gives the binary of one.
fn build(name: &str) -> PathBuf {
    let _one = BUILD.lock().unwrap_or_else(PoisonError::into_inner);
    let base = root().join("target/controls");
    let tree = base.join("source");
    let controls = Control::all();
    let mut hash = DefaultHasher::new();
    let mut kept = Vec::new();
    for file in sources() {
        let bytes = std::fs::read(root().join(&file)).unwrap();
        let bytes = match String::from_utf8(bytes) {
            Ok(text) if file == Path::new("Cargo.toml") => manifest(&text).into_bytes(),
            Ok(text) if file == Path::new("src/lib.rs") => (text + IS_CONTROL).into_bytes(),
            Ok(text) => controls
                .iter()
                .fold(text, |text, (name, control)| {
                    control.patched(name, &file, text)
                })
                .into_bytes(),
            Err(error) => error.into_bytes(),
        };
        (&file, &bytes).hash(&mut hash);
        write_if_other(&tree.join(&file), &bytes);
        kept.push(tree.join(&file));
    }
    let empty = tree.join("tests/empty.rs");
    write_if_other(
        &empty,
        b"//! Makes cargo resolve dependencies as for the tests.\n",
    );
    kept.push(empty);
    remove_others(&tree, &kept);

    let binary = base.join(name).join("holdfast");
    let stamp = base.join("stamp");
    let hash = hash.finish().to_string();
    if binary.exists() && std::fs::read_to_string(&stamp).is_ok_and(|old| old == hash) {
        return binary;
    }
    let target = root().join("target");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    for (name, _) in std::env::vars_os() {
        // What cargo tells these tests of their own package is not meant for another
        // build: build scripts (ring's) would see it changed and run again.
        let text = name.to_string_lossy();
        let is_ours = text.starts_with("CARGO_") && text != "CARGO_HOME";
        if is_ours || text == "OUT_DIR" {
            command.env_remove(name);
        }
    }
    let output = command
        .args([
            "build",
            "--locked",
            "--offline",
            "--bin",
            CONTROL_BIN,
            "--test",
            "it",
        ])
        .current_dir(&tree)
        .env("CARGO_TARGET_DIR", &target)
        .output()
        .unwrap();
    let talk = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "it does not build: {talk}");
    for (name, _) in &controls {
        std::fs::create_dir_all(base.join(name)).unwrap();
        let own = base.join(name).join("holdfast");
        std::fs::copy(target.join("debug").join(CONTROL_BIN), own).unwrap();
    }
    std::fs::write(&stamp, hash).unwrap();
    binary
}

/// The binary's name, so that nothing of the real target is overwritten.
const CONTROL_BIN: &str = "holdfast-control";

/// The manifest with that name, an empty test in place of this one (dependencies get
/// the features that the tests ask for, and need not be built again), and our own code
/// not optimized.
fn manifest(text: &str) -> String {
    let mut text = text.to_owned();
    for (find, replace) in [
        (
            "[[bin]]\nname = \"holdfast\"",
            "[[bin]]\nname = \"holdfast-control\"",
        ),
        ("path = \"tests/it/main.rs\"", "path = \"tests/empty.rs\""),
        (
            "\nopt-level = 1\ndebug = \"line-tables-only\"",
            "\nopt-level = 0\ndebug = false",
        ),
    ] {
        assert_eq!(text.matches(find).count(), 1, "Cargo.toml has no {find:?}");
        text = text.replace(find, replace);
    }
    text
}

/// The files of [`SOURCES`], relative to the root.
fn sources() -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut todo: Vec<PathBuf> = SOURCES.iter().map(PathBuf::from).collect();
    while let Some(path) = todo.pop() {
        let full = root().join(&path);
        if full.is_dir() {
            let entries = std::fs::read_dir(full).unwrap();
            todo.extend(entries.map(|entry| path.join(entry.unwrap().file_name())));
        } else {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// A file that stays as it is keeps its time, and is not compiled again.
fn write_if_other(path: &Path, bytes: &[u8]) {
    if std::fs::read(path).is_ok_and(|old| old == bytes) {
        return;
    }
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

fn remove_others(dir: &Path, kept: &[PathBuf]) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            remove_others(&path, kept);
        } else if !kept.contains(&path) {
            std::fs::remove_file(path).unwrap();
        }
    }
}

/// Builds a control, runs its proofs, and demands that each finds its fault.
async fn must_fail(name: &str) {
    let control = Control::read(name);
    let binary = build(name);
    let seed = seed();
    let scratch = Scratch::new(&format!("control_{name}"));
    // The proofs over a recorded life share it.
    let mut recorded = None;
    for proof in &control.proof {
        if recorded.is_none() && ["order", "cuts"].contains(&proof.name.as_str()) {
            recorded = Some(life(&binary, &scratch, seed).await);
        }
        let verdict: Verdict = match (proof.name.as_str(), &recorded) {
            ("order", Some(recording)) => order::prove(recording),
            ("cuts", Some(recording)) => {
                let plan = Plan {
                    seed,
                    random: RANDOM_CUTS,
                    steps: Some(STEP_CUTS),
                    second_every: usize::MAX,
                    restart: None,
                    only: None,
                    until: Some(proof.finds),
                };
                campaign::prove(recording, &plan)
            }
            ("unroutable", _) => forwarding::prove_unroutable(&binary, &scratch, seed).await,
            ("unconfirmed", _) => forwarding::prove_unconfirmed(&binary, &scratch, seed).await,
            (other, _) => panic!("{name}: there is no proof {other:?}"),
        };
        assert!(
            verdict.has(proof.finds),
            "{name}: {} did not find {:?}: {verdict}",
            proof.name,
            proof.finds
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ack_before_the_sync_is_noticed() {
    must_fail("ack_before_sync").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_fdatasync_is_noticed() {
    must_fail("no_fdatasync").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_sync_of_directories_is_noticed() {
    must_fail("no_directory_sync").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_saved_before_the_rows_are_committed_is_noticed() {
    must_fail("cursor_before_commit").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_before_the_cursors_are_saved_is_noticed() {
    must_fail("deletion_before_save").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unroutable_message_that_counts_is_noticed() {
    must_fail("unroutable_counts").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unconfirmed_message_that_counts_is_noticed() {
    must_fail("unconfirmed_counts").await;
}

#[test]
fn every_control_applies_and_has_its_test() {
    let tests = include_str!("controls.rs");
    let controls = Control::all();
    for (name, control) in &controls {
        for edit in &control.edit {
            let file = Path::new(&edit.file);
            let text = std::fs::read_to_string(root().join(file)).unwrap();
            control.patched(name, file, text);
        }
        assert!(
            tests.contains(&format!("must_fail(\"{name}\")")),
            "{name} has no test"
        );
    }
    assert!(controls.len() >= 7);
}
