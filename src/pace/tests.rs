//! The pace of ways out, against a clock of its own.

use super::super::OVERLOAD_HOLD;
use super::*;

fn paced(max_rate: Option<u32>, backlog_share: f64) -> (Pace, Pacer) {
    let pace = Pace::new(Settings {
        max_rate,
        backlog_share,
    });
    let pacer = Pacer::new(&pace, "w", 2000);
    (pace, pacer)
}

/// Events that go in some seconds when messages of so many always wait.
fn sent(pacer: &mut Pacer, lanes: &[Lane], events: u64, start: Instant, seconds: u64) -> Vec<u64> {
    let mut sent = vec![0; lanes.len()];
    for ms in 0..seconds * 1000 {
        let now = start + Duration::from_millis(ms);
        for (lane, sent) in lanes.iter().zip(&mut sent) {
            for _ in 0..50 {
                if pacer.admit(*lane, events, now).is_some() {
                    break;
                }
                *sent += events;
            }
        }
    }
    sent
}

#[test]
fn a_rate_is_kept_and_the_backlog_has_its_share() {
    let (pace, mut pacer) = paced(Some(1000), 0.25);
    let start = Instant::now();
    let alone = sent(&mut pacer, &[Lane::Backlog], 10, start, 10)[0];
    assert!((9_900..=10_200).contains(&alone), "{alone}");
    let start = start + Duration::from_secs(11);
    let both = sent(&mut pacer, &[Lane::Fresh, Lane::Backlog], 10, start, 10);
    assert!((9_800..=10_300).contains(&(both[0] + both[1])), "{both:?}");
    assert!(both[1] <= 2_700, "{both:?}");
    pace.set(Settings {
        max_rate: None,
        backlog_share: 0.25,
    });
    let start = start + Duration::from_secs(60);
    let free = sent(&mut pacer, &[Lane::Fresh], 10, start, 1)[0];
    assert_eq!(free, 50 * 10 * 1000, "nothing holds it");
}

#[test]
fn a_rate_that_is_set_later_counts_from_then() {
    let (pace, mut pacer) = paced(None, 0.25);
    let start = Instant::now();
    let lanes = [Lane::Fresh, Lane::Backlog];
    let free = sent(&mut pacer, &lanes, 10, start, 10);
    assert_eq!(free, [5_000_000, 5_000_000]);
    pace.set(Settings {
        max_rate: Some(1000),
        backlog_share: 0.25,
    });
    let start = start + Duration::from_secs(10);
    let held = sent(&mut pacer, &lanes, 10, start, 10);
    assert!((9_800..=10_300).contains(&(held[0] + held[1])), "{held:?}");
    // And so it is for the share of a backlog that had none to keep.
    let start = start + Duration::from_secs(20);
    let alone = sent(&mut pacer, &[Lane::Backlog], 10, start, 10)[0];
    assert!((9_800..=10_300).contains(&alone), "{alone}");
    let start = start + Duration::from_secs(11);
    assert_eq!(pacer.admit(Lane::Fresh, 1, start), None);
    let beside = sent(&mut pacer, &[Lane::Backlog], 10, start, 4)[0];
    assert!((900..=1_200).contains(&beside), "{beside}");
}

#[test]
fn a_message_larger_than_the_rate_goes_and_is_paid_for() {
    let (_, mut pacer) = paced(Some(10), 1.0);
    let now = Instant::now();
    assert_eq!(pacer.admit(Lane::Fresh, 100, now), None);
    let due = pacer.admit(Lane::Fresh, 1, now).unwrap();
    let wait = (due - now).as_secs_f64();
    assert!((9.0..=10.5).contains(&wait), "{wait}");
    assert_eq!(
        pacer.admit(Lane::Fresh, 1, due + Duration::from_millis(1)),
        None
    );
}

#[test]
fn the_window_follows_the_confirms() {
    let (pace, mut pacer) = paced(None, 0.5);
    let mut now = Instant::now();
    let mut run = |pacer: &mut Pacer, latency_ms, steps: u32| {
        for _ in 0..steps {
            now += STEP;
            // Something fresh goes beside the backlog.
            assert_eq!(pacer.admit(Lane::Fresh, 1, now), None);
            for _ in 0..50 {
                pacer.confirmed(Duration::from_millis(latency_ms), now);
            }
        }
    };
    assert_eq!(pacer.backlog_window(), WINDOW_MIN);
    run(&mut pacer, 5, 100);
    assert_eq!(pacer.backlog_window(), 1000, "its share of the window");
    run(&mut pacer, 2000, 100);
    assert_eq!(pacer.backlog_window(), WINDOW_MIN, "never nothing");
    let slowed = pace.ways()["w"].slowed.clone().unwrap();
    assert!(slowed.contains("confirms slowly"), "{slowed}");
    run(&mut pacer, 5, 200);
    assert_eq!(pacer.backlog_window(), 1000);
    assert_eq!(pace.ways()["w"].slowed, None);
    assert_eq!(pace.ways()["w"].confirm_latency_ms, Some(5.0));
    pacer.restart();
    assert_eq!(pacer.backlog_window(), WINDOW_MIN);
}

