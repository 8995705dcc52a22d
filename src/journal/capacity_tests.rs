//! Tests of `capacity`: measures are set by hand, the reserve is a real file.

use super::*;
use std::path::Path;

const MIB: u64 = 1 << 20;

/// 100 MiB for the journal; the floor is far below what the disk has.
fn limits() -> Limits {
    Limits {
        max_bytes: 100 * MIB,
        min_free_bytes: MIB,
        reserve_bytes: 0,
        record_bytes_max: 64 << 20,
        generation_bytes: 4 * MIB,
        generation_age: Duration::from_secs(60),
        queue_bytes_max: 16 << 20,
    }
}

fn capacity(dir: &Path, limits: Limits) -> Capacity {
    Capacity::new(limits, dir.to_owned())
}

fn is_full(result: &Result<Admitted<'_>, AppendError>) -> bool {
    matches!(result, Err(AppendError::Full { .. }))
}

#[test]
fn a_burst_between_two_measures_is_charged_against_the_last() {
    let dir = tempfile::tempdir().unwrap();
    let capacity = capacity(dir.path(), limits());
    capacity.measure(|| 90 * MIB);
    // Nothing reaches the disk before the next measure: 10 MiB hold 5 of them.
    let mut under_way = Vec::new();
    while let Ok(admitted) = capacity.admit(MIB as usize) {
        under_way.push(admitted);
        assert!(under_way.len() < 100, "the bound is not kept");
    }
    assert_eq!(under_way.len(), 4, "the fifth would reach the bound");
    // Those still under way are not forgotten by a measure that cannot see them.
    capacity.measure(|| 90 * MIB);
    assert!(is_full(&capacity.admit(MIB as usize)));
    // Once they are answered, the measure has them.
    under_way.clear();
    capacity.measure(|| 90 * MIB);
    assert!(capacity.admit(MIB as usize).is_ok());
}

#[test]
fn answered_requests_stay_charged_until_the_next_measure() {
    let dir = tempfile::tempdir().unwrap();
    let capacity = capacity(dir.path(), limits());
    capacity.measure(|| 90 * MIB);
    let mut admitted = 0;
    while capacity.admit(MIB as usize).is_ok() {
        admitted += 1;
        assert!(admitted < 100, "the bound is not kept");
    }
    assert_eq!(admitted, 4);
}

#[test]
fn refusal_starts_and_ends_once_and_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let capacity = capacity(dir.path(), limits());
    capacity.measure(|| 98 * MIB);
    assert_eq!(capacity.pressure(), Pressure::Slow);
    // A large request that does not fit says nothing about the others.
    assert!(is_full(&capacity.admit(4 << 20)));
    assert_eq!(capacity.pressure(), Pressure::Slow);
    assert!(capacity.admit(1000).is_ok());
    capacity.measure(|| 100 * MIB - 1000);
    assert!(is_full(&capacity.admit(1000)));
    assert_eq!(capacity.pressure(), Pressure::Refuse);
    // A little room is not enough to come back, and then none gets in.
    capacity.measure(|| 99 * MIB);
    assert_eq!(capacity.pressure(), Pressure::Refuse);
    assert!(is_full(&capacity.admit(1)));
    capacity.measure(|| 90 * MIB);
    assert_eq!(capacity.pressure(), Pressure::Slow);
    assert!(capacity.admit(1000).is_ok());
    capacity.measure(|| 10 * MIB);
    assert_eq!(capacity.pressure(), Pressure::None);
}

#[test]
fn a_low_disk_refuses_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let capacity = capacity(
        dir.path(),
        Limits {
            min_free_bytes: u64::MAX / 4,
            ..limits()
        },
    );
    assert_eq!(capacity.pressure(), Pressure::Refuse);
    let refused = capacity.admit(1);
    assert!(matches!(refused, Err(AppendError::DiskLow { .. })));
}

#[test]
fn the_wait_grows_with_pressure_and_leaves_time_for_the_sync() {
    let dir = tempfile::tempdir().unwrap();
    let capacity = capacity(dir.path(), limits());
    let wait = |used: u64, limit_ms: u64| {
        capacity.measure(|| used);
        let admitted = capacity.admit(1).unwrap();
        admitted.wait(Duration::from_millis(limit_ms))
    };
    assert_eq!(wait(80 * MIB, 1000), Duration::ZERO);
    let some = wait(90 * MIB, 1000);
    let more = wait(97 * MIB, 1000);
    assert!(Duration::from_millis(50) < some && some < more, "{some:?}");
    assert!(more < Duration::from_millis(200), "{more:?}");
    assert_eq!(wait(97 * MIB, 20), Duration::from_millis(10));
}

