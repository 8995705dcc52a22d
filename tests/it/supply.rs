//! The list of what the binary is made of (`debian/sbom`), which the package ships.

use crate::support::root;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

fn sbom() -> (String, Value) {
    let output = Command::new(root().join("debian/sbom"))
        .env("SOURCE_DATE_EPOCH", "1700000000")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let text = String::from_utf8(output.stdout).unwrap();
    let read = serde_json::from_str(&text).unwrap();
    (text, read)
}

fn texts<'a>(list: &'a Value, key: &str) -> Vec<&'a str> {
    let items = list.as_array().unwrap().iter();
    items.map(|item| item[key].as_str().unwrap()).collect()
}

#[test]
fn the_list_of_what_the_binary_is_made_of_is_whole() {
    let (text, bom) = sbom();
    assert_eq!(bom["bomFormat"], "CycloneDX");
    assert_eq!(bom["specVersion"], "1.5");
    assert_eq!(bom["metadata"]["timestamp"], "2023-11-14T22:13:20Z");
    let own = bom["metadata"]["component"]["bom-ref"].as_str().unwrap();
    assert_eq!(
        own,
        format!("pkg:cargo/holdfast@{}", env!("CARGO_PKG_VERSION"))
    );
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let mut components = BTreeMap::new();
    for component in bom["components"].as_array().unwrap() {
        let text = |key: &str| component[key].as_str().unwrap();
        let (name, version) = (text("name"), text("version"));
        assert_eq!(text("purl"), format!("pkg:cargo/{name}@{version}"));
        let hash = component["hashes"][0]["content"].as_str().unwrap();
        let locked = format!("name = \"{name}\"\nversion = \"{version}\"\n");
        let at = lock
            .find(&locked)
            .unwrap_or_else(|| panic!("{name} is not locked"));
        let package = lock[at..].split("[[package]]").next().unwrap();
        assert!(package.contains(hash), "{name} has another checksum");
        let license = component["licenses"][0]["expression"].as_str().unwrap();
        assert!(!license.contains('/'), "{name}: {license}");
        components.insert(text("bom-ref"), name);
    }
    assert!(components.len() > 200, "{} libraries", components.len());
    let names: BTreeSet<_> = components.values().copied().collect();
    for linked in ["sled", "lapin", "ring", "libsqlite3-sys", "tokio"] {
        assert!(names.contains(linked), "{linked}");
    }
    for other in ["proptest", "rcgen", "protox", "tempfile", "libfuzzer-sys"] {
        assert!(!names.contains(other), "{other} is in no binary");
    }
    // Each that is needed is there, and each that is there is needed.
    let dependencies = &bom["dependencies"];
    let mut needed = BTreeSet::from([own]);
    for dependency in dependencies.as_array().unwrap() {
        let on = dependency["dependsOn"].as_array().unwrap().iter();
        needed.extend(on.map(|on| on.as_str().unwrap()));
    }
    let told: BTreeSet<_> = texts(dependencies, "ref").into_iter().collect();
    let there: BTreeSet<_> = components.keys().copied().chain([own]).collect();
    assert_eq!(told, there);
    assert_eq!(needed, there);
    let properties = &bom["metadata"]["properties"];
    let by: BTreeMap<_, _> = texts(properties, "name")
        .into_iter()
        .zip(texts(properties, "value"))
        .collect();
    assert!(by["build:rustc"].starts_with("rustc 1."), "{by:?}");
    assert!(!by["build:cc"].is_empty(), "{by:?}");
    assert!(!text.contains(root().to_str().unwrap()), "names a place");
    assert_eq!(sbom().0, text, "another each time");
}
