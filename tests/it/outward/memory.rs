//! No core dump of the process is written, and nobody looks into its memory; nor is one of a
//! command.

use super::LIMIT;
use crate::support::collector::{Collector, binary};
use crate::support::guarded::Guarded;
use crate::support::{Scratch, eventually};
use std::os::unix::fs::MetadataExt as _;
use std::process::{Command, Stdio};

/// The kernel's and Debian's number of the user `nobody`.
const NOBODY: u32 = 65_534;

fn owner(path: &str) -> u32 {
    std::fs::metadata(path).unwrap().uid()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn core_dumps_are_for_those_who_ask_for_them() {
    let is_root = owner("/proc/self") == 0;
    let user = if is_root { NOBODY } else { owner("/proc/self") };
    for are_allowed in [false, true] {
        let scratch = Scratch::new("outward_memory");
        let more = format!("[debug]\ncore_dumps = {are_allowed}\n");
        let collector = Collector::new(&scratch, if are_allowed { &more } else { "" });
        let config = collector.dir.join("holdfast.toml").display().to_string();
        let mut command = Vec::new();
        if is_root {
            // Of root's processes the kernel shows all as root's.
            let given = Command::new("chown")
                .args(["-R", &NOBODY.to_string()])
                .arg(&collector.dir)
                .status();
            assert!(given.unwrap().success());
            command = [
                "setpriv",
                "--reuid=65534",
                "--regid=65534",
                "--clear-groups",
            ]
            .map(str::to_owned)
            .to_vec();
        }
        let run = [&binary().display().to_string(), "run", "--config", &config].map(str::to_owned);
        command.extend(run);
        let process = Guarded::start(&command, &[], &collector.dir.join("collector.log"));
        eventually("it accepts", LIMIT, || async {
            collector.heartbeat() == Some(200)
        })
        .await;
        let proc = format!("/proc/{}", process.pid());
        let limits = std::fs::read_to_string(format!("{proc}/limits")).unwrap();
        let line = limits
            .lines()
            .find(|line| line.starts_with("Max core file size"));
        let words: Vec<_> = line.unwrap().split_whitespace().skip(4).collect();
        assert_eq!(words[..2] == ["0", "0"], !are_allowed, "{words:?}");
        // What can be dumped belongs to its user, and all else to root.
        let belongs_to = if are_allowed { user } else { 0 };
        assert_eq!(owner(&format!("{proc}/environ")), belongs_to);
        assert!(process.terminate(LIMIT).success());
        let log = collector.log();
        assert!(!log.contains("cannot be"), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_leave_no_core_dumps() {
    let scratch = Scratch::new("outward_command");
    let mut command = Command::new(binary());
    // It waits for the first line of its input.
    command.args(["dispatch", "-", "--to", "http://127.0.0.1:9"]);
    command.stdin(Stdio::piped()).stderr(Stdio::null());
    let mut process = command.current_dir(&scratch.0).spawn().unwrap();
    let limits = format!("/proc/{}/limits", process.id());
    // One byte: neither a file, nor a pipe into a program (core(5)).
    eventually("it has given up its core dumps", LIMIT, || async {
        let limits = std::fs::read_to_string(&limits).unwrap();
        let line = limits
            .lines()
            .find(|line| line.starts_with("Max core file size"));
        let words: Vec<_> = line.unwrap().split_whitespace().skip(4).collect();
        words[..2] == ["1", "1"]
    })
    .await;
    // A shell's `<(...)` is a file that it finds below its own /proc.
    assert_eq!(
        owner(&format!("/proc/{}/environ", process.id())),
        owner("/proc/self")
    );
    drop(process.stdin.take());
    assert!(process.wait().is_ok());
}
