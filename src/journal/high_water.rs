//! How far this host has come, in a file of its own: what else knows it is deleted once it is
//! delivered (generations), removed by operators (cursors), or bounded (receipts). Called by
//! `handle` and `recovery` (the start), `shared` and `offline` (before a deletion), and
//! `directory`.
//!
//! # Invariants
//! - It is raised, durably, before a generation is deleted. So what lies before it was passed
//!   by every way out that there was, and what lies behind it is on the disk or lost.
//! - It is there before the host has its name. So a host with a name and nothing that tells
//!   where it was is one that lost it, not a new one (test
//!   `a_host_that_nothing_tells_where_it_was_leaves_room_for_all_that_it_gave`).
//! - It never falls, and needs no new room once it is made (`slots`).

use super::codec;
use super::position::Position;
use super::recovery::UNKNOWN_RANGE;
use super::slots::Slots;
use crate::event::identity::Seq;
use crate::event::tally::Tally;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};

const VERSION: u32 = 1;

const FILE: &str = "high_water";

/// What is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct HighWater {
    /// The sequence after the last record of the generations that were deleted.
    pub(super) end: Seq,
    /// Events accepted before it.
    pub(super) accepted: Tally,
}

impl HighWater {
    /// Where it is, and the events before that place.
    pub(super) fn place(&self) -> (Seq, Tally) {
        (self.end, self.accepted.clone())
    }

