//! The journal's part of a drill. Called by `run`.

use crate::drill::{Drill, Outage};
use crate::journal::Journal;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often a full disk is told: more often than the journal takes it for over.
const TELL: Duration = Duration::from_millis(300);

/// Tells the journal of a full disk for as long as a drill plays one.
pub(super) async fn play_full_disk(drill: Drill, journal: Journal, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = drill.begun(Outage::DiskFull) => {}
            () = stop.cancelled() => return,
        }
        tracing::warn!("a drill plays that the disk is full");
        while drill.is_on(Outage::DiskFull) {
            journal.play_full_disk();
            tokio::select! {
                () = tokio::time::sleep(TELL) => {}
                () = stop.cancelled() => return,
            }
        }
        tracing::info!("the drill is over");
    }
}
