//! Scripts of tests/clients as processes. Each ends with exit code 0 when all was as it
//! must be, and otherwise says what was not.

use super::guarded::Guarded;
use super::{Scratch, eventually, root};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// A script that runs.
pub struct Script {
    process: Guarded,
    log: PathBuf,
    what: String,
}

impl Script {
    /// Starts a script of tests/clients.
    pub fn start(scratch: &Scratch, interpreter: &str, script: &str, arguments: &[&str]) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let path = root().join("tests/clients").join(script);
        let mut command = vec![interpreter.to_owned(), path.display().to_string()];
        command.extend(arguments.iter().map(|&argument| argument.to_owned()));
        // Several of one name may run at once.
        let number = NEXT.fetch_add(1, Ordering::SeqCst);
        let name = Path::new(script).file_stem().unwrap().to_string_lossy();
        let log = scratch.0.join(format!("{name}-{number}.log"));
        Self {
            process: Guarded::start(&command, &[], &log),
            log,
            what: format!("{script} {arguments:?}"),
        }
    }

    /// The same for one of tests/clients/python.
    pub fn start_python(scratch: &Scratch, script: &str, arguments: &[&str]) -> Self {
        let interpreter = std::env::var("HOLDFAST_TEST_PYTHON")
            .expect("HOLDFAST_TEST_PYTHON is set by tests/run");
        Self::start(
            scratch,
            &interpreter,
            &format!("python/{script}"),
            arguments,
        )
    }

    /// Waits for its end, which is a good one; gives what it said.
    pub async fn ends(mut self, limit: Duration) -> String {
        let process = &mut self.process;
        eventually(&format!("{} ends", self.what), limit, || {
            std::future::ready(process.has_ended())
        })
        .await;
        let status = self.process.wait(Duration::ZERO);
        let said = std::fs::read_to_string(&self.log).unwrap();
        assert!(status.success(), "{}: {status}\n{said}", self.what);
        said.trim().to_owned()
    }
}
