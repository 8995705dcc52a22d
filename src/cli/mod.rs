//! The command line. Called by `main`.
//!
//! stdout is data, stderr is talk. Exit codes: 0 done, 1 failed or something is
//! wrong or lost, 2 wrong usage, 3 no service runs (`status`, `pace`, `reload`), 4 nothing
//! was acknowledged (`load`), 78 wrong configuration.

mod call;
mod detached;
mod dispatch;
mod dlq;
mod door;
mod drain;
mod drill;
mod generate;
mod journal;
mod load;
mod moment;
mod owner;
mod pace;
mod parts;
mod reconcile;
mod reload;
mod schema;
mod site;
mod status;
mod text;
mod token;
mod top;

use crate::config::{self, Config};
use crate::journal::Loss;
use crate::port::Validity;
use crate::telemetry::sentry::{Reporting, StartError};
use crate::{app, telemetry};
use clap::{CommandFactory as _, Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// sysexits.h EX_CONFIG: systemd can tell it from a crash.
const EX_CONFIG: u8 = 78;

/// How long the end of a command waits for threads whose work nobody needs any more.
const THREADS_MAX: Duration = Duration::from_secs(1);

const EXIT_CODES: &str = "Exit codes: 0 done; 1 failed, or something is wrong or lost;
2 wrong usage; 3 no service runs (status, pace, reload); 4 nothing was acknowledged
(load); 78 wrong configuration.";

/// An edge event collector that does not lose events.
#[derive(Debug, Parser)]
#[command(name = "holdfast", version, about, after_help = EXIT_CODES)]
struct Cli {
    /// Configuration file (TOML); HOLDFAST__SECTION__KEY variables win over it. Names of
    /// older deployments count where neither says anything, in `.env`, too.
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
    /// Send made-up events, say how fast they are taken, and check that all arrive.
    Load(load::Args),
    /// Say whether the service takes events, what waits, and whether it adds up.
    Status(status::Args),
    /// Look into the log, and change what the ways out still deliver.
    #[command(subcommand)]
    Journal(journal::Verb),
    /// Show the status again and again, until Ctrl-C.
    Top(top::Args),
    /// Take nothing any more and empty the log, of the service or of a dead host.
    Drain(drain::Args),
    /// Show how fast the log goes out, and change it while the service runs.
    Pace(pace::Args),
    /// Have the running service load its configuration anew, as SIGHUP does.
    Reload(reload::Args),
    /// Make a bearer token for a client, and what the configuration needs of it.
    Token(token::Args),
    /// Compare what this host accepted with the rows in its tables.
    Reconcile(reconcile::Args),
    /// Play an outage on a staging host, and prove that nothing is missing after it.
    Drill(drill::Args),
    /// Look at what was refused, send it again, or give it up.
    #[command(subcommand)]
    Dlq(dlq::Verb),
    /// Make the manual pages and the completions of shells, for a package.
    #[command(subcommand, hide = true)]
    Generate(generate::Verb),
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
    // The service sees to it by its configuration.
    if !matches!(verb, Verb::Run) {
        crate::app::leave_no_core();
    }
    let file = cli.config.as_deref();
    let verb = match verb {
        Verb::Dispatch(args) => return finish(block_on(dispatch::run(args))),
        Verb::Load(args) if args.is_checked() => {
            return at(site::Place::default().find(file), |site| {
                block_on(load::run(args, site.config))
            });
        }
        Verb::Load(args) => return finish(block_on(load::run(args, None))),
        Verb::Generate(verb) => return finish(generate::run(Cli::command(), &verb)),
        Verb::Token(args) => return finish(token::run(&args)),
        Verb::Status(args) => {
            return at(args.place.look(file), |site| {
                block_on(status::run(site, &args))
            });
        }
        Verb::Top(args) => {
            return at(args.place.look(file), |site| {
                block_on(top::run(site, &args))
            });
        }
        Verb::Drain(args) => {
            return at(args.place.find(file), |site| {
                block_on(drain::run(site, &args))
            });
        }
        Verb::Reconcile(args) => {
            return at(args.place.find(file), |site| {
                block_on(reconcile::run(site, &args))
            });
        }
        Verb::Drill(args) => {
            return at(args.place.find(file), |site| {
                block_on(drill::run(site, &args))
            });
        }
        Verb::Pace(args) => {
            return at(args.place.look(file), |site| {
                block_on(pace::run(site, &args))
            });
        }
        Verb::Reload(args) => {
            return at(args.place.reach(file), |site| {
                block_on(reload::run(site, &args))
            });
        }
        Verb::Journal(verb) => {
            return at(verb.place().find(file), |site| {
                block_on(journal::run(site, verb))
            });
        }
        Verb::Dlq(verb) => {
            return at(verb.place().find(file), |site| {
                block_on(dlq::run(site, verb))
            });
        }
        verb => verb,
    };
    // What is checked, and where tables are made, is what the installed service uses.
    let file = match (file, &verb) {
        (None, Verb::CheckConfig | Verb::Schema(_)) => site::installed(),
        _ => file,
    };
    let loaded = config::load(file);
    let config = match loaded.and_then(|config| app::check_start(&config).map(|()| config)) {
        Ok(config) => config,
        Err(errors) => {
            eprintln!("holdfast: {errors}");
            return ExitCode::from(EX_CONFIG);
        }
    };
    // First, since the threads to come take it over.
    let reporting = match (&verb, &config.sentry) {
        (Verb::Run, Some(section)) => telemetry::sentry::start(section).map(Some),
        _ => Ok(None),
    };
    let reports = reporting.as_ref().ok().and_then(Option::as_ref);
    let level = match telemetry::log::start(&config.log, reports) {
        Ok(level) => level,
        Err(error) => {
            eprintln!("holdfast: {error}");
            return ExitCode::from(EX_CONFIG);
        }
    };
    match verb {
        Verb::Run => {
            let file = cli.config;
            run(config, app::Source { file, level }, reporting)
        }
        Verb::CheckConfig => check_config(&config),
        Verb::Schema(verb) => finish(block_on(schema::run(&config, &verb))),
        Verb::Dispatch(_)
        | Verb::Load(_)
        | Verb::Top(_)
        | Verb::Status(_)
        | Verb::Drain(_)
        | Verb::Pace(_)
        | Verb::Reload(_)
        | Verb::Reconcile(_)
        | Verb::Drill(_)
        | Verb::Journal(_)
        | Verb::Dlq(_)
        | Verb::Token(_)
        | Verb::Generate(_) => {
            unreachable!("answered above")
        }
    }
}

/// Does an operator's verb at its directory.
fn at(
    site: Result<site::Site, config::Errors>,
    work: impl FnOnce(site::Site) -> anyhow::Result<ExitCode>,
) -> ExitCode {
    match site {
        Ok(site) => finish(work(site)),
        Err(errors) => {
            eprintln!("holdfast: {errors}");
            ExitCode::from(EX_CONFIG)
        }
    }
}

/// Names lost sequences.
fn lost(loss: &Loss) -> String {
    if loss.records() == 0 {
        return format!(
            "what generation {} held and could not be read: nobody knows how much that was",
            loss.generation
        );
    }
    let last = loss.end.0.saturating_sub(1);
    let requests = text::count(loss.records(), "request");
    format!(
        "sequences {} to {last} of generation {} ({requests})",
        loss.first, loss.generation
    )
}

/// Does the work. What it has left to other threads is not waited for: a name that is not
/// resolved, a file that does not answer (tests/it/operator/reloads.rs,
/// `a_file_that_does_not_answer_keeps_no_service_from_its_end`).
fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(work);
    runtime.shutdown_timeout(THREADS_MAX);
    result
}

