//! What a deleted generation held: for each request its events' places and identities, so
//! that rows can be compared with what was accepted for days after the log has let it go.
//! Written by the keeper (`shared`) before a deletion, read by [`Directory`].
//!
//! ```text
//! receipts/gen-N     crc32c of the rest (u32 LE), then zstd of bincode of `Receipt`
//! ```
//!
//! # Invariants
//! - A receipt is on the disk, with its name, before its generation goes (test
//!   `a_generation_goes_after_its_receipt`).
//! - A full disk does not hold up a deletion, and a low one is not made lower: then there is
//!   no receipt, and whoever asks finds a gap in the sequences instead of a wrong answer.
//! - A generation that cannot be read for a moment waits for its receipt, and nothing but the
//!   deletions waits with it; one that stays so goes without (test
//!   `a_generation_that_cannot_be_read_for_a_moment_leaves_its_receipt`).
//! - Bounded by age and by bytes; the oldest go first (test `the_oldest_receipts_go_first`).
//! - A damaged receipt is told, and nothing of it is believed, nor how large it says it is
//!   (test `a_receipt_is_no_larger_than_it_may_be`).
//!
//! [`Directory`]: super::Directory

use super::codec;
use super::contents::Contents;
use super::durable_file;
use super::error::InspectError;
use super::generation::Generation;
use super::position::Span;
use super::record::{Kind, Record};
use super::store::{Blocks, StoreError, Want, want};
use crate::event::expect::{self, Expected};
use crate::event::guarded::{PANICKED, unless_it_panics};
use crate::event::identity::Seq;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

const VERSION: u32 = 1;

/// Level of the compression: ids hardly compress, and the keeper shall not dwell on it.
const ZSTD_LEVEL: i32 = 1;

/// Events of one receipt. A generation of 256 MiB has half as many if each event is an id
/// and a time; only one that was made for it has more, and then there is no receipt: who
/// reads a receipt has all of its events in memory, some hundred bytes each.
const RECEIPT_EVENTS_MAX: usize = 8 << 20;

/// Bytes of a receipt, before and after it is decompressed: so many events, with ids of 40
/// characters. A file that claims more is damaged.
const RECEIPT_BYTES_MAX: usize = 512 << 20;

/// What the values in it may claim in memory: whole numbers have up to 8 bytes there.
const RECEIPT_VALUES_BYTES_MAX: usize = 2 * RECEIPT_BYTES_MAX;

/// How long receipts are kept.
#[derive(Debug, Clone)]
pub struct ReceiptLimits {
    /// The age of its last request from which a receipt goes, `receipts.keep`.
    pub keep: Duration,
    /// Bytes of all receipts, `receipts.max_bytes`.
    pub max_bytes: u64,
}

/// A request, and the rows that it must become.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipted {
    /// Its sequence.
    pub seq: Seq,
    /// When it was received, epoch milliseconds.
    pub received_at_ms: i64,
    /// Its events; none of a webhook, whose rows are its handlers' business.
    pub events: Vec<Expected>,
    /// Whether it is a webhook.
    pub webhook: bool,
}

impl Receipted {
    /// Of a record.
    #[must_use]
    pub fn of(record: &Record) -> Self {
        let webhook = matches!(record.kind, Kind::Webhook(_));
        let rejected = record.kind == Kind::Rejected;
        Self {
            seq: record.seq,
            received_at_ms: record.received_at_ms,
            events: if webhook {
                Vec::new()
            } else {
                expect::of_request(&record.content, record.received_at_ms, rejected)
            },
            webhook,
        }
    }
}

/// What a generation held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    version: u32,
    /// Its range of sequences.
    pub span: Span,
    /// Its requests, in order; one that is not among them was not readable any more.
    pub requests: Vec<Receipted>,
}

/// The file's name says what it holds, so that files out of a range are not read:
/// `gen-N.PREVIOUS_END.FIRST.END.LAST_MS`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiptFile {
    /// The generation.
    pub generation: u64,
    /// Its range of sequences.
    pub span: Span,
    /// The end of what was before it: numbers between that and its first are nobody's.
    pub previous_end: Seq,
    /// When its last request was received, epoch milliseconds.
    pub last_received_at_ms: i64,
    path: PathBuf,
}

