//! Which data directory an operator's verb is about. Called by `cli` for each of them.
//!
//! # Invariants
//! - `--data-dir` alone reads no configuration: a directory can be looked at
//!   wherever it is, and whatever the configuration of this machine says.
//! - A service is reached whatever is wrong with its configuration, for `reload` (test
//!   `a_wrong_file_changes_nothing_and_names_its_mistakes`), and without its credentials, for
//!   `status`, `top` and `pace`
//!   (`secrets_come_from_files_and_credentials_and_go_nowhere_else`).
//! - Who names nothing means the service that the package installed, unless there is a
//!   data directory here (`tests/package`).

use crate::config::{self, Config};
use crate::telemetry;
use clap::Args as ClapArgs;
use std::path::{Path, PathBuf};

/// Where the package has its configuration.
const INSTALLED: &str = "/etc/holdfast/holdfast.toml";

/// The configuration of the installed service; none where one runs from here.
pub(super) fn installed() -> Option<&'static Path> {
    let is_here = config::Data::default().dir.exists();
    let file = Path::new(INSTALLED);
    (!is_here && file.exists()).then_some(file)
}

/// Which directory.
#[derive(Debug, Clone, Default, ClapArgs)]
pub(super) struct Place {
    /// The data directory, instead of the configuration's: of a stopped or a
    /// running service, or a copy of one.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

/// A directory, and the configuration where one was read.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) data_dir: PathBuf,
    pub(super) config: Option<Config>,
}

impl Place {
    /// Finds the directory; reads the configuration unless the directory is named
    /// and the configuration is not.
    pub(super) fn find(&self, file: Option<&Path>) -> Result<Site, config::Errors> {
        let config = match (&self.data_dir, file) {
            (Some(_), None) => None,
            (None, None) => Some(config::load(installed())?),
            (_, file) => Some(config::load(file)?),
        };
        let mut log = config.clone().unwrap_or_default().log;
        if log.level == config::Log::default().level {
            // What a running service says at this level is no news here.
            log.level = "warn".to_owned();
        }
        talk(&log)?;
        let configured = config.as_ref().map(|config| config.data.dir.clone());
        let data_dir = self.data_dir.clone().or(configured).unwrap_or_default();
        Ok(Site { data_dir, config })
    }

    /// As [`Place::find`], also for who has not the credentials that systemd gives to the
    /// service.
    pub(super) fn look(&self, file: Option<&Path>) -> Result<Site, config::Errors> {
        match self.find(file) {
            Err(errors) if errors.lack_credentials() => self.reach(file),
            found => found,
        }
    }

    /// Finds the directory of a service whose configuration may be wrong by now; what is
    /// wrong with it is the service's to say.
    pub(super) fn reach(&self, file: Option<&Path>) -> Result<Site, config::Errors> {
        talk(&config::Log {
            level: "warn".to_owned(),
            ..config::Log::default()
        })?;
        let data_dir = match (&self.data_dir, file) {
            (Some(dir), _) => dir.clone(),
            (None, Some(file)) => config::data_dir(Some(file)),
            (None, None) => config::data_dir(installed()),
        };
        Ok(Site {
            data_dir,
            config: None,
        })
    }
}

/// Starts the log of a command.
fn talk(log: &config::Log) -> Result<(), config::Errors> {
    match telemetry::log::start(log, None) {
        Ok(_) => Ok(()),
        Err(error) => Err(config::Errors(vec![error.to_string()])),
    }
}
