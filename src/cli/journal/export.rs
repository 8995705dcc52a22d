//! `holdfast journal export`: records written out, to be sent again or kept.
//!
//! - `ndjson`: one `event.Events` as protobuf JSON a line, which `holdfast
//!   dispatch` and `POST /events` take.
//! - `pb`: each `event.Events` as protobuf behind its length (a varint), byte for
//!   byte as the client sent it unless types are chosen.
//!
//! Requests that the door refused were never accepted; they are written only with
//! `--rejected`.
//!
//! Exit codes: 0 everything that was asked for is written, 1 something is lost, or
//! has no JSON form and was left out; stderr says what.
//!
//! # Invariants
//! - What JSON cannot carry whole is left out whole, counted and named, never
//!   written in part (test `what_json_cannot_carry_is_left_out_and_named`).
//! - An event sent again from an ndjson file gives the row that this host would
//!   have given: a time ahead of this host's clock is written as the time of
//!   receipt (test `a_time_ahead_of_the_clock_is_written_as_the_time_of_receipt`).

use super::output::Target;
use super::select::{TypeFilter, takes, takes_webhook};
use crate::cli::lost;
use crate::cli::moment::parse_moment;
use crate::cli::site::{Place, Site};
use crate::cli::text::count;
use crate::event::batch::{self, Batch};
use crate::event::descriptor::EventType;
use crate::event::identity::Seq;
use crate::event::reflected::Event;
use crate::event::split::DecodeError;
use crate::event::{json, split, validate};
use crate::journal::{Found, Kind, Loss, Record};
use clap::{Args as ClapArgs, ValueEnum};
use prost::Message as _;
use prost_reflect::DynamicMessage;
use std::collections::BTreeMap;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;

/// Left-out events and lost ranges that are named one by one; all are counted.
const NAMED_MAX: u64 = 20;

/// Which records, and where to.
#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct Args {
    #[command(flatten)]
    pub(super) place: Place,
    /// From this sequence.
    #[arg(long, value_name = "SEQ", default_value_t = 0)]
    from: u64,
    /// Up to before this sequence.
    #[arg(long, value_name = "SEQ")]
    to: Option<u64>,
    /// Only events of this type; may be given several times.
    #[arg(long = "type", value_name = "EVENT", value_parser = TypeFilter::parse)]
    types: Vec<TypeFilter>,
    /// Only what was received since: 2026-01-31T12:00:00Z, or 90m for so long ago.
    #[arg(long, value_name = "TIME", value_parser = parse_moment)]
    since: Option<i64>,
    /// Only what was received before.
    #[arg(long, value_name = "TIME", value_parser = parse_moment)]
    until: Option<i64>,
    /// Also requests that the door refused and kept for diagnosis.
    #[arg(long)]
    rejected: bool,
    /// How to write them.
    #[arg(long, value_enum, default_value_t = Format::Ndjson)]
    format: Format,
    /// Into this file instead of stdout.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The same as the format ndjson.
    #[arg(long, conflicts_with = "format")]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Ndjson,
    Pb,
}

pub(super) fn run(site: &Site, args: &Args) -> anyhow::Result<ExitCode> {
    let directory = super::open(site)?;
    let mut to = Target::open(args.output.as_deref())?;
    let mut export = Export::new(args);
    let mut result = Ok(());
    let end = Seq(args.to.unwrap_or(u64::MAX));
    directory.walk(Seq(args.from), end, &mut |found| {
        match found {
            Found::Record(record) => result = export.record(&record, &mut to),
            Found::Lost(loss) => export.lost(&loss),
        }
        if result.is_err() {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    })?;
    result?;
    to.finish()?;
    Ok(export.report())
}

/// An export under way, and what it has to say at the end.
struct Export<'a> {
    args: &'a Args,
    requests: u64,
    events: u64,
    rejected: u64,
    /// Events that JSON cannot carry, by type.
    left_out: BTreeMap<String, u64>,
    lost: u64,
    named: u64,
}

impl<'a> Export<'a> {
    fn new(args: &'a Args) -> Self {
        Self {
            args,
            requests: 0,
            events: 0,
            rejected: 0,
            left_out: BTreeMap::new(),
            lost: 0,
            named: 0,
        }
    }

    /// Names one thing that is missing in the output.
    fn name(&mut self, what: &str) {
        self.named += 1;
        if self.named <= NAMED_MAX {
            eprintln!("{what}");
        }
    }

    fn lost(&mut self, loss: &Loss) {
        self.lost += loss.records();
        self.name(&format!("LOST: {}", lost(loss)));
    }

    fn is_wanted(&self, record: &Record) -> bool {
        let at = record.received_at_ms;
        self.args.since.is_none_or(|since| at >= since)
            && self.args.until.is_none_or(|until| at < until)
    }

