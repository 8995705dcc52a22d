//! `holdfast load`: sends made-up events to a collector, says how fast it takes them, and
//! judges whether each that was acknowledged shows in the tables once.
//!
//! Exit codes: 0 done, and clean where it was checked; 1 something is missing or there twice,
//! or that is not known; 4 nothing was acknowledged.

mod drive;
mod figures;
mod payload;
mod plan;
mod render;
mod wire;

use super::door::Door;
use super::text::count;
use crate::app::arrivals::{Report, Sent, judge};
use crate::config::Config;
use anyhow::{Context as _, bail};
use clap::Args as ClapArgs;
use drive::{Driven, drive};
use payload::Requests;
use plan::Plan;
use render::{Judged, Outcome};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wire::Wire;

/// Exit code: wrong usage, as clap has it.
const WRONG_USAGE: u8 = 2;

/// Exit code: nothing was acknowledged.
const NOTHING_ACKED: u8 = 4;

/// Bytes of a record that is read: that of a run with the most events, and room for names.
const RECORD_BYTES_MAX: u64 = 256 << 20;

/// What to send, and what to look at afterwards.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    #[command(flatten)]
    door: Door,
    /// Connections to it.
    #[arg(long, value_name = "CONNECTIONS", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=i64::from(plan::CONNECTIONS_MAX)))]
    connections: u16,
    /// Calls that wait for their answer at one time, on all connections together.
    #[arg(long, value_name = "CALLS", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=i64::from(plan::IN_FLIGHT_MAX)))]
    in_flight: u16,
    /// Events of a call.
    #[arg(long, value_name = "EVENTS", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=i64::from(plan::BATCH_EVENTS_MAX)))]
    batch_events: u16,
    /// Types that are sent in turn: all, or names between commas.
    #[arg(long, value_name = "TYPES", default_value = "all")]
    types: String,
    /// About how large one event is.
    #[arg(long, value_name = "BYTES", default_value_t = 300, value_parser = clap::value_parser!(u32).range(i64::from(plan::EVENT_BYTES_MIN)..=i64::from(plan::EVENT_BYTES_MAX)))]
    event_bytes: u32,
    /// How long to send, after the warm-up; default: 10s.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, conflicts_with = "calls")]
    duration: Option<Duration>,
    /// How many calls to send instead, after the warm-up.
    #[arg(long, value_name = "CALLS", value_parser = clap::value_parser!(u64).range(1..))]
    calls: Option<u64>,
    /// Begin so many calls a second, whether or not earlier ones are answered (an open loop);
    /// latency counts from when a call was to begin. Without it a call begins when one ends (a
    /// closed loop), and latency counts from the send.
    #[arg(long, value_name = "CALLS_PER_S")]
    rate: Option<f64>,
    /// Send for so long before anything counts; these events are judged, too.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = humantime::parse_duration)]
    warm_up: Duration,
    /// Makes the same events again, but for their ids and times; default: another each time.
    #[arg(long)]
    seed: Option<u64>,
    /// Compare what was acknowledged with the tables of the configuration (--config).
    #[arg(long)]
    check: bool,
    /// How long everything may take to arrive there.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    check_timeout: Duration,
    /// Keep what was acknowledged in this file, for a later check, or one elsewhere.
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Send nothing, and check the run of this file.
    #[arg(long, value_name = "FILE", requires = "check", conflicts_with_all = ["save", "duration", "calls", "rate"])]
    saved: Option<PathBuf>,
    /// Say it as one JSON document.
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Whether it needs the configuration that says where events go.
    pub(super) fn is_checked(&self) -> bool {
        self.check
    }
}

