//! What the page draws: totals over time and outages, since the service started. Fed by
//! `serve` with a look a second, read by `page`.
//!
//! Points hold totals, not rates: who draws them takes the difference of any two. They lie
//! on a clock that does not jump, so that a host whose clock is set keeps its picture.
//!
//! # Invariants
//! - Bounded: [`FINE_MAX`] points of a second, [`COARSE_MAX`] of a minute, [`MARKS_MAX`]
//!   outages of each track with texts of [`TEXT_CHARS_MAX`] (test
//!   `a_long_life_fits_its_bounds`).
//! - An outage has one mark, however often its words change or it is interrupted for a
//!   moment; a connection that is being made, or a start, is none (tests below).
//! - A peak between two coarse points is in the second of them (test
//!   `a_peak_within_a_minute_is_seen_from_afar`).

use serde::Serialize;
use std::collections::{BTreeMap, VecDeque};

/// Points of a second: ten minutes, the length of an incident's beginning.
const FINE_MAX: usize = 600;

/// Points of a minute: a day and a night.
const COARSE_MAX: usize = 1440;

/// Time between two coarse points.
const COARSE_STEP_MS: u64 = 60_000;

/// Outages that are remembered of each track; more in a day is a flapping part, of which the
/// last ones say enough.
const MARKS_MAX: usize = 16;

/// Characters of a mark's text: enough to tell one reason from another.
const TEXT_CHARS_MAX: usize = 200;

/// Parts that are well for less than this were not.
const GAP_MS: u64 = 3000;

/// A part that is not well from the first look on, and is by then, was starting.
const START_MS: u64 = 10_000;

/// One way out at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct WayPoint {
    /// Events that it ever delivered.
    pub(super) delivered: u64,
    /// Events that it has to deliver; in a coarse point the most of them since the last.
    pub(super) pending: u64,
}

/// A moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Point {
    /// Since the service started.
    pub(super) up_ms: u64,
    /// Events ever accepted.
    pub(super) accepted: u64,
    /// The log's bytes on the disk; in a coarse point the most of them since the last.
    pub(super) used_bytes: u64,
    /// The ways out.
    pub(super) ways: BTreeMap<String, WayPoint>,
}

/// What is wrong with a part at one look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Health {
    Well,
    /// Not connected, and nobody said why: at the second look in a row it is an outage.
    Unconnected,
    Ill(String),
}

/// A time during which something was wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Mark {
    /// From when on, since the service started.
    pub(super) from_up_ms: u64,
    /// Until when; absent while it lasts.
    pub(super) to_up_ms: Option<u64>,
    /// What was said last.
    pub(super) text: String,
}

/// A part, or several that have one line together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct Track {
    /// The outages, the oldest first.
    marks: VecDeque<Mark>,
    /// It was not connected at the last look.
    #[serde(skip)]
    was_unconnected: bool,
    /// It was well at some look.
    #[serde(skip)]
    was_well: bool,
}

impl Track {
    fn look(&mut self, up_ms: u64, health: &Health) {
        let text = match health {
            Health::Ill(text) => Some(text.as_str()),
            Health::Unconnected if self.was_unconnected => Some("not connected"),
            Health::Unconnected | Health::Well => None,
        };
        self.was_unconnected = *health == Health::Unconnected;
        let last = self.marks.back_mut();
        let Some(text) = text else {
            // The first look at a lost connection neither begins an outage nor ends one.
            if *health == Health::Well {
                if let Some(mark) = last {
                    mark.to_up_ms.get_or_insert(up_ms);
                }
                if !self.was_well && up_ms < START_MS {
                    self.marks.clear();
                }
                self.was_well = true;
            }
            return;
        };
        let text: String = text.chars().take(TEXT_CHARS_MAX).collect();
        match last {
            Some(mark) if mark.to_up_ms.is_none_or(|to| up_ms < to + GAP_MS) => {
                (mark.to_up_ms, mark.text) = (None, text);
            }
            _ => {
                if self.marks.len() == MARKS_MAX {
                    self.marks.pop_front();
                }
                self.marks.push_back(Mark {
                    from_up_ms: up_ms,
                    to_up_ms: None,
                    text,
                });
            }
        }
    }
}

/// The past of this process.
#[derive(Debug, Default)]
pub(super) struct History {
    fine: VecDeque<Point>,
    coarse: VecDeque<Point>,
    /// The coarse point that is being made.
    making: Option<Point>,
    tracks: BTreeMap<String, Track>,
}

/// Part of it, as the page asks for it.
#[derive(Debug, Serialize)]
pub(super) struct Past {
    /// The newest of the points of a second, or of a minute.
    points: Vec<Point>,
    /// Outages by track.
    tracks: BTreeMap<String, Track>,
}

fn push(ring: &mut VecDeque<Point>, max: usize, point: Point) {
    if ring.len() == max {
        ring.pop_front();
    }
    ring.push_back(point);
}

/// The later point, with the peaks of both.
fn with_peaks(earlier: Option<Point>, mut later: Point) -> Point {
    let Some(earlier) = earlier else {
        return later;
    };
    later.used_bytes = later.used_bytes.max(earlier.used_bytes);
    for (name, way) in &mut later.ways {
        let before = earlier.ways.get(name).map_or(0, |way| way.pending);
        way.pending = way.pending.max(before);
    }
    later
}

