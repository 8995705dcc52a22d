//! `holdfast reload`: has the running service load its configuration anew.
//!
//! The service reads the file that it was started with, whatever this command is told: the
//! configuration here only says where the service is. It may be broken, since what is wrong
//! with it is what the service is asked to say.
//!
//! Exit codes: 0 loaded; 1 not, and nothing has changed; 3 no service runs.

use super::call::{change, say};
use super::site::{Place, Site};
use crate::admin::{ReloadRequest, Reloaded};
use clap::Args as ClapArgs;
use std::process::ExitCode;
use std::time::Duration;

/// The file is read, and another reload may come before.
const ANSWER_WAIT: Duration = Duration::from_secs(30);

/// How to say it.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) place: Place,
    /// Say it as one JSON document.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(site: Site, args: &Args) -> anyhow::Result<ExitCode> {
    let request = ReloadRequest {
        sudo_user: std::env::var("SUDO_USER").ok(),
    };
    let answer: Option<Reloaded> = change(&site, "/reload", &request, ANSWER_WAIT).await?;
    say(answer.as_ref(), args.json, render)
}

fn render(answer: &Reloaded) -> String {
    let line = |what: &str, keys: &[String]| match keys {
        [] => String::new(),
        keys => format!("{what}: {}\n", keys.join(", ")),
    };
    let applied = line("now in force", &answer.applied);
    let text = applied + &line("only after a restart", &answer.needs_restart);
    if text.is_empty() {
        "nothing changed\n".to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_apart_from_what_is_in_force() {
        let keys = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect();
        let said = |applied, needs_restart| {
            render(&Reloaded {
                applied: keys(applied),
                needs_restart: keys(needs_restart),
            })
        };
        assert_eq!(said(&[], &[]), "nothing changed\n");
        assert_eq!(
            said(&["log.level", "shutdown.grace"], &["data.dir"]),
            "now in force: log.level, shutdown.grace\nonly after a restart: data.dir\n"
        );
        assert_eq!(said(&[], &["data.dir"]), "only after a restart: data.dir\n");
    }
}
