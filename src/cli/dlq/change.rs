//! `holdfast dlq replay|purge`: dry runs unless `--apply`. Called by `mod.rs`.
//!
//! # Invariants
//! - The first half of the audit's line is durable before anything is changed; without it
//!   nothing is.
//! - Nothing is meant by default: which letters, or all of them, must be said.
//! - A mended body whose letter was not met is named, and is no success (test
//!   `a_dead_letter_is_replayed_into_its_table`).
//!
//! Exit codes: 0 done or said what would be done, 1 not done, or not all of it.

use super::Which;
use super::places::Places;
use crate::admin::{Audit, Intent, Who};
use crate::cli::owner::become_owner;
use crate::cli::site::{Place, Site};
use crate::cli::text::{Cell, count, table};
use crate::dlq::{Act, DEAD_LETTERS, Filter, Repaired, Report};
use anyhow::{Context as _, bail};
use clap::Args as ClapArgs;
use serde_json::json;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufReader, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

/// Mended bodies without a letter that are named one by one; the rest are counted.
const UNMET_NAMED_MAX: usize = 20;

/// What to send again.
#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct ReplayArgs {
    #[command(flatten)]
    pub(super) place: Place,
    #[command(flatten)]
    which: Which,
    /// To this queue, instead of the one that refused them.
    #[arg(long, value_name = "QUEUE")]
    to: Option<String>,
    /// With the bodies of this file, mended: lines as `show --json` prints them. Only what
    /// stands there is meant.
    #[arg(long, value_name = "FILE")]
    repaired: Option<PathBuf>,
    #[command(flatten)]
    how: How,
}

/// What to give up.
#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct PurgeArgs {
    #[command(flatten)]
    pub(super) place: Place,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, ClapArgs)]
struct How {
    /// All of them.
    #[arg(long)]
    all: bool,
    /// Do it, and write it to audit.ndjson in the data directory.
    #[arg(long)]
    apply: bool,
    /// One JSON document instead of text.
    #[arg(long)]
    json: bool,
}

/// A change with everything that was said of it.
struct Change<'a> {
    verb: &'static str,
    act: Act,
    filter: Filter,
    to: Option<&'a str>,
    repaired: Repaired,
    how: &'a How,
}

pub(super) async fn replay(site: &Site, args: &ReplayArgs) -> anyhow::Result<ExitCode> {
    let repaired = match &args.repaired {
        None => Repaired::default(),
        Some(path) => File::open(path)
            .map_err(Into::into)
            .and_then(|file| Repaired::read(BufReader::new(file)))
            .with_context(|| path.display().to_string())?,
    };
    let change = Change {
        verb: "dlq replay",
        act: Act::Replay,
        filter: args.which.filter(),
        to: args.to.as_deref(),
        repaired,
        how: &args.how,
    };
    make(site, &change).await
}

pub(super) async fn purge(site: &Site, args: &PurgeArgs) -> anyhow::Result<ExitCode> {
    let change = Change {
        verb: "dlq purge",
        act: Act::Purge,
        filter: args.which.filter(),
        to: None,
        repaired: Repaired::default(),
        how: &args.how,
    };
    make(site, &change).await
}

