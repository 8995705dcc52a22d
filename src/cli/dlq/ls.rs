//! `holdfast dlq ls`: how many messages each consumer refused. Called by `mod.rs`.

use super::Which;
use super::places::Places;
use crate::cli::site::{Place, Site};
use crate::cli::text::{Cell, age, table};
use crate::clock::now_ms;
use crate::dead_letters::Tallies;
use crate::dlq::{DEAD_LETTERS, ErrorQueue, Filter, Letter, Queues};
use clap::Args as ClapArgs;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::ops::ControlFlow;
use std::process::ExitCode;

/// Reasons of a queue that are shown; the rest are one line.
const REASONS_SHOWN: usize = 5;

/// Characters of a reason that make it one: what follows is often an id.
const REASON_CHARS: usize = 68;

/// Different reasons that are counted of one queue.
const REASONS_MAX: usize = 1000;

/// How to list.
#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct Args {
    #[command(flatten)]
    pub(super) place: Place,
    #[command(flatten)]
    which: Which,
    /// Also the reasons, by reading every message.
    #[arg(long)]
    reasons: bool,
    /// Also what is empty.
    #[arg(long)]
    all: bool,
    /// One JSON document instead of text.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Listing {
    queues: Vec<Listed>,
    dead_letters: Vec<Dead>,
}

#[derive(Debug, Serialize)]
struct Listed {
    queue: String,
    error_queue: String,
    messages: u64,
    /// Consumers that take from the error queue.
    readers: Option<u32>,
    oldest_refused_at_ms: Option<i64>,
    reasons: BTreeMap<String, u64>,
}

#[derive(Debug, Serialize)]
struct Dead {
    way_out: String,
    waiting: i64,
    replayed: i64,
    purged: i64,
}

