//! `holdfast journal ls|peek|find|verify|export|skip|purge`: an operator's look into the
//! log, and the few changes that may be made in it. Called by `cli`.
//!
//! # Invariants
//! - Looking needs no lock, no service and no free disk, and changes nothing.
//! - A change goes through the running service, or takes the directory's lock when
//!   there is none.

mod change;
mod export;
mod find;
mod ls;
mod output;
mod peek;
mod record;
mod select;
mod verify;

use super::site::{Place, Site};
use crate::journal::Directory;
use anyhow::Context as _;
use clap::Subcommand;
use std::process::ExitCode;

/// What to do with the log.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// List the generations, and which ways out still need each.
    Ls(ls::Args),
    /// Show records as JSON, one a line.
    Peek(peek::Args),
    /// Say where an event is, by its id, and which ways out have passed it.
    Find(find::Args),
    /// Read everything and say what is lost.
    Verify(verify::Args),
    /// Write records out, to be sent again or kept.
    Export(export::Args),
    /// Let one way out pass records over. A dry run unless --apply.
    Skip(change::SkipArgs),
    /// Let ways out pass records over, or delete a quarantined generation. A dry
    /// run unless --apply.
    Purge(change::PurgeArgs),
}

impl Verb {
    pub(super) fn place(&self) -> &Place {
        match self {
            Self::Ls(args) => &args.place,
            Self::Peek(args) => &args.place,
            Self::Find(args) => &args.place,
            Self::Verify(args) => &args.place,
            Self::Export(args) => &args.place,
            Self::Skip(args) => &args.place,
            Self::Purge(args) => &args.place,
        }
    }
}

pub(super) async fn run(site: Site, verb: Verb) -> anyhow::Result<ExitCode> {
    match verb {
        Verb::Ls(args) => ls::run(&site, &args),
        Verb::Peek(args) => peek::run(&site, &args),
        Verb::Find(args) => find::run(&site, &args).await,
        Verb::Verify(args) => verify::run(&site, &args),
        Verb::Export(args) => export::run(&site, &args),
        Verb::Skip(args) => change::skip(&site, &args).await,
        Verb::Purge(args) => change::purge(&site, &args).await,
    }
}

fn open(site: &Site) -> anyhow::Result<Directory> {
    Directory::open(&site.data_dir).with_context(|| format!("look at {}", site.data_dir.display()))
}
