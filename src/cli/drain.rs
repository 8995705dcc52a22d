//! `holdfast drain`: takes nothing any more, and empties the log. Asks the running
//! service; where there is none it delivers by itself, also from the disk of a dead host.
//!
//! Exit codes: 0 nothing is left, or the drain was taken back; 1 something is left.

use super::owner::become_owner;
use super::site::{Place, Site};
use super::text::count;
use crate::admin::{self, CallError, DrainRequest, Status};
use crate::app;
use crate::dead_letters::Desk;
use crate::journal::{JournalLedger, WayLedger};
use anyhow::{Context as _, bail};
use clap::Args as ClapArgs;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// A service that does not answer in this time is as good as none.
const ANSWER_WAIT: Duration = Duration::from_secs(30);

/// How often the service is asked how far it is.
const POLL: Duration = Duration::from_millis(500);

/// How often a line says how far it is, where there is no terminal.
const LINE: Duration = Duration::from_secs(10);

/// How long, and on what.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) place: Place,
    /// How long to wait; without it, for as long as it takes.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    timeout: Option<Duration>,
    /// Take it back: the service takes requests again.
    #[arg(long)]
    undo: bool,
    /// Say the result as one JSON document.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(site: Site, args: &Args) -> anyhow::Result<ExitCode> {
    let request = DrainRequest {
        on: !args.undo,
        sudo_user: std::env::var("SUDO_USER").ok(),
    };
    let asked = admin::post(&site.data_dir, "/drain", &request, ANSWER_WAIT).await;
    let (left, ended) = match asked {
        Ok(_) if args.undo => {
            let _: Status = asked?;
            eprintln!("the service takes requests again");
            return Ok(ExitCode::SUCCESS);
        }
        Ok(status) => watch(&site, status, args.timeout).await?,
        Err(CallError::NotRunning) if args.undo => bail!("no service runs on this directory"),
        Err(CallError::NotRunning) => deliver(&site, args.timeout).await?,
        Err(error) => return Err(error.into()),
    };
    finish(&site, args, left, ended).await
}

async fn finish(
    site: &Site,
    args: &Args,
    left: u64,
    ended: Option<String>,
) -> anyhow::Result<ExitCode> {
    let mut letters = 0;
    if let Some(desk) = Desk::open(&site.data_dir) {
        let tallies = desk.tallies().await?;
        letters = tallies.iter().map(|tally| tally.waiting).sum();
        desk.close().await;
    }
    if args.json {
        let document = json!({ "left": left, "dead_letters": letters, "ended": ended });
        writeln!(std::io::stdout(), "{document}")?;
    }
    if letters > 0 {
        eprintln!("{letters} dead letters wait here: `holdfast dlq ls` says why");
    }
    match ended {
        None => {
            eprintln!("drained: nothing is left to deliver");
            Ok(ExitCode::SUCCESS)
        }
        Some(reason) => {
            eprintln!("holdfast: {} left: {reason}", count(left, "event"));
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Watches the service drain.
async fn watch(
    site: &Site,
    mut status: Status,
    limit: Option<Duration>,
) -> anyhow::Result<(u64, Option<String>)> {
    let until = limit.map(|limit| Instant::now() + limit);
    let mut show = Show::new();
    loop {
        let left = status.left();
        show.left(left);
        if left == 0 {
            show.end();
            return Ok((0, None));
        }
        if until.is_some_and(|until| Instant::now() >= until) {
            show.end();
            let ways = status
                .ledger
                .ways
                .iter()
                .filter(|way| way.pending_requests > 0);
            let ways: Vec<_> = ways.map(|way| way.way.as_str()).collect();
            let reason = format!("the time was up; {} still delivers", ways.join(", "));
            return Ok((left, Some(reason)));
        }
        sleep(POLL).await;
        status = admin::get(&site.data_dir, "/status", ANSWER_WAIT)
            .await
            .context("the service went away; its log is as it was")?;
    }
}

/// Delivers in this process.
async fn deliver(site: &Site, limit: Option<Duration>) -> anyhow::Result<(u64, Option<String>)> {
    let Some(mut config) = site.config.clone() else {
        bail!(
            "no service runs on {}: name the configuration that says where its events go (--config)",
            site.data_dir.display()
        );
    };
    // Nothing is made where no journal ever was.
    crate::journal::Directory::open(&site.data_dir)
        .with_context(|| format!("look at {}", site.data_dir.display()))?;
    config.data.dir.clone_from(&site.data_dir);
    become_owner(&site.data_dir)?;
    eprintln!("no service runs on this directory; delivering from here");
    let mut show = Show::new();
    let drained = app::drain(&config, limit, |ledger| show.left(pending(ledger))).await?;
    show.end();
    let left = pending(&drained.ledger);
    let ended = drained.ended.or_else(|| {
        (!drained.unused.is_empty()).then(|| {
            format!(
                "the configuration has no way out {}",
                drained.unused.join(", ")
            )
        })
    });
    Ok((left, ended))
}

fn pending(ledger: &JournalLedger) -> u64 {
    let ways = ledger.ways.iter().map(WayLedger::left);
    ways.fold(0, u64::saturating_add)
}

/// A bar on a terminal, a line now and then elsewhere.
struct Show {
    bar: ProgressBar,
    most: u64,
    is_terminal: bool,
    said: Option<Instant>,
}

impl Show {
    fn new() -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        let bar = if is_terminal {
            ProgressBar::new(0)
        } else {
            ProgressBar::hidden()
        };
        let style = "{bar:30} {pos}/{len} delivered, {per_sec}, eta {eta}";
        let style = ProgressStyle::with_template(style);
        Self {
            bar: bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())),
            most: 0,
            is_terminal,
            said: None,
        }
    }

    fn left(&mut self, left: u64) {
        self.most = self.most.max(left);
        self.bar.set_length(self.most);
        self.bar.set_position(self.most - left);
        let is_due = self.said.is_none_or(|said| said.elapsed() >= LINE);
        if !self.is_terminal && is_due {
            eprintln!("{} left", count(left, "event"));
            self.said = Some(Instant::now());
        }
    }

    fn end(&self) {
        self.bar.finish_and_clear();
    }
}