impl ReceiptFile {
    pub(super) fn parse(path: PathBuf) -> Option<Self> {
        let name = path.file_name()?.to_str()?.strip_prefix("gen-")?.to_owned();
        let mut parts = name.split('.');
        let mut number = || parts.next()?.parse::<u64>().ok();
        let (generation, previous_end) = (number()?, number()?);
        let (first, end, last_ms) = (number()?, number()?, number()?);
        parts.next().is_none().then_some(Self {
            generation,
            span: Span {
                first: Seq(first),
                end: Seq(end),
            },
            previous_end: Seq(previous_end),
            last_received_at_ms: i64::try_from(last_ms).ok()?,
            path,
        })
    }

    /// The generation's number and first sequence, which tell it from all others.
    #[must_use]
    pub fn place(&self) -> (u64, Seq) {
        (self.generation, self.span.first)
    }

    /// Reads it.
    ///
    /// # Errors
    /// When it is damaged or gone.
    pub fn read(&self) -> Result<Receipt, InspectError> {
        let failed = |source| InspectError::Io {
            path: self.path.clone(),
            source,
        };
        let damaged = |text: String| failed(io::Error::new(io::ErrorKind::InvalidData, text));
        let bytes = durable_file::read(&self.path, RECEIPT_BYTES_MAX as u64).map_err(failed)?;
        let bytes = bytes.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
        let receipt = decode(&bytes, RECEIPT_BYTES_MAX).map_err(failed)?;
        if receipt.version != VERSION || receipt.span != self.span {
            return Err(damaged(
                "it is not of this version, or not of this name".to_owned(),
            ));
        }
        Ok(receipt)
    }
}

/// Reads the content of a receipt's file.
pub(super) fn decode(bytes: &[u8], bytes_max: usize) -> io::Result<Receipt> {
    let bytes = decompress(bytes, bytes_max)?;
    let (receipt, _) = codec::decode_within::<Receipt, RECEIPT_VALUES_BYTES_MAX>(&bytes)?;
    Ok(receipt)
}

/// The receipts of a data directory, in the order of their sequences.
///
/// # Errors
/// When the directory cannot be read; that there is none is no error.
pub(super) fn list(dir: &Path) -> io::Result<Vec<ReceiptFile>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut files = Vec::new();
    for entry in entries {
        files.extend(ReceiptFile::parse(entry?.path()));
    }
    // Numbers of generations come again, sequences do not.
    files.sort_by_key(|file| file.span.first);
    Ok(files)
}