pub(super) async fn run(site: &Site, args: &Args) -> anyhow::Result<ExitCode> {
    let filter = args.which.filter();
    let reads = args.reasons
        || !(Filter {
            queues: Vec::new(),
            ..filter.clone()
        })
        .is_empty();
    let mut places = Places::find(site, &filter).await?;
    let mut listing = Listing {
        queues: Vec::new(),
        dead_letters: Vec::new(),
    };
    let error_queues = places.error_queues.clone();
    let mut queues = places.queues.take();
    if let Some(queues) = &mut queues {
        for at in &error_queues {
            let listed = if reads {
                read(queues, at, &filter).await
            } else {
                count(queues, at).await
            };
            match listed {
                Ok(listed) => listing.queues.extend(listed),
                Err(error) => places.trouble(&at.name, error),
            }
        }
    }
    places.queues = queues;
    if let Some(local) = &places.local {
        let tallies = local.tallies().await;
        match tallies {
            Ok(tallies) => listing.dead_letters = tallies.into_iter().map(Dead::from).collect(),
            Err(error) => places.trouble(DEAD_LETTERS, error),
        }
    }
    listing
        .dead_letters
        .retain(|dead| filter.may_mean(&[&dead.way_out, DEAD_LETTERS]));
    if !args.all {
        listing.queues.retain(|listed| listed.messages > 0);
    }
    let mut out = std::io::stdout();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &listing)?;
        writeln!(out)?;
    } else {
        out.write_all(render(&listing).as_bytes())?;
    }
    let is_whole = places.close().await;
    if is_whole && listing.queues.is_empty() && listing.dead_letters.is_empty() {
        eprintln!("nothing was refused");
    }
    Ok(if is_whole {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn count(queues: &Queues, at: &ErrorQueue) -> Result<Option<Listed>, crate::dlq::DlqError> {
    let depth = queues.depth(at).await?;
    Ok(depth.map(|depth| Listed {
        queue: at.queue.clone(),
        error_queue: at.name.clone(),
        messages: depth.messages.into(),
        readers: Some(depth.consumers),
        oldest_refused_at_ms: None,
        reasons: BTreeMap::new(),
    }))
}

async fn read(
    queues: &mut Queues,
    at: &ErrorQueue,
    filter: &Filter,
) -> Result<Option<Listed>, crate::dlq::DlqError> {
    let Some(mut listed) = count(queues, at).await? else {
        return Ok(None);
    };
    listed.messages = 0;
    let add = |letter: Letter| {
        listed.messages += 1;
        listed.oldest_refused_at_ms = match (listed.oldest_refused_at_ms, letter.refused_at_ms) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        let reason: String = letter.reason.chars().take(REASON_CHARS).collect();
        if listed.reasons.len() < REASONS_MAX || listed.reasons.contains_key(&reason) {
            *listed.reasons.entry(reason).or_default() += 1;
        }
        ControlFlow::Continue(())
    };
    queues.look(at, filter, add).await?;
    Ok(Some(listed))
}

impl From<Tallies> for Dead {
    fn from(tallies: Tallies) -> Self {
        Self {
            way_out: tallies.way_out,
            waiting: tallies.waiting,
            replayed: tallies.replayed,
            purged: tallies.purged,
        }
    }
}

fn render(listing: &Listing) -> String {
    let mut text = String::new();
    if !listing.queues.is_empty() {
        let now = now_ms();
        let rows: Vec<_> = listing
            .queues
            .iter()
            .map(|listed| {
                let oldest = listed.oldest_refused_at_ms.map(|at| {
                    let ms = u64::try_from(now.saturating_sub(at)).unwrap_or(0);
                    age(ms / 1000)
                });
                vec![
                    Cell::Text(listed.queue.clone()),
                    Cell::Number(listed.messages),
                    Cell::Right(oldest.unwrap_or_default()),
                    Cell::Number(listed.readers.unwrap_or(0).into()),
                    Cell::Text(listed.error_queue.clone()),
                ]
            })
            .collect();
        let head = ["REFUSED BY", "MESSAGES", "OLDEST", "READERS", "ERROR QUEUE"];
        text.push_str(&table(&head, &rows));
    }
    for listed in listing.queues.iter().filter(|l| !l.reasons.is_empty()) {
        text.push_str(&format!("\n{}\n", listed.queue));
        let mut reasons: Vec<_> = listed.reasons.iter().collect();
        reasons.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        let rest = reasons.iter().skip(REASONS_SHOWN);
        let rest: u64 = rest.map(|(_, count)| **count).sum();
        let mut rows: Vec<_> = reasons
            .iter()
            .take(REASONS_SHOWN)
            .map(|(reason, count)| vec![Cell::Number(**count), Cell::Text((*reason).clone())])
            .collect();
        if rest > 0 {
            rows.push(vec![Cell::Number(rest), Cell::Text("other reasons".into())]);
        }
        text.push_str(&table(&["MESSAGES", "REASON"], &rows));
    }
    if !listing.dead_letters.is_empty() {
        if !text.is_empty() {
            text.push('\n');
        }
        let number = |count: i64| Cell::Number(u64::try_from(count).unwrap_or(0));
        let rows: Vec<_> = listing
            .dead_letters
            .iter()
            .map(|dead| {
                vec![
                    Cell::Text(dead.way_out.clone()),
                    number(dead.waiting),
                    number(dead.replayed),
                    number(dead.purged),
                ]
            })
            .collect();
        let head = ["DEAD LETTERS OF", "WAITING", "REPLAYED", "PURGED"];
        text.push_str(&table(&head, &rows));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_fits_a_terminal() {
        let listed = |messages| Listed {
            queue: "profile_relationship_log_events_q".into(),
            error_queue: "profile_relationship_log_events_q_error".into(),
            messages,
            readers: Some(2),
            oldest_refused_at_ms: Some(0),
            reasons: (0..9)
                .map(|n| (format!("{n}: {}", "x".repeat(57)), n + 1))
                .collect(),
        };
        let text = render(&Listing {
            queues: vec![listed(7), listed(123_456_789)],
            dead_letters: vec![Dead {
                way_out: "rabbitmq".into(),
                waiting: 3,
                replayed: 1,
                purged: 0,
            }],
        });
        let widest = text.lines().map(|line| line.chars().count()).max();
        assert!(widest <= Some(crate::cli::text::WIDTH), "{text}");
        assert!(text.contains("other reasons"), "{text}");
        assert!(
            text.ends_with("rabbitmq               3         1       0\n"),
            "{text}"
        );
    }
}
