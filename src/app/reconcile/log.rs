//! What a host accepted, from its log and the receipts of what the log has let go. Called by
//! `reconcile`.
//!
//! # Invariants
//! - Each request is given once, from its generation while that is there, and from its
//!   receipt otherwise, also where the generation goes in the middle of the look.
//! - A range without either is unknown; numbers that were never given to a request are not.
//! - Generations are told apart by number and first sequence: numbers alone come again (test
//!   `restarts_of_an_empty_log_leave_nothing_unknown`).

use super::{Range, ReconcileError, Unknown};
use crate::event::identity::Seq;
use crate::journal::{CursorInfo, Directory, Found, InspectError, ReceiptFile, Receipted, Span};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How long the files of a running service may be behind it.
const FILES_LAG_MAX: Duration = Duration::from_secs(3);

/// How long between two looks at them.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Where a part of the log is.
#[derive(Debug, Clone)]
enum Source {
    Generation,
    Receipt(ReceiptFile),
}

#[derive(Debug, Clone)]
struct Piece {
    number: u64,
    span: Span,
    /// The end of what was before it.
    previous_end: Option<Seq>,
    last_received_at_ms: i64,
    source: Source,
}

/// The first request of a time.
struct FirstAt {
    seq: Seq,
    /// The piece that it is in.
    piece: usize,
    /// Whether it is the first there.
    is_first: bool,
}

/// What was read of a piece.
#[derive(Debug, Default)]
pub(super) struct Read {
    pub(super) requests: Vec<Receipted>,
    pub(super) lost: Vec<Span>,
    pub(super) unknown: Option<Unknown>,
}

/// The log of a host, in the asked range.
#[derive(Debug)]
pub(super) struct Log {
    data_dir: PathBuf,
    pub(super) host: String,
    pub(super) cursors: Vec<CursorInfo>,
    pub(super) span: Span,
    pub(super) unknown: Vec<Unknown>,
    pieces: Vec<Piece>,
    /// The piece that was read last: each is asked for by every sink.
    directory: Mutex<Directory>,
}

impl Log {
    /// `durable_end`: the end of what a running service has made durable.
    pub(super) fn open(
        data_dir: &Path,
        range: &Range,
        durable_end: Option<Seq>,
    ) -> Result<Self, ReconcileError> {
        let (directory, target) = look(data_dir, range.to_seq.map(Seq), durable_end)?;
        let host = directory.host().ok_or(ReconcileError::Host)?.to_string();
        let cursors = directory.cursors().to_vec();
        let pieces = pieces(&directory)?;
        let mut log = Self {
            data_dir: data_dir.to_owned(),
            host,
            cursors,
            span: Span {
                first: Seq::FIRST,
                end: Seq::FIRST,
            },
            unknown: Vec::new(),
            pieces,
            directory: Mutex::new(directory),
        };
        log.span = log.find(range, target)?;
        log.find_gaps(range);
        let span = log.span;
        let unknown = log.of_unknown_generations();
        log.unknown.extend(unknown);
        log.pieces
            .retain(|piece| piece.span.first < span.end && span.first < piece.span.end);
        Ok(log)
    }

    /// The sequences of the range; `target`: the end of what was durable when it was asked.
    fn find(&self, range: &Range, target: Seq) -> Result<Span, ReconcileError> {
        let held_first = self.pieces.first().map_or(Seq::FIRST, |p| p.span.first);
        let held_end = self.pieces.last().map_or(Seq::FIRST, |p| p.span.end);
        let held_end = held_end.max(target);
        let mut first = range.from_seq.map_or(held_first, Seq);
        let mut end = range.to_seq.map_or(held_end, Seq).min(held_end);
        if let Some(since_ms) = range.since_ms {
            first = first.max(self.since(since_ms)?);
        }
        if let Some(until_ms) = range.until_ms
            && let Some(until) = self.first_at(until_ms)?
        {
            end = end.min(until.seq);
        }
        Ok(Span {
            first: first.min(end),
            end,
        })
    }

    /// Where a range from this time on begins: at its first request, or before that at what
    /// nothing is known of, which may be of that time, too.
    fn since(&self, at_ms: i64) -> Result<Seq, InspectError> {
        let Some(found) = self.first_at(at_ms)? else {
            // All that is known is older.
            let mut known = self.pieces.iter().rev();
            let last = known.find(|piece| piece.span.requests() > 0);
            return Ok(last.map_or(Seq::FIRST, |piece| piece.span.end));
        };
        let before = found.piece.checked_sub(1).map(|at| &self.pieces[at]);
        Ok(match before {
            Some(before) if found.is_first => found.seq.min(before.span.end),
            _ => found.seq,
        })
    }

