//! The table, and its figures as JSON. Called by `main`.
//!
//! # Invariants
//! - A figure is the median of the rounds; the spread is what lies between the least and the
//!   most of them, as a share of the median.

use serde_json::json;
use std::collections::BTreeMap;

/// Characters of a line of a trace.
const LINE_CHARS: usize = 150;

/// Lines of an excerpt.
const LINES: usize = 8;

/// One measurement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) in_flight: usize,
    pub(crate) per_s: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
}

/// All of a system.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    about: String,
    /// Whether the trace showed a sync before each acknowledgement; absent where nothing
    /// is stored.
    pub(crate) synced: Option<bool>,
    pub(crate) places: Vec<Place>,
    /// Payloads, of all rounds.
    pub(crate) acked: u64,
    pub(crate) stored: u64,
    /// What fails the command.
    pub(crate) wrong: Vec<String>,
}

impl Row {
    pub(crate) fn new(name: &'static str, about: String) -> Self {
        Self {
            name,
            about,
            synced: None,
            places: Vec::new(),
            acked: 0,
            stored: 0,
            wrong: Vec::new(),
        }
    }

    /// Figures by payloads in flight.
    fn figures(&self) -> BTreeMap<usize, Figures> {
        let mut of: BTreeMap<usize, Vec<Place>> = BTreeMap::new();
        for place in &self.places {
            of.entry(place.in_flight).or_default().push(*place);
        }
        let figures = of.into_iter().map(|(in_flight, places)| {
            let median = |of: fn(&Place) -> f64| median(places.iter().map(of).collect());
            let rates: Vec<_> = places.iter().map(|place| place.per_s).collect();
            let (least, most) = rates.iter().fold((f64::MAX, 0.0), |(least, most), rate| {
                (rate.min(least), rate.max(most))
            });
            let per_s = median(|place| place.per_s);
            let figures = Figures {
                per_s,
                p50_ms: median(|place| place.p50_ms),
                p99_ms: median(|place| place.p99_ms),
                spread: (most - least) / per_s,
                rates,
            };
            (in_flight, figures)
        });
        figures.collect()
    }
}

struct Figures {
    per_s: f64,
    p50_ms: f64,
    p99_ms: f64,
    spread: f64,
    rates: Vec<f64>,
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    let (low, high) = (of.len().saturating_sub(1) / 2, of.len() / 2);
    let at = |at: usize| of.get(at).copied().unwrap_or(f64::NAN);
    (at(low) + at(high)) / 2.0
}

/// The table, for a README.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut text = "| what | syncs before the ack? | 1 in flight /s | 256 in flight /s | p99 ms | spread |\n|---|---|---|---|---|---|\n".to_owned();
    for row in rows {
        let figures = row.figures();
        let [one, many] = crate::IN_FLIGHT.map(|in_flight| figures.get(&in_flight));
        let rate = |of: Option<&Figures>| cell(of, |of| thousands(of.per_s));
        let synced = match row.synced {
            Some(true) => "yes",
            Some(false) => "no",
            None => "-",
        };
        text += &format!(
            "| {} | {synced} | {} | {} | {} | {} |\n",
            row.about,
            rate(one),
            rate(many),
            cell(many, |of| format!("{:.1}", of.p99_ms)),
            cell(many, |of| format!("{:.0} %", of.spread * 100.0)),
        );
    }
    text
}

fn cell(of: Option<&Figures>, show: impl Fn(&Figures) -> String) -> String {
    of.map_or("-".to_owned(), show)
}

/// A whole number with commas.
fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A line for each figure.
pub(crate) fn json(rows: &[Row]) -> anyhow::Result<String> {
    let mut text = String::new();
    for row in rows {
        for (in_flight, of) in row.figures() {
            let line = json!({
                "name": row.name,
                "in_flight": in_flight,
                "per_s": of.per_s,
                "p50_ms": of.p50_ms,
                "p99_ms": of.p99_ms,
                "rounds": of.rates.len(),
                "per_s_by_round": of.rates,
                "spread": of.spread,
                "synced": row.synced,
                "acked_payloads": row.acked,
                "stored_payloads": row.synced.map(|_| row.stored),
            });
            text += &serde_json::to_string(&line)?;
            text.push('\n');
        }
    }
    Ok(text)
}

/// The lines of a trace, as a screen has room for them.
pub(crate) fn excerpt(lines: &[String], data_dir: &str) -> Vec<String> {
    let mut shown: Vec<_> = lines
        .iter()
        .map(|line| short(&line.replace(data_dir, "DATA")))
        .collect();
    if shown.len() > LINES {
        let left_out = shown.len() - LINES;
        // The request's arrival, and what led to its acknowledgement.
        let told = format!("… {left_out} more lines");
        shown.splice(1..=left_out, [told]);
    }
    shown
}

/// The begin and the end of a long line: a call, and its result.
fn short(line: &str) -> String {
    let chars: Vec<_> = line.chars().collect();
    if chars.len() <= LINE_CHARS {
        return line.to_owned();
    }
    let end = LINE_CHARS / 4;
    let (begin, rest) = chars.split_at(LINE_CHARS - end);
    let end = &rest[rest.len().saturating_sub(end)..];
    format!("{} … {}", String::from_iter(begin), String::from_iter(end))
}
