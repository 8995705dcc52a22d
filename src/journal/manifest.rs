//! What a generation is and what it should hold, kept outside its store: the only
//! way to notice that a store lost something. Called by `generation`, `survey`,
//! `recovery`, `directory`.
//!
//! # Invariants
//! - The header is written and synced before the store is made, and never changes.
//!   The manifest repeats it, so that either may be damaged.
//! - The manifest is written before the first append, within about a second of a
//!   sync while the generation grows, and when it is sealed; it never claims more
//!   than what was synced.
//! - Start reads manifests only, so its time does not depend on the backlog.
//! - A file that claims what no generation can hold counts as damaged (test
//!   `a_file_that_claims_too_much_is_damaged`).

use super::block::{BLOCKS_MAX, Salt};
use super::codec;
use super::durable_file;
use crate::event::identity::Seq;
use crate::event::tally::Tally;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::Path;

pub(super) const VERSION: u32 = 1;

/// Bytes of a header or a manifest. One with a loss at every second block has some MiB.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// What is known of a generation when it begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Header {
    /// The generation's number.
    pub(super) generation: u64,
    /// The sequence of its first record.
    pub(super) base: Seq,
    /// The sequence after the last record of the generation before it: tells a
    /// generation that vanished from numbers that nobody was given.
    pub(super) previous_end: Seq,
    /// Marks its blocks.
    pub(super) salt: Salt,
    /// When it was made, epoch milliseconds.
    pub(super) created_at_ms: i64,
    /// All events that this host accepted before it.
    pub(super) accepted_before: Tally,
}

/// What a generation is known to hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub(super) header: Header,
    /// Synced blocks, numbered from 0.
    pub(super) blocks: u64,
    /// The sequence after its last synced whole record.
    pub(super) end: Seq,
    /// Events of its records.
    pub(super) events: Tally,
    /// When its records were received.
    pub(super) times: Times,
    /// Whether it takes no more appends.
    pub(super) sealed: bool,
    /// Ranges `[first, end)` that were found to be lost; then it is quarantined.
    pub(super) lost: Vec<(Seq, Seq)>,
    /// Events of the lost records.
    pub(super) lost_events: Tally,
}

/// A coarse index from sequence to time of receipt.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Times(Vec<(Seq, i64)>);

/// Entries of one generation's index; past it every second one goes.
const TIMES_MAX: usize = 256;

/// Receipts closer than this share an entry.
const TIMES_STEP_MS: i64 = 1000;

impl Times {
    pub(super) fn note(&mut self, seq: Seq, received_at_ms: i64) {
        if let Some((_, last)) = self.0.last() {
            let span = last.saturating_sub(self.0[0].1);
            // Wider steps in a long generation, so that thinning stays rare.
            let step = TIMES_STEP_MS.max(span / (TIMES_MAX as i64 / 2));
            // A clock that was set back is followed at once: a time is never later than that
            // of the receipt.
            let is_near = received_at_ms >= *last && received_at_ms.saturating_sub(*last) < step;
            if is_near {
                return;
            }
        }
        if self.0.len() >= TIMES_MAX {
            self.thin();
        }
        self.0.push((seq, received_at_ms));
    }

    /// When the record was received, or a little before.
    pub(super) fn of(&self, seq: Seq) -> Option<i64> {
        let after = self.0.partition_point(|(first, _)| *first <= seq);
        self.0.get(after.saturating_sub(1)).map(|(_, ms)| *ms)
    }

    /// The latest receipt.
    pub(super) fn last(&self) -> Option<i64> {
        self.0.iter().map(|(_, ms)| *ms).max()
    }

    /// Makes one entry of two, with the earlier time; one with the latest time stays.
    fn thin(&mut self) {
        let mut latest = self.last();
        let mut thinned = Vec::with_capacity(TIMES_MAX);
        for pair in self.0.chunks(2) {
            match pair {
                [a, b] if a.1 != b.1 && latest == Some(a.1.max(b.1)) => {
                    latest = None;
                    thinned.extend([*a, *b]);
                }
                [a, b] => thinned.push((a.0, a.1.min(b.1))),
                rest => thinned.extend(rest),
            }
        }
        self.0 = thinned;
    }
}

const HEADER: &str = "header";
const MANIFEST: &str = "manifest";

impl Header {
    pub(super) fn write(&self, generation_dir: &Path) -> io::Result<()> {
        write(generation_dir, HEADER, self)
    }

    /// `None` when there is none.
    pub(super) fn read(generation_dir: &Path) -> io::Result<Option<Self>> {
        read(generation_dir, HEADER)
    }
}

impl Manifest {
    pub(super) fn new(header: Header) -> Self {
        Self {
            blocks: 0,
            end: header.base,
            events: Tally::default(),
            times: Times::default(),
            sealed: false,
            lost: Vec::new(),
            lost_events: Tally::default(),
            header,
        }
    }

    pub(super) fn write(&self, generation_dir: &Path) -> io::Result<()> {
        write(generation_dir, MANIFEST, self)
    }

    /// `None` when there is none.
    pub(super) fn read(generation_dir: &Path) -> io::Result<Option<Self>> {
        read(generation_dir, MANIFEST)
    }
}

fn write<T: Serialize>(dir: &Path, name: &str, value: &T) -> io::Result<()> {
    durable_file::replace(&dir.join(name), &codec::encode(&(VERSION, value))?)
}

