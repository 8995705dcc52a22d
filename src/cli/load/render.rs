//! A run's figures and judgement, as a document and as text of 80 columns. Called by `run`.
//!
//! # Invariants
//! - Names of numbers carry their units.
//! - No line is wider than a terminal (test `a_result_fits_a_terminal`).

use super::super::text::{Cell, count, fact, size, table};
use super::figures::{Figures, Percentile};
use super::plan::{End, Plan};
use crate::app::arrivals::{Report, TableReport};
use serde::Serialize;
use serde_json::{Map, Value as Json, json};
use std::time::Duration;

/// What a run was, and its figures.
#[derive(Debug)]
pub(super) struct Outcome<'a> {
    pub(super) run: &'a str,
    pub(super) address: &'a str,
    pub(super) plan: &'a Plan,
    pub(super) figures: &'a Figures,
}

impl Outcome<'_> {
    fn acked_events(&self) -> u64 {
        self.figures.acked_calls * self.plan.batch_events as u64
    }

    fn per_s(&self, number: u64) -> f64 {
        let measured = self.figures.measured().as_secs_f64();
        if measured > 0.0 {
            number as f64 / measured
        } else {
            0.0
        }
    }

    /// The figures as a document; that of a check is put beside them.
    pub(super) fn document(&self, check: Option<&Report>) -> serde_json::Result<Json> {
        let (plan, figures) = (self.plan, self.figures);
        let refused = figures.refused.iter();
        let told = refused.map(|(code, refused)| {
            let entry = json!({ "calls": refused.calls, "first_message": refused.message });
            ((*code).to_owned(), entry)
        });
        let mut document = json!({
            "run": self.run,
            "seed": plan.seed,
            "address": self.address,
            "loop": plan.loop_name(),
            "latency_from": plan.latency_from(),
            "connections": plan.connections,
            "in_flight_calls": plan.in_flight,
            "batch_events": plan.batch_events,
            "event_bytes": plan.event_bytes,
            "types": plan.types.len(),
            "rate_calls_per_s": plan.rate,
            "warm_up_s": plan.warm_up.as_secs_f64(),
            "warm_up_calls": figures.warm_up_calls,
            "measured_s": figures.measured().as_secs_f64(),
            "acked_calls": figures.acked_calls,
            "acked_events": self.acked_events(),
            "acked_bytes": figures.acked_bytes,
            "calls_per_s": self.per_s(figures.acked_calls),
            "events_per_s": self.per_s(self.acked_events()),
            "bytes_per_s": self.per_s(figures.acked_bytes),
            "refused": told.collect::<Map<_, _>>(),
            "due_not_sent_calls": figures.due_not_sent_calls,
            "ended_early": figures.is_full,
        });
        for Percentile {
            name,
            us,
            calls_above,
        } in figures.percentiles()
        {
            let name = name.replace('.', "");
            document[format!("latency_{name}_us")] = us.into();
            document[format!("latency_{name}_above_calls")] = calls_above.into();
        }
        if let Some(check) = check {
            document["check"] = serde_json::to_value(check)?;
        }
        Ok(document)
    }

    /// The figures as text.
    pub(super) fn text(&self) -> String {
        let (plan, figures) = (self.plan, self.figures);
        let mut text = fact("run", &format!("{}, seed {}", self.run, plan.seed));
        text.push_str(&fact("to", self.address));
        let from = plan.latency_from();
        let how = match plan.rate {
            Some(rate) => format!("open loop, {rate} calls/s"),
            None => "closed loop".to_owned(),
        };
        let load = format!(
            "{how}; at most {} in flight over {} of {} of about {} bytes; latency counts from \
             the {from}",
            count(plan.in_flight as u64, "call"),
            count(plan.connections as u64, "connection"),
            count(plan.batch_events as u64, "event"),
            plan.event_bytes,
        );
        text.push_str(&fact("load", &load));
        text.push_str(&fact("measured", &self.measured()));
        let acked = format!(
            "{}, {}, {}",
            count(figures.acked_calls, "call"),
            count(self.acked_events(), "event"),
            size(figures.acked_bytes)
        );
        text.push_str(&fact("acked", &acked));
        let rates = format!(
            "{:.1} calls/s, {:.0} events/s, {}/s",
            self.per_s(figures.acked_calls),
            self.per_s(self.acked_events()),
            size(self.per_s(figures.acked_bytes) as u64)
        );
        text.push_str(&fact("", &rates));
        if figures.refused.is_empty() {
            text.push_str(&fact("refused", "none"));
        }
        for (code, refused) in &figures.refused {
            let calls = count(refused.calls, "call");
            let line = format!("{calls} with {code}, first: {}", refused.message);
            text.push_str(&fact("refused", &line));
        }
        if figures.due_not_sent_calls > 0 {
            let calls = count(figures.due_not_sent_calls, "call");
            let line = format!(
                "{calls} due and not sent when the time was up: the rate was not kept, and \
                 they are in no latency"
            );
            text.push_str(&fact("NOT SENT", &line));
        }
        if figures.is_full {
            text.push_str(&fact("ENDED", "early: no more events can be remembered"));
        }
        let rows = figures.percentiles().into_iter().map(|told| {
            vec![
                Cell::Text(told.name.to_owned()),
                Cell::Right(milliseconds(told.us)),
                Cell::Number(told.calls_above),
            ]
        });
        let rows: Vec<_> = rows.collect();
        text.push('\n');
        text.push_str(&table(&["LATENCY", "MS", "CALLS ABOVE"], &rows));
        text
    }

    fn measured(&self) -> String {
        let measured = self.figures.measured().as_secs_f64();
        let end = match self.plan.end {
            End::After(duration) => humantime::format_duration(duration).to_string(),
            End::Calls(calls) => count(calls, "call"),
        };
        let mut text = format!("{measured:.2} s of {end}");
        if self.plan.warm_up > Duration::ZERO {
            let warm_up = humantime::format_duration(self.plan.warm_up);
            let calls = count(self.figures.warm_up_calls, "call");
            text.push_str(&format!(", after {calls} in a warm-up of {warm_up}"));
        }
        text
    }
}

