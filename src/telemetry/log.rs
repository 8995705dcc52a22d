//! Sets the log up. Called once by `cli`.
//!
//! # Invariants
//! - Logs go to stderr; stdout is data. No payloads are logged.
//! - A panic in any thread is logged as an error before it unwinds.
//! - What is reported to Sentry does not depend on `log.level` (test
//!   `an_error_of_the_service_is_reported_where_a_dsn_is_set`).

use super::sentry::{self, FOLLOWS_PANIC, Reporting};
use crate::config::{Log, LogFormat};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

/// Directives that do not parse.
#[derive(Debug, thiserror::Error)]
#[error("log.level: {0}")]
pub struct LevelError(#[from] tracing_subscriber::filter::ParseError);

/// Starts logging, and reporting where it was started.
///
/// # Errors
/// When `log.level` is not a level or a list of directives.
pub fn start(log: &Log, reporting: Option<&Reporting>) -> Result<(), LevelError> {
    // lapin logs whole returned messages and an error for each failed connect; the
    // broker module says what matters of both. A directive for it wins.
    let filter = EnvFilter::try_new(format!("lapin=off,{}", log.level))?;
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_target(false);
    let lines = match log.format {
        LogFormat::Text => lines.with_ansi(false).boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    let started = tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .with(reporting.map(Reporting::layer))
        .try_init();
    if started.is_err() {
        tracing::debug!("logging was started before");
    }
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tracing::error!(target: FOLLOWS_PANIC, %panic, "a task panicked");
        sentry::panicked(panic);
        default(panic);
    }));
    Ok(())
}