impl History {
    /// Takes a look. The tracks are the same ones each time.
    pub(super) fn look(
        &mut self,
        point: Point,
        tracks: impl IntoIterator<Item = (String, Health)>,
    ) {
        let up_ms = point.up_ms;
        for (name, health) in tracks {
            self.tracks.entry(name).or_default().look(up_ms, &health);
        }
        let coarse = with_peaks(self.making.take(), point.clone());
        let last_ms = self.coarse.back().map(|point| point.up_ms);
        if last_ms.is_none_or(|last| up_ms >= last + COARSE_STEP_MS) {
            push(&mut self.coarse, COARSE_MAX, coarse);
        } else {
            self.making = Some(coarse);
        }
        push(&mut self.fine, FINE_MAX, point);
    }

    /// The points after a moment: one a second, or one a minute.
    pub(super) fn past(&self, is_coarse: bool, after_up_ms: Option<u64>) -> Past {
        let ring = if is_coarse { &self.coarse } else { &self.fine };
        let is_new = |point: &&Point| after_up_ms.is_none_or(|after| point.up_ms > after);
        Past {
            points: ring.iter().filter(is_new).cloned().collect(),
            tracks: self.tracks.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(up_s: u64, pending: u64) -> Point {
        Point {
            up_ms: up_s * 1000,
            accepted: up_s * 10,
            used_bytes: pending * 100,
            ways: BTreeMap::from([(
                "w".to_owned(),
                WayPoint {
                    delivered: up_s,
                    pending,
                },
            )]),
        }
    }

    fn marks(looks: &[(u64, Health)]) -> Vec<(u64, Option<u64>, String)> {
        let mut history = History::default();
        for (at, health) in looks {
            history.look(point(*at, 0), [("p".to_owned(), health.clone())]);
        }
        let track = history.past(false, None).tracks.remove("p").unwrap();
        let marks = track.marks.into_iter();
        let seconds = |ms: u64| ms / 1000;
        marks
            .map(|mark| {
                (
                    seconds(mark.from_up_ms),
                    mark.to_up_ms.map(seconds),
                    mark.text,
                )
            })
            .collect()
    }

    fn ill(text: &str) -> Health {
        Health::Ill(text.to_owned())
    }

    #[test]
    fn an_outage_has_one_mark() {
        let looks = [
            (0, Health::Well),
            (1, ill("refused")),
            (2, ill("no route")),
            (3, Health::Well),
            (4, ill("refused")),
            (5, Health::Unconnected),
            (6, Health::Well),
            (9, ill("other")),
        ];
        let first = (1, Some(6), "refused".to_owned());
        assert_eq!(marks(&looks[..7]), std::slice::from_ref(&first));
        // Three seconds later it is another one.
        assert_eq!(marks(&looks), [first, (9, None, "other".to_owned())]);
    }

    #[test]
    fn a_connection_that_is_being_made_is_no_outage() {
        assert_eq!(marks(&[(1, Health::Unconnected), (2, Health::Well)]), []);
        let looks = [(1, Health::Unconnected), (2, Health::Unconnected)];
        assert_eq!(marks(&looks), [(2, None, "not connected".to_owned())]);
        // One that turns from a reason to none goes on.
        let looks = [(1, ill("x")), (2, Health::Unconnected), (3, ill("x"))];
        assert_eq!(marks(&looks), [(1, None, "x".to_owned())]);
    }

    #[test]
    fn a_start_is_no_outage_unless_it_takes_long() {
        let start = [(0, ill("waits")), (2, ill("waits")), (3, Health::Well)];
        assert_eq!(marks(&start), []);
        let again = [start.to_vec(), vec![(8, ill("gone")), (9, Health::Well)]].concat();
        assert_eq!(marks(&again), [(8, Some(9), "gone".to_owned())]);
        let long = [(0, ill("waits")), (10, Health::Well)];
        assert_eq!(marks(&long), [(0, Some(10), "waits".to_owned())]);
    }

    #[test]
    fn a_peak_within_a_minute_is_seen_from_afar() {
        let mut history = History::default();
        for at in 0..=120 {
            history.look(point(at, if at == 30 { 500 } else { 1 }), []);
        }
        let past = history.past(true, None);
        let pending: Vec<_> = past.points.iter().map(|p| p.ways["w"].pending).collect();
        assert_eq!(pending, [1, 500, 1]);
        let accepted: Vec<_> = past.points.iter().map(|p| p.accepted).collect();
        assert_eq!(accepted, [0, 600, 1200], "totals are those of the moment");
        assert_eq!(past.points[1].used_bytes, 50_000);
        let rest = history.past(true, Some(60_000));
        assert_eq!(rest.points, past.points[2..]);
        assert_eq!(history.past(false, Some(118_000)).points.len(), 2);
    }

    #[test]
    fn a_long_life_fits_its_bounds() {
        let mut history = History::default();
        for at in 0..100_000 {
            let is_ill = at % 20 < 10;
            let health = if is_ill {
                ill(&"é".repeat(999))
            } else {
                Health::Well
            };
            history.look(point(at, at), [("p".to_owned(), health)]);
        }
        let (fine, coarse) = (history.past(false, None), history.past(true, None));
        assert_eq!(
            (fine.points.len(), coarse.points.len()),
            (FINE_MAX, COARSE_MAX)
        );
        let marks = &fine.tracks["p"].marks;
        assert_eq!(marks.len(), MARKS_MAX);
        assert!(
            marks
                .iter()
                .all(|mark| mark.text.chars().count() == TEXT_CHARS_MAX)
        );
    }
}
