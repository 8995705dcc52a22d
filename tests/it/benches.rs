//! The benches are no part of the suite; what judges them is.

use crate::support::root;
use std::collections::BTreeSet;
use std::path::Path;

#[path = "../../benches/support/verdict.rs"]
#[allow(dead_code, reason = "the table is the bench's")]
mod verdict;

use verdict::{Figure, Floor, Floors, Of, Verdict, judge};

fn floors() -> Floors {
    toml::from_str(include_str!("../../benches/floors.toml")).unwrap()
}

#[test]
fn every_floor_is_sound_and_its_bench_is_there() {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let script = std::fs::read_to_string(root().join("tests/bench")).unwrap();
    let mut benches = BTreeSet::new();
    for (name, floor) in floors() {
        assert_eq!(floor.mistake(), None, "{name}");
        let file = format!("path = \"benches/{}/main.rs\"", floor.bench);
        assert!(manifest.contains(&file), "{name} is of {}", floor.bench);
        let path = root().join("benches").join(&floor.bench);
        assert!(measures(&path, &name), "{} has no {name}", floor.bench);
        benches.insert(floor.bench);
    }
    for bench in benches {
        let line = format!("    \"{bench} ");
        assert!(script.contains(&line), "tests/bench does not run {bench}");
    }
}

/// Whether a source of the bench names the figure.
fn measures(dir: &Path, figure: &str) -> bool {
    let files = std::fs::read_dir(dir).unwrap();
    files.into_iter().any(|file| {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        text.contains(&format!("\"{figure}\""))
    })
}

#[test]
fn figures_are_held_to_their_floors() {
    let floor = |of, at_least, at_most, target| Floor {
        bench: "b".to_owned(),
        of,
        at_least,
        at_most,
        target,
    };
    let floors = Floors::from([
        ("more".to_owned(), floor(Of::Ratio, Some(0.8), None, 0.9)),
        ("less".to_owned(), floor(Of::Ratio, None, Some(2.0), 1.5)),
        ("alone".to_owned(), floor(Of::Ours, Some(1.0), None, 1.0)),
    ]);
    let is = |name: &str, ours, ratio| {
        let figure = Figure {
            name: name.to_owned(),
            ours: Some(ours),
            ceiling: None,
            ratio,
            ratio_min: None,
            ratio_max: None,
            unit: String::new(),
        };
        judge(&[figure], &floors, &[])[0].verdict
    };
    for (name, ours, ratio, verdict) in [
        ("more", 0.0, Some(0.95), Verdict::Met),
        ("more", 0.0, Some(0.85), Verdict::BelowTarget),
        ("more", 9.0, Some(0.79), Verdict::Broken),
        ("more", 9.0, Some(f64::NAN), Verdict::Broken),
        ("more", 9.0, None, Verdict::NotMeasured),
        ("less", 9.0, Some(1.4), Verdict::Met),
        ("less", 9.0, Some(1.9), Verdict::BelowTarget),
        ("less", 0.0, Some(2.1), Verdict::Broken),
        ("alone", 1.0, Some(0.0), Verdict::Met),
        ("alone", 0.9, None, Verdict::Broken),
        ("other", 0.0, Some(0.0), Verdict::NoFloor),
    ] {
        assert_eq!(is(name, ours, ratio), verdict, "{name} {ours} {ratio:?}");
        let fails = [Verdict::Broken, Verdict::NotMeasured].contains(&verdict);
        assert_eq!(verdict.fails(), fails);
    }
    let ran = |bench: &str| judge(&[], &floors, &[bench.to_owned()]).len();
    assert_eq!((ran("b"), ran("another")), (3, 0));
}

#[test]
fn a_floor_that_says_nothing_is_a_mistake() {
    for (text, is_sound) in [
        ("at_least = 0.8\ntarget = 0.9", true),
        ("at_most = 1.3\ntarget = 1.3", true),
        ("target = 0.9", false),
        ("at_least = 0.8\nat_most = 2.0\ntarget = 0.9", false),
        ("at_least = 0.8\ntarget = 0.7", false),
        ("at_most = 1.3\ntarget = 1.4", false),
    ] {
        let floor: Floor = toml::from_str(&format!("bench = \"b\"\n{text}")).unwrap();
        assert_eq!(floor.mistake().is_none(), is_sound, "{text}");
    }
}
