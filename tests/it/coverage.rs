//! Every row of the contract has its test: types, consumers, routes, calls and older names
//! in the README's table, defects of the system before in a list of their own. A row
//! without a test fails here, and so does a test that is not there.

use crate::support::root;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

const HEADING: &str = "## The contract, row by row";

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

/// The part of the README below a heading of the second level.
fn section(heading: &str) -> String {
    let readme = read("README.md");
    let (_, rest) = readme.split_once(&format!("\n{heading}\n")).expect(heading);
    rest.split("\n## ").next().unwrap().to_owned()
}

/// Cells of a table's rows, without the head.
fn table(text: &str) -> Vec<Vec<String>> {
    let rows = text.lines().filter(|line| line.starts_with("| "));
    rows.map(|line| {
        let cells = line.trim_matches('|').split(" | ");
        cells.map(|cell| cell.trim().to_owned()).collect()
    })
    .filter(|cells: &Vec<String>| cells[0].contains('`'))
    .collect()
}

/// Names between backticks.
fn names(cell: &str) -> Vec<String> {
    cell.split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

/// The names of all tests in `src` and `tests`.
fn tests() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut dirs = vec![root().join("src"), root().join("tests/it")];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                tests_of(&path, &mut found);
            }
        }
    }
    found
}

fn tests_of(path: &Path, found: &mut BTreeSet<String>) {
    let text = std::fs::read_to_string(path).unwrap();
    let mut is_test = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if let Some(rest) = line.strip_prefix("fn ").or(line.strip_prefix("async fn ")) {
            if is_test || path.ends_with("sinks/rows.rs") {
                found.insert(rest.split('(').next().unwrap().to_owned());
            }
            is_test = false;
        }
    }
    // Property tests stand in a macro of their own.
    for part in text.split("proptest! {").skip(1) {
        for part in part.split("#[test]").skip(1) {
            let name = part.trim().strip_prefix("fn ").unwrap_or_default();
            found.insert(name.split('(').next().unwrap().to_owned());
        }
    }
}

fn lines(path: &str) -> Vec<String> {
    let text = read(path);
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(str::to_owned).collect()
}

#[test]
fn every_row_of_the_contract_has_its_test() {
    let mut covered: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for cells in table(&section(HEADING)) {
        for name in names(&cells[0]) {
            let tests = names(cells.get(1).map_or("", String::as_str));
            covered.entry(name).or_default().extend(tests);
        }
    }
    let types = lines("tests/it/contract_types.txt");
    let types = types
        .iter()
        .map(|line| line.split('|').nth(3).unwrap().to_owned());
    let consumers = lines("src/config/contract_consumers.txt");
    let consumers = consumers
        .iter()
        .map(|line| line.split(" | ").next().unwrap().to_owned());
    let routes = lines("tests/it/contract_routes.txt");
    let routes = routes.iter().flat_map(|line| names(line));
    let older = table(&section("## Older environment names"));
    let older = older.iter().flat_map(|cells| names(&cells[0]));
    let rows: Vec<String> = types.chain(consumers).chain(routes).chain(older).collect();
    assert!(rows.len() > 56 + 27 + 18 + 50, "{}", rows.len());
    let tests = tests();
    let mut wrong = Vec::new();
    for row in rows {
        match covered.get(&row) {
            None => wrong.push(format!("{row} has no row in the README")),
            Some(by) if by.is_empty() => wrong.push(format!("{row} has no test")),
            Some(by) => {
                let missing = by.iter().filter(|name| !tests.contains(*name));
                wrong.extend(missing.map(|name| format!("{row}: there is no test {name}")));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_defect_of_the_system_before_has_its_test() {
    let tests = tests();
    let defects = lines("tests/it/contract_defects.txt");
    assert!(defects.len() > 30);
    for line in defects {
        let (defect, by) = line.split_once(" | ").expect(&line);
        for name in by.split(", ") {
            assert!(tests.contains(name), "{defect}: there is no test {name}");
        }
    }
}