fn milliseconds(us: u64) -> String {
    format!("{}.{:03}", us / 1000, us % 1000)
}

/// The judgement of a record of another run.
#[derive(Debug, Serialize)]
pub(super) struct Judged<'a> {
    pub(super) run: &'a str,
    pub(super) check: &'a Report,
}

/// Takes one figure.
type Figure = fn(&TableReport) -> u64;

/// Columns that are left out where they are zero throughout.
const COLUMNS: [(&str, Figure); 4] = [
    ("UNKNOWN", |table| table.rows.unknown),
    ("NEVER SENT", |table| table.rows.never_sent),
    ("IN ERROR_EVENTS", |table| table.error_rows),
    ("RAW DUPLICATES", |table| {
        table.raw_duplicate_rows.unwrap_or(0)
    }),
];

/// The judgement as text.
pub(super) fn check(report: &Report) -> String {
    let shown: Vec<_> = COLUMNS
        .iter()
        .filter(|(_, of)| report.tables.iter().any(|table| of(table) > 0))
        .collect();
    let mut head = vec!["CHECK", "ACKED", "ROWS", "MISSING", "TWICE"];
    head.extend(shown.iter().map(|(name, _)| *name));
    let rows = report.tables.iter().map(|of_sink| {
        let mut row = vec![
            Cell::Text(of_sink.sink.to_owned()),
            Cell::Number(report.events_acked),
            Cell::Number(of_sink.rows.rows),
            Cell::Number(of_sink.rows.missing),
            Cell::Number(of_sink.rows.twice),
        ];
        row.extend(shown.iter().map(|(_, of)| Cell::Number(of(of_sink))));
        row
    });
    let rows: Vec<_> = rows.collect();
    let mut text = format!("\n{}", table(&head, &rows));
    for of_sink in &report.tables {
        let found = &of_sink.rows;
        let missing = format!("missing in {}", of_sink.sink);
        text.push_str(&names(&missing, &found.missing_ids, found.missing));
        let twice = format!("twice in {}", of_sink.sink);
        text.push_str(&names(&twice, &found.twice_ids, found.twice));
        let never = format!("never sent, in {}", of_sink.sink);
        text.push_str(&names(&never, &found.never_sent_ids, found.never_sent));
    }
    text.push('\n');
    for of_sink in &report.tables {
        if let Some(ms) = of_sink.visible_after_ms {
            let line = format!(
                "all in {} at most {} ms after the last acknowledgement",
                of_sink.sink, ms
            );
            text.push_str(&fact("visible", &line));
        }
    }
    if report.events_unknown > 0 {
        let events = count(report.events_unknown, "event");
        let line = format!("{events} sent and not acknowledged: each may be there or not");
        text.push_str(&fact("unknown", &line));
    }
    let is_missing = report.tables.iter().any(|table| table.rows.missing > 0);
    let verdict = if report.is_clean() {
        "complete: every acknowledged event is there once"
    } else if is_missing {
        "NOT COMPLETE: what is missing may still be on its way (--check-timeout, or --save \
         and later --saved)"
    } else {
        "NOT CLEAN: see above"
    };
    text.push_str(&fact("check", verdict));
    text
}

