//! `holdfast journal find ID`: where an event is, by its id: in the log, and which ways out
//! have passed it; among the dead letters of this host. What was delivered everywhere is
//! deleted with its generation: then only the far end knows it.
//!
//! Exit codes: 0 found, 1 not found here, or something that was looked through is lost.

use super::record::{describe, kind};
use crate::cli::lost;
use crate::cli::site::{Place, Site};
use crate::cli::text::fact;
use crate::dead_letters::Desk;
use crate::dlq::{DEAD_LETTERS, Letter};
use crate::event::batch::Batch;
use crate::event::fields::Fields;
use crate::event::identity::Seq;
use crate::event::webhook::Stored;
use crate::journal::{Directory, Found, Kind, Record};
use clap::Args as ClapArgs;
use serde::Serialize;
use serde_json::Value;
use std::io::Write as _;
use std::ops::ControlFlow;
use std::process::ExitCode;

/// Places of one id that are shown: a client that sends again and again has many.
const FOUND_MAX: usize = 100;

/// Which event.
#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct Args {
    #[command(flatten)]
    pub(super) place: Place,
    /// The event's id; of a webhook the id in its body.
    id: String,
    /// One JSON document instead of text.
    #[arg(long)]
    json: bool,
}

/// Where an id was found.
#[derive(Debug, Serialize)]
struct Traces {
    id: String,
    log: Vec<Trace>,
    dead_letters: Vec<Letter>,
    /// Ranges of the log that cannot be read: it may have been there.
    lost: Vec<String>,
}

/// In one request of the log.
#[derive(Debug, Serialize)]
struct Trace {
    seq: u64,
    indexes: Vec<usize>,
    received_at: String,
    kind: &'static str,
    /// Ways out that have passed it: delivered, set aside or skipped.
    passed: Vec<String>,
    /// Ways out that still have to.
    pending: Vec<String>,
    record: Value,
}

pub(super) async fn run(site: &Site, args: &Args) -> anyhow::Result<ExitCode> {
    let directory = super::open(site)?;
    let mut traces = Traces {
        id: args.id.clone(),
        log: Vec::new(),
        dead_letters: letters(site, &args.id).await?,
        lost: Vec::new(),
    };
    directory.walk(Seq(0), Seq(u64::MAX), &mut |found| {
        match found {
            Found::Record(record) => traces.log.extend(trace(&directory, &record, &args.id)),
            Found::Lost(loss) => traces.lost.push(lost(&loss)),
        }
        if traces.log.len() >= FOUND_MAX {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    })?;
    let is_found = !traces.log.is_empty() || !traces.dead_letters.is_empty();
    let mut out = std::io::stdout();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &traces)?;
        writeln!(out)?;
    } else {
        out.write_all(render(&traces).as_bytes())?;
    }
    for range in &traces.lost {
        eprintln!("LOST: {range}");
    }
    if !is_found {
        eprintln!(
            "it is not in this host's log: never taken here, or delivered by every way out and deleted with its generation"
        );
    }
    Ok(if is_found && traces.lost.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// What a record has of the id.
fn trace(directory: &Directory, record: &Record, id: &str) -> Option<Trace> {
    // Most records do not hold the text at all.
    memchr::memmem::find(&record.content, id.as_bytes())?;
    let indexes = indexes(record, id);
    if indexes.is_empty() {
        return None;
    }
    let mut shown = describe(record, &[])?;
    let received_at = shown["received_at"].as_str().unwrap_or_default().to_owned();
    if let Some(events) = shown.get_mut("events").and_then(Value::as_array_mut) {
        let is_it = |event: &Value| {
            let index = event["index"]
                .as_u64()
                .and_then(|at| usize::try_from(at).ok());
            index.is_some_and(|at| indexes.contains(&at))
        };
        events.retain(is_it);
    }
    let (passed, pending): (Vec<_>, Vec<_>) = directory
        .cursors()
        .iter()
        .partition(|cursor| cursor.has_passed(record.seq));
    let names = |cursors: Vec<&crate::journal::CursorInfo>| {
        cursors.into_iter().map(|c| c.name.clone()).collect()
    };
    Some(Trace {
        seq: record.seq.0,
        indexes,
        received_at,
        kind: kind(record),
        passed: names(passed),
        pending: names(pending),
        record: shown,
    })
}

fn indexes(record: &Record, id: &str) -> Vec<usize> {
    if let Kind::Webhook(_) = record.kind {
        let stored = Stored::decode(&record.content);
        let is_it = stored.is_ok_and(|stored| {
            Fields::of_body(&stored.body).is_ok_and(|fields| {
                let names = ["id", "eventId", "event_id"];
                let found = |name| fields.loose_text(name).ok().flatten();
                names
                    .into_iter()
                    .any(|name| found(name).as_deref() == Some(id))
            })
        });
        return is_it.then_some(0).into_iter().collect();
    }
    let Ok(batch) = Batch::decode(&record.content[..]) else {
        return Vec::new();
    };
    let events = batch.events.iter().enumerate();
    events
        .filter(|(_, event)| event.id == id)
        .map(|(at, _)| at)
        .collect()
}

/// Dead letters of this host that hold the id.
async fn letters(site: &Site, id: &str) -> anyhow::Result<Vec<Letter>> {
    let mut found = Vec::new();
    let Some(desk) = Desk::open(&site.data_dir) else {
        return Ok(found);
    };
    let mut after = 0;
    loop {
        let page = desk.waiting(after).await?;
        let Some(last) = page.last() else {
            break;
        };
        after = last.id;
        let holds = page
            .iter()
            .filter(|kept| memchr::memmem::find(&kept.letter.body, id.as_bytes()).is_some());
        found.extend(holds.map(|kept| Letter::of_kept(DEAD_LETTERS, kept)));
        if found.len() >= FOUND_MAX {
            break;
        }
    }
    desk.close().await;
    Ok(found)
}

fn render(traces: &Traces) -> String {
    let mut text = String::new();
    for trace in &traces.log {
        let places: Vec<_> = trace.indexes.iter().map(ToString::to_string).collect();
        let request = format!(
            "request {} ({}), event {}, received {}",
            trace.seq,
            trace.kind,
            places.join(", "),
            trace.received_at
        );
        text.push_str(&fact("log", &request));
        let none = |ways: &[String]| {
            if ways.is_empty() {
                "no way out".to_owned()
            } else {
                ways.join(", ")
            }
        };
        text.push_str(&fact("", &format!("passed by {}", none(&trace.passed))));
        text.push_str(&fact("", &format!("pending for {}", none(&trace.pending))));
        if let Some(reason) = trace.record["reason"].as_str() {
            text.push_str(&fact("", &format!("refused at the door: {reason}")));
        }
    }
    for letter in &traces.dead_letters {
        let line = format!(
            "number {} of {}, request {}: {}",
            letter.id, letter.queue, letter.seq, letter.reason
        );
        text.push_str(&fact("set aside", &line));
    }
    text
}
