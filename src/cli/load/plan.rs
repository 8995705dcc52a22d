//! What a run shall do, from its options. Called by `run`.
//!
//! # Invariants
//! - Every number has a most, with a reason (test `every_option_is_bounded`).
//! - A run ends: after a time, or after a number of calls.

use super::Args;
use crate::app::arrivals::EVENTS_MAX;
use crate::event::descriptor::event_names;
use crate::event::limits;
use std::time::Duration;

/// Connections: those of many hosts; more than these are other limits' business than a
/// collector's, such as the host's ports.
pub(super) const CONNECTIONS_MAX: u16 = 1024;

/// Calls in flight: each is a task with a request of its own. No collector answers sooner
/// for having more of them wait.
pub(super) const IN_FLIGHT_MAX: u16 = 16_384;

/// Events of a call: a thousand screens of an app, and a row each in a database's batch.
pub(super) const BATCH_EVENTS_MAX: u16 = 10_000;

/// The smallest event: an id, a time and an empty type.
pub(super) const EVENT_BYTES_MIN: u32 = 64;

/// The largest event: one alone fills a message to the broker.
pub(super) const EVENT_BYTES_MAX: u32 = limits::MESSAGE_BYTES_SOFT_MAX as u32;

/// A call's bytes: more than any collector may be configured to take.
const CALL_BYTES_MAX: usize = 64 << 20;

/// Bytes of all calls in flight, which are in memory together.
const IN_FLIGHT_BYTES_MAX: usize = 1 << 30;

/// The longest run: a day has every hour's load. Longer ones are several.
const DURATION_MAX: Duration = Duration::from_hours(24);

/// The longest warm-up: caches, connections and tables are warm within minutes.
const WARM_UP_MAX: Duration = Duration::from_hours(1);

/// Calls a second: the pacer counts in nanoseconds, and no host sends more.
const RATE_MAX: f64 = 1e6;

/// The slowest rate: a call in a hundred seconds, so that a run has some.
const RATE_MIN: f64 = 0.01;

/// The longest wait of a check: a backlog of a day's outage.
const CHECK_TIMEOUT_MAX: Duration = Duration::from_hours(24);

/// How long a run is that says nothing else.
const DURATION: Duration = Duration::from_secs(10);

/// What ends a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum End {
    /// A time, after the warm-up.
    After(Duration),
    /// So many calls after the warm-up.
    Calls(u64),
}

/// A run.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) connections: usize,
    pub(super) in_flight: usize,
    pub(super) batch_events: usize,
    pub(super) event_bytes: usize,
    /// Names of event types, as they are stored.
    pub(super) types: Vec<String>,
    pub(super) end: End,
    /// Calls a second, whether or not earlier ones are answered; without it a call begins
    /// when one ends.
    pub(super) rate: Option<f64>,
    pub(super) warm_up: Duration,
    pub(super) seed: u64,
    /// Events that can be remembered: more end the run.
    pub(super) events_max: u64,
}

impl Plan {
    /// Reads the options; `seed` where none is named. The error says which option is wrong.
    pub(super) fn of(args: &Args, seed: u64) -> Result<Self, String> {
        let plan = Self {
            connections: args.connections.into(),
            in_flight: args.in_flight.into(),
            batch_events: args.batch_events.into(),
            event_bytes: args.event_bytes as usize,
            types: types(&args.types)?,
            end: match args.calls {
                Some(calls) => End::Calls(calls),
                None => End::After(args.duration.unwrap_or(DURATION)),
            },
            rate: args.rate,
            warm_up: args.warm_up,
            seed: args.seed.unwrap_or(seed),
            events_max: EVENTS_MAX,
        };
        plan.check()?;
        if args.check_timeout > CHECK_TIMEOUT_MAX {
            let most = humantime::format_duration(CHECK_TIMEOUT_MAX);
            return Err(format!("--check-timeout: at most {most}"));
        }
        Ok(plan)
    }

    fn check(&self) -> Result<(), String> {
        let call_bytes = self.batch_events * self.event_bytes;
        let longest = |option: &str, is: Duration, most: Duration| {
            let most_text = humantime::format_duration(most);
            (is > most).then(|| format!("{option}: at most {most_text}"))
        };
        let mut wrong = longest("--warm-up", self.warm_up, WARM_UP_MAX);
        match self.end {
            End::After(Duration::ZERO) => wrong = Some("--duration: must be more than 0".into()),
            End::After(duration) => wrong = wrong.or(longest("--duration", duration, DURATION_MAX)),
            End::Calls(calls)
                if calls.saturating_mul(self.batch_events as u64) > self.events_max =>
            {
                let most = self.events_max;
                wrong = Some(format!("--calls: at most {most} events in all"));
            }
            End::Calls(_) => {}
        }
        if let Some(rate) = self.rate
            && !(RATE_MIN..=RATE_MAX).contains(&rate)
        {
            wrong = Some(format!(
                "--rate: from {RATE_MIN} to {RATE_MAX} calls a second"
            ));
        }
        if self.in_flight < self.connections {
            wrong = Some("--in-flight: at least one for each of --connections".into());
        }
        if call_bytes > CALL_BYTES_MAX {
            wrong = Some(format!(
                "--batch-events times --event-bytes: at most {CALL_BYTES_MAX} bytes"
            ));
        } else if call_bytes * self.in_flight > IN_FLIGHT_BYTES_MAX {
            wrong = Some(format!(
                "--in-flight: at most {IN_FLIGHT_BYTES_MAX} bytes of calls at one time"
            ));
        }
        wrong.map_or(Ok(()), Err)
    }

