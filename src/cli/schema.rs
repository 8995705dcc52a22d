//! `holdfast schema print|apply`.

use crate::app::sinks;
use crate::config::Config;
use crate::sink::schema::EVENT_TABLES;
use anyhow::Context as _;
use clap::Subcommand;
use std::io::Write as _;
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
    for sink in sinks(config)?.into_values() {
        match verb {
            Verb::Print => {
                writeln!(out, "-- {}", sink.name())?;
                for statement in sink.ddl(EVENT_TABLES) {
                    writeln!(out, "{};\n", statement.trim_end_matches(';'))?;
                }
            }
            Verb::Apply => {
                if sink.name() == "sqlite" {
                    std::fs::create_dir_all(&config.data.dir)
                        .with_context(|| format!("create {}", config.data.dir.display()))?;
                }
                sink.create_missing(EVENT_TABLES)
                    .await
                    .with_context(|| format!("create tables in {}", sink.name()))?;
                eprintln!("{}: tables are there", sink.name());
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
