//! A process under `guard.py`: it and all its descendants die with the test run,
//! however that ends.

use super::{eventually, root};
use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How soon a signal has its effect.
const PROMPT: Duration = Duration::from_secs(10);

pub struct Guarded {
    child: Child,
    pidfile: std::path::PathBuf,
}

impl Guarded {
    /// Starts a command; its output goes to `log` (appended).
    pub fn start(command: &[String], environment: &[(String, String)], log: &Path) -> Self {
        let output = File::options().create(true).append(true).open(log).unwrap();
        let pidfile = log.with_extension("pid");
        // That of one that ran before.
        drop(std::fs::remove_file(&pidfile));
        let child = Command::new(root().join("tests/equipment/guard.py"))
            .arg("--pidfile")
            .arg(&pidfile)
            .arg("--")
            .args(command)
            .envs(environment.iter().cloned())
            .stdin(Stdio::piped())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap_or_else(|error| panic!("start {command:?}: {error}"));
        Self { child, pidfile }
    }

    /// Kills the process and all its descendants with SIGKILL, and waits for it.
    pub fn kill(mut self) {
        drop(self.child.stdin.take());
        self.wait(Duration::from_secs(20));
    }

    /// Sends SIGTERM and waits for the end.
    pub fn terminate(mut self, limit: Duration) -> ExitStatus {
        self.signal("TERM");
        self.wait(limit)
    }

    /// Sends SIGINT, which is Postgres's fast stop, and waits for the end.
    pub fn interrupt(mut self, limit: Duration) -> ExitStatus {
        self.signal("INT");
        self.wait(limit)
    }

    /// Stops it and all its descendants with SIGSTOP; they hold their ports and say nothing.
    pub async fn pause(&self) {
        self.signal("USR1");
        eventually("it is stopped", PROMPT, || async { self.is_stopped() }).await;
    }

    /// Lets them go on.
    pub async fn resume(&self) {
        self.signal("USR2");
        eventually("it goes on", PROMPT, || async { !self.is_stopped() }).await;
    }

    fn is_stopped(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        let (_, state) = stat.rsplit_once(") ").unwrap();
        state.starts_with('T')
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args([&format!("-{name}"), &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// The guarded process's id, which the guard writes down a moment after its start.
    pub fn pid(&self) -> u32 {
        let until = Instant::now() + PROMPT;
        loop {
            let text = std::fs::read_to_string(&self.pidfile).unwrap_or_default();
            if let Ok(pid) = text.trim().parse() {
                return pid;
            }
            assert!(Instant::now() < until, "no pid: {text:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits for its end.
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let until = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < until, "did not end within {limit:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        // Already waited for, or killed by the guard in a moment.
        drop(self.child.wait());
    }
}
