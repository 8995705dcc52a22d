//! `holdfast journal ls`: the generations, and which ways out still need each.

use crate::admin::{Counts, counts};
use crate::cli::site::{Place, Site};
use crate::cli::text::{Cell, age, fact, size, table};
use crate::clock::now_ms;
use crate::journal::{CursorInfo, Directory, GenerationInfo};
use clap::Args as ClapArgs;
use serde::Serialize;
use std::io::Write as _;
use std::process::ExitCode;

/// How to list.
#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct Args {
    #[command(flatten)]
    pub(super) place: Place,
    /// One JSON document instead of a table.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct List {
    data_dir: String,
    host: Option<String>,
    generations: Vec<Line>,
    ways: Vec<Way>,
}

#[derive(Serialize)]
struct Way {
    way: String,
    next_seq: u64,
    /// Why its cursor cannot be read: then a start takes it to be at the oldest record.
    #[serde(skip_serializing_if = "Option::is_none")]
    damage: Option<String>,
}

#[derive(Serialize)]
struct Line {
    generation: u64,
    state: &'static str,
    first_seq: u64,
    end_seq: u64,
    records: u64,
    events: u64,
    events_by_type: Counts,
    disk_bytes: u64,
    created_at_ms: i64,
    last_received_at_ms: i64,
    age_seconds: u64,
    needed_by: Vec<String>,
}

pub(super) fn run(site: &Site, args: &Args) -> anyhow::Result<ExitCode> {
    let directory = super::open(site)?;
    let list = list(site, &directory);
    let mut out = std::io::stdout();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &list)?;
        writeln!(out)?;
    } else {
        out.write_all(render(&list).as_bytes())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn list(site: &Site, directory: &Directory) -> List {
    let cursors = directory.cursors();
    List {
        data_dir: site.data_dir.display().to_string(),
        host: directory.host().map(ToString::to_string),
        generations: directory
            .generations()
            .iter()
            .map(|generation| line(generation, cursors, now_ms()))
            .collect(),
        ways: cursors
            .iter()
            .map(|cursor| Way {
                way: cursor.name.clone(),
                next_seq: cursor.next.0,
                damage: cursor.damage.clone(),
            })
            .collect(),
    }
}

fn line(generation: &GenerationInfo, cursors: &[CursorInfo], now_ms: i64) -> Line {
    let needed =
        |cursor: &&CursorInfo| cursor.next < generation.end && generation.first < generation.end;
    let events = counts(&generation.events);
    let age_ms = now_ms.saturating_sub(generation.created_at_ms);
    Line {
        generation: generation.number,
        state: match (generation.quarantined, generation.sealed) {
            (true, _) => "quarantined",
            (false, true) => "sealed",
            (false, false) => "active",
        },
        first_seq: generation.first.0,
        end_seq: generation.end.0,
        records: generation.end.0.saturating_sub(generation.first.0),
        events: events.values().sum(),
        events_by_type: events,
        disk_bytes: generation.disk_bytes,
        created_at_ms: generation.created_at_ms,
        last_received_at_ms: generation.last_received_at_ms,
        age_seconds: u64::try_from(age_ms).unwrap_or(0) / 1000,
        needed_by: cursors
            .iter()
            .filter(needed)
            .map(|c| c.name.clone())
            .collect(),
    }
}

fn render(list: &List) -> String {
    let rows: Vec<_> = list
        .generations
        .iter()
        .map(|line| {
            let range = match line.records {
                0 => "-".to_owned(),
                _ => format!("{}-{}", line.first_seq, line.end_seq - 1),
            };
            let needed = match &line.needed_by[..] {
                [] => "-".to_owned(),
                [one] => one.clone(),
                [first, rest @ ..] => format!("{first} +{}", rest.len()),
            };
            vec![
                Cell::Number(line.generation),
                Cell::Text(line.state.to_owned()),
                Cell::Text(range),
                Cell::Number(line.records),
                Cell::Number(line.events),
                Cell::Right(size(line.disk_bytes)),
                Cell::Right(age(line.age_seconds)),
                Cell::Text(needed),
            ]
        })
        .collect();
    let head = [
        "GEN",
        "STATE",
        "SEQUENCES",
        "RECORDS",
        "EVENTS",
        "DISK",
        "AGE",
        "NEEDED BY",
    ];
    let mut text = table(&head, &rows);
    let ways: Vec<_> = list
        .ways
        .iter()
        .map(|way| vec![Cell::Text(way.way.clone()), Cell::Number(way.next_seq)])
        .collect();
    if !ways.is_empty() {
        text.push('\n');
        text.push_str(&table(&["WAY OUT", "NEXT"], &ways));
    }
    for way in &list.ways {
        if let Some(damage) = &way.damage {
            let line = format!(
                "cursors/{}: {damage}; a start delivers again from {}",
                way.way, way.next_seq
            );
            text.push_str(&fact("PROBLEM", &line));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_figure_makes_a_line_too_long() {
        for figure in [2, 5_000_000, 12_345_678_901] {
            let line = Line {
                generation: figure / 1000,
                state: "quarantined",
                first_seq: figure / 2,
                end_seq: figure,
                records: figure / 2,
                events: figure,
                events_by_type: Counts::new(),
                disk_bytes: figure,
                created_at_ms: 0,
                last_received_at_ms: 0,
                age_seconds: figure,
                needed_by: vec!["clickhouse".into(), "postgres".into()],
            };
            let list = List {
                data_dir: String::new(),
                host: None,
                generations: vec![line],
                ways: vec![Way {
                    way: "w".repeat(64),
                    next_seq: figure,
                    damage: Some("no slot is whole".into()),
                }],
            };
            let text = render(&list);
            for line in text.lines() {
                assert!(line.chars().count() <= 80, "{line}");
            }
            assert!(text.contains("quarantined"), "{text}");
        }
    }
}
