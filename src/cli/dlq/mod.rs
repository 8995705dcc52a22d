//! `holdfast dlq ls|show|replay|purge`: what was refused, in the broker's error queues and
//! in this host's file. Called by `cli`.
//!
//! # Invariants
//! - Looking changes nothing. A change says what it would do, unless it is told to
//!   `--apply`, and is in the audit then.
//! - A place that cannot be reached hides no other: each is named on stderr, and the exit
//!   code is 1.

mod change;
mod ls;
mod places;
mod show;

use super::moment::parse_moment;
use super::site::{Place, Site};
use crate::dlq::Filter;
use clap::{Args as ClapArgs, Subcommand};
use std::process::ExitCode;

/// What to do with refused messages.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Count them, by the queue whose consumer refused them.
    Ls(ls::Args),
    /// Show them, with reason, history and body.
    Show(show::Args),
    /// Send them again to the queue that refused them. A dry run unless --apply.
    Replay(change::ReplayArgs),
    /// Give them up. A dry run unless --apply.
    Purge(change::PurgeArgs),
}

impl Verb {
    pub(super) fn place(&self) -> &Place {
        match self {
            Self::Ls(args) => &args.place,
            Self::Show(args) => &args.place,
            Self::Replay(args) => &args.place,
            Self::Purge(args) => &args.place,
        }
    }
}

/// Which of them.
#[derive(Debug, Clone, ClapArgs)]
pub(super) struct Which {
    /// Refused by this queue's consumer, or this way out, or kept in this error queue.
    #[arg(long = "queue", value_name = "NAME")]
    queues: Vec<String>,
    /// Of this event type, or first published with this routing key.
    #[arg(long = "type", value_name = "EVENT")]
    types: Vec<String>,
    /// With this in their reason, in any case.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Refused since: a time (2026-01-31T18:00:00Z), or so long ago (2h).
    #[arg(long, value_name = "WHEN", value_parser = parse_moment)]
    since: Option<i64>,
    /// With this id, as `show` prints it.
    #[arg(long = "id", value_name = "ID")]
    ids: Vec<String>,
}

impl Which {
    fn filter(&self) -> Filter {
        Filter {
            queues: self.queues.clone(),
            types: self.types.clone(),
            reason: self.reason.clone(),
            since_ms: self.since,
            ids: self.ids.clone(),
        }
    }
}

pub(super) async fn run(site: Site, verb: Verb) -> anyhow::Result<ExitCode> {
    match verb {
        Verb::Ls(args) => ls::run(&site, &args).await,
        Verb::Show(args) => show::run(&site, &args).await,
        Verb::Replay(args) => change::replay(&site, &args).await,
        Verb::Purge(args) => change::purge(&site, &args).await,
    }
}
