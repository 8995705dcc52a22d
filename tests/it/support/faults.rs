//! File operations of a process fail on demand: tests/equipment/faults.c, loaded into
//! the collector before its own libraries. Who uses it sets rules, looks at the hits,
//! and lifts the rules while the process runs.

use super::root;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The control file of one process.
pub struct Faults {
    control: PathBuf,
}

impl Faults {
    /// Without rules; `dir` must not be where the rules bite.
    pub fn new(dir: &Path) -> Self {
        let faults = Self {
            control: dir.join("faults"),
        };
        drop(std::fs::remove_file(faults.hits_file()));
        faults.lift();
        faults
    }

    /// What the process must be started with.
    pub fn environment(&self) -> Vec<(String, String)> {
        vec![
            ("LD_PRELOAD".to_owned(), library().display().to_string()),
            (
                "HOLDFAST_FAULTS".to_owned(),
                self.control.display().to_string(),
            ),
        ]
    }

    /// Replaces the rules, one a line: `KIND GLOB FIRST COUNT ERRNO` (see faults.c). What
    /// hangs by the old ones goes on.
    pub fn set(&self, rules: &str) {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::SeqCst);
        let new = self.control.with_extension(format!("new{number}"));
        // No two versions have the same length and time: a comment-like tail of blanks.
        let blank_lines = "\n".repeat(1 + number as usize % 500);
        std::fs::write(&new, format!("{rules}{blank_lines}")).unwrap();
        std::fs::rename(&new, &self.control).unwrap();
    }

    /// Nothing fails from the next call on.
    pub fn lift(&self) {
        self.set("");
    }

    /// Every failed call so far, as `KIND ERRNO PATH`.
    pub fn hits(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.hits_file()).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn hits_file(&self) -> PathBuf {
        PathBuf::from(format!("{}.hits", self.control.display()))
    }
}

/// Compiles the library, once in a test run.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let dir = root().join("target/test-equipment");
        std::fs::create_dir_all(&dir).unwrap();
        let library = dir.join("faults.so");
        let new = dir.join(format!("faults.{}.so", std::process::id()));
        let output = Command::new("cc")
            .args([
                "-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-pthread", "-o",
            ])
            .arg(&new)
            .arg(root().join("tests/equipment/faults.c"))
            .output()
            .expect("cc is installed by tests/run");
        assert!(output.status.success(), "{output:?}");
        // Another test run may have the old one loaded.
        std::fs::rename(&new, &library).unwrap();
        library
    })
}
