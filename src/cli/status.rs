//! `holdfast status`: whether the service takes events, what waits where, and
//! whether the accounts add up. Asks the admin socket; without a service, says so
//! and shows what the directory tells.
//!
//! Exit codes: 0 all is well, 1 something is wrong (not serving, an account that
//! does not add up, a loss), 3 no service runs on this directory.

use super::call::NOT_RUNNING;
use super::detached;
use super::site::{Place, Site};
use super::text::{Cell, count, fact, size, span, table};
use crate::admin::{self, Account, AckLatency, Acks, CallError, Rates, State, Status, Way};
use clap::Args as ClapArgs;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

/// A service that does not answer in this time is as good as none.
pub(super) const ANSWER_WAIT: Duration = Duration::from_secs(30);

/// What to show, and how.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) place: Place,
    /// One JSON document instead of text.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(site: Site, args: &Args) -> anyhow::Result<ExitCode> {
    let status = match admin::get(&site.data_dir, "/status", ANSWER_WAIT).await {
        Ok(status) => status,
        Err(CallError::NotRunning) => detached::status(&site)?,
        Err(error) => return Err(error.into()),
    };
    let mut out = std::io::stdout();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &status)?;
        writeln!(out)?;
    } else {
        out.write_all(render(&status).as_bytes())?;
    }
    Ok(match status.state {
        State::NotRunning => ExitCode::from(NOT_RUNNING),
        _ if status.is_good() => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

pub(super) fn render(status: &Status) -> String {
    let mut text = String::new();
    text.push_str(&fact("state", &state(status)));
    for reason in &status.reasons {
        text.push_str(&fact("", reason));
    }
    if let (Some(version), Some(pid), Some(up)) = (&status.version, status.pid, status.up_seconds) {
        let service = format!("holdfast {version}, process {pid}, up {}", span(up));
        text.push_str(&fact("service", &service));
    }
    text.push_str(&fact("host", status.host.as_deref().unwrap_or("not known")));
    text.push_str(&fact("directory", &status.data_dir));
    text.push_str(&fact("disk", &disk(status)));
    let held = status.next_seq.saturating_sub(status.oldest_seq);
    let log = format!(
        "{}, {} from sequence {}, the next is {}",
        count(status.generations, "generation"),
        count(held, "request"),
        status.oldest_seq,
        status.next_seq
    );
    text.push_str(&fact("log", &log));
    if let Some(rates) = &status.rates {
        text.push_str(&fact("rate", &rate(rates)));
    }
    if let Some(acks) = &status.acks {
        for line in acknowledgements(acks) {
            text.push_str(&fact("acks", &line));
        }
    }
    let lost = match status.losses.as_deref() {
        None => vec!["not looked for; `holdfast journal verify` does".to_owned()],
        Some([]) => vec!["nothing".to_owned()],
        Some(losses) => losses.iter().map(super::lost).collect(),
    };
    for line in lost {
        text.push_str(&fact("lost", &line));
    }
    if let Some(letters) = set_aside(status) {
        text.push_str(&fact("set aside", &letters));
    }
    text.push_str(&ways(&status.ledger.ways));
    text.push_str(&super::pace::lines(&status.ledger.ways));
    text.push_str(&super::parts::render(&status.parts));
    for way in &status.ledger.ways {
        text.push_str(&account(way));
    }
    text
}

fn state(status: &Status) -> String {
    match status.state {
        State::Serving => "serving",
        State::NotServing => "NOT SERVING:",
        State::Draining => "draining: nothing is taken until all is delivered",
        State::Stopping => "stopping",
        State::NoAnswer => "NO ANSWER: a process holds this directory, but not its admin socket",
        State::NotRunning => "NOT RUNNING; this is what the directory tells",
    }
    .to_owned()
}

fn rate(rates: &Rates) -> String {
    let growth = rates.growth_bytes_per_second;
    let bytes = size(growth.abs() as u64);
    let verb = if growth < 0.0 { "shrinks" } else { "grows" };
    let accepted = rates.accepted_requests_per_second;
    let mut text = format!("{accepted:.1} requests a second; the log {verb} by {bytes} a second");
    if let Some(seconds) = rates.full_in_seconds {
        text.push_str(&format!(", and is full in {}", span(seconds)));
    }
    text
}

fn acknowledgements(acks: &Acks) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(AckLatency { p50_ms, p99_ms }) = acks.latency {
        let latency =
            format!("half within {p50_ms} ms, 99 of 100 within {p99_ms} ms, over a minute");
        lines.push(latency);
    }
    if acks.expired_requests > 0 {
        let given_up = count(acks.expired_requests, "request");
        lines.push(format!(
            "{given_up} given up since the start: the disk did not take them in time"
        ));
    }
    lines
}

/// Letters that wait for an operator, if there are any.
fn set_aside(status: &Status) -> Option<String> {
    let waiting = status.dead_letters.iter().flatten();
    let waiting: Vec<_> = waiting.filter(|(_, number)| **number > 0).collect();
    if waiting.is_empty() {
        return None;
    }
    let all = waiting.iter().map(|(_, number)| **number).sum();
    let by = waiting
        .iter()
        .map(|(way, number)| format!("{number} by {way}"));
    let by: Vec<_> = by.collect();
    let all = count(all, "letter");
    Some(format!(
        "{all} in the dead letters ({}); `holdfast dlq ls` shows them",
        by.join(", ")
    ))
}

fn disk(status: &Status) -> String {
    let disk = &status.disk;
    let mut text = size(disk.used_bytes);
    if let Some(max) = disk.max_bytes {
        text.push_str(&format!(" of {}", size(max)));
    }
    text.push_str(" used");
    if let Some(free) = disk.free_bytes {
        text.push_str(&format!("; {} free", size(free)));
    }
    if let Some(min) = disk.min_free_bytes {
        text.push_str(&format!(", {} must stay free", size(min)));
    }
    text
}

fn ways(ways: &[Way]) -> String {
    if ways.is_empty() {
        return "\nNo way out has been used yet.\n".to_owned();
    }
    let rows: Vec<_> = ways
        .iter()
        .map(|way| {
            let oldest = way.oldest_pending_age_seconds.map_or("-".to_owned(), span);
            vec![
                Cell::Text(way.way.clone()),
                Cell::Number(way.next_seq),
                Cell::Number(way.pending_requests),
                Cell::Number(way.pending_events),
                Cell::Right(oldest),
                Cell::Right(way.rate.map_or("-".to_owned(), |rate| {
                    format!("{:.0}", rate.requests_per_second)
                })),
                Cell::Right(empty_in(way)),
            ]
        })
        .collect();
    let head = [
        "WAY OUT", "NEXT", "REQUESTS", "EVENTS", "OLDEST", "RATE", "EMPTY IN",
    ];
    format!("\n{}", table(&head, &rows))
}

/// How long a way out still needs: nothing is said of what is not known.
fn empty_in(way: &Way) -> String {
    match way.rate {
        Some(rate) => match rate.empty_in_seconds {
            Some(seconds) => span(seconds),
            None => "never".to_owned(),
        },
        None => "-".to_owned(),
    }
}

/// Takes one figure of an account.
type Figure = fn(&Account) -> u64;

/// Columns of an account, in the order in which they are shown.
const STATES: [(&str, Figure); 5] = [
    ("delivered", |a| a.delivered),
    ("pending", |a| a.pending),
    ("dead-lettered", |a| a.dead_lettered),
    ("purged", |a| a.purged),
    ("lost", |a| a.lost),
];

/// One way out's accounts: a line that says whether they add up, and the types. A
/// column that is zero throughout is left out.
fn account(way: &Way) -> String {
    let total = way.total();
    let parts: Vec<_> = STATES
        .iter()
        .map(|(name, of)| format!("{} {name}", of(&total)))
        .collect();
    let parts = parts.join(" + ");
    let line = match (total.accepted, way.adds_up) {
        (Some(accepted), Some(true)) => format!("{accepted} accepted = {parts}: adds up"),
        (Some(accepted), _) => {
            // Types that do not add up by themselves are marked in the table.
            format!("{accepted} accepted, {parts}: DOES NOT ADD UP")
        }
        (None, _) => format!("{parts}; only the service knows what was accepted"),
    };
    let mut text = format!("\n{}", fact(&super::text::cut(&way.way, 10), &line));
    let shown: Vec<_> = STATES.iter().filter(|(_, of)| of(&total) > 0).collect();
    let mut head = vec!["EVENT TYPE"];
    if total.accepted.is_some() {
        head.push("ACCEPTED");
    }
    let titles: Vec<_> = shown
        .iter()
        .map(|(name, _)| name.trim_end_matches("-lettered").to_uppercase())
        .collect();
    head.extend(titles.iter().map(String::as_str));
    let rows: Vec<_> = way
        .events
        .iter()
        .map(|(name, account)| {
            let mark = if account.adds_up() == Some(false) {
                "! "
            } else {
                ""
            };
            let mut row = vec![Cell::Text(format!("{mark}{name}"))];
            row.extend(account.accepted.map(Cell::Number));
            row.extend(shown.iter().map(|(_, of)| Cell::Number(of(account))));
            row
        })
        .collect();
    if !rows.is_empty() {
        text.push_str(&table(&head, &rows));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::{Disk, Ledger, WayRate};
    use crate::event::identity::Seq;
    use crate::journal::Loss;
    use std::collections::BTreeMap;

    fn status(figure: u64) -> Status {
        let account = Account {
            accepted: Some(figure),
            delivered: figure / 2,
            pending: figure / 4,
            dead_lettered: 3,
            purged: 2,
            lost: 1,
        };
        let names = crate::event::descriptor::event_names();
        let way = |name: &str| Way {
            ahead_requests: 0,
            pace: None,
            way: name.to_owned(),
            next_seq: figure,
            pending_requests: figure,
            pending_events: figure,
            oldest_pending_at_ms: Some(5),
            oldest_pending_age_seconds: Some(figure / 1000),
            rate: Some(WayRate {
                requests_per_second: figure as f64,
                empty_in_seconds: Some(figure / 10),
            }),
            events: names
                .iter()
                .map(|n| (n.clone(), account))
                .collect::<BTreeMap<_, _>>(),
            adds_up: Some(false),
        };
        Status {
            state: State::NotServing,
            reasons: vec!["the log is fenced until a restart: ".to_owned() + &"x".repeat(100)],
            in_work: Some(figure),
            version: Some("0.1.0".into()),
            pid: Some(4_000_000),
            up_seconds: Some(figure),
            host: Some("h".repeat(64)),
            data_dir: "/a-rather-long-name".repeat(9),
            disk: Disk {
                used_bytes: figure,
                max_bytes: Some(figure),
                free_bytes: Some(figure),
                min_free_bytes: Some(figure),
            },
            generations: 100_000,
            oldest_seq: figure,
            next_seq: figure,
            losses: Some(vec![Loss {
                generation: figure,
                first: Seq(figure / 2),
                end: Seq(figure),
            }]),
            ledger: Ledger {
                accepted: None,
                ways: vec![way("rabbitmq"), way(&"w".repeat(64))],
            },
            rates: Some(Rates {
                accepted_requests_per_second: figure as f64,
                growth_bytes_per_second: figure as f64,
                full_in_seconds: Some(figure),
            }),
            acks: Some(Acks {
                latency: Some(AckLatency {
                    p50_ms: 0.5,
                    p99_ms: 10_000.0,
                }),
                expired_requests: figure,
            }),
            parts: Vec::new(),
            dead_letters: Some(std::collections::BTreeMap::from([
                ("rabbitmq".to_owned(), figure),
                ("w".repeat(64), 1),
                ("empty".to_owned(), 0),
            ])),
        }
    }

    #[test]
    fn no_figure_makes_a_line_too_long() {
        for figure in [8, 12_345_678, 98_765_432_109, u64::MAX / 1000] {
            let text = render(&status(figure));
            for line in text.lines() {
                assert!(line.chars().count() <= 80, "{figure}: {line}");
            }
        }
    }

    #[test]
    fn what_does_not_add_up_is_named() {
        let mut status = status(8);
        let text = render(&status);
        assert!(text.contains("! LaunchEvent"), "{text}");
        assert!(
            text.contains("9 letters in the dead letters (8 by rabbitmq,"),
            "{text}"
        );
        let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(flat.contains("DOES NOT ADD UP"), "{text}");
        let way = &mut status.ledger.ways[0];
        way.events.retain(|name, _| name == "LaunchEvent");
        let account = way.events.get_mut("LaunchEvent").unwrap();
        account.accepted = Some(12);
        way.adds_up = Some(true);
        let flat = super::account(way)
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ");
        let line = "rabbitmq 12 accepted = 4 delivered + 2 pending + 3 dead-lettered + 2 purged + 1 lost: adds up";
        assert!(flat.starts_with(line), "{flat}");
    }
}
