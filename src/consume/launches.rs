//! The launches that accounts and profiles are looked up in, and whether those on their way have
//! come to their table. Called by `consumer`, which watches, and by `worker`, which looks up.
//!
//! A launch is published before the account that it led to, but by another queue: after an outage
//! the accounts may be here while their launches still wait in the broker.
//!
//! # Invariants
//! - That a device has no launch is believed only where the look-up began after launches had
//!   arrived; until then the rows wait (tests
//!   `no_launch_is_believed_only_once_launches_have_arrived` and
//!   tests/it/contract/clickhouse_away.rs).
//! - What a queue holds whose node is down is on its way (test
//!   `only_a_queue_that_is_not_there_is_empty_without_a_reader`).
//! - They wait for a queue that gets shorter for as long as that takes, and for one that does not
//!   for [`PATIENCE`] (test `a_queue_that_nobody_drains_holds_accounts_for_a_while_only`).
//! - With the loss of the broker the wait ends, and the messages come again.

use super::deliver::{Stopped, Target, USUAL_WRITE};
use super::handlers::referral;
use super::worker::End;
use crate::broker::{BrowseError, Depth, Session, depth};
use crate::retry::LONGEST;
use crate::sink::schema::{LAUNCH_REFER_EVENTS, Table};
use crate::sink::{Launch, Row};
use crate::telemetry::Metrics;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How often the queues of launches are looked at; a look costs the broker next to nothing.
const LOOK_PERIOD: Duration = Duration::from_secs(2);

/// How long a launch may be in some consumer's hands after its queue was empty and the sink was
/// there: the longest wait between two tries, here or on another host, and the write. One that
/// takes longer counts as held, on the host that does it.
const IN_HAND: Duration = LONGEST.saturating_add(USUAL_WRITE);

/// A queue under steady traffic is empty at times; one without such a time for this long has a
/// backlog.
const BACKLOGGED: Duration = Duration::from_secs(30);

/// How long accounts wait while the queue does not get shorter than it was: then nobody drains it,
/// or more comes than is written, and accounts would wait for ever.
const PATIENCE: Duration = Duration::from_secs(600);

/// What the looks at the queues of launches have shown.
#[derive(Debug)]
struct Looks {
    /// The first time they were empty since there was a backlog or the sink did not take them.
    empty_since: Option<Instant>,
    /// The last time they were empty.
    empty_at: Option<Instant>,
    /// The fewest messages since they were empty or the sink did not take them, and since when.
    fewest: (u32, Instant),
}

impl Looks {
    fn new(now: Instant) -> Self {
        Self {
            empty_since: None,
            empty_at: None,
            fewest: (u32::MAX, now),
        }
    }

    /// One look: how many messages wait, `None` when the broker did not say, and whether some
    /// launches are held because the sink or their queue's node is away. Returns whether all
    /// launches published before [`IN_HAND`] ago are in their table, as far as anyone can know.
    fn see(&mut self, now: Instant, waiting: Option<u32>, are_held: bool) -> bool {
        if are_held {
            *self = Self::new(now);
            return false;
        }
        match waiting {
            Some(0) => {
                self.empty_since.get_or_insert(now);
                self.empty_at = Some(now);
                self.fewest = (u32::MAX, now);
            }
            Some(messages) if messages < self.fewest.0 => self.fewest = (messages, now),
            Some(_) | None => {}
        }
        if self.empty_at.is_none_or(|at| now - at > BACKLOGGED) {
            self.empty_since = None;
        }
        let passed = |since: Instant, limit| now - since >= limit;
        self.empty_since.is_some_and(|since| passed(since, IN_HAND))
            || passed(self.fewest.1, PATIENCE)
    }
}