/// `config` is there where the run is checked.
pub(super) async fn run(args: Args, config: Option<Config>) -> anyhow::Result<ExitCode> {
    let began = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let plan = match Plan::of(&args, began.as_nanos() as u64) {
        Ok(plan) => plan,
        Err(mistake) => {
            eprintln!("holdfast: {mistake}");
            return Ok(ExitCode::from(WRONG_USAGE));
        }
    };
    if let Some(file) = &args.saved {
        let sent = read(file)?;
        let report = check(config.as_ref(), &args, &sent, None).await?;
        let (run, check) = (&sent.run, &report);
        say(&if args.json {
            format!("{}\n", serde_json::to_string(&Judged { run, check })?)
        } else {
            render::check(&report)
        })?;
        return Ok(verdict(&sent, Some(&report)));
    }
    let run = payload::run_name(plan.seed, u64::try_from(began.as_micros())?);
    let (driven, sent) = match send(&args, &plan, &run).await {
        Ok(sent) => sent,
        Err(error) => {
            eprintln!("holdfast: {error:#}");
            return Ok(ExitCode::from(NOTHING_ACKED));
        }
    };
    if let Some(file) = &args.save {
        let saved = std::fs::write(file, sent.to_json()?);
        saved.with_context(|| format!("write {}", file.display()))?;
    }
    let outcome = Outcome {
        run: &run,
        address: args.door.address(),
        plan: &plan,
        figures: &driven.figures,
    };
    if !args.json {
        say(&outcome.text())?;
    }
    let report = if args.check && sent.acked_events() > 0 {
        let last_ack = driven.figures.last_ack;
        Some(check(config.as_ref(), &args, &sent, last_ack).await)
    } else {
        None
    };
    // The figures are told, whatever came of the check.
    let report = match report {
        Some(Err(error)) if args.json => {
            say(&format!("{}\n", outcome.document(None)?))?;
            return Err(error);
        }
        report => report.transpose()?,
    };
    match &report {
        _ if args.json => say(&format!("{}\n", outcome.document(report.as_ref())?))?,
        Some(report) => say(&render::check(report))?,
        None => {}
    }
    Ok(verdict(&sent, report.as_ref()))
}

fn say(text: &str) -> anyhow::Result<()> {
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

/// Runs the load; Ctrl-C ends it, and its figures are told all the same.
async fn send(args: &Args, plan: &Plan, run: &str) -> anyhow::Result<(Driven, Sent)> {
    let authorization = args.door.authorization()?;
    let endpoint = args.door.endpoint()?;
    let requests = Requests::new(plan, run);
    let wire = Wire::connect(&endpoint, plan.connections, authorization).await?;
    eprintln!("run {run}, seed {}, to {}", plan.seed, args.door.address());
    let stop = CancellationToken::new();
    let interrupted = tokio::spawn({
        let stop = stop.clone();
        async move {
            if tokio::signal::ctrl_c().await.is_ok() {
                eprintln!("stopping; calls that are under way end");
                stop.cancel();
            }
        }
    });
    let driven = drive(plan, wire, requests, stop).await;
    interrupted.abort();
    let sent = Sent {
        run: run.to_owned(),
        batch_events: plan.batch_events,
        from_ms: driven.from_ms,
        until_ms: driven.until_ms,
        connections: driven.connections.clone(),
    };
    Ok((driven, sent))
}

async fn check(
    config: Option<&Config>,
    args: &Args,
    sent: &Sent,
    last_ack: Option<Instant>,
) -> anyhow::Result<Report> {
    let Some(config) = config else {
        bail!("a check needs the configuration that says where events go (--config)");
    };
    let events = count(sent.acked_events(), "event");
    let wait = humantime::format_duration(args.check_timeout);
    eprintln!("looking for {events} in the tables, for at most {wait}");
    tokio::select! {
        report = judge(config, sent, args.check_timeout, last_ack) => Ok(report?),
        // It does not end the process by itself any more: the run listened for it.
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            bail!("the check was interrupted");
        }
    }
}

fn verdict(sent: &Sent, report: Option<&Report>) -> ExitCode {
    if sent.acked_events() == 0 {
        eprintln!("holdfast: nothing was acknowledged");
        return ExitCode::from(NOTHING_ACKED);
    }
    match report {
        Some(report) if !report.is_clean() => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    }
}

/// Reads the record of a run.
fn read(file: &Path) -> anyhow::Result<Sent> {
    let named = || format!("read {}", file.display());
    let size = std::fs::metadata(file).with_context(named)?.len();
    if size > RECORD_BYTES_MAX {
        bail!("{}: {size} bytes are no record of a run", file.display());
    }
    let bytes = std::fs::read(file).with_context(named)?;
    Sent::from_json(&bytes).with_context(named)
}
