//! Reads the recorder's log; the format stands in the head of `record.c`. Called by
//! `recording`.
//!
//! # Invariants
//! - Operations are numbered from 0 over all processes that wrote to the log, in the
//!   order in which they happened.
//! - Bytes stay in the log, which is read once; operations point into it.
//! - A torn end, a gap in a process's own numbers, or a call that the recorder could
//!   not follow is a panic: nothing can be proved with part of a log.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

const HEAD_BYTES: usize = 48;

/// Names an open file or a connection; never used twice.
pub type Handle = u64;

/// A place in the log's bytes.
pub type Span = Range<usize>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// A process began.
    Start,
    Open {
        handle: Handle,
        path: String,
        created: bool,
        cut: bool,
    },
    Close {
        handle: Handle,
        size: Option<u64>,
    },
    Write {
        handle: Handle,
        offset: u64,
        data: Span,
    },
    Resize {
        handle: Handle,
        size: u64,
    },
    Extend {
        handle: Handle,
        end: u64,
    },
    Sync {
        handle: Handle,
        size: Option<u64>,
    },
    /// `start` is the operation number of its `Sync`.
    Synced {
        handle: Handle,
        start: usize,
        ok: bool,
    },
    Rename {
        from: String,
        to: String,
    },
    Unlink {
        path: String,
    },
    MakeDir {
        path: String,
    },
    RemoveDir {
        path: String,
    },
    /// A socket of the file system was made.
    Bound {
        path: String,
    },
    Accept {
        handle: Handle,
    },
    /// Before the call; `len` bytes, of which `data` are the first.
    Send {
        handle: Handle,
        len: usize,
        data: Span,
    },
    /// `start` is the operation number of its `Send`; `None`: it failed.
    Sent {
        start: usize,
        sent: Option<usize>,
    },
    Received {
        handle: Handle,
        data: Span,
    },
    HangUp,
}

/// A whole log.
#[derive(Debug, Clone)]
pub struct Log {
    bytes: Arc<Vec<u8>>,
    pub ops: Arc<Vec<Op>>,
}

impl Log {
    pub fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap();
        let mut ops = Vec::new();
        let (mut at, mut base) = (0, 0);
        while at < bytes.len() {
            let (number, op, end) = record(&bytes, at, base);
            if op == Op::Start {
                base = ops.len();
                assert_eq!(number, 0);
            }
            assert_eq!(base + number, ops.len(), "the log has a gap");
            ops.push(op);
            at = end;
        }
        Self {
            bytes: Arc::new(bytes),
            ops: Arc::new(ops),
        }
    }

    pub fn bytes(&self, span: &Span) -> &[u8] {
        &self.bytes[span.clone()]
    }

    pub fn len_bytes(&self) -> usize {
        self.bytes.len()
    }
}

/// The record at `at`: its number in its process, its meaning, and where it ends.
fn record(bytes: &[u8], at: usize, base: usize) -> (usize, Op, usize) {
    let u32_at =
        |i: usize| u32::from_le_bytes(bytes[at + i..at + i + 4].try_into().unwrap()) as usize;
    let u64_at = |i: usize| u64::from_le_bytes(bytes[at + i..at + i + 8].try_into().unwrap());
    let (kind, first_len, second_len) = (u32_at(0), u32_at(4), u32_at(8));
    let (number, handle, a, b) = (u64_at(16), u64_at(24), u64_at(32), u64_at(40));
    let first = at + HEAD_BYTES..at + HEAD_BYTES + first_len;
    let data = first.end..first.end + second_len;
    let end = data.end;
    let text = |span: &Span| String::from_utf8(bytes[span.clone()].to_vec()).unwrap();
    let size = (a != u64::MAX).then_some(a);
    let op = match kind {
        1 => Op::Start,
        2 => Op::Open {
            handle,
            path: text(&first),
            created: a & 1 != 0,
            cut: a & 2 != 0,
        },
        3 => Op::Close { handle, size },
        4 => Op::Write {
            handle,
            offset: a,
            data,
        },
        5 => Op::Resize { handle, size: a },
        6 => Op::Extend { handle, end: a },
        7 => Op::Sync { handle, size },
        8 => Op::Synced {
            handle,
            start: base + a as usize,
            ok: b == 0,
        },
        9 => Op::Rename {
            from: text(&first),
            to: text(&data),
        },
        10 => Op::Unlink { path: text(&first) },
        11 => Op::MakeDir { path: text(&first) },
        12 => Op::RemoveDir { path: text(&first) },
        13 => Op::Accept { handle },
        14 => Op::Send {
            handle,
            len: a as usize,
            data,
        },
        15 => Op::Sent {
            start: base + a as usize,
            sent: usize::try_from(b as i64).ok(),
        },
        16 => Op::Received { handle, data },
        17 => Op::HangUp,
        18 => panic!("the recorder cannot follow: {}", text(&first)),
        19 => Op::Bound { path: text(&first) },
        other => panic!("record of kind {other} at byte {at}"),
    };
    (number as usize, op, end)
}
