//! Log lines on stderr. Where stderr is systemd's journal, each line begins with its priority
//! (sd-daemon(3)), so that `journalctl -p warning` finds it. Called by `log`.
//!
//! # Invariants
//! - Elsewhere nothing is added: a terminal, a file or a pipe has the lines as they are (test
//!   `only_the_stream_of_the_journal_is_one`).
//! - Each line of an event has the priority, also where a text has several (test
//!   `each_line_has_its_priority`).

use std::ffi::OsStr;
use std::io::{self, Stderr, Write};
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// Where systemd says which stream leads to the journal: `device:inode` (systemd.exec(5)).
const JOURNAL_STREAM: &str = "JOURNAL_STREAM";

/// Makes a writer for each event.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lines {
    is_journal: bool,
}

impl Lines {
    /// Looks at what stderr is.
    pub(super) fn new() -> Self {
        let stream = rustix::fs::fstat(io::stderr()).ok();
        let stream = stream.map(|stat| (stat.st_dev, stat.st_ino));
        let named = std::env::var_os(JOURNAL_STREAM);
        Self {
            is_journal: is_journal(named.as_deref(), stream),
        }
    }
}

/// Whether the stream is the one that leads to the journal; the variable is inherited by
/// processes whose stderr was sent elsewhere.
fn is_journal(named: Option<&OsStr>, stream: Option<(u64, u64)>) -> bool {
    let named = named.and_then(OsStr::to_str);
    let named = named.and_then(|text| text.split_once(':'));
    let named = named.and_then(|(device, inode)| Some((device.parse().ok()?, inode.parse().ok()?)));
    named.is_some() && named == stream
}

/// A level's priority, as syslog(3) numbers them.
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<Stderr>;

    fn make_writer(&'a self) -> Self::Writer {
        Line::new(io::stderr(), None)
    }

    fn make_writer_for(&'a self, event: &Metadata<'_>) -> Self::Writer {
        let priority = self.is_journal.then(|| priority(*event.level()));
        Line::new(io::stderr(), priority)
    }
}

/// Writes one event.
#[derive(Debug)]
pub(super) struct Line<W> {
    to: W,
    priority: Option<u8>,
    is_at_start: bool,
}

impl<W> Line<W> {
    fn new(to: W, priority: Option<u8>) -> Self {
        Self {
            to,
            priority,
            is_at_start: true,
        }
    }
}

impl<W: Write> Write for Line<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(priority) = self.priority else {
            return self.to.write(bytes);
        };
        let mut lines = Vec::with_capacity(bytes.len() + 3);
        for line in bytes.split_inclusive(|&byte| byte == b'\n') {
            if self.is_at_start {
                lines.extend([b'<', b'0' + priority, b'>']);
            }
            lines.extend(line);
            self.is_at_start = line.ends_with(b"\n");
        }
        // At once, so that lines of two threads do not mix.
        self.to.write_all(&lines)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_stream_of_the_journal_is_one() {
        let is = |named: &str, stream| is_journal(Some(OsStr::new(named)), stream);
        assert!(is("8:1234", Some((8, 1234))));
        assert!(!is("8:1234", Some((8, 1235))));
        assert!(!is("8:1234", Some((9, 1234))));
        assert!(!is("8:1234", None));
        for odd in ["", ":", "8", "8:", ":1234", "8:1234:5", "x:y"] {
            assert!(!is(odd, Some((8, 1234))), "{odd}");
            assert!(!is(odd, None), "{odd}");
        }
        assert!(!is_journal(None, Some((8, 1234))));
        assert!(!is_journal(None, None));
    }

    fn written(priority: Option<u8>, parts: &[&str]) -> String {
        let mut line = Line::new(Vec::new(), priority);
        for part in parts {
            line.write_all(part.as_bytes()).unwrap();
        }
        String::from_utf8(line.to).unwrap()
    }

    #[test]
    fn each_line_has_its_priority() {
        assert_eq!(written(Some(4), &["one\n"]), "<4>one\n");
        assert_eq!(
            written(Some(3), &["one\n  two\n\nthree\n"]),
            "<3>one\n<3>  two\n<3>\n<3>three\n"
        );
        assert_eq!(
            written(Some(6), &["o", "ne\ntw", "o\n"]),
            "<6>one\n<6>two\n"
        );
        assert_eq!(written(None, &["one\n", "two\n"]), "one\ntwo\n");
    }

    #[test]
    fn priorities_are_those_of_syslog() {
        let levels = [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG];
        assert_eq!(levels.map(priority), [3, 4, 6, 7]);
    }
}