async fn make(site: &Site, change: &Change<'_>) -> anyhow::Result<ExitCode> {
    let How { all, apply, .. } = *change.how;
    let is_chosen = !change.filter.is_empty() || !change.repaired.is_empty();
    if !is_chosen && !all {
        bail!("say which letters are meant, or --all");
    }
    let who = Who::this_process(std::env::var("SUDO_USER").ok());
    if apply {
        become_owner(&site.data_dir)?;
    }
    let mut places = Places::find(site, &change.filter).await?;
    let act = if apply { change.act } else { Act::Look };
    let audit = Audit::new(&site.data_dir);
    let line = if apply {
        let names: Vec<_> = places.error_queues.iter().map(|at| &at.name).collect();
        let intent = Intent {
            verb: change.verb,
            args: json!({
                "filter": change.filter, "to": change.to,
                "repaired": change.repaired.ids().collect::<Vec<_>>(),
            }),
            by: &who,
            planned: json!({ "error_queues": names, "dead_letters": places.local.is_some() }),
        };
        let line = audit.begin(&intent);
        Some(line.context("without its line in audit.ndjson nothing is changed")?)
    } else {
        None
    };
    let mut reports = work(&mut places, change, act).await;
    let unmet = unmet(&change.repaired, &reports);
    reports.retain(|report| report.matched > 0);
    let failed: u64 = reports.iter().map(|report| report.failed).sum();
    let is_whole = places.close().await && failed == 0 && unmet.is_empty();
    if let Some(line) = line {
        let result = if is_whole { "applied" } else { "not all" };
        let ended = line.end(result, &json!(reports));
        ended.context("it was done, but its line in audit.ndjson could not be ended")?;
    }
    say(change, &reports)?;
    say_unmet(&unmet);
    Ok(if is_whole {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn work(places: &mut Places, change: &Change<'_>, act: Act) -> Vec<Report> {
    let Change {
        filter,
        to,
        repaired,
        ..
    } = change;
    let mut reports = Vec::new();
    let mut queues = places.queues.take();
    if let Some(queues) = &mut queues {
        for at in places.error_queues.clone() {
            let (report, ended) = queues.change(&at, filter, act, *to, repaired).await;
            reports.push(report);
            if let Err(error) = ended {
                places.trouble(&at.name, error);
            }
        }
    }
    let local = places.local.take();
    if let Some(local) = &local {
        let queues = queues.as_mut().ok_or(places.without_broker);
        let (report, ended) = local.change(filter, act, *to, repaired, queues).await;
        reports.push(report);
        if let Err(error) = ended {
            places.trouble(DEAD_LETTERS, error);
        }
    }
    places.local = local;
    places.queues = queues;
    reports
}

/// The mended bodies whose letters were met in no place.
fn unmet<'a>(repaired: &'a Repaired, reports: &[Report]) -> BTreeSet<&'a str> {
    let is_met = |id: &&str| reports.iter().any(|report| report.mended.contains(*id));
    repaired.ids().filter(|id| !is_met(id)).collect()
}

fn say_unmet(unmet: &BTreeSet<&str>) {
    for id in unmet.iter().take(UNMET_NAMED_MAX) {
        eprintln!("holdfast: no letter that is meant has the id {id:?}");
    }
    if let Some(more) = unmet.len().checked_sub(UNMET_NAMED_MAX + 1) {
        eprintln!("holdfast: and {} more ids of the file", more + 1);
    }
}

fn say(change: &Change<'_>, reports: &[Report]) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    if change.how.json {
        let document = json!({ "applied": change.how.apply, "places": reports });
        serde_json::to_writer_pretty(&mut out, &document)?;
        writeln!(out)?;
    } else if !reports.is_empty() {
        let rows: Vec<_> = reports
            .iter()
            .map(|report| {
                vec![
                    Cell::Text(report.place.clone()),
                    Cell::Number(report.matched),
                    Cell::Number(report.done),
                    Cell::Number(report.failed),
                ]
            })
            .collect();
        let head = ["PLACE", "MEANT", "DONE", "FAILED"];
        out.write_all(table(&head, &rows).as_bytes())?;
    }
    for report in reports {
        for failure in &report.failures {
            eprintln!(
                "holdfast: {} {}: {}",
                report.place, failure.id, failure.reason
            );
        }
    }
    let meant: u64 = reports.iter().map(|report| report.matched).sum();
    let done: u64 = reports.iter().map(|report| report.done).sum();
    let what = if change.act == Act::Purge {
        "purged"
    } else {
        "replayed"
    };
    if change.how.apply {
        eprintln!(
            "{} {what}, and written to audit.ndjson",
            count(done, "letter")
        );
    } else {
        eprintln!(
            "{} would be {what}; --apply does it",
            count(meant, "letter")
        );
    }
    Ok(())
}