/// Looks at the queues of launches until the session ends, and says whether launches have arrived.
pub(super) async fn watch(
    session: &Session,
    queues: &[String],
    (metrics, sink): (&Metrics, &str),
    arrived: watch::Sender<bool>,
) {
    let mut looks = Looks::new(Instant::now());
    while session.is_connected() {
        let (waiting, are_held) = tokio::select! {
            waiting = waiting(session, queues) => waiting,
            () = session.closed() => return,
        };
        let are_held = are_held || metrics.is_held(sink, LAUNCH_REFER_EVENTS.name);
        let has_arrived = looks.see(Instant::now(), waiting, are_held);
        arrived.send_if_modified(|before| std::mem::replace(before, has_arrived) != has_arrived);
        tokio::select! {
            () = tokio::time::sleep(LOOK_PERIOD) => {}
            () = session.closed() => return,
        }
    }
}

/// How many messages wait in the queues, `None` when the broker does not say for sure; and
/// whether some are held, in a queue whose node is down.
async fn waiting(session: &Session, queues: &[String]) -> (Option<u32>, bool) {
    let (mut sum, mut are_held) = (Some(0_u32), false);
    for queue in queues {
        let (messages, is_away) = told(depth(session, queue).await);
        sum = sum
            .zip(messages)
            .map(|(sum, more)| sum.saturating_add(more));
        are_held |= is_away;
    }
    (sum, are_held)
}

/// What the broker says of one of them.
fn told(answer: Result<Option<Depth>, BrowseError>) -> (Option<u32>, bool) {
    match answer {
        // A busy broker says 0 and 0 of a queue that has messages.
        Ok(Some(depth)) if depth.messages == 0 && depth.consumers == 0 => (None, false),
        Ok(Some(depth)) => (Some(depth.messages), false),
        // No launch can be in a queue that is not there.
        Ok(None) => (Some(0), false),
        Err(error) => {
            tracing::debug!(%error, "cannot look how many launches wait");
            (None, error.is_away)
        }
    }
}

/// The launch of each row's device, for as long as it takes to know.
pub(super) async fn find(
    target: &Target,
    rows: &[Row],
    arrived: &mut watch::Receiver<bool>,
    stop: &CancellationToken,
) -> Result<Vec<Option<Launch>>, End> {
    let devices: Vec<_> = rows
        .iter()
        .map(|row| referral::device(target.table, row))
        .collect();
    let mut waits = false;
    loop {
        // Before the look-up and after it: it may have waited out an outage, and what arrives
        // while it looks may be missed by it.
        let had_arrived = *arrived.borrow_and_update();
        let launches = target.launches(&devices, stop).await;
        let launches = launches.map_err(|Stopped| End::Stopped)?;
        let changed = arrived.has_changed().map_err(gone)?;
        let (metrics, sink) = (&target.metrics, target.sink.name());
        let is_held = metrics.is_held(sink, LAUNCH_REFER_EVENTS.name);
        let all_are_there = had_arrived && !changed && !is_held;
        let missed = launches.iter().filter(|launch| launch.is_none()).count();
        if all_are_there || missed == 0 {
            if waits {
                tracing::info!(queue = target.who, missed, "launches have arrived");
            }
            return Ok(launches);
        }
        if !waits {
            waits = true;
            tracing::info!(
                queue = target.who,
                missed,
                "rows wait for launches that may be on their way"
            );
        }
        let wait = async {
            tokio::time::sleep(LOOK_PERIOD).await;
            arrived.wait_for(|has_arrived| *has_arrived).await.map(drop)
        };
        tokio::select! {
            waited = wait => waited.map_err(gone)?,
            () = stop.cancelled() => return Err(End::Stopped),
        }
    }
}

/// Nobody watches any more.
fn gone(_: watch::error::RecvError) -> End {
    End::Lost("the broker is away".to_owned())
}

/// Rows, their ids and their places.
pub(super) type Rows = (Vec<Row>, Vec<String>, Vec<(usize, usize)>);

