//! `holdfast journal peek`: records as JSON, one a line.
//!
//! Exit codes: 0 shown, 1 something in the range is lost.

use super::record::describe;
use super::select::TypeFilter;
use crate::cli::lost;
use crate::cli::site::{Place, Site};
use crate::event::identity::Seq;
use crate::journal::Found;
use anyhow::Context as _;
use clap::Args as ClapArgs;
use std::io::{BufWriter, Write as _};
use std::ops::ControlFlow;
use std::process::ExitCode;

/// Which records.
#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct Args {
    #[command(flatten)]
    pub(super) place: Place,
    /// From this sequence; without it from the oldest record.
    #[arg(long, value_name = "SEQ", conflicts_with = "way")]
    from: Option<u64>,
    /// From the first record that this way out has not delivered.
    #[arg(long, value_name = "NAME")]
    way: Option<String>,
    /// So many records at most.
    #[arg(long, value_name = "N", default_value_t = 10)]
    count: u64,
    /// Only events of this type; may be given several times.
    #[arg(long = "type", value_name = "EVENT", value_parser = TypeFilter::parse)]
    types: Vec<TypeFilter>,
    /// The output is JSON in any case.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(site: &Site, args: &Args) -> anyhow::Result<ExitCode> {
    let directory = super::open(site)?;
    let from = match &args.way {
        None => Seq(args.from.unwrap_or(0)),
        Some(way) => {
            let cursor = directory.cursors().iter().find(|c| c.name == *way);
            cursor
                .with_context(|| format!("no way out is named {way:?}"))?
                .next
        }
    };
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut left = args.count;
    let mut is_lost = false;
    let mut result = Ok(());
    if left > 0 {
        directory.walk(from, Seq(u64::MAX), &mut |found| {
            match found {
                Found::Record(record) => {
                    if let Some(shown) = describe(&record, &args.types) {
                        left -= 1;
                        result = writeln!(out, "{shown}");
                    }
                }
                Found::Lost(loss) => {
                    is_lost = true;
                    eprintln!("LOST: {}", lost(&loss));
                }
            }
            if left == 0 || result.is_err() {
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
    }
    result?;
    out.flush()?;
    Ok(if is_lost {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}