    /// The first request that was received at this time or later.
    fn first_at(&self, at_ms: i64) -> Result<Option<FirstAt>, InspectError> {
        // The time that a generation gives for its last request may be one before it.
        let pieces = self.pieces.iter();
        let fits = pieces.clone().position(|p| p.last_received_at_ms >= at_ms);
        let from = fits.unwrap_or(self.pieces.len()).saturating_sub(1);
        for (number, piece) in pieces.enumerate().skip(from) {
            let read = self.read(piece)?;
            let mut requests = read.requests.iter().enumerate();
            let found = if read.unknown.is_some() {
                // Nothing says that it is older.
                Some((0, piece.span.first))
            } else {
                let found = requests.find(|(_, request)| request.received_at_ms >= at_ms);
                found.map(|(at, request)| (at, request.seq))
            };
            if let Some((at, seq)) = found {
                return Ok(Some(FirstAt {
                    seq,
                    piece: number,
                    is_first: at == 0,
                }));
            }
        }
        Ok(None)
    }

    /// Notes what neither the log nor a receipt covers.
    fn find_gaps(&mut self, range: &Range) {
        let end_of_range = self.span.end;
        let mut unknown = |first: Seq, end: Seq| {
            let end = end.min(end_of_range);
            if first < end {
                self.unknown.push(Unknown {
                    span: Span { first, end },
                    reason: "neither the log nor a receipt has it any more".to_owned(),
                });
            }
        };
        // From a time on, the range is known if something older is: a request before it.
        let first = self.pieces.first().map(|piece| piece.span.first);
        let older_is_known = first.is_some_and(|first| first < self.span.first);
        let mut at = match range.from_seq {
            Some(from) => Seq(from),
            None if older_is_known => self.span.first,
            None => Seq::FIRST,
        };
        for piece in &self.pieces {
            unknown(at, piece.previous_end.unwrap_or(piece.span.first));
            at = at.max(piece.span.end);
        }
        // What was delivered and deleted without a receipt, at the end.
        unknown(at, self.span.end);
    }

    /// The places of generations that do not tell what they held, in the range: between the
    /// pieces before and after each, or where the last one ended.
    fn of_unknown_generations(&self) -> Vec<Unknown> {
        let directory = self.directory.lock();
        let directory = directory.unwrap_or_else(std::sync::PoisonError::into_inner);
        let numbers = directory.unknown_generations().iter();
        let places = numbers.map(|number| {
            // It may have told a part of what it held.
            let mut told = directory.generations().iter();
            let has_part = told.any(|generation| generation.number == *number);
            let is_before = |its: u64| its < *number || (has_part && its == *number);
            let before = self.pieces.iter().filter(|piece| is_before(piece.number));
            let after = self.pieces.iter().filter(|piece| piece.number > *number);
            let first = before.map(|piece| piece.span.end).max();
            let first = first.unwrap_or(Seq::FIRST);
            let end = after.map(|piece| piece.span.first).min();
            let end = end.unwrap_or(self.span.end.max(first.next()));
            if end < first {
                // Numbers came again since then: nobody knows where it was.
                return (number, self.span);
            }
            (number, Span { first, end })
        });
        let within = |span: &Span| {
            span.first < span.end && span.first <= self.span.end && self.span.first < span.end
        };
        places
            .filter(|(_, span)| within(span))
            .map(|(number, span)| Unknown {
                span,
                reason: format!("generation {number} does not tell what it held"),
            })
            .collect()
    }

    /// The audit's lines, where there are any.
    pub(super) fn audit(&self) -> Result<String, InspectError> {
        let path = self.data_dir.join("audit.ndjson");
        match std::fs::read(&path) {
            Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
            Err(source) => Err(InspectError::Io { path, source }),
        }
    }

    /// Gives each piece's requests in the range, in order.
    pub(super) fn pieces(&self) -> usize {
        self.pieces.len()
    }

    pub(super) fn piece(&self, at: usize) -> Result<Read, InspectError> {
        let Some(piece) = self.pieces.get(at) else {
            return Ok(Read::default());
        };
        let mut read = self.read(piece)?;
        let span = self.span;
        read.requests
            .retain(|request| (span.first..span.end).contains(&request.seq));
        for lost in &mut read.lost {
            lost.first = lost.first.max(span.first);
            lost.end = lost.end.min(span.end);
        }
        read.lost.retain(|lost| lost.first < lost.end);
        Ok(read)
    }

