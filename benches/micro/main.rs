//! Single steps of an event's path, each alone, with Criterion: `cargo bench --bench micro`.
//! They say where the time goes; whether it is good enough is for the benches with a ceiling
//! beside them (`door`, `journal`, `forwarding`, `end_to_end`).

#![allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    reason = "a bench has no outside, a failed unwrap is a failed bench, and `support` serves several"
)]

mod event;
mod handlers;
mod journal;

#[path = "../support/disk.rs"]
mod disk;
#[path = "../support/payload.rs"]
mod payload;

use criterion::{criterion_group, criterion_main};

criterion_group!(
    steps,
    event::door,
    event::groups,
    event::bodies,
    handlers::rows,
    journal::appends,
    journal::reads
);
criterion_main!(steps);