/// A disk of 1 GiB that holds nothing but the directory's files.
fn small_disk(dir: &Path) -> io::Result<u64> {
    let mut taken = 0;
    for entry in std::fs::read_dir(dir)? {
        taken += std::os::unix::fs::MetadataExt::blocks(&entry?.metadata()?) * 512;
    }
    Ok((1 << 30) - taken)
}

fn judged(capacity: &Capacity) -> u64 {
    let state = capacity.state();
    capacity.judged(&state, 0).free_bytes
}

fn disk_full() -> io::Error {
    io::Error::from(io::ErrorKind::StorageFull)
}

#[test]
fn the_reserve_changes_no_level() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits {
        min_free_bytes: 500 * MIB,
        reserve_bytes: 48 * MIB,
        ..limits()
    };
    let capacity = Capacity::with(limits, dir.path().to_owned(), small_disk);
    let with = judged(&capacity);
    assert_eq!(capacity.reserve.held_bytes(), 48 * MIB);
    assert!(with.abs_diff(capacity.free_bytes()) < MIB);
    let free_with = capacity.free_bytes();
    assert!(capacity.heed(&disk_full()));
    assert!(
        capacity.free_bytes() > free_with + 15 * MIB,
        "nothing came back"
    );
    assert!(judged(&capacity).abs_diff(with) < MIB);
    // There is room, but it must not come and go with each try of a write.
    capacity.measure(|| 0);
    assert_eq!(capacity.reserve.held_bytes(), 32 * MIB);
    capacity.state().full_at = Instant::now().checked_sub(REMAKE_AFTER);
    capacity.measure(|| 0);
    assert_eq!(capacity.reserve.held_bytes(), 48 * MIB);
    assert!(judged(&capacity).abs_diff(with) < MIB);
}

#[test]
fn a_write_that_finds_the_disk_full_refuses_for_a_while_whatever_is_free() {
    let dir = tempfile::tempdir().unwrap();
    let capacity = Capacity::with(limits(), dir.path().to_owned(), small_disk);
    assert!(!capacity.heed(&io::Error::other("not about space")));
    assert_eq!(capacity.pressure(), Pressure::None);
    assert!(capacity.heed(&disk_full()));
    let refused = capacity.admit(1);
    assert!(matches!(refused, Err(AppendError::DiskLow { .. })));
    capacity.measure(|| 0);
    assert_eq!(capacity.pressure(), Pressure::Refuse);
    capacity.state().full_at = Instant::now().checked_sub(FULL_HOLD);
    capacity.measure(|| 0);
    assert!(capacity.admit(1).is_ok());
}

/// The same disk, with all but 10 MiB taken by others.
fn crowded_disk(dir: &Path) -> io::Result<u64> {
    Ok(small_disk(dir)? + 48 * MIB + 10 * MIB - (1 << 30))
}

#[test]
fn a_nearly_full_disk_gets_the_reserve_step_by_step() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits {
        min_free_bytes: 100 * MIB,
        reserve_bytes: 48 * MIB,
        ..limits()
    };
    // Made while there was room.
    drop(Capacity::with(
        limits.clone(),
        dir.path().to_owned(),
        small_disk,
    ));
    let capacity = Capacity::with(limits, dir.path().to_owned(), crowded_disk);
    assert_eq!(capacity.reserve.held_bytes(), 32 * MIB);
    assert!(capacity.free_bytes() > 25 * MIB);
    // No longer nearly full, and far from room to make it again.
    capacity.measure(|| 0);
    assert_eq!(capacity.reserve.held_bytes(), 32 * MIB);
    assert_eq!(capacity.pressure(), Pressure::Refuse);
}

#[test]
fn a_refusal_is_said_by_its_cause() {
    let dir = tempfile::tempdir().unwrap();
    let capacity = Capacity::with(limits(), dir.path().to_owned(), small_disk);
    let words = || capacity.state().worse();
    capacity.measure(|| 75 * MIB);
    assert!(words().contains("near its bounds"), "{}", words());
    capacity.measure(|| 100 * MIB);
    assert!(words().contains("at its bounds"), "{}", words());
    capacity.lacks(Want::Descriptors);
    assert!(words().contains("lacks"), "{}", words());
}
