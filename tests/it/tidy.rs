//! The rules of the house, as tests: direction of the layers, where libraries may
//! be named, heads of files; and that a killed test run leaves nothing behind.

use crate::support::servers::Stack;
use crate::support::{Scratch, eventually, root};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Files with more lines than this are more than one idea.
const LINES_MAX: usize = 450;

/// Each layer may name those after it, and none before it or beside it.
const LAYERS: [&[&str]; 7] = [
    &["cli", "fuzzing"],
    &["app", "dlq"],
    &["ingest", "forward", "consume", "admin"],
    &["port"],
    &["journal", "broker", "sink", "dead_letters"],
    &["event"],
    &[
        "config",
        "telemetry",
        "retry",
        "clock",
        "pace",
        "drill",
        "trust",
        "pem",
    ],
];

fn sources() -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    let mut dirs = vec![root().join("src")];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                files.push((path.strip_prefix(root().join("src")).unwrap().into(), text));
            }
        }
    }
    assert!(files.len() > 50);
    files
}

fn module_of(path: &Path) -> String {
    let first = path.iter().next().unwrap().to_string_lossy();
    first.trim_end_matches(".rs").to_owned()
}

fn layer_of(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

fn is_test(path: &Path) -> bool {
    let name = path.file_stem().unwrap().to_string_lossy();
    name == "tests" || name.ends_with("_tests")
}

#[test]
fn layers_point_one_way() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let module = module_of(&path);
        let Some(layer) = layer_of(&module) else {
            assert!(
                ["lib", "main"].contains(&module.as_str()),
                "{module} has no layer"
            );
            continue;
        };
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let code = code
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"));
        for line in code {
            for named in line.split("crate::").skip(1) {
                let named: String = named
                    .chars()
                    .take_while(|c| c.is_alphanumeric() || *c == '_')
                    .collect();
                let Some(other) = layer_of(&named) else {
                    continue;
                };
                let is_leaf = other == LAYERS.len() - 1;
                if named != module && other <= layer && !is_leaf && !is_test(&path) {
                    wrong.push(format!("{}: {}", path.display(), line.trim()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn libraries_are_named_where_they_are_confined() {
    for (path, text) in sources() {
        let path = path.display().to_string();
        for (library, home) in [
            ("sled::", "journal/store.rs"),
            ("lapin::", "broker/"),
            ("backoff::", "retry.rs"),
            ("prometheus::", "telemetry/metrics.rs"),
        ] {
            let named = text
                .lines()
                .any(|line| !line.trim_start().starts_with("//") && line.contains(library));
            assert!(!named || path.starts_with(home), "{path} names {library}");
        }
    }
}

#[test]
fn every_file_has_a_head_and_one_idea() {
    for (path, text) in sources() {
        let path = path.display();
        assert!(text.starts_with("//!"), "{path} has no head");
        let lines = text.lines().count();
        assert!(lines <= LINES_MAX, "{path} has {lines} lines");
        for mark in ["todo!", "unimplemented!", "dbg!(", "FIXME"] {
            assert!(!text.contains(mark), "{path} has {mark}");
        }
    }
}

/// Every Rust file of the repository's folders.
fn rust_files(folders: &[&str]) -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    let mut paths: Vec<_> = folders.iter().map(|folder| root().join(folder)).collect();
    while let Some(path) = paths.pop() {
        if path.is_dir() {
            let entries = std::fs::read_dir(&path).unwrap();
            paths.extend(entries.map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            files.push((path, text));
        }
    }
    files
}

/// What would be run by `cargo test --doc`, which nobody waits for: there is nothing for it.
#[test]
fn no_documentation_has_code_that_nothing_runs() {
    for (path, text) in sources() {
        let comments = text.lines().map(str::trim_start);
        let comments = comments.filter(|line| line.starts_with("//!") || line.starts_with("///"));
        let mut fences = comments.filter_map(|line| line[3..].trim().strip_prefix("```"));
        while let Some(kind) = fences.next() {
            assert_eq!(kind, "text", "{}: put it into a test", path.display());
            assert_eq!(fences.next(), Some(""), "{}", path.display());
        }
    }
}

#[test]
fn unsafe_is_forbidden() {
    // Nothing within a crate can undo `forbid`; but it is the manifest that says it.
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let lints = manifest.split("[lints.rust]").nth(1).unwrap();
    let lints = lints.split("\n[").next().unwrap();
    let (word, lint) = (concat!("uns", "afe"), concat!("uns", "afe_code"));
    let is_forbidden = lints.contains(&format!("{lint} = \"forbid\""));
    assert!(is_forbidden, "{lints}");
    for (path, text) in rust_files(&[
        "src",
        "tests/it",
        "benches",
        "build.rs",
        "fuzz/fuzz_targets",
    ]) {
        let code = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"));
        for line in code {
            // This test speaks of it, and nothing else does.
            if line.contains("forbid") {
                continue;
            }
            let words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
            let is_there = words.into_iter().any(|is| is == word || is == lint);
            assert!(!is_there, "{}: {line}", path.display());
        }
    }
    // The fuzzers' macro has some in it, so that crate has nothing else.
    let fuzzers = rust_files(&["fuzz"]);
    assert!(fuzzers.len() > 10);
    for (path, text) in fuzzers {
        let lines = text.lines().filter(|line| !line.starts_with("//!"));
        let code: Vec<_> = lines.filter(|line| !line.is_empty()).collect();
        let is_macro = |line: &str| {
            line.starts_with("libfuzzer_sys::fuzz_target!(|data: &[u8]| holdfast::fuzzing::run(\"")
        };
        let path = path.display();
        assert_eq!(code.len(), 2, "{path}");
        assert!(code[0] == "#![no_main]" && is_macro(code[1]), "{path}");
    }
}

#[test]
fn every_contract_type_has_its_name_and_fields() {
    use holdfast::event::descriptor::{name_of_case, schema};
    let contract = include_str!("contract_types.txt");
    let mut rows = 0;
    for row in contract.lines().filter(|line| !line.starts_with('#')) {
        let cells: Vec<_> = row.split('|').collect();
        let number: u32 = cells[0].parse().unwrap();
        let case = schema().event.get_field(number).unwrap();
        assert_eq!(case.name(), cells[1]);
        let kind = case.kind();
        let message = kind.as_message().unwrap();
        assert_eq!(message.name(), cells[2]);
        assert_eq!(name_of_case(case.name()), cells[3]);
        let mut fields: Vec<_> = message
            .fields()
            .map(|field| {
                let kind = match field.kind() {
                    prost_reflect::Kind::Message(m) if !m.is_map_entry() => m.name().to_owned(),
                    prost_reflect::Kind::Message(_) => "map<string,string>".to_owned(),
                    scalar => format!("{scalar:?}").to_lowercase(),
                };
                let list = if field.is_list() { "repeated " } else { "" };
                format!("{} {list}{kind}={}", field.name(), field.number())
            })
            .collect();
        let mut wanted: Vec<_> = cells[4]
            .replace("string, string", "string,string")
            .split(", ")
            .map(str::to_owned)
            .collect();
        fields.sort();
        wanted.sort();
        assert_eq!(fields, wanted, "{}", cells[2]);
        rows += 1;
    }
    assert_eq!(rows, 56);
}

/// Set in the child process of the test below.
const HOLD: &str = "HOLDFAST_TEST_HOLD_SERVERS";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_die_with_the_test_run() {
    let name = "held";
    if std::env::var_os(HOLD).is_some() {
        let scratch = Scratch::new(name);
        let _stack = Stack::start(&scratch).await;
        std::fs::write(scratch.0.join("up"), "").unwrap();
        std::future::pending::<()>().await;
    }
    let scratch = root().join("target/test-scratch").join(name);
    drop(std::fs::remove_dir_all(&scratch));
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "tidy::servers_die_with_the_test_run"])
        .env(HOLD, "1")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let up = scratch.join("up");
    eventually(
        "the child's servers are up",
        Duration::from_secs(120),
        || async { up.exists() },
    )
    .await;
    assert!(
        processes_below(&scratch) >= 3,
        "the look finds nothing at all"
    );
    child.kill().unwrap();
    child.wait().unwrap();
    eventually("no server is left", Duration::from_secs(20), || async {
        processes_below(&scratch) == 0
    })
    .await;
    std::fs::remove_dir_all(&scratch).unwrap();
}

/// Processes whose command line or environment names the directory.
fn processes_below(dir: &Path) -> usize {
    let needle = dir.display().to_string();
    let mut count = 0;
    for entry in std::fs::read_dir("/proc").unwrap() {
        let path = entry.unwrap().path();
        // A process that has just ended reads as empty.
        let holds = |file: &str| {
            std::fs::read(path.join(file))
                .is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(&needle))
        };
        if holds("cmdline") || holds("environ") {
            count += 1;
        }
    }
    count
}
