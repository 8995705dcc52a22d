//! `holdfast journal verify`: reads every block of every generation and says what
//! is lost.
//!
//! Exit codes: 0 everything is there, 1 something is lost or does not fit together.

use crate::admin::counts;
use crate::cli::lost;
use crate::cli::site::{Place, Site};
use crate::cli::text::{Cell, count, fact, table};
use crate::journal::{Loss, Report};
use clap::Args as ClapArgs;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

/// How to answer.
#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct Args {
    #[command(flatten)]
    pub(super) place: Place,
    /// One JSON document instead of text.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(site: &Site, args: &Args) -> anyhow::Result<ExitCode> {
    let directory = super::open(site)?;
    let bytes = directory.generations().iter().map(|g| g.disk_bytes).sum();
    let bar = progress(bytes);
    let report = directory.verify(&mut |read| bar.inc(read))?;
    bar.finish_and_clear();
    let mut out = std::io::stdout();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &report)?;
        writeln!(out)?;
    } else {
        out.write_all(render(&report).as_bytes())?;
    }
    Ok(if report.is_good() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn progress(bytes: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = "{bar:24} {percent:>3}% {bytes_per_sec} eta {eta}";
    ProgressBar::new(bytes).with_style(
        ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()),
    )
}

fn render(report: &Report) -> String {
    let read = format!(
        "{}, {}, {}, {}",
        count(report.generations, "generation"),
        count(report.blocks, "block"),
        count(report.records, "record"),
        count(report.events.total(), "event")
    );
    let mut text = fact("read", &read);
    let requests: u64 = report.losses.iter().map(Loss::records).sum();
    if report.losses.is_empty() {
        text.push_str(&fact("lost", "nothing"));
    }
    for loss in &report.losses {
        text.push_str(&fact("LOST", &lost(loss)));
    }
    if report.losses.len() > 1 {
        text.push_str(&fact(
            "LOST",
            &format!("{} in all", count(requests, "request")),
        ));
    }
    for problem in &report.problems {
        text.push_str(&fact("PROBLEM", problem));
    }
    let rows: Vec<_> = counts(&report.events)
        .into_iter()
        .map(|(name, events)| vec![Cell::Text(name), Cell::Number(events)])
        .collect();
    if !rows.is_empty() {
        text.push('\n');
        text.push_str(&table(&["EVENT TYPE", "EVENTS"], &rows));
    }
    text
}