fn finish(result: anyhow::Result<ExitCode>) -> ExitCode {
    result.unwrap_or_else(|error| {
        let closed = |cause: &std::io::Error| cause.kind() == std::io::ErrorKind::BrokenPipe;
        if error.downcast_ref::<std::io::Error>().is_some_and(closed) {
            // Whoever reads our output has seen enough, such as `head`.
            return ExitCode::FAILURE;
        }
        eprintln!("holdfast: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(
    config: Config,
    source: app::Source,
    reporting: Result<Option<Reporting>, StartError>,
) -> ExitCode {
    for note in config.origin.notes() {
        tracing::info!("{note}");
    }
    for warning in app::warnings(&config) {
        tracing::warn!("{warning}");
    }
    let reporting = reporting.unwrap_or_else(|error| {
        // The service is there for events.
        tracing::warn!(%error, "errors are not reported");
        None
    });
    let result = block_on(app::run(config, source));
    if let (Err(error), Some(reporting)) = (&result, &reporting) {
        reporting.ended_by(error);
    }
    finish(result.map(|()| ExitCode::SUCCESS))
}

fn check_config(config: &Config) -> ExitCode {
    let origin = &config.origin;
    for note in origin.notes().into_iter().chain(origin.idle_notes()) {
        eprintln!("{note}");
    }
    for line in config::open_to_all(config)
        .into_iter()
        .chain(app::warnings(config))
    {
        eprintln!("warning: {line}");
    }
    match app::check(config) {
        Ok(None) => {}
        Ok(Some(Validity { until, has_ended })) if has_ended => {
            eprintln!("warning: the certificate of [tls] ended {until}");
        }
        Ok(Some(Validity { until, .. })) => {
            eprintln!("the certificate of [tls] is good until {until}");
        }
        Err(errors) => {
            eprintln!("holdfast: {errors}");
            return ExitCode::from(EX_CONFIG);
        }
    }
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