    /// Reads it; `None` when there is no such file.
    pub(super) fn read(data_dir: &Path) -> io::Result<Option<Self>> {
        match Slots::read(&data_dir.join(FILE)) {
            Ok(bytes) => Self::decode(&bytes).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn decode(bytes: &[u8]) -> io::Result<Self> {
        let ((version, kept), _): ((u32, Self), usize) = codec::decode(bytes)?;
        if version != VERSION || kept.end > Seq::MAX {
            let text = "high_water is of another version, or claims what no journal holds";
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        Ok(kept)
    }

    pub(super) fn encode(&self) -> io::Result<Vec<u8>> {
        codec::encode(&(VERSION, self))
    }
}

/// The file, held by whoever may delete generations.
#[derive(Debug)]
pub(super) struct HighWaterFile {
    path: PathBuf,
    slots: Option<Slots>,
    known: Option<HighWater>,
}

impl HighWaterFile {
    /// Opens it. For a new host it is made; for one that has a name already, and no such file
    /// or a damaged one, it is made when it is raised: until then nothing is known.
    pub(super) fn open(data_dir: &Path, is_new_host: bool) -> Self {
        let mut file = Self {
            path: data_dir.join(FILE),
            slots: None,
            known: None,
        };
        let opened = match file.load() {
            Ok(false) if is_new_host => file.raise(Seq::FIRST, &Tally::default()),
            opened => opened.map(|_| ()),
        };
        if let Err(error) = opened {
            // Cursors and generations tell the same, as a rule.
            tracing::error!(path = %file.path.display(), %error, "cannot read how far this host had come");
        }
        file
    }

    /// Whether there is such a file.
    fn load(&mut self) -> io::Result<bool> {
        let Some((slots, bytes)) = Slots::open(&self.path)? else {
            return Ok(false);
        };
        slots.make_durable(&self.path)?;
        self.known = Some(HighWater::decode(&bytes)?);
        self.slots = Some(slots);
        Ok(true)
    }

    /// What is on the disk.
    pub(super) fn known(&self) -> Option<&HighWater> {
        self.known.as_ref()
    }

    /// Makes it durable that everything before `end` may go; before it `accepted` were taken.
    pub(super) fn raise(&mut self, end: Seq, accepted: &Tally) -> io::Result<()> {
        if self.known.as_ref().is_some_and(|known| known.end >= end) {
            return Ok(());
        }
        let raised = HighWater {
            end,
            accepted: accepted.clone(),
        };
        let bytes = raised.encode()?;
        match &mut self.slots {
            Some(slots) => slots.write(&bytes)?,
            None => self.slots = Some(Slots::create(&self.path, &bytes)?),
        }
        self.known = Some(raised);
        Ok(())
    }
}

/// From where on the journal must have everything: the place of the least cursor, or the high
/// water where cursors are missing, cannot be read, or fell back behind it.
pub(super) fn floor<T>(
    cursors: impl Iterator<Item = (Seq, T)>,
    has_unreadable: bool,
    high_water: Option<(Seq, T)>,
) -> Option<(Seq, T)> {
    let least = cursors.min_by_key(|(next, _)| *next);
    match (least, high_water) {
        (Some(least), Some(high)) if !has_unreadable && least.0 >= high.0 => Some(least),
        (_, Some(high)) => Some(high),
        (least, None) => least,
    }
}

/// How far the log must have come: the furthest place that anything tells of, and as many
/// events as any of it accounts for.
pub(super) fn reached(places: impl Iterator<Item = (Seq, Tally)>) -> Option<(Seq, Tally)> {
    places.reduce(|one, other| {
        let seq = one.0.max(other.0);
        let most = [one.1, other.1].into_iter().max_by_key(Tally::total);
        (seq, most.unwrap_or_default())
    })
}

/// Events behind a sequence that are known, as one of the ways out has delivered them ahead.
pub(super) fn beyond<'a>(seq: Seq, ways: impl Iterator<Item = &'a Position>) -> Tally {
    let beyond = ways.map(|way| way.beyond(seq));
    beyond.max_by_key(Tally::total).unwrap_or_default()
}

/// The range of records that are missing behind the `end` of the log, and their events as far as
/// they are known, when it had come to `reached` and a way out had counted those `beyond` its
/// end. The events decide whether any are: numbers alone may have been left out.
pub(super) fn missing_behind(
    end: &(Seq, Tally),
    reached: &(Seq, Tally),
    beyond: Tally,
) -> Option<((Seq, Seq), Tally)> {
    let fewer = match reached.1.total() > end.1.total() {
        true => reached.1.minus(&end.1),
        false => Tally::default(),
    };
    let most = [fewer, beyond].into_iter().max_by_key(Tally::total);
    let events = most.filter(|most| !most.is_empty() && end.0 < reached.0)?;
    Some((missing_range(end.0, reached.0, events.total()), events))
}

/// The range of records that are missing between two places, with so many events. Where a start
/// has left numbers out between them, before the records, there are no more records than events.
pub(super) fn missing_range(first: Seq, end: Seq, events: u64) -> (Seq, Seq) {
    let numbers = end.0.saturating_sub(first.0);
    let records = match numbers >= UNKNOWN_RANGE {
        true => numbers.min(events.max(1)),
        false => numbers,
    };
    (Seq(end.0 - records), end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_behind_the_end_is_told_by_events() {
        let place = |seq, events| {
            let mut tally = Tally::default();
            (0..events).for_each(|_| tally.merge(&Tally::rejected()));
            (Seq(seq), tally)
        };
        let missing = |end, reached| {
            missing_behind(&end, &reached, Tally::default())
                .map(|(range, _)| (range.0.0, range.1.0))
        };
        assert_eq!(missing(place(6, 5), place(11, 10)), Some((6, 11)));
        assert_eq!(missing(place(6, 5), place(11, 6)), Some((6, 11)));
        // Numbers were left out.
        assert_eq!(missing(place(6, 5), place(1 << 33, 5)), None);
        let (first, end) = ((1 << 33) - 3, 1 << 33);
        assert_eq!(missing(place(6, 5), place(1 << 33, 8)), Some((first, end)));
        // It has more than that.
        assert_eq!(missing(place(11, 10), place(6, 5)), None);
        assert_eq!(missing(place(11, 10), place(11, 12)), None);
        let places = [place(9, 8), place(12, 7), place(3, 2)];
        assert_eq!(reached(places.into_iter()), Some((Seq(12), place(9, 8).1)));
    }

    #[test]
    fn it_is_raised_and_never_falls() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(HighWater::read(dir.path()).unwrap(), None);
        let old = HighWaterFile::open(dir.path(), false);
        assert_eq!(old.known(), None, "nobody knows");
        assert_eq!(HighWater::read(dir.path()).unwrap(), None);
        let mut file = HighWaterFile::open(dir.path(), true);
        let first = HighWater {
            end: Seq::FIRST,
            accepted: Tally::default(),
        };
        assert_eq!(file.known(), Some(&first));
        file.raise(Seq(9), &Tally::rejected()).unwrap();
        file.raise(Seq(5), &Tally::default()).unwrap();
        let raised = HighWater {
            end: Seq(9),
            accepted: Tally::rejected(),
        };
        assert_eq!(HighWater::read(dir.path()).unwrap(), Some(raised.clone()));
        for is_new in [false, true] {
            let again = HighWaterFile::open(dir.path(), is_new);
            assert_eq!(again.known(), Some(&raised));
        }
        std::fs::write(dir.path().join(FILE), b"damaged").unwrap();
        let mut file = HighWaterFile::open(dir.path(), true);
        assert_eq!(file.known(), None);
        file.raise(Seq(12), &Tally::default()).unwrap();
        let end = HighWater::read(dir.path()).unwrap().map(|kept| kept.end);
        assert_eq!(end, Some(Seq(12)));
    }

    #[test]
    fn what_must_be_there_begins_where_the_slowest_way_out_is() {
        let floor = |cursors: &[u64], has_unreadable, high: Option<u64>| {
            let cursors = cursors.iter().map(|next| (Seq(*next), ()));
            super::floor(cursors, has_unreadable, high.map(|high| (Seq(high), ())))
                .map(|(seq, ())| seq.0)
        };
        assert_eq!(floor(&[9, 7], false, Some(5)), Some(7));
        assert_eq!(floor(&[9, 7], true, Some(5)), Some(5));
        assert_eq!(floor(&[9, 3], false, Some(5)), Some(5), "one fell back");
        assert_eq!(floor(&[], false, Some(5)), Some(5));
        assert_eq!(floor(&[9, 7], false, None), Some(7));
        assert_eq!(floor(&[], false, None), None);
    }
}