    /// The range of a piece, within the asked one.
    pub(super) fn span_of(&self, at: usize) -> Option<Span> {
        self.pieces.get(at).map(|piece| Span {
            first: piece.span.first.max(self.span.first),
            end: piece.span.end.min(self.span.end),
        })
    }

    fn read(&self, piece: &Piece) -> Result<Read, InspectError> {
        match &piece.source {
            Source::Receipt(file) => Ok(of_receipt(file)),
            Source::Generation => self.of_generation(piece),
        }
    }

    fn of_generation(&self, piece: &Piece) -> Result<Read, InspectError> {
        let mut read = Read::default();
        let mut take = |found| {
            match found {
                Found::Record(record) => read.requests.push(Receipted::of(&record)),
                Found::Lost(loss) => read.lost.push(Span {
                    first: loss.first,
                    end: loss.end,
                }),
            }
            ControlFlow::Continue(())
        };
        let directory = self.directory.lock();
        let directory = directory.unwrap_or_else(std::sync::PoisonError::into_inner);
        let walked = directory.walk(piece.span.first, piece.span.end, &mut take);
        drop(directory);
        // Its service may have let it go meanwhile: then its receipt has it whole.
        let now = Directory::open(&self.data_dir)?;
        let place = (piece.number, piece.span.first);
        if (now.generations().iter()).any(|g| (g.number, g.first) == place) {
            walked?;
            return Ok(read);
        }
        let mut receipts = now.receipts()?.into_iter();
        match receipts.find(|file| file.place() == place) {
            Some(file) => Ok(of_receipt(&file)),
            None => Ok(Read {
                unknown: Some(Unknown {
                    span: piece.span,
                    reason: "it was deleted without a receipt".to_owned(),
                }),
                ..Read::default()
            }),
        }
    }
}

/// Looks at the directory. The files of a running service tell of a record up to a second
/// after it was acknowledged, and its cursors may have passed it: so it is looked at again
/// until they do. What they still do not tell then is within the range, and unknown.
fn look(
    data_dir: &Path,
    to: Option<Seq>,
    durable_end: Option<Seq>,
) -> Result<(Directory, Seq), InspectError> {
    let until = Instant::now() + FILES_LAG_MAX;
    let mut target = None;
    loop {
        let directory = Directory::open(data_dir)?;
        let reach = directory.end();
        let target = *target.get_or_insert(durable_end.unwrap_or(reach).max(reach));
        let end = directory.generations().iter().map(|g| g.end).max();
        let end = end.unwrap_or(Seq::FIRST);
        let is_there = end >= to.unwrap_or(target);
        if is_there || !directory.is_running() || Instant::now() >= until {
            return Ok((directory, target));
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

fn of_receipt(file: &ReceiptFile) -> Read {
    let receipt = match file.read() {
        Ok(receipt) => receipt,
        Err(error) => {
            return Read {
                unknown: Some(Unknown {
                    span: file.span,
                    reason: format!("its receipt cannot be read: {error}"),
                }),
                ..Read::default()
            };
        }
    };
    let mut lost = Vec::new();
    let mut expected = receipt.span.first;
    let end = receipt.span.end;
    for seq in receipt
        .requests
        .iter()
        .map(|request| request.seq)
        .chain([end])
    {
        if expected < seq {
            lost.push(Span {
                first: expected,
                end: seq,
            });
        }
        expected = seq.next();
    }
    Read {
        requests: receipt.requests,
        lost,
        unknown: None,
    }
}

fn pieces(directory: &Directory) -> Result<Vec<Piece>, InspectError> {
    let generations = directory.generations().iter();
    let mut pieces: Vec<_> = generations
        .map(|generation| Piece {
            number: generation.number,
            span: Span {
                first: generation.first,
                end: generation.end,
            },
            previous_end: Some(generation.previous_end),
            last_received_at_ms: generation.last_received_at_ms,
            source: Source::Generation,
        })
        .collect();
    for file in directory.receipts()? {
        // A deletion that did not come through: the generation is still there.
        let is_of = |piece: &Piece| (piece.number, piece.span.first) == file.place();
        if pieces.iter().any(is_of) {
            continue;
        }
        pieces.push(Piece {
            number: file.generation,
            span: file.span,
            previous_end: Some(file.previous_end),
            last_received_at_ms: file.last_received_at_ms,
            source: Source::Receipt(file),
        });
    }
    // Numbers begin anew where a service starts with an empty log; sequences never do.
    pieces.sort_by_key(|piece| (piece.span.first, piece.span.end));
    Ok(pieces)
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
