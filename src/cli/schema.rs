//! `holdfast schema print|apply`.

use super::owner::become_owner;
use crate::app::{consumers, sinks, tables, takers};
use crate::config::{Config, SinkKind};
use crate::journal::DATA_DIR_MODE;
use anyhow::Context as _;
use clap::Subcommand;
use std::fs::DirBuilder;
use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::process::ExitCode;

/// What to do with the tables.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Print the statements that make the tables, for each configured sink.
    Print,
    /// Create what is missing; never drops or rewrites.
    Apply,
}

pub(super) async fn run(config: &Config, verb: &Verb) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout();
    let consumers = consumers(config);
    let takers = takers(config);
    if matches!(verb, Verb::Apply)
        && config.sinks().contains(&SinkKind::Sqlite)
        && config.data.dir.exists()
    {
        // The file is made in its directory.
        become_owner(&config.data.dir)?;
    }
    for (kind, sink) in sinks(config)? {
        if !kind.takes_rows() {
            continue;
        }
        let tables = tables(config, &consumers, &takers, kind);
        match verb {
            Verb::Print => {
                writeln!(out, "-- {}", sink.name())?;
                for statement in sink.ddl(&tables) {
                    writeln!(out, "{};\n", statement.trim_end_matches(';'))?;
                }
            }
            Verb::Apply => {
                if kind == SinkKind::Sqlite {
                    DirBuilder::new()
                        .recursive(true)
                        .mode(DATA_DIR_MODE)
                        .create(&config.data.dir)
                        .with_context(|| format!("create {}", config.data.dir.display()))?;
                }
                sink.create_missing(&tables)
                    .await
                    .with_context(|| format!("create tables in {}", sink.name()))?;
                eprintln!("{}: tables are there", sink.name());
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