fn names(what: &str, ids: &[String], all: u64) -> String {
    if all == 0 {
        return String::new();
    }
    let mut text = format!("{what}:\n");
    for id in ids {
        text.push_str(&fact("", id));
    }
    let more = all.saturating_sub(ids.len() as u64);
    if more > 0 {
        text.push_str(&fact("", &format!("and {more} more")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::super::text::WIDTH;
    use super::super::drive::Answer;
    use super::super::plan::tests::plan;
    use super::*;
    use crate::app::arrivals::Rows;
    use tokio::time::Instant;

    fn figures() -> Figures {
        let now = Instant::now();
        let mut figures = Figures::new(now);
        let at = now + Duration::from_secs(2);
        for _ in 0..3 {
            figures.note(at, Some(Duration::from_micros(1500)), 1000, Answer::Acked);
        }
        let refused = Answer::Refused {
            code: "RESOURCE_EXHAUSTED",
            message: "the log is full ".repeat(20),
        };
        figures.note(at, Some(Duration::ZERO), 1000, refused);
        figures.note(at, None, 1000, Answer::Acked);
        figures.due_not_sent_calls = u64::MAX;
        figures.is_full = true;
        figures
    }

    fn report(number: u64) -> Report {
        let ids = vec!["abcdefghij012345-0001-0000000001".to_owned(); 5];
        let of_sink = |sink| TableReport {
            sink,
            rows: Rows {
                rows: number,
                missing: number,
                missing_ids: ids.clone(),
                twice: number,
                twice_ids: ids.clone(),
                unknown: number,
                never_sent: number,
                never_sent_ids: ids.clone(),
            },
            error_rows: number,
            raw_duplicate_rows: Some(number),
            visible_after_ms: Some(number),
        };
        Report {
            events_acked: number,
            events_unknown: number,
            tables: vec![of_sink("clickhouse"), of_sink("postgres")],
        }
    }

    fn outcome<'a>(plan: &'a Plan, figures: &'a Figures) -> Outcome<'a> {
        Outcome {
            run: "abcdefghij012345",
            address: "http://127.0.0.1:8017",
            plan,
            figures,
        }
    }

    #[test]
    fn a_result_fits_a_terminal() {
        let (mut plan, figures) = (plan(), figures());
        for rate in [None, Some(123_456.5)] {
            plan.rate = rate;
            plan.warm_up = Duration::from_millis(1500);
            let mut text = outcome(&plan, &figures).text();
            for number in [5, 1_234_567, u64::MAX] {
                text.push_str(&check(&report(number)));
            }
            for line in text.lines() {
                assert!(line.chars().count() <= WIDTH, "{line}");
            }
            for said in ["1.5", "RESOURCE_EXHAUSTED", "NOT SENT", "and 1234562 more"] {
                assert!(text.contains(said), "{said}: {text}");
            }
        }
    }

    #[test]
    fn a_document_has_every_figure_with_its_unit() {
        let (plan, figures) = (plan(), figures());
        let document = outcome(&plan, &figures).document(Some(&report(7))).unwrap();
        for (name, value) in [
            ("acked_calls", json!(3)),
            ("acked_events", json!(30)),
            ("acked_bytes", json!(3000)),
            ("calls_per_s", json!(1.5)),
            ("events_per_s", json!(15.0)),
            ("bytes_per_s", json!(1500.0)),
            ("warm_up_calls", json!(1)),
            ("loop", json!("closed")),
            ("latency_from", json!("send")),
            ("latency_p50_us", json!(1500)),
            ("latency_p999_us", json!(1500)),
            ("latency_max_us", json!(1500)),
            ("latency_p99_above_calls", json!(0)),
        ] {
            assert_eq!(document[name], value, "{name}: {document}");
        }
        assert_eq!(document["refused"]["RESOURCE_EXHAUSTED"]["calls"], 1);
        let table = &document["check"]["tables"][1];
        assert_eq!(table["sink"], "postgres");
        assert_eq!(table["missing"], 7);
        assert_eq!(table["visible_after_ms"], 7);
    }
}