/// The rows whose device has a launch, with what it says; the others are done with.
pub(super) fn complete(table: &Table, rows: Rows, launches: Vec<Option<Launch>>) -> Rows {
    let mut kept: Rows = Rows::default();
    let (rows, ids, places) = rows;
    for (((mut row, id), place), launch) in rows.into_iter().zip(ids).zip(places).zip(launches) {
        if let Some(launch) = launch {
            referral::complete(table, &mut row, &launch);
            kept.0.push(row);
            kept.1.push(id);
            kept.2.push(place);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOK: Duration = LOOK_PERIOD;

    /// Looks every two seconds for so long, all of which show the same; whether launches had
    /// arrived after each.
    fn looks(
        looks: &mut Looks,
        now: &mut Instant,
        lasting: Duration,
        waiting: Option<u32>,
        away: bool,
    ) -> Vec<bool> {
        let until = *now + lasting;
        let mut said = Vec::new();
        while *now < until {
            said.push(looks.see(*now, waiting, away));
            *now += LOOK;
        }
        said
    }

    fn all(said: &[bool], expected: bool) {
        assert!(said.iter().all(|said| *said == expected), "{said:?}");
    }

    #[test]
    fn no_launch_is_believed_only_once_launches_have_arrived() {
        let mut now = Instant::now();
        let mut seen = Looks::new(now);
        // At the start, and after each return of the sink, some may be in hands.
        for _ in 0..2 {
            all(&looks(&mut seen, &mut now, IN_HAND, Some(0), false), false);
            all(&looks(&mut seen, &mut now, IN_HAND, Some(0), false), true);
            all(&looks(&mut seen, &mut now, LOOK, Some(0), true), false);
        }
        // A queue that is empty at times has no backlog.
        all(&looks(&mut seen, &mut now, IN_HAND, Some(0), false), false);
        for _ in 0..100 {
            all(&looks(&mut seen, &mut now, LOOK * 7, Some(9), false), true);
            all(&looks(&mut seen, &mut now, LOOK, Some(0), false), true);
        }
        // One without such a time has, and so has a broker that does not answer.
        for waiting in [Some(9), None] {
            let said = looks(&mut seen, &mut now, BACKLOGGED * 2, waiting, false);
            all(&said[said.len() / 2..], false);
            all(&looks(&mut seen, &mut now, IN_HAND, Some(0), false), false);
            all(&looks(&mut seen, &mut now, IN_HAND, Some(0), false), true);
        }
    }

    #[test]
    fn only_a_queue_that_is_not_there_is_empty_without_a_reader() {
        let of = |messages, consumers| {
            Ok(Some(Depth {
                messages,
                consumers,
            }))
        };
        let failed = |is_away| {
            Err(BrowseError {
                queue: "q".to_owned(),
                reason: "r".to_owned(),
                is_away,
            })
        };
        assert_eq!(told(of(7, 0)), (Some(7), false));
        assert_eq!(told(of(0, 1)), (Some(0), false));
        assert_eq!(told(of(0, 0)), (None, false));
        assert_eq!(told(Ok(None)), (Some(0), false));
        assert_eq!(told(failed(false)), (None, false));
        assert_eq!(
            told(failed(true)),
            (None, true),
            "it comes back with its launches"
        );
    }

    #[test]
    fn a_queue_that_nobody_drains_holds_accounts_for_a_while_only() {
        let mut now = Instant::now();
        let mut seen = Looks::new(now);
        // As long as it gets shorter.
        for waiting in (1000..1100).rev() {
            let said = looks(&mut seen, &mut now, PATIENCE / 2, Some(waiting), false);
            all(&said, false);
        }
        let said = looks(&mut seen, &mut now, PATIENCE * 2, Some(1000), false);
        all(&said[said.len() / 2..], true);
        // A sink that is away cannot take launches: patience begins with its return.
        all(
            &looks(&mut seen, &mut now, PATIENCE * 2, Some(1000), true),
            false,
        );
        all(
            &looks(&mut seen, &mut now, PATIENCE, Some(1000), false),
            false,
        );
        all(
            &looks(&mut seen, &mut now, PATIENCE, Some(1000), false),
            true,
        );
    }
}