    fn record(&mut self, record: &Record, to: &mut impl Write) -> anyhow::Result<()> {
        if !self.is_wanted(record) {
            return Ok(());
        }
        if record.kind == Kind::Rejected && !self.args.rejected {
            self.rejected += 1;
            return Ok(());
        }
        if let Kind::Webhook(source) = record.kind {
            // No dispatch takes it; `peek` shows it whole.
            if takes_webhook(&self.args.types, source) {
                self.left_out(record.seq, source.event_name(), "a webhook", 1);
            }
            return Ok(());
        }
        let content = &record.content[..];
        let read = || Ok::<_, DecodeError>((frame(content)?, Batch::decode(content)?.events));
        let (frame, all) = match read() {
            Ok(read) => read,
            Err(error) => {
                self.left_out(record.seq, "unreadable", &error.to_string(), 1);
                return Ok(());
            }
        };
        let chosen: Vec<_> = all
            .iter()
            .enumerate()
            .filter(|(_, event)| takes(&self.args.types, &EventType::of(event)))
            .collect();
        if chosen.is_empty() && !self.args.types.is_empty() {
            return Ok(());
        }
        match self.args.format {
            Format::Pb => {
                let count = chosen.len() as u64;
                let bytes = if chosen.len() == all.len() {
                    record.content.clone()
                } else {
                    let events = chosen.iter().map(|(_, event)| event.encode_to_vec());
                    let events = batch::encode(None, events);
                    [frame.encode_to_vec(), events].concat().into()
                };
                let mut length = Vec::new();
                prost::encode_length_delimiter(bytes.len(), &mut length)?;
                to.write_all(&length)?;
                to.write_all(&bytes)?;
                self.wrote(count);
            }
            Format::Ndjson => self.json(record, &frame, chosen, to)?,
        }
        Ok(())
    }

    fn json(
        &mut self,
        record: &Record,
        frame: &DynamicMessage,
        chosen: Vec<(usize, &Event)>,
        to: &mut impl Write,
    ) -> anyhow::Result<()> {
        let frame_is_whole = json::carries(frame);
        let had_events = !chosen.is_empty();
        let mut events = Vec::new();
        for (index, event) in chosen {
            if frame_is_whole && event.is_known() {
                events.push(as_received(event, record.received_at_ms));
            } else {
                let name = EventType::of(event).name();
                let what = format!("event {index}, {name}");
                self.left_out(record.seq, &name, &what, 1);
            }
        }
        if events.is_empty() && (had_events || !frame_is_whole) {
            if !had_events {
                self.left_out(record.seq, "no events", "a request without events", 0);
            }
            return Ok(());
        }
        let count = events.len() as u64;
        let header = split::header_of(frame);
        let header = header.as_ref().map(json::encode).transpose()?;
        let mut line = json::encode_batch(header.as_deref(), &events)?;
        line.push(b'\n');
        to.write_all(&line)?;
        self.wrote(count);
        Ok(())
    }

    fn wrote(&mut self, events: u64) {
        self.requests += 1;
        self.events += events;
    }

    fn left_out(&mut self, seq: Seq, name: &str, what: &str, events: u64) {
        *self.left_out.entry(name.to_owned()).or_default() += events;
        self.name(&format!("left out: sequence {seq}, {what}"));
    }

    fn report(&self) -> ExitCode {
        if self.named > NAMED_MAX {
            eprintln!("… and {} more", self.named - NAMED_MAX);
        }
        eprintln!(
            "exported {} in {}",
            count(self.events, "event"),
            count(self.requests, "request")
        );
        if self.rejected > 0 {
            eprintln!(
                "{} that the door had refused are not in it (--rejected)",
                count(self.rejected, "request")
            );
        }
        for (name, events) in &self.left_out {
            eprintln!(
                "LEFT OUT: {} {name}: fields that this build does not know have no JSON form (--format pb has them)",
                count(*events, "event")
            );
        }
        if self.lost > 0 {
            eprintln!("LOST: {} in all", count(self.lost, "request"));
        }
        if self.left_out.is_empty() && self.lost == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}

/// A batch without its events; all else stays.
fn frame(batch: &[u8]) -> Result<DynamicMessage, DecodeError> {
    let mut frame = split::decode(batch)?;
    frame.clear_field_by_name("events");
    Ok(frame)
}

/// As the ways out deliver it: a time ahead of the host's clock is the time of
/// receipt.
fn as_received(event: &Event, received_at_ms: i64) -> Event {
    let mut event = event.clone();
    let ahead = validate::timestamp_ms(&event.timestamp).is_ok_and(|at_ms| at_ms > received_at_ms);
    if ahead {
        event.timestamp = received_at_ms.to_string();
    }
    event
}

#[cfg(test)]
#[path = "export_tests.rs"]
mod tests;