#[test]
fn an_overloaded_sink_halves_the_window_once_for_each_word() {
    let (pace, mut pacer) = paced(None, 1.0);
    let start = Instant::now();
    for step in 1..200 {
        pacer.confirmed(Duration::from_millis(1), start + STEP * step);
    }
    assert_eq!(pacer.backlog_window(), 2000);
    pace.overloaded("Too many parts");
    let now = Instant::now();
    for step in 200..220 {
        // Twenty steps within the hold.
        pacer.confirmed(Duration::from_millis(1), now.max(start + STEP * step));
    }
    assert_eq!(pacer.backlog_window(), 1000);
    let slowed = pace.ways()["w"].slowed.clone().unwrap();
    assert!(slowed.contains("Too many parts"), "{slowed}");
    let later = now + OVERLOAD_HOLD + STEP * 300;
    for step in 0..100 {
        pacer.confirmed(Duration::from_millis(1), later + STEP * step);
    }
    assert_eq!(pacer.backlog_window(), 2000);
}

#[test]
fn a_backlog_trickles_while_fresh_events_wait_in_full_queues() {
    let (pace, mut pacer) = paced(None, 1.0);
    pacer.queue_is_full(Some("q holds 9000 messages".to_owned()));
    let start = Instant::now();
    let free = sent(&mut pacer, &[Lane::Backlog], 10, start, 1)[0];
    assert_eq!(free, 50 * 10 * 1000, "nobody to make way for");
    // What went before is no debt.
    let start = start + Duration::from_secs(2);
    let both = sent(&mut pacer, &[Lane::Fresh, Lane::Backlog], 10, start, 10);
    assert_eq!(both[0], 50 * 10 * 10_000);
    assert!((1_900..=2_100).contains(&both[1]), "{both:?}");
    let slowed = pace.ways()["w"].slowed.clone().unwrap();
    assert!(slowed.contains("9000"), "{slowed}");
    // An alarm of the broker empties no queue.
    pacer.restart();
    let start = start + Duration::from_secs(11);
    let after = sent(&mut pacer, &[Lane::Fresh, Lane::Backlog], 10, start, 10);
    assert!((1_900..=2_100).contains(&after[1]), "{after:?}");
}

#[test]
fn however_small_a_share_is_its_wait_is_a_time() {
    for backlog_share in [1e-20, 1e-9, f64::MIN_POSITIVE] {
        let (_, mut pacer) = paced(Some(1), backlog_share);
        let now = Instant::now();
        assert_eq!(pacer.admit(Lane::Fresh, 1, now), None);
        let later = now + Duration::from_secs(2);
        assert_eq!(pacer.admit(Lane::Backlog, 10, later), None);
        let later = later + Duration::from_secs(2);
        let due = pacer.admit(Lane::Backlog, 1, later).unwrap();
        assert_eq!(due, later + Duration::from_secs(3600), "not for ever");
    }
}

#[test]
fn what_slowed_a_way_out_is_not_shown_for_ever() {
    let (pace, mut pacer) = paced(Some(10), 1.0);
    let slowed = |at| pace.ways_at(at)["w"].slowed.clone();
    let start = Instant::now();
    assert_eq!(pacer.admit(Lane::Fresh, 100, start), None);
    // It waits for ten seconds, in which nothing more is said.
    let due = pacer.admit(Lane::Fresh, 1, start).unwrap();
    assert!(due > start + Duration::from_secs(9));
    assert!(slowed(start).unwrap().contains("at most 10"));
    assert!(slowed(due + Duration::from_secs(4)).is_some());
    assert_eq!(slowed(due + Duration::from_secs(6)), None);
    // As long as it is said again it is so.
    let mut now = due;
    for _ in 0..100 {
        now += Duration::from_millis(200);
        pacer.admit(Lane::Fresh, 3, now);
        assert!(slowed(now).is_some());
    }
    // What is lifted is not said again, also where something goes.
    pace.set(Settings::default());
    for _ in 0..100 {
        now += Duration::from_millis(200);
        assert_eq!(pacer.admit(Lane::Fresh, 3, now), None);
    }
    assert_eq!(slowed(now), None);
    // What a confirm told ends with the traffic, too; the latency stays.
    assert_eq!(pacer.admit(Lane::Fresh, 1, now), None);
    pacer.confirmed(Duration::from_secs(2), now);
    assert!(slowed(now).unwrap().contains("confirms slowly"));
    assert_eq!(slowed(now + Duration::from_secs(6)), None);
    assert_eq!(
        pace.ways_at(now + Duration::from_secs(6))["w"].confirm_latency_ms,
        Some(2000.0)
    );
}
