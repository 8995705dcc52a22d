//! The audit: one line of JSON for each change that an operator made, in
//! `audit.ndjson` in the data directory. Called by `change`, and by `cli` for changes
//! that need no service.
//!
//! A line is written in two steps: who wants to change what, made durable before
//! the change; then its result, which ends the line.
//!
//! # Invariants
//! - The first half is on the disk before the change begins, so no change is
//!   without its line (test `the_first_half_is_written_before_the_change`).
//! - A line that a crash left open is ended by the next one with the result
//!   "interrupted": each line of the file is a JSON document again, unless its own
//!   first half was torn, and then nothing was changed (test
//!   `a_line_that_a_crash_left_open_is_ended`).
//! - One writer at a time, of all processes: a line is begun under a lock on the file,
//!   held until the line is ended (test `a_second_writer_is_refused`).
//! - Room for some lines is kept ready, so that a full disk can be purged.

use crate::clock::now_ms;
use serde::Serialize;
use serde_json::Value;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

/// The file's name in the data directory.
const NAME: &str = "audit.ndjson";

/// Bytes kept ready beyond the end of the file: some dozens of lines.
const RESERVE_BYTES: u64 = 64 << 10;

/// Bytes of an unended line that are looked at: far more than a line has.
const TAIL_BYTES_MAX: u64 = 1 << 20;

/// Who makes a change.
#[derive(Debug, Clone, Serialize)]
pub struct Who {
    /// The user's number, by the kernel.
    pub uid: u32,
    /// The user's name, where the host's passwd file has one.
    pub user: Option<String>,
    /// The process.
    pub pid: Option<i32>,
    /// Who called sudo, as the process itself says.
    pub sudo_user: Option<String>,
}

impl Who {
    /// A user by number, looked up.
    #[must_use]
    pub fn new(uid: u32, pid: Option<i32>, sudo_user: Option<String>) -> Self {
        let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        Self {
            uid,
            user: name_of(&passwd, uid),
            pid,
            sudo_user,
        }
    }

    /// This process.
    #[must_use]
    pub fn this_process(sudo_user: Option<String>) -> Self {
        let uid = rustix::process::getuid().as_raw();
        Self::new(uid, i32::try_from(std::process::id()).ok(), sudo_user)
    }
}

fn name_of(passwd: &str, uid: u32) -> Option<String> {
    let uid = uid.to_string();
    passwd.lines().find_map(|line| {
        let mut cells = line.split(':');
        let name = cells.next()?;
        (cells.nth(1)? == uid).then(|| name.to_owned())
    })
}

/// The audit of a data directory.
#[derive(Debug)]
pub struct Audit {
    data_dir: PathBuf,
    one_at_a_time: Mutex<()>,
}

/// A line whose change is under way.
#[derive(Debug)]
pub struct OpenLine<'a> {
    file: File,
    _turn: MutexGuard<'a, ()>,
}

/// The first half of a line.
#[derive(Debug, Serialize)]
pub struct Intent<'a> {
    /// What is done.
    pub verb: &'static str,
    /// With which arguments.
    pub args: Value,
    /// By whom.
    pub by: &'a Who,
    /// What it will concern.
    pub planned: Value,
}

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    #[serde(flatten)]
    intent: &'a Intent<'a>,
}

impl Audit {
    /// The audit of a data directory. Nothing is touched yet.
    #[must_use]
    pub fn new(data_dir: &Path) -> Self {
        Self {
            data_dir: data_dir.to_owned(),
            one_at_a_time: Mutex::new(()),
        }
    }

    fn open(&self) -> io::Result<File> {
        let path = self.data_dir.join(NAME);
        let is_new = !path.exists();
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)?;
        if is_new {
            File::open(&self.data_dir)?.sync_all()?;
        }
        Ok(file)
    }

    /// Keeps room ready. A disk or file system that has none is no failure: the
    /// change that needs it will be refused then.
    pub fn reserve(&self) {
        if let Err(error) = self.open().and_then(|file| reserve(&file)) {
            tracing::warn!(%error, "no room could be kept ready for the audit");
        }
    }

    /// Makes the first half of a line durable.
    ///
    /// # Errors
    /// When it cannot be written, or another process is in the midst of a change: nothing
    /// may be changed then.
    pub fn begin(&self, intent: &Intent<'_>) -> io::Result<OpenLine<'_>> {
        let turn = self
            .one_at_a_time
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut file = self.open()?;
        let lock = rustix::fs::FlockOperation::NonBlockingLockExclusive;
        rustix::fs::flock(&file, lock).map_err(|error| {
            let busy = error == rustix::io::Errno::WOULDBLOCK;
            let text = "another change is under way (audit.ndjson is locked)";
            if busy {
                io::Error::new(io::ErrorKind::WouldBlock, text)
            } else {
                error.into()
            }
        })?;
        end_open_line(&mut file)?;
        let line = serde_json::to_string(&Line {
            time: time_text(now_ms()),
            intent,
        })?;
        // Without the brace that ends it: the result is still to come.
        let half = line.strip_suffix('}').unwrap_or(&line);
        file.write_all(half.as_bytes())?;
        file.sync_all()?;
        Ok(OpenLine { file, _turn: turn })
    }
}

