//! Sets the log up. Called once by `cli`.
//!
//! # Invariants
//! - Logs go to stderr; stdout is data. No payloads are logged.
//! - A panic in any thread is logged as an error before it unwinds.

use crate::config::{Log, LogFormat};
use tracing_subscriber::EnvFilter;

/// Directives that do not parse.
#[derive(Debug, thiserror::Error)]
#[error("log.level: {0}")]
pub struct LevelError(#[from] tracing_subscriber::filter::ParseError);

/// Starts logging.
///
/// # Errors
/// When `log.level` is not a level or a list of directives.
pub fn start(log: &Log) -> Result<(), LevelError> {
    // lapin logs whole returned messages and an error for each failed connect; the
    // broker module says what matters of both. A directive for it wins.
    let filter = EnvFilter::try_new(format!("lapin=off,{}", log.level))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false);
    let started = match log.format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    if started.is_err() {
        tracing::debug!("logging was started before");
    }
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tracing::error!(%panic, "a task panicked");
        default(panic);
    }));
    Ok(())
}
