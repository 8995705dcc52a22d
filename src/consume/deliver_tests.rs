//! Tests of `deliver` with a scripted sink: faults that no real server shows on
//! demand. Real sinks are in the integration tests.

use super::*;
use crate::sink::schema::EVENTS;
use crate::sink::{SchemaError, Value};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::sync::Mutex;

/// Refuses batches that hold a bad row; away for the first calls.
#[derive(Debug, Default)]
struct Scripted {
    bad: BTreeSet<i64>,
    away: Mutex<usize>,
    stored: Mutex<Vec<i64>>,
    /// What it says about another attempt.
    retry_after: Option<Duration>,
    /// How long a write takes.
    takes: Duration,
    tokens: Mutex<Vec<String>>,
}

fn number(row: &Row) -> i64 {
    match row.values[0] {
        Value::Int(n) => n,
        _ => panic!("not a number"),
    }
}

#[async_trait::async_trait]
impl Sink for Scripted {
    fn name(&self) -> &'static str {
        "scripted"
    }

    async fn write(&self, batch: &Batch) -> Result<(), WriteError> {
        self.tokens.lock().unwrap().push(batch.token.clone());
        tokio::time::sleep(self.takes).await;
        let mut away = self.away.lock().unwrap();
        if *away > 0 {
            *away -= 1;
            return Err(WriteError::Unavailable {
                reason: "away".into(),
                retry_after: self.retry_after,
                overloaded: false,
            });
        }
        if batch.rows.iter().any(|row| self.bad.contains(&number(row))) {
            return Err(WriteError::Refused {
                reason: "bad".into(),
            });
        }
        self.stored
            .lock()
            .unwrap()
            .extend(batch.rows.iter().map(number));
        Ok(())
    }

    async fn create_missing(&self, _: &[&'static Table]) -> Result<(), SchemaError> {
        Ok(())
    }

    fn ddl(&self, _: &[&'static Table]) -> Vec<String> {
        Vec::new()
    }

    async fn maintain(&self) -> Result<(), SchemaError> {
        Ok(())
    }
}

fn target(sink: Arc<Scripted>) -> Target {
    Target {
        sink,
        table: &EVENTS,
        namespace: None,
        who: "test".into(),
        metrics: Metrics::new(),
        pace: crate::pace::Pace::default(),
    }
}

fn rows(count: i64) -> (Arc<[Row]>, Vec<String>) {
    let rows = (0..count).map(|n| Row {
        values: vec![Value::Int(n)],
    });
    (rows.collect(), (0..count).map(|n| n.to_string()).collect())
}

proptest! {
    #[test]
    fn only_the_refused_rows_are_set_aside(count in 0i64..60, bad in proptest::collection::btree_set(0i64..60, 0..8)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let sink = Arc::new(Scripted { bad: bad.clone(), ..Scripted::default() });
        let (rows, ids) = rows(count);
        let verdicts = runtime.block_on(target(Arc::clone(&sink)).write(rows, &ids, &CancellationToken::new())).unwrap();
        for (n, verdict) in (0..).zip(&verdicts) {
            let refused = matches!(verdict, Verdict::Refused(_));
            prop_assert_eq!(refused, bad.contains(&n));
        }
        let stored = sink.stored.lock().unwrap().clone();
        let expected: Vec<_> = (0..count).filter(|n| !bad.contains(n)).collect();
        prop_assert_eq!(stored, expected, "each good row once, in order");
    }
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_is_away_gets_the_same_batch_again() {
    let sink = Arc::new(Scripted {
        away: Mutex::new(7),
        ..Scripted::default()
    });
    let (rows, ids) = rows(3);
    let verdicts = target(Arc::clone(&sink))
        .write(rows, &ids, &CancellationToken::new())
        .await;
    assert_eq!(verdicts, Ok(vec![Verdict::Written; 3]));
    let tokens = sink.tokens.lock().unwrap();
    assert_eq!(tokens.len(), 8);
    assert!(tokens.iter().all(|token| token == &tokens[0]));
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_is_away_shows() {
    let sink = Arc::new(Scripted {
        away: Mutex::new(usize::MAX),
        ..Scripted::default()
    });
    let target = target(Arc::clone(&sink));
    let metrics = target.metrics.clone();
    let shown = |value| {
        let line = format!("holdfast_sink_available{{sink=\"scripted\"}} {value}\n");
        metrics.render().contains(&line)
    };
    let writing = tokio::spawn(async move {
        let (rows, ids) = rows(1);
        target.write(rows, &ids, &CancellationToken::new()).await
    });
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(shown(0));
    *sink.away.lock().unwrap() = 0;
    assert_eq!(writing.await.unwrap(), Ok(vec![Verdict::Written]));
    assert!(shown(1));
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_asks_for_no_pause_gets_one() {
    let pause = Duration::from_secs(40);
    for (retry_after, fewest, most) in [(Duration::ZERO, 2, 100), (pause, 2, 3)] {
        let sink = Arc::new(Scripted {
            away: Mutex::new(usize::MAX),
            retry_after: Some(retry_after),
            takes: Duration::from_millis(10),
            ..Scripted::default()
        });
        let (target, (rows, ids)) = (target(Arc::clone(&sink)), rows(1));
        let (time, stop) = (Duration::from_secs(100), CancellationToken::new());
        let writing = tokio::time::timeout(time, target.write(rows, &ids, &stop));
        assert!(writing.await.is_err(), "it is away");
        let asked = sink.tokens.lock().unwrap().len();
        assert!((fewest..=most).contains(&asked), "{retry_after:?}: {asked}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_that_hangs_holds_its_table() {
    let sink = Arc::new(Scripted {
        takes: USUAL_WRITE * 4,
        ..Scripted::default()
    });
    let target = target(sink);
    let (stop, (rows, ids)) = (CancellationToken::new(), rows(1));
    // Whether it ends by itself, or is given up.
    for is_stopped in [false, true] {
        let writing = target.write(Arc::clone(&rows), &ids, &stop);
        tokio::pin!(writing);
        let until = |part: u32| tokio::time::sleep(USUAL_WRITE * part / 2);
        for (part, is_held) in [(1, false), (2, true), (4, true)] {
            tokio::select! {
                written = &mut writing => panic!("{written:?}"),
                () = until(part) => {}
            }
            assert_eq!(target.metrics.is_held("scripted", EVENTS.name), is_held);
            assert!(!target.metrics.is_held("scripted", LAUNCH_REFER_EVENTS.name));
        }
        if is_stopped {
            stop.cancel();
        }
        assert_eq!(writing.await.is_err(), is_stopped);
        assert!(!target.metrics.is_held("scripted", EVENTS.name));
    }
}

/// Lines of this thread at INFO and above.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_said_once_however_many_wait() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_target(false)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let sink = Arc::new(Scripted {
        away: Mutex::new(1_000),
        ..Scripted::default()
    });
    let target = target(Arc::clone(&sink));
    let (rows, ids) = rows(1);
    let stop = CancellationToken::new();
    let writing = (0..27).map(|_| target.write(Arc::clone(&rows), &ids, &stop));
    for written in futures::future::join_all(writing).await {
        assert_eq!(written, Ok(vec![Verdict::Written]));
    }
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let count = |what: &str| text.lines().filter(|line| line.contains(what)).count();
    assert_eq!(count("WARN sink is away; holding"), 1, "{text}");
    assert_eq!(count("INFO sink is back sink=\"scripted\""), 1, "{text}");
    assert_eq!(text.lines().count(), 2, "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_the_waiting() {
    let sink = Arc::new(Scripted {
        away: Mutex::new(usize::MAX),
        ..Scripted::default()
    });
    let stop = CancellationToken::new();
    let (rows, ids) = rows(1);
    let stopper = stop.clone();
    tokio::spawn(async move {
        tokio::time::sleep(std::time::Duration::from_secs(60)).await;
        stopper.cancel();
    });
    assert_eq!(target(sink).write(rows, &ids, &stop).await, Err(Stopped));
}