impl OpenLine<'_> {
    /// Ends the line with what became of the change.
    ///
    /// # Errors
    /// When it cannot be written; the change was made all the same.
    pub fn end(mut self, result: &str, done: &Value) -> io::Result<()> {
        let ended = time_text(now_ms());
        let result = Value::from(result);
        let rest = format!(",\"result\":{result},\"done\":{done},\"ended\":\"{ended}\"}}\n");
        self.file.write_all(rest.as_bytes())?;
        self.file.sync_all()?;
        if let Err(error) = reserve(&self.file) {
            tracing::debug!(%error, "no room could be kept ready for the audit");
        }
        Ok(())
    }
}

fn reserve(file: &File) -> io::Result<()> {
    let size = file.metadata()?.len();
    let flags = rustix::fs::FallocateFlags::KEEP_SIZE;
    Ok(rustix::fs::fallocate(file, flags, size, RESERVE_BYTES)?)
}

/// Ends a line that a crash left open.
fn end_open_line(file: &mut File) -> io::Result<()> {
    let size = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(size.saturating_sub(TAIL_BYTES_MAX)))?;
    let mut tail = Vec::new();
    file.take(TAIL_BYTES_MAX).read_to_end(&mut tail)?;
    let line = match tail.iter().rposition(|byte| *byte == b'\n') {
        Some(at) => &tail[at + 1..],
        None => &tail[..],
    };
    if line.is_empty() {
        return Ok(());
    }
    let end = ",\"result\":\"interrupted\"}";
    let whole = [line, end.as_bytes()].concat();
    if serde_json::from_slice::<Value>(&whole).is_ok() {
        file.write_all(end.as_bytes())?;
    }
    file.write_all(b"\n")
}

/// Epoch milliseconds as RFC 3339.
fn time_text(ms: i64) -> String {
    let since = Duration::from_millis(u64::try_from(ms).unwrap_or(0));
    humantime::format_rfc3339_millis(UNIX_EPOCH + since).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn who() -> Who {
        Who::new(0, Some(7), None)
    }

    fn intent(who: &Who) -> Intent<'_> {
        Intent {
            verb: "skip",
            args: json!({"way": "a"}),
            by: who,
            planned: json!([{"events": {"X": 1}}]),
        }
    }

    fn lines(dir: &Path) -> Vec<String> {
        let text = std::fs::read_to_string(dir.join(NAME)).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn the_first_half_is_written_before_the_change() {
        let dir = tempfile::tempdir().unwrap();
        let audit = Audit::new(dir.path());
        let (who, nested) = (who(), json!({"a": {"b": {}}}));
        for planned in [json!([]), nested.clone()] {
            let mut intent = intent(&who);
            intent.planned = planned;
            let open = audit.begin(&intent).unwrap();
            let half = lines(dir.path()).pop().unwrap();
            assert!(half.contains("\"verb\":\"skip\""), "{half}");
            assert!(serde_json::from_str::<Value>(&half).is_err());
            open.end("applied", &json!({"n": 1})).unwrap();
        }
        let lines = lines(dir.path());
        assert_eq!(lines.len(), 2);
        for line in &lines {
            let line: Value = serde_json::from_str(line).unwrap();
            assert_eq!(line["result"], "applied");
            assert_eq!(line["by"]["user"], "root");
            assert_eq!(line["by"]["pid"], 7);
        }
        let last: Value = serde_json::from_str(&lines[1]).unwrap();
        assert_eq!(last["planned"], nested);
    }

    #[test]
    fn a_line_that_a_crash_left_open_is_ended() {
        let dir = tempfile::tempdir().unwrap();
        let audit = Audit::new(dir.path());
        let who = who();
        drop(audit.begin(&intent(&who)).unwrap());
        drop(audit.begin(&intent(&who)).unwrap());
        let path = dir.path().join(NAME);
        // The third line is torn in its first half.
        audit
            .begin(&intent(&who))
            .unwrap()
            .end("applied", &Value::Null)
            .unwrap();
        let mut torn = std::fs::read(&path).unwrap();
        torn.extend(b"{\"time\":\"20");
        std::fs::write(&path, torn).unwrap();
        audit
            .begin(&intent(&who))
            .unwrap()
            .end("applied", &Value::Null)
            .unwrap();
        let results: Vec<_> = lines(dir.path())
            .iter()
            .map(|line| serde_json::from_str::<Value>(line).map(|line| line["result"].clone()))
            .map(Result::ok)
            .collect();
        let interrupted = Some(json!("interrupted"));
        let applied = Some(json!("applied"));
        assert_eq!(
            results,
            [
                interrupted.clone(),
                interrupted,
                applied.clone(),
                None,
                applied
            ]
        );
    }

    #[test]
    fn a_second_writer_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (Audit::new(dir.path()), Audit::new(dir.path()));
        let who = who();
        let open = one.begin(&intent(&who)).unwrap();
        let error = two.begin(&intent(&who)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        open.end("applied", &Value::Null).unwrap();
        two.begin(&intent(&who))
            .unwrap()
            .end("applied", &Value::Null)
            .unwrap();
        assert_eq!(lines(dir.path()).len(), 2);
    }

    #[test]
    fn users_are_named_by_the_passwd_file() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\n\nodd\ndaemon:x:1:1::/:/bin/false\n";
        assert_eq!(name_of(passwd, 1).as_deref(), Some("daemon"));
        assert_eq!(name_of(passwd, 100), None);
    }
}
