//! Integration tests on real servers, started and killed by the tests themselves.
//! Run by `tests/run`, which installs what they need.
//!
//! `HOLDFAST_TEST_EVENTS` sets the size of the loads (default 50,000 events),
//! `HOLDFAST_TEST_SEED` replays one.

#![allow(
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    reason = "a test binary has no outside, and a failed unwrap is a failed test"
)]

mod support;

mod backlog;
mod bad_input;
mod benches;
mod broker;
mod brokerless;
mod calls;
mod chaos;
mod clients;
mod closed_channels;
mod coalesced;
mod consumers;
mod contract;
mod coverage;
mod crash;
mod disk_full;
mod dlq;
mod faults;
mod foreign;
mod hostile;
mod http;
mod league;
mod load;
mod main_path;
mod monitoring;
mod older_names;
mod operator;
mod outages;
mod outward;
mod ports;
mod power;
mod sentry;
mod sinks;
mod supply;
mod systemd;
mod tidy;
mod webhooks;