/// Why there is no receipt.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReceiptError {
    #[error("the generation cannot be read: {0}")]
    Read(#[from] StoreError),
    #[error("the receipt cannot be written: {0}")]
    Write(#[from] io::Error),
    #[error("the generation has more than {RECEIPT_EVENTS_MAX} events, or too long ids")]
    Large,
    #[error("{PANICKED}")]
    Panicked,
}

impl ReceiptError {
    /// What the machine lacked, where that was all.
    pub(super) fn want(&self) -> Option<Want> {
        match self {
            Self::Read(error) => error.want(),
            Self::Write(error) => want(error),
            Self::Large | Self::Panicked => None,
        }
    }
}

/// Decompresses what may be damaged, or made to be large.
pub(super) fn decompress(bytes: &[u8], bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    zstd::Decoder::new(bytes)?
        .take(bytes_max as u64 + 1)
        .read_to_end(&mut content)?;
    if content.len() > bytes_max {
        let text = format!("larger than {bytes_max} bytes when it is decompressed");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(content)
}

/// A receipt in the making: what is in memory is one request, and the compressed rest.
pub(super) struct Draft {
    requests: zstd::Encoder<'static, Vec<u8>>,
    count: usize,
    events: usize,
    events_max: usize,
    bytes: usize,
    bytes_max: usize,
    last_ms: i64,
}

impl Draft {
    pub(super) fn new(events_max: usize, bytes_max: usize) -> io::Result<Self> {
        Ok(Self {
            events_max,
            bytes_max,
            requests: zstd::Encoder::new(Vec::new(), ZSTD_LEVEL)?,
            count: 0,
            events: 0,
            bytes: 0,
            last_ms: 0,
        })
    }

    pub(super) fn add(&mut self, record: &Record) -> Result<(), ReceiptError> {
        // The keeper must not end with it: nothing would be deleted any more.
        let receipted = unless_it_panics(|| Receipted::of(record));
        let receipted = receipted.ok_or(ReceiptError::Panicked)?;
        self.events = self.events.saturating_add(receipted.events.len());
        if self.events > self.events_max {
            return Err(ReceiptError::Large);
        }
        let bytes = codec::encode(&receipted)?;
        self.bytes += bytes.len();
        if self.bytes > self.bytes_max {
            return Err(ReceiptError::Large);
        }
        self.requests.write_all(&bytes)?;
        self.count += 1;
        self.last_ms = self.last_ms.max(record.received_at_ms);
        Ok(())
    }

    /// The file: bincode has a list's length before its items, so that goes into a frame of
    /// zstd before theirs.
    pub(super) fn finish(self, span: Span) -> io::Result<Vec<u8>> {
        let head = codec::encode(&(VERSION, span, self.count))?;
        let mut bytes = zstd::encode_all(&head[..], ZSTD_LEVEL)?;
        bytes.extend(self.requests.finish()?);
        Ok(bytes)
    }
}

/// Writes a generation's receipt, durably; returns at once where it is there already.
pub(super) fn write(
    dir: &Path,
    generation: &Generation,
    blocks: Arc<dyn Blocks>,
) -> Result<(), ReceiptError> {
    let mut contents = Contents::new(blocks, generation.salt());
    // Half of what is read: the values claim more in memory.
    let mut draft = Draft::new(RECEIPT_EVENTS_MAX, RECEIPT_BYTES_MAX / 2)?;
    while contents.block() < generation.blocks() {
        for record in contents.next()? {
            draft.add(&record)?;
        }
    }
    let span = Span {
        first: generation.base(),
        end: generation.end(),
    };
    let name = format!(
        "gen-{:012}.{}.{}.{}.{}",
        generation.number(),
        generation.header.previous_end,
        span.first,
        span.end,
        draft.last_ms
    );
    let path = dir.join(name);
    if path.exists() {
        // It has its name only when it is whole: an earlier deletion did not come through,
        // maybe because the process ended before the name was on the disk.
        durable_file::sync_dir(dir)?;
        return Ok(());
    }
    let bytes = draft.finish(span)?;
    durable_file::create_dir(dir)?;
    durable_file::replace(&path, &bytes).inspect_err(|_| {
        // On a full disk its part would take the room that the deletion gives back. Where
        // it is not there either, the next write of this receipt starts anew.
        drop(fs::remove_file(path.with_extension("new")));
    })?;
    Ok(())
}

/// Removes what is too old, and the oldest of what is too much. The youngest of those too
/// old stays: it shows that nothing younger was there before the others.
pub(super) fn prune(dir: &Path, limits: &ReceiptLimits, now_ms: i64) -> io::Result<()> {
    let files = list(dir)?;
    let keep_ms = i64::try_from(limits.keep.as_millis()).unwrap_or(i64::MAX);
    let size = |file: &ReceiptFile| fs::metadata(&file.path).map_or(0, |meta| meta.len());
    let is_old = |file: &ReceiptFile| now_ms.saturating_sub(file.last_received_at_ms) > keep_ms;
    let anchor = files.iter().rposition(is_old);
    let mut bytes: u64 = files.iter().map(size).sum();
    for (at, file) in files.iter().enumerate() {
        let goes = is_old(file) && Some(at) != anchor;
        if !goes && bytes <= limits.max_bytes {
            continue;
        }
        bytes = bytes.saturating_sub(size(file));
        fs::remove_file(&file.path)?;
    }
    Ok(())
}
