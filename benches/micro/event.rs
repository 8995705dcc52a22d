//! What is done to a request's bytes: at the door, and on the way out.

use super::payload::{BATCH_EVENTS, request};
use criterion::{BatchSize, Criterion, Throughput};
use holdfast::event::descriptor::schema;
use holdfast::event::group::Group;
use holdfast::event::proto::Events;
use holdfast::event::split::split;
use holdfast::event::{envelope, scan};
use prost::Message as _;
use prost_reflect::DynamicMessage;
use std::hint::black_box;

/// When requests are received: after they were made.
const NOW_MS: i64 = 1_764_000_000_000;

/// Above what any request here has.
const EVENTS_MAX: usize = 10_000;

fn groups_of(bytes: &[u8]) -> Vec<Group> {
    split(bytes, NOW_MS, None).unwrap().collect()
}

/// The door's look at a request, and what decoding it would take instead.
pub fn door(c: &mut Criterion) {
    let bytes = request("micro", 1, NOW_MS);
    let found = scan::request(&bytes, EVENTS_MAX).unwrap();
    assert_eq!(found.events, BATCH_EVENTS);
    assert!((2_900..3_200).contains(&bytes.len()), "{}", bytes.len());
    let mut group = c.benchmark_group("door");
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("scan", |b| {
        b.iter(|| scan::request(black_box(&bytes), EVENTS_MAX).unwrap());
    });
    group.bench_function("decode_generated", |b| {
        b.iter(|| Events::decode(black_box(&bytes[..])).unwrap());
    });
    group.bench_function("decode_reflected", |b| {
        b.iter(|| DynamicMessage::decode(schema().events.clone(), black_box(&bytes[..])).unwrap());
    });
    group.finish();
}

/// A request taken apart by type.
pub fn groups(c: &mut Criterion) {
    let bytes = request("micro", 1, NOW_MS);
    assert_eq!(groups_of(&bytes).len(), BATCH_EVENTS);
    let mut group = c.benchmark_group("split");
    group.throughput(Throughput::Elements(BATCH_EVENTS as u64));
    group.bench_function("by_type", |b| b.iter(|| groups_of(black_box(&bytes))));
    group.finish();
}

/// Groups as the broker's messages, and messages as groups.
pub fn bodies(c: &mut Criterion) {
    let groups = groups_of(&request("micro", 1, NOW_MS));
    let encode = |groups: &[Group]| {
        let bodies = groups.iter().map(|group| envelope::encode(group).unwrap());
        bodies.collect::<Vec<_>>()
    };
    let bodies = encode(&groups);
    let mut group = c.benchmark_group("bodies");
    group.throughput(Throughput::Elements(BATCH_EVENTS as u64));
    group.bench_function("encode", |b| b.iter(|| encode(black_box(&groups))));
    group.bench_function("decode", |b| {
        b.iter(|| {
            for (content_type, body) in black_box(&bodies) {
                black_box(envelope::decode(Some(content_type), body).unwrap());
            }
        });
    });
    group.bench_function("drop", |b| {
        b.iter_batched(|| groups.clone(), drop, BatchSize::SmallInput);
    });
    group.finish();
}
