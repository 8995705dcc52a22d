//! `holdfast generate man|completions`: the manual pages and the shells' completions,
//! made from the commands themselves. Called by whoever makes a package.
//!
//! # Invariants
//! - Every verb has a page, and each shell gets what it can read (test
//!   `the_manual_and_the_completions_know_every_verb`).

use anyhow::Context as _;
use clap::{Command, Subcommand};
use clap_complete::Shell;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

/// What to make.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Write the manual pages into a directory, one for each verb.
    Man {
        /// The directory, which must exist.
        dir: PathBuf,
    },
    /// Print what a shell reads to complete words.
    Completions {
        /// The shell.
        shell: Shell,
    },
}

pub(super) fn run(mut command: Command, verb: &Verb) -> anyhow::Result<ExitCode> {
    match verb {
        Verb::Man { dir } => {
            let pages = clap_mangen::generate_to(command, dir);
            pages.with_context(|| format!("write to {}", dir.display()))?;
        }
        Verb::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut command, "holdfast", &mut script);
            std::io::stdout().write_all(&script)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
