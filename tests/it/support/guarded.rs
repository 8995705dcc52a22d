//! A process under `guard.py`: it and all its descendants die with the test run,
//! however that ends.

use super::root;
use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

pub struct Guarded {
    child: Child,
    pidfile: std::path::PathBuf,
}

impl Guarded {
    /// Starts a command; its output goes to `log` (appended).
    pub fn start(command: &[String], environment: &[(String, String)], log: &Path) -> Self {
        let output = File::options().create(true).append(true).open(log).unwrap();
        let pidfile = log.with_extension("pid");
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

    fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args([&format!("-{name}"), &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// The guarded process's id.
    pub fn pid(&self) -> u32 {
        let text = std::fs::read_to_string(&self.pidfile).unwrap();
        text.trim().parse().unwrap()
    }

    fn wait(&mut self, limit: Duration) -> ExitStatus {
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
