//! `holdfast pace`: shows how fast the log goes out, and changes it while the service runs.
//!
//! Exit codes: 0 shown or changed; 1 not; 3 no service runs.

use super::call::{change, say};
use super::site::{Place, Site};
use super::text::{count, fact};
use crate::admin::{PaceAnswer, PaceRequest, Way};
use clap::Args as ClapArgs;
use std::process::ExitCode;
use std::time::Duration;

/// A service that does not answer in this time is as good as none.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// What to change.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) place: Place,
    /// Events a second that leave by one way out, until the next start; 0: as many as go.
    #[arg(long, value_name = "EVENTS")]
    max_rate: Option<u32>,
    /// The part of it, and of the messages on their way, that a backlog may take while fresh
    /// events go beside it: more than 0, at most 1.
    #[arg(long, value_name = "SHARE")]
    backlog_share: Option<f64>,
    /// Say it as one JSON document.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(site: Site, args: &Args) -> anyhow::Result<ExitCode> {
    let request = PaceRequest {
        max_rate: args.max_rate,
        backlog_share: args.backlog_share,
        sudo_user: std::env::var("SUDO_USER").ok(),
    };
    let answer: Option<PaceAnswer> = change(&site, "/pace", &request, ANSWER_WAIT).await?;
    say(answer.as_ref(), args.json, render)
}

/// How ways out go, as lines of the status: what went ahead, confirms, what slows them.
pub(super) fn lines(ways: &[Way]) -> String {
    let mut text = String::new();
    for way in ways {
        let mut words = Vec::new();
        if way.ahead_requests > 0 {
            let ahead = count(way.ahead_requests, "fresh request");
            words.push(format!("{ahead} went ahead of the backlog"));
        }
        if let Some(pace) = &way.pace {
            words.extend(
                pace.confirm_latency_ms
                    .map(|ms| format!("confirms take {ms} ms")),
            );
            words.extend(pace.slowed.as_ref().map(|why| format!("slowed: {why}")));
        }
        if !words.is_empty() {
            text.push_str(&fact("pace", &format!("{}: {}", way.way, words.join("; "))));
        }
    }
    if text.is_empty() {
        text
    } else {
        format!("\n{text}")
    }
}

fn render(answer: &PaceAnswer) -> String {
    let rate = answer.settings.max_rate;
    let rate = rate.map_or("as many as go".to_owned(), |rate| {
        format!("{rate} events a second")
    });
    let share = answer.settings.backlog_share;
    let mut text = format!("max rate       {rate}\nbacklog share  {share}\n");
    for (way, pace) in &answer.ways {
        if let Some(ms) = pace.confirm_latency_ms {
            text.push_str(&format!("{way}: confirms take {ms} ms\n"));
        }
        if let Some(slowed) = &pace.slowed {
            text.push_str(&format!("{way}: slowed: {slowed}\n"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pace::{Settings, WayPace};

    #[test]
    fn what_is_slowed_says_why() {
        let answer = PaceAnswer {
            settings: Settings {
                max_rate: Some(500),
                backlog_share: 0.5,
            },
            ways: [(
                "rabbitmq".to_owned(),
                WayPace {
                    confirm_latency_ms: Some(3.2),
                    slowed: Some("the broker confirms slowly".to_owned()),
                },
            )]
            .into(),
        };
        assert_eq!(
            render(&answer),
            "max rate       500 events a second\nbacklog share  0.5\n\
             rabbitmq: confirms take 3.2 ms\nrabbitmq: slowed: the broker confirms slowly\n"
        );
        assert_eq!(lines(&[]), "");
    }
}