fn read<T: DeserializeOwned + Plausible>(dir: &Path, name: &str) -> io::Result<Option<T>> {
    match durable_file::read(&dir.join(name), FILE_BYTES_MAX)? {
        Some(bytes) => decode(name, &bytes).map(Some),
        None => Ok(None),
    }
}

/// Reads the content of a file of this name.
pub(super) fn decode<T: DeserializeOwned + Plausible>(name: &str, bytes: &[u8]) -> io::Result<T> {
    let (version, used): (u32, usize) = codec::decode(bytes)?;
    if version != VERSION {
        let text = format!("{name} has format version {version}");
        return Err(io::Error::other(text));
    }
    let (value, _): (T, usize) = codec::decode(&bytes[used..])?;
    if !value.is_plausible() {
        let text = format!("{name} claims what no generation holds");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(value)
}

/// What a file claims, be its checksum as it may, is counted through by whoever reads on:
/// so it must be what a generation can hold.
pub(super) trait Plausible {
    fn is_plausible(&self) -> bool;
}

impl Plausible for Header {
    fn is_plausible(&self) -> bool {
        self.base <= Seq::MAX && self.previous_end <= Seq::MAX
    }
}

impl Plausible for Manifest {
    fn is_plausible(&self) -> bool {
        let fits = |(first, end): &(Seq, Seq)| first <= end && *end <= Seq::MAX;
        self.header.is_plausible()
            && self.blocks <= BLOCKS_MAX
            && fits(&(self.header.base, self.end))
            && self.lost.iter().all(fits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_claims_too_much_is_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let header = Header {
            generation: 1,
            base: Seq(5),
            previous_end: Seq(5),
            salt: [7; 16],
            created_at_ms: 0,
            accepted_before: Tally::default(),
        };
        let good = Manifest {
            blocks: BLOCKS_MAX,
            end: Seq(9),
            lost: vec![(Seq(5), Seq(7))],
            ..Manifest::new(header.clone())
        };
        good.write(dir.path()).unwrap();
        assert_eq!(Manifest::read(dir.path()).unwrap(), Some(good.clone()));
        let changes: [fn(&mut Manifest); 6] = [
            |manifest| manifest.blocks = BLOCKS_MAX + 1,
            |manifest| manifest.blocks = u64::MAX,
            |manifest| manifest.end = Seq(u64::MAX),
            |manifest| manifest.end = Seq(4),
            |manifest| manifest.lost = vec![(Seq(1), Seq(u64::MAX))],
            |manifest| manifest.header.previous_end = Seq(u64::MAX),
        ];
        for (at, change) in changes.iter().enumerate() {
            let mut bad = good.clone();
            change(&mut bad);
            bad.write(dir.path()).unwrap();
            let error = Manifest::read(dir.path()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{at}");
        }
        let bad = Header {
            base: Seq(u64::MAX),
            ..header
        };
        bad.write(dir.path()).unwrap();
        assert!(Header::read(dir.path()).is_err());
    }

    #[test]
    fn times_of_any_clock_can_be_noted() {
        let mut times = Times::default();
        for (seq, at) in [(1, i64::MIN), (2, i64::MAX), (3, 0), (4, i64::MIN)] {
            times.note(Seq(seq), at);
        }
        assert_eq!(times.of(Seq(1)), Some(i64::MIN));
    }

    #[test]
    fn a_clock_that_was_set_back_is_followed() {
        let (hour_ms, now_ms) = (3_600_000, 1_700_000_000_000);
        let mut times = Times::default();
        times.note(Seq(1), now_ms + 3 * hour_ms);
        times.note(Seq(2), now_ms);
        assert_eq!(times.of(Seq(1)), Some(now_ms + 3 * hour_ms));
        assert_eq!(times.of(Seq(2)), Some(now_ms));
        // Whatever is thinned out, nothing is younger than it was received.
        for seq in 3..20_000 {
            times.note(Seq(seq), now_ms + seq as i64 * 300);
            assert!(times.0.len() <= TIMES_MAX);
        }
        for seq in 2..20_000 {
            assert!(times.of(Seq(seq)).unwrap() <= now_ms + seq as i64 * 300);
        }
        assert_eq!(times.last(), Some(now_ms + 3 * hour_ms));
        // A clock that goes to and fro does not make it grow, either.
        for seq in 20_000..30_000 {
            times.note(Seq(seq), now_ms + (seq as i64 % 2) * 5 * hour_ms);
            assert!(times.0.len() <= TIMES_MAX);
            assert!(times.of(Seq(seq)).unwrap() <= now_ms + (seq as i64 % 2) * 5 * hour_ms);
        }
    }

    #[test]
    fn times_are_never_later_than_the_receipt_and_stay_few() {
        let mut times = Times::default();
        assert_eq!(times.of(Seq(1)), None);
        let at = |seq: u64| 1_000_000 + seq as i64 * 300;
        for seq in 10..20_000 {
            times.note(Seq(seq), at(seq));
            assert!(times.0.len() <= TIMES_MAX);
        }
        for seq in 10..20_000 {
            let noted = times.of(Seq(seq)).unwrap();
            assert!(noted <= at(seq));
            assert!(at(seq) - noted < 6_000_000 / 32, "{seq}");
        }
    }
}
