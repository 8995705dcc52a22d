//! The command line. Called by `main`.
//!
//! stdout is data, stderr is talk. Exit codes: 0 done, 1 failed, 2 wrong usage,
//! 78 wrong configuration.

mod dispatch;
mod schema;

use crate::config::{self, Config};
use crate::{app, telemetry};
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// sysexits.h EX_CONFIG: systemd can tell it from a crash.
const EX_CONFIG: u8 = 78;

/// An edge event collector that does not lose events.
#[derive(Debug, Parser)]
#[command(name = "holdfast", version, about)]
struct Cli {
    /// Configuration file (TOML); HOLDFAST__SECTION__KEY variables win over it.
    #[arg(long, short, global = true, env = "HOLDFAST_CONFIG")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the service (the default).
    Run,
    /// Check the configuration and say everything that is wrong with it.
    CheckConfig,
    /// Print or create the tables of the configured sinks.
    #[command(subcommand)]
    Schema(schema::Verb),
    /// Send events from a file of protobuf JSON batches, one a line.
    Dispatch(dispatch::Args),
}

/// Parses the arguments and does what they say.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    // Both rings are in the tree through different libraries; without a choice
    // rustls would refuse to pick one. Fails only if one was installed before.
    if rustls::crypto::ring::default_provider()
        .install_default()
        .is_err()
    {
        eprintln!("holdfast: a TLS provider was installed before");
    }
    let verb = cli.verb.unwrap_or(Verb::Run);
    if let Verb::Dispatch(args) = verb {
        return finish(block_on(dispatch::run(args)));
    }
    let config = match config::load(cli.config.as_deref()) {
        Ok(config) => config,
        Err(errors) => {
            eprintln!("holdfast: {errors}");
            return ExitCode::from(EX_CONFIG);
        }
    };
    if let Err(error) = telemetry::log::start(&config.log) {
        eprintln!("holdfast: {error}");
        return ExitCode::from(EX_CONFIG);
    }
    match verb {
        Verb::Run => finish(block_on(app::run(config)).map(|()| ExitCode::SUCCESS)),
        Verb::CheckConfig => check_config(&config),
        Verb::Schema(verb) => finish(block_on(schema::run(&config, &verb))),
        Verb::Dispatch(_) => unreachable!("answered above"),
    }
}

fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(work)
}

fn finish(result: anyhow::Result<ExitCode>) -> ExitCode {
    result.unwrap_or_else(|error| {
        eprintln!("holdfast: {error:#}");
        ExitCode::FAILURE
    })
}

fn check_config(config: &Config) -> ExitCode {
    let sinks: Vec<_> = config.sinks().iter().map(|sink| sink.name()).collect();
    let broker = if config.rabbitmq.is_some() {
        "through RabbitMQ"
    } else {
        "directly"
    };
    eprintln!(
        "configuration is good: events go {broker} to {}",
        if sinks.is_empty() {
            "its consumers on other hosts".to_owned()
        } else {
            sinks.join(", ")
        }
    );
    ExitCode::SUCCESS
}
