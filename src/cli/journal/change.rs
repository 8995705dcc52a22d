//! `holdfast journal skip|purge`: dry runs unless `--apply`. Through the running
//! service, or on the directory when no service has its lock.
//!
//! Exit codes: 0 done or said what would be done, 1 not done.

use crate::admin::{
    self, Audit, CallError, Change, Ground, Outcome, PurgeRequest, SkipRequest, Who,
};
use crate::cli::owner::become_owner;
use crate::cli::site::{Place, Site};
use crate::cli::text::{Cell, count, cut, fact, size, table};
use crate::journal::Offline;
use anyhow::Context as _;
use clap::Args as ClapArgs;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

/// A change reads what it passes over: a large backlog takes minutes.
const CHANGE_WAIT: Duration = Duration::from_secs(900);

/// What one way out shall pass over.
#[derive(Debug, ClapArgs)]
#[command(group = clap::ArgGroup::new("how far").required(true).args(["to", "count"]))]
pub(in crate::cli) struct SkipArgs {
    #[command(flatten)]
    pub(super) place: Place,
    /// The way out.
    #[arg(long, value_name = "NAME")]
    way: String,
    /// The first sequence that it shall still deliver.
    #[arg(long, value_name = "SEQ")]
    to: Option<u64>,
    /// How many sequences it shall pass over.
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    #[command(flatten)]
    how: How,
}

/// What shall go.
#[derive(Debug, ClapArgs)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["to", "quarantine"]))]
pub(in crate::cli) struct PurgeArgs {
    #[command(flatten)]
    pub(super) place: Place,
    /// The first sequence that shall still be delivered.
    #[arg(long, value_name = "SEQ")]
    to: Option<u64>,
    /// By this way out; all: by every one.
    #[arg(
        long,
        value_name = "NAME",
        default_value = "all",
        conflicts_with = "quarantine"
    )]
    way: String,
    /// Delete this quarantined generation, once no way out needs it.
    #[arg(long, value_name = "GEN")]
    quarantine: Option<u64>,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, ClapArgs)]
struct How {
    /// Do it, and write it to audit.ndjson in the data directory.
    #[arg(long)]
    apply: bool,
    /// One JSON document instead of text.
    #[arg(long)]
    json: bool,
}

fn sudo_user() -> Option<String> {
    std::env::var("SUDO_USER").ok()
}

pub(super) async fn skip(site: &Site, args: &SkipArgs) -> anyhow::Result<ExitCode> {
    let request = SkipRequest {
        way: args.way.clone(),
        to: args.to,
        count: args.count,
        apply: args.how.apply,
        sudo_user: sudo_user(),
    };
    let asked = admin::post(&site.data_dir, "/journal/skip", &request, CHANGE_WAIT).await;
    finish(site, asked, &Change::Skip(request), &args.how)
}

pub(super) async fn purge(site: &Site, args: &PurgeArgs) -> anyhow::Result<ExitCode> {
    let request = PurgeRequest {
        to: args.to,
        way: args.to.map(|_| args.way.clone()),
        quarantine: args.quarantine,
        apply: args.how.apply,
        sudo_user: sudo_user(),
    };
    let asked = admin::post(&site.data_dir, "/journal/purge", &request, CHANGE_WAIT).await;
    finish(site, asked, &Change::Purge(request), &args.how)
}

fn finish(
    site: &Site,
    asked: Result<Outcome, CallError>,
    change: &Change,
    how: &How,
) -> anyhow::Result<ExitCode> {
    let outcome = match asked {
        Err(CallError::NotRunning) => detached(site, change)?,
        asked => asked?,
    };
    let mut out = std::io::stdout();
    if how.json {
        serde_json::to_writer_pretty(&mut out, &outcome)?;
        writeln!(out)?;
    } else {
        out.write_all(render(&outcome).as_bytes())?;
    }
    if let Some(error) = &outcome.audit_error {
        eprintln!("holdfast: it was done, but its line in the audit could not be ended: {error}");
        return Ok(ExitCode::FAILURE);
    }
    eprintln!(
        "{}",
        match (is_nothing(&outcome), outcome.applied) {
            (true, _) => "there is nothing to do",
            (false, true) => "done, and written to audit.ndjson",
            (false, false) => "nothing was changed; --apply does it",
        }
    );
    Ok(ExitCode::SUCCESS)
}

/// Makes the change in this process, which takes the lock for it.
fn detached(site: &Site, change: &Change) -> anyhow::Result<Outcome> {
    // Before the lock, whose file would be made in any directory.
    super::open(site)?;
    let who = Who::this_process(sudo_user());
    become_owner(&site.data_dir)?;
    let offline = Offline::open(&site.data_dir)
        .context("no service answers on this directory's admin socket, and its lock is not free")?;
    let ground = Ground::Detached {
        offline: &offline,
        data_dir: &site.data_dir,
    };
    let audit = Audit::new(&site.data_dir);
    Ok(admin::change(&ground, &audit, change, &who)?)
}

fn is_nothing(outcome: &Outcome) -> bool {
    outcome.removed.is_none() && outcome.moves.iter().all(|m| m.from == m.to)
}

fn render(outcome: &Outcome) -> String {
    let verb = if outcome.applied {
        "passed over"
    } else {
        "would pass over"
    };
    let mut text = String::new();
    for moved in &outcome.moves {
        let events: u64 = moved.events.values().sum();
        let what = match moved.to - moved.from {
            0 => "nothing".to_owned(),
            requests => format!(
                "sequences {} to {}: {}, {}",
                moved.from,
                moved.to - 1,
                count(requests, "request"),
                count(events, "event")
            ),
        };
        text.push_str(&fact(&cut(&moved.way, 10), &format!("{verb} {what}")));
        let rows: Vec<_> = moved
            .events
            .iter()
            .map(|(name, events)| vec![Cell::Text(name.clone()), Cell::Number(*events)])
            .collect();
        if !rows.is_empty() {
            text.push_str(&table(&["EVENT TYPE", "EVENTS"], &rows));
        }
    }
    if let Some(removed) = &outcome.removed {
        let verb = if outcome.applied {
            "deleted"
        } else {
            "would delete"
        };
        let mut what = format!("{verb} generation {}", removed.generation);
        if let (Some(first), Some(end)) = (removed.first, removed.end) {
            what.push_str(&format!(", sequences {first} to {}", end.saturating_sub(1)));
        }
        what.push_str(&format!(", {}", size(removed.disk_bytes)));
        text.push_str(&fact("quarantine", &what));
    }
    text
}
