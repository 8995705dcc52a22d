//! Reads what the benches have written, and holds it to `floors.toml`: the end of
//! `tests/bench`, which calls it.
//!
//!     cargo bench --bench verdict -- --json FILE [BENCH...]
//!
//! Prints a table to stdout. Exit code 1: a figure breaks its floor, or a bench that ran does
//! not have a figure that has one.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "a bench has no outside, and a failed unwrap is a failed bench"
)]

#[path = "../support/verdict.rs"]
mod verdict;

use clap::Parser as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use verdict::{Figure, Floors, judge, table};

#[derive(Debug, clap::Parser)]
struct Args {
    /// What the benches have written.
    #[arg(long)]
    json: PathBuf,
    /// Benches that ran.
    benches: Vec<String>,
    /// Said by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let floors: Floors = toml::from_str(include_str!("../floors.toml")).unwrap();
    for (name, floor) in &floors {
        assert_eq!(floor.mistake(), None, "{name}");
    }
    let lines = std::fs::read_to_string(&args.json).unwrap();
    let figures: Vec<Figure> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let rows = judge(&figures, &floors, &args.benches);
    std::io::stdout()
        .write_all(table(&rows).as_bytes())
        .unwrap();
    if rows.iter().any(|row| row.verdict.fails()) {
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
