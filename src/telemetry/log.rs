//! Sets the log up, and changes its level later. Called once by `cli`; the level by `app`.
//!
//! # Invariants
//! - Logs go to stderr, or with `journald` to the journal's socket, and to stderr where that is
//!   not there (test `without_a_journal_lines_are_text_on_stderr`); stdout is data. No payloads
//!   are logged.
//! - A panic in any thread is logged as an error before it unwinds.
//! - A level that is set later holds for the next line (test
//!   `another_level_lets_other_lines_through`); the lines of the broker's library stay out.
//! - What is reported to Sentry does not depend on `log.level` (test
//!   `an_error_of_the_service_is_reported_where_a_dsn_is_set`).

use super::sentry::{self, FOLLOWS_PANIC, Reporting};
use super::stderr::Lines;
use crate::config::{Log, LogFormat};
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, Registry};

/// A level that is none.
#[derive(Debug, thiserror::Error)]
pub enum LevelError {
    /// Directives that do not parse.
    #[error("log.level: {0}")]
    Directives(#[from] tracing_subscriber::filter::ParseError),
    /// A word that is no level. It would be taken for a module, all of whose lines are let
    /// through, and no others.
    #[error("log.level: {0:?} is no level: off, error, warn, info, debug, trace, or target=level")]
    Word(String),
}

/// What `log.level` lets through.
#[derive(Debug)]
pub struct Filter(EnvFilter);

impl Filter {
    /// Reads a level or a list of directives.
    ///
    /// # Errors
    /// When it is neither.
    pub fn parse(level: &str) -> Result<Self, LevelError> {
        if !level.contains('[') {
            let mut words = level.split(',').filter(|part| !part.contains('='));
            let is_level = |word: &str| !word.is_empty() && word.parse::<LevelFilter>().is_ok();
            if let Some(word) = words.find(|word| !is_level(word)) {
                return Err(LevelError::Word(word.to_owned()));
            }
        }
        // lapin logs whole returned messages and an error for each failed connect; the
        // broker module says what matters of both. sqlx warns of each connection that a server
        // ended, whose sink says it once. A directive for one of them wins.
        Ok(Self(EnvFilter::try_new(format!(
            "lapin=off,sqlx_core::pool=error,{level}"
        ))?))
    }
}

/// The level of the log that was started.
#[derive(Debug, Clone)]
pub struct Level(reload::Handle<EnvFilter, Registry>);

impl Level {
    /// Of a log that nobody started.
    #[cfg(test)]
    pub(crate) fn of_no_log() -> Self {
        Self(reload::Layer::new(EnvFilter::default()).1)
    }

    /// From now on this goes through. Of a log that has ended, which only the end of the
    /// process brings about, nothing is changed.
    pub fn set(&self, Filter(filter): Filter) {
        if let Err(error) = self.0.reload(filter) {
            tracing::debug!(%error, "the log has ended");
        }
    }
}

/// Starts logging, and reporting where it was started.
///
/// # Errors
/// When `log.level` is not a level or a list of directives.
pub fn start(log: &Log, reporting: Option<&Reporting>) -> Result<Level, LevelError> {
    let (filter, level) = reload::Layer::new(Filter::parse(&log.level)?.0);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(Lines::new())
        .with_target(false);
    let mut no_journal = None;
    let lines = match log.format {
        LogFormat::Text => lines.with_ansi(false).boxed(),
        LogFormat::Json => lines.json().boxed(),
        LogFormat::Journald => match tracing_journald::layer() {
            Ok(journal) => journal.with_priority_mappings(priorities()).boxed(),
            Err(error) => {
                no_journal = Some(error);
                lines.with_ansi(false).boxed()
            }
        },
    };
    let started = tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .with(reporting.map(Reporting::layer))
        .try_init();
    if started.is_err() {
        tracing::debug!("logging was started before");
    }
    if let Some(error) = no_journal {
        tracing::warn!(%error, "log.format is journald, and there is no journal; logging as text on stderr");
    }
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tracing::error!(target: FOLLOWS_PANIC, %panic, "a task panicked");
        sentry::panicked(panic);
        default(panic);
    }));
    Ok(Level(level))
}

/// As of lines on stderr: the library's own say `notice` of INFO.
fn priorities() -> PriorityMappings {
    PriorityMappings {
        info: Priority::Informational,
        debug: Priority::Debug,
        ..PriorityMappings::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    /// Counts what comes through.
    struct Seen(Arc<Mutex<Vec<tracing::Level>>>);

    impl tracing_subscriber::Layer<Registry> for Seen {
        fn on_event(
            &self,
            event: &tracing::Event<'_>,
            _: tracing_subscriber::layer::Context<'_, Registry>,
        ) {
            self.0.lock().unwrap().push(*event.metadata().level());
        }
    }

    #[test]
    fn another_level_lets_other_lines_through() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (filter, level) = reload::Layer::new(Filter::parse("warn").unwrap().0);
        let level = Level(level);
        let layer = Seen(Arc::clone(&seen)).with_filter(filter);
        let lines = |level: &Level, directives: &str| {
            level.set(Filter::parse(directives).unwrap());
            tracing::info!("an example");
            tracing::error!("an example");
            tracing::warn!(target: "lapin", "an example");
            std::mem::take(&mut *seen.lock().unwrap())
        };
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            use tracing::Level as L;
            assert_eq!(lines(&level, "warn"), [L::ERROR]);
            assert_eq!(lines(&level, "info"), [L::INFO, L::ERROR]);
            assert!(lines(&level, "off").is_empty());
            assert_eq!(lines(&level, "error,lapin=warn"), [L::ERROR, L::WARN]);
        });
        for level in ["=loud=", "warning", "", "info,holdfsat", "info, warn"] {
            assert!(Filter::parse(level).is_err(), "{level:?}");
        }
        for level in [
            "holdfast=debug",
            "off",
            "3",
            "info,holdfast=trace",
            "[span]=debug",
        ] {
            assert!(Filter::parse(level).is_ok(), "{level:?}");
        }
    }
}
