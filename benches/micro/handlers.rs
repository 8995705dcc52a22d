//! Messages become rows.

use super::payload::{BATCH_EVENTS, request};
use criterion::{Criterion, Throughput};
use holdfast::config::Handler;
use holdfast::consume::handlers::{self, Context, Input};
use holdfast::event::envelope::{self, JSON, Origins};
use holdfast::event::split::split;
use std::hint::black_box;

const NOW_MS: i64 = 1_764_000_000_000;

/// A webhook of Graphy, as its queue has it: a message that is one row.
const LEARNER: &[u8] = br#"{"Learner Email":"a@b.example","Price":1299,"name":"purchase","receive-timestamp":1700000000,"x-eg-id":"g-1029384756","x-eg-headers":{"Spayee-Event":["purchase"]}}"#;

/// Messages of events, and a message of another family.
pub fn rows(c: &mut Criterion) {
    let context = Context::default();
    let groups = split(&request("micro", 1, NOW_MS), NOW_MS, None)
        .unwrap()
        .map(|group| (envelope::encode(&group).unwrap().1, group.indexes))
        .collect::<Vec<_>>();
    let table = handlers::table(Handler::Events).unwrap();
    let make = || {
        let mut rows = 0;
        for (body, indexes) in &groups {
            let input = Input {
                content_type: Some(JSON),
                body,
                origins: Origins {
                    host: "h-0123456789abcdef".to_owned(),
                    seq: 42,
                    indexes: indexes.clone(),
                },
                ..Input::default()
            };
            rows += handlers::run(Handler::Events, table, black_box(&input), &context, NOW_MS)
                .unwrap()
                .len();
        }
        rows
    };
    assert_eq!(make(), BATCH_EVENTS);
    let mut group = c.benchmark_group("handlers");
    group.throughput(Throughput::Elements(BATCH_EVENTS as u64));
    group.bench_function("events", |b| b.iter(make));
    group.throughput(Throughput::Elements(1));
    let table = handlers::table(Handler::Graphy).unwrap();
    let input = Input {
        content_type: Some(JSON),
        body: LEARNER,
        ..Input::default()
    };
    handlers::run(Handler::Graphy, table, &input, &context, NOW_MS).unwrap();
    group.bench_function("graphy", |b| {
        b.iter(|| {
            handlers::run(Handler::Graphy, table, black_box(&input), &context, NOW_MS).unwrap()
        });
    });
    group.finish();
}