    /// Calls that a connection may send: all of them together are within `events_max`.
    pub(super) fn calls_of_connection_max(&self) -> usize {
        let calls = self.events_max / self.batch_events as u64 / self.connections as u64;
        usize::try_from(calls).unwrap_or(usize::MAX)
    }

    /// How it is said.
    pub(super) fn loop_name(&self) -> &'static str {
        if self.rate.is_some() {
            "open"
        } else {
            "closed"
        }
    }

    /// From when on latency counts.
    pub(super) fn latency_from(&self) -> &'static str {
        match self.rate {
            Some(_) => "intended start",
            None => "send",
        }
    }
}

/// `all`, or names between commas.
fn types(text: &str) -> Result<Vec<String>, String> {
    let known = event_names();
    if text == "all" {
        return Ok(known);
    }
    let mut types: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
    types.sort();
    types.dedup();
    match types.iter().find(|name| !known.contains(name)) {
        Some(name) => Err(format!(
            "--types: there is no event type {name:?}; they are: {}",
            known.join(", ")
        )),
        None => Ok(types),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use clap::Parser;

    /// What is run where nothing else is said.
    pub(in crate::cli::load) fn plan() -> Plan {
        of("").unwrap()
    }

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    /// Of options; the error is clap's, or the plan's.
    fn of(options: &str) -> Result<Plan, String> {
        let words = ["load"].into_iter().chain(options.split_whitespace());
        let line = Line::try_parse_from(words).map_err(|error| error.to_string())?;
        Plan::of(&line.args, 1)
    }

    #[test]
    fn a_run_without_options_has_these() {
        let plan = plan();
        assert_eq!((plan.connections, plan.in_flight), (8, 64));
        assert_eq!((plan.batch_events, plan.event_bytes), (10, 300));
        assert_eq!(plan.end, End::After(Duration::from_secs(10)));
        assert_eq!((plan.types.len(), plan.seed), (56, 1));
        assert_eq!((plan.loop_name(), plan.latency_from()), ("closed", "send"));
        assert_eq!(plan.warm_up, Duration::ZERO);
    }

    #[test]
    fn options_are_read() {
        let plan = of(
            "--connections 2 --in-flight 2 --batch-events 5 --event-bytes 1000 \
                       --types TestEvent,LaunchEvent,TestEvent --calls 7 --rate 0.5 \
                       --warm-up 2s --seed 9",
        )
        .unwrap();
        assert_eq!((plan.connections, plan.in_flight), (2, 2));
        assert_eq!((plan.batch_events, plan.event_bytes), (5, 1000));
        assert_eq!(plan.types, ["LaunchEvent", "TestEvent"]);
        assert_eq!((plan.end, plan.rate), (End::Calls(7), Some(0.5)));
        assert_eq!((plan.warm_up, plan.seed), (Duration::from_secs(2), 9));
        let said = (plan.loop_name(), plan.latency_from());
        assert_eq!(said, ("open", "intended start"));
    }

    #[test]
    fn every_option_is_bounded() {
        for (good, bad) in [
            ("--in-flight 1024 --connections 1024", "--connections 1025"),
            ("--connections 1", "--connections 0"),
            ("--in-flight 16384", "--in-flight 16385"),
            ("--in-flight 8", "--in-flight 7"),
            ("--batch-events 10000 --in-flight 8", "--batch-events 10001"),
            ("--batch-events 1", "--batch-events 0"),
            ("--event-bytes 64", "--event-bytes 63"),
            ("--event-bytes 1048576", "--event-bytes 1048577"),
            (
                "--batch-events 64 --event-bytes 1048576 --in-flight 8",
                "--batch-events 65 --event-bytes 1048576 --in-flight 8",
            ),
            (
                "--batch-events 16 --event-bytes 1048576 --in-flight 64",
                "--batch-events 16 --event-bytes 1048576 --in-flight 65",
            ),
            ("--duration 24h", "--duration 25h"),
            ("--duration 1ms", "--duration 0s"),
            ("--warm-up 1h", "--warm-up 61m"),
            ("--calls 53687091", "--calls 53687092"),
            ("--calls 1", "--calls 0"),
            ("--rate 1000000", "--rate 1000001"),
            ("--rate 0.01", "--rate 0"),
            ("--rate 1", "--rate NaN"),
            ("--check-timeout 24h", "--check-timeout 25h"),
            ("--types TestEvent", "--types TestEvent,testEvent"),
            ("--types all", "--types "),
            ("--calls 5", "--calls 5 --duration 5s"),
            ("--check", "--saved file"),
        ] {
            assert!(of(good).is_ok(), "{good}: {:?}", of(good));
            assert!(of(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_run_cannot_have_more_events_than_are_remembered() {
        for options in [
            "",
            "--connections 1024 --in-flight 1024 --batch-events 10000 --event-bytes 64",
        ] {
            let plan = of(options).unwrap();
            let calls = plan.calls_of_connection_max() * plan.connections;
            let events = (calls * plan.batch_events) as u64;
            assert!(events <= EVENTS_MAX && events > EVENTS_MAX / 2, "{events}");
        }
    }
}
