//! A small disk of the test's own, and a neighbour that fills it. The disk is a tmpfs in
//! a mount namespace of the test's process, so that it is gone with the process,
//! however that ends. A test may have a network of its own, too.

use super::Scratch;
use super::guarded::Guarded;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Set in the process that has the namespace.
const INSIDE: &str = "HOLDFAST_TEST_NAMESPACE";

/// How long a test in a namespace may take.
const LIMIT: Duration = Duration::from_secs(900);

/// Runs a test of this binary, named by its path, in its own mount namespace: `false`
/// in the namespace, where the test goes on; `true` where that was done, and passed.
/// Fails loudly where there can be no namespace.
pub fn passed_in_namespace(test: &str) -> bool {
    passed(test, "m", LIMIT)
}

/// The same in its own network as well, with nothing but a loopback device in it.
pub fn passed_in_network(test: &str, limit: Duration) -> bool {
    let passed = passed(test, "mn", limit);
    if !passed {
        run("ip", &["link", "set", "lo", "up"]);
    }
    passed
}

/// Runs a command that must succeed; what it said.
pub fn run(command: &str, arguments: &[&str]) -> String {
    let output = Command::new(command).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{command} {arguments:?}: {error}"));
    assert!(
        output.status.success(),
        "{command} {arguments:?}: {output:?}"
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn passed(test: &str, namespaces: &str, limit: Duration) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return false;
    }
    let scratch = Scratch::new(&format!("namespace_{}", test.replace("::", "_")));
    let log = scratch.0.join("log");
    let is_root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    // Another user is root in a namespace of users, where that is allowed.
    let flags = if is_root { "-" } else { "-Ur" };
    let flags = format!("{flags}{namespaces}");
    let exe = std::env::current_exe().unwrap().display().to_string();
    let command = ["unshare", &flags, &exe, "--exact", test, "--nocapture"].map(str::to_owned);
    let environment = [(INSIDE.to_owned(), "1".to_owned())];
    let status = Guarded::start(&command, &environment, &log).wait(limit);
    let text = std::fs::read_to_string(&log).unwrap_or_default();
    eprintln!("{text}");
    assert!(
        status.success() && text.contains("1 passed"),
        "{test} in namespaces (as root, or with `unshare -Ur{namespaces}`): {status}"
    );
    true
}

/// A mounted tmpfs.
pub struct SmallDisk {
    pub dir: PathBuf,
}

impl SmallDisk {
    /// Mounts a disk of `bytes` on a directory, which is made. Call it in a namespace.
    pub fn mount(dir: &Path, bytes: u64) -> Self {
        assert!(
            std::env::var_os(INSIDE).is_some(),
            "outside of a namespace the mount would stay"
        );
        std::fs::create_dir_all(dir).unwrap();
        let size = format!("size={bytes}");
        let path = dir.display().to_string();
        run("mount", &["-t", "tmpfs", "-o", &size, "holdfast", &path]);
        Self {
            dir: dir.to_owned(),
        }
    }

    /// Free bytes.
    pub fn free(&self) -> u64 {
        let stat = rustix::fs::statvfs(&self.dir).unwrap();
        stat.f_bavail * stat.f_frsize
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A server that is still ending may have a file open.
        let status = Command::new("umount").arg("-l").arg(&self.dir).status();
        drop(status);
    }
}

/// A neighbour on the disk, who takes what is there.
pub struct Hog {
    file: File,
}

impl Hog {
    pub fn new(disk: &SmallDisk) -> Self {
        let file = File::create(disk.dir.join("hog")).unwrap();
        Self { file }
    }

    /// Takes its bytes away.
    pub fn leave(self, disk: &SmallDisk) {
        std::fs::remove_file(disk.dir.join("hog")).unwrap();
    }

    /// Writes until less than `free_bytes` are left.
    pub fn fill_to(&mut self, disk: &SmallDisk, free_bytes: u64) {
        let bytes = vec![7; 1 << 20];
        while disk.free() >= free_bytes {
            self.file.write_all(&bytes).unwrap();
        }
    }

    /// Writes until nothing more fits, to the last byte.
    pub fn fill(&mut self) {
        let bytes = vec![7; 1 << 20];
        let mut step = bytes.len();
        while step > 0 {
            match self.file.write(&bytes[..step]) {
                Ok(0) | Err(_) => step /= 2,
                Ok(_) => {}
            }
        }
    }
}
