//! `holdfast reconcile`: whether every event that this host accepted shows in its tables.
//!
//! Exit codes: 0 complete; 1 not, or not known.

use super::moment::parse_moment;
use super::site::{Place, Site};
use super::text::{Cell, count, fact, table};
use crate::app::reconcile::{Counts, Item, Range, Report, SinkReport, reconcile};
use crate::config::Config;
use crate::journal::Span;
use anyhow::bail;
use clap::Args as ClapArgs;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long between two looks.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Missing and extra events that a text names; a document has more.
const NAMED: usize = 50;

/// Which part of the log, and where.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) place: Place,
    /// Requests received at this time or later: a time, or how long ago.
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = parse_moment)]
    since: i64,
    /// Requests received before it.
    #[arg(long, value_name = "TIME", value_parser = parse_moment)]
    until: Option<i64>,
    /// From this sequence on, whenever it was received.
    #[arg(long, value_name = "SEQ")]
    from: Option<u64>,
    /// Up to this sequence, which is left out.
    #[arg(long, value_name = "SEQ")]
    to: Option<u64>,
    /// This sink alone.
    #[arg(long, value_name = "NAME")]
    sink: Option<String>,
    /// Look again for so long, until it is complete.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    wait: Option<Duration>,
    /// Say it as one JSON document.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(site: Site, args: &Args) -> anyhow::Result<ExitCode> {
    let Some(mut config) = site.config else {
        bail!("name the configuration that says where events go (--config)");
    };
    config.data.dir = site.data_dir;
    let named = args.from.is_some() || args.to.is_some();
    let range = Range {
        from_seq: args.from,
        to_seq: args.to,
        since_ms: (!named).then_some(args.since),
        until_ms: args.until,
    };
    let report = wait_for(&config, &range, args.sink.as_deref(), args.wait).await?;
    let text = if args.json {
        format!("{}\n", serde_json::to_string(&report)?)
    } else {
        render(&report)
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(exit_code(&report))
}

pub(super) fn exit_code(report: &Report) -> ExitCode {
    if report.is_complete() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Looks until nothing is on its way any more, or the time is up.
pub(super) async fn wait_for(
    config: &Config,
    range: &Range,
    sink: Option<&str>,
    wait: Option<Duration>,
) -> anyhow::Result<Report> {
    let until = Instant::now() + wait.unwrap_or_default();
    loop {
        let answer = reconcile(config, range, sink).await;
        let is_late = Instant::now() >= until;
        match answer {
            Ok(report) if !report.may_still_come() || is_late => {
                return Ok(report);
            }
            Err(error) if is_late || !error.is_retryable() => return Err(error.into()),
            Ok(_) | Err(_) => sleep(LOOK_AGAIN).await,
        }
    }
}

pub(super) fn render(report: &Report) -> String {
    let mut text = fact("host", &report.host);
    let last = report.to_seq.saturating_sub(1);
    let requests = count(report.requests, "request");
    let range = if report.requests == 0 {
        "nothing was accepted in this range".to_owned()
    } else {
        format!("{requests}, sequences {} to {last}", report.from_seq)
    };
    text.push_str(&fact("range", &range));
    if report.webhooks > 0 {
        let webhooks = count(report.webhooks, "webhook");
        text.push_str(&fact("", &format!("{webhooks} among them: not compared")));
    }
    for lost in &report.lost {
        text.push_str(&fact("LOST", &span(lost)));
    }
    for unknown in &report.unknown {
        text.push_str(&fact(
            "UNKNOWN",
            &format!("{}: {}", span(&unknown.span), unknown.reason),
        ));
    }
    for sink in &report.sinks {
        text.push_str(&of_sink(sink));
    }
    let verdict = if report.is_complete() {
        "complete: every event is accounted for".to_owned()
    } else {
        verdict(report)
    };
    text.push_str(&format!("\n{}", fact("reconcile", &verdict)));
    text
}

fn span(span: &Span) -> String {
    format!(
        "sequences {} to {}",
        span.first,
        span.end.0.saturating_sub(1)
    )
}

fn verdict(report: &Report) -> String {
    let mut words = Vec::new();
    for sink in &report.sinks {
        let total = &sink.total;
        for (number, what) in [
            (total.missing, "missing"),
            (total.extra, "extra"),
            (total.pending, "pending"),
        ] {
            if number > 0 {
                let place = name(&sink.sink, sink.namespace.as_ref());
                words.push(format!("{number} {what} in {place}"));
            }
        }
    }
    let ranges = report.lost.len() + report.unknown.len();
    if ranges > 0 {
        words.push(count(ranges as u64, "range") + " lost or unknown");
    }
    let mut text = format!("NOT COMPLETE: {}", words.join(", "));
    let may_come = report
        .sinks
        .iter()
        .any(|sink| sink.total.missing > 0 && sink.way == "rabbitmq");
    if may_come {
        text.push_str(
            "; what is missing may still be in RabbitMQ (--wait), or in an error queue (dlq ls)",
        );
    }
    text
}

/// A sink's name, with the namespace where one is named.
fn name(sink: &str, namespace: Option<&String>) -> String {
    match namespace {
        Some(namespace) => format!("{sink} ({namespace})"),
        None => sink.to_owned(),
    }
}

/// Takes one figure.
type Figure = fn(&Counts) -> u64;

/// Columns that are left out where they are zero throughout.
const COLUMNS: [(&str, Figure); 6] = [
    ("REPLACED", |c| c.replaced),
    ("ASIDE", |c| c.set_aside),
    ("PENDING", |c| c.pending),
    ("PURGED", |c| c.purged),
    ("MISSING", |c| c.missing),
    ("EXTRA", |c| c.extra),
];

fn of_sink(sink: &SinkReport) -> String {
    let shown: Vec<_> = COLUMNS
        .iter()
        .filter(|(_, of)| of(&sink.total) > 0)
        .collect();
    let title = name(&sink.sink.to_uppercase(), sink.namespace.as_ref());
    let mut head = vec![title.as_str(), "EVENTS", "ROWS"];
    head.extend(shown.iter().map(|(name, _)| *name));
    let row = |name: &str, counts: &Counts| {
        let mut row = vec![
            Cell::Text(name.to_owned()),
            Cell::Number(counts.events),
            Cell::Number(counts.rows),
        ];
        row.extend(shown.iter().map(|(_, of)| Cell::Number(of(counts))));
        row
    };
    let mut rows: Vec<_> = sink
        .hours
        .iter()
        .map(|(hour, counts)| row(hour, counts))
        .collect();
    rows.push(row("in all", &sink.total));
    let mut text = format!("\n{}", table(&head, &rows));
    text.push_str(&names("missing", &sink.missing, sink.total.missing));
    text.push_str(&names("extra", &sink.extra, sink.total.extra));
    text
}

fn names(what: &str, items: &[Item], all: u64) -> String {
    let mut text = String::new();
    for item in items.iter().take(NAMED) {
        let line = format!(
            "{} of request {}: {} {} at {}",
            item.index,
            item.seq,
            item.event,
            item.event_id,
            time(item.event_timestamp_ms)
        );
        text.push_str(&fact(what, &line));
    }
    let named = items.len().min(NAMED) as u64;
    if all > named {
        let more = all - named;
        text.push_str(&fact(
            what,
            &format!("and {more} more: --json names {}", items.len()),
        ));
    }
    text
}

fn time(at_ms: i64) -> String {
    let since = Duration::from_millis(u64::try_from(at_ms).unwrap_or(0));
    humantime::format_rfc3339_millis(std::time::UNIX_EPOCH + since).to_string()
}
