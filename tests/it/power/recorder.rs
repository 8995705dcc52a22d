//! Processes under the recorder. Called by `recording` (the collector) and by the
//! second cuts (the checker itself).

use crate::support::guarded::Guarded;
use crate::support::root;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The preload library, compiled once a run.
pub fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let dir = root().join("target/equipment");
        std::fs::create_dir_all(&dir).unwrap();
        // Two test runs at a time must not load each other's half-written file.
        let fresh = dir.join(format!("record-{}.so", std::process::id()));
        let output = Command::new("cc")
            .args(["-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror"])
            .arg("-o")
            .arg(&fresh)
            .arg(root().join("tests/equipment/record.c"))
            .arg("-pthread")
            .output()
            .expect("cc is installed by tests/run");
        assert!(output.status.success(), "{output:?}");
        let library = dir.join("record.so");
        std::fs::rename(&fresh, &library).unwrap();
        library
    })
}

/// What makes a process log what it does below `dir`.
pub fn environment(dir: &Path, log: &Path) -> [(String, String); 3] {
    let text = |path: &Path| path.display().to_string();
    [
        ("LD_PRELOAD".to_owned(), text(library())),
        ("HOLDFAST_RECORD_DIR".to_owned(), text(dir)),
        ("HOLDFAST_RECORD_LOG".to_owned(), text(log)),
    ]
}

/// Starts a command under the recorder and the guard; the guard itself is not
/// recorded.
pub fn start(
    command: &[String],
    settings: &[(String, String)],
    dir: &Path,
    log: &Path,
    output: &Path,
) -> Guarded {
    let preload = environment(dir, log).map(|(name, value)| format!("{name}={value}"));
    let command: Vec<_> = [&["env".to_owned()], &preload[..], command].concat();
    Guarded::start(&command, settings, output)
}
