//! `holdfast top`: the status, again and again, for as long as someone looks. Called by
//! `cli`.
//!
//! # Invariants
//! - Reading it costs the service what one `status` a second does, and nothing when nobody
//!   looks.

use super::site::{Place, Site};
use super::status::{ANSWER_WAIT, render};
use crate::admin::{self, CallError, Status};
use clap::Args as ClapArgs;
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

/// Clears the screen and goes to its first line (ECMA-48, ED and CUP).
const CLEAR: &str = "\x1b[2J\x1b[H";

/// How often, and for how long.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) place: Place,
    /// Time between two looks.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = humantime::parse_duration)]
    interval: Duration,
    /// End after so many looks.
    #[arg(long, value_name = "N")]
    count: Option<u64>,
}

pub(super) async fn run(site: Site, args: &Args) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout();
    let is_terminal = out.is_terminal();
    let mut looks = 0;
    loop {
        let asked = admin::get::<Status>(&site.data_dir, "/status", ANSWER_WAIT).await;
        let text = match asked {
            Ok(status) => render(&status),
            // It may come back while someone looks.
            Err(error @ CallError::NotRunning) if is_terminal => format!("{error}\n"),
            Err(error) => return Err(error.into()),
        };
        let clear = if is_terminal { CLEAR } else { "" };
        out.write_all(format!("{clear}{text}").as_bytes())?;
        out.flush()?;
        looks += 1;
        if args.count.is_some_and(|count| looks >= count) {
            return Ok(ExitCode::SUCCESS);
        }
        tokio::select! {
            () = tokio::time::sleep(args.interval) => {}
            _ = tokio::signal::ctrl_c() => return Ok(ExitCode::SUCCESS),
        }
    }
}
