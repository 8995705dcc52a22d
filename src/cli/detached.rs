//! What a data directory tells without its service, in the form of the service's
//! own status. Called by `status`.

use super::site::Site;
use crate::admin::{Counts, Disk, Ledger, Place, State, Status, Way, counts};
use crate::event::identity::Seq;
use crate::journal::{CursorInfo, Directory, Found, GenerationInfo, InspectError, Span};
use anyhow::Context as _;
use std::ops::ControlFlow;

pub(super) fn status(site: &Site) -> anyhow::Result<Status> {
    let directory = Directory::open(&site.data_dir)
        .with_context(|| format!("look at {}", site.data_dir.display()))?;
    // A process that starts or hangs has the directory, but answers nobody.
    let state = if directory.is_running() {
        State::NoAnswer
    } else {
        State::NotRunning
    };
    let generations = directory.generations();
    let serving = generations.iter().filter(|g| !g.quarantined);
    let oldest = serving.clone().map(|g| g.first.0).min();
    let next_seq = directory.end().0;
    let bounds = site.config.as_ref().map(|config| &config.journal);
    let mut ways = Vec::new();
    for cursor in directory.cursors() {
        ways.push(way(&directory, cursor, next_seq)?);
    }
    Ok(Status {
        state,
        // A purge of the package asks whether there are any.
        reasons: directory.unreadable().to_vec(),
        in_work: None,
        version: None,
        pid: None,
        up_seconds: None,
        host: directory.host().map(ToString::to_string),
        data_dir: site.data_dir.display().to_string(),
        disk: Disk {
            used_bytes: generations.iter().map(|g| g.disk_bytes).sum(),
            max_bytes: bounds.map(|bounds| bounds.max_bytes.bytes()),
            free_bytes: free_bytes(site),
            min_free_bytes: bounds.map(|bounds| bounds.min_free_bytes.bytes()),
        },
        generations: serving.count() as u64,
        oldest_seq: oldest.unwrap_or(next_seq),
        next_seq,
        // A generation in quarantine may still have all its records: `verify` reads it.
        losses: None,
        ledger: Ledger {
            accepted: None,
            ways,
        },
        rates: None,
        acks: None,
        parts: Vec::new(),
        dead_letters: None,
    })
}

fn free_bytes(site: &Site) -> Option<u64> {
    let stat = rustix::fs::statvfs(&site.data_dir).ok()?;
    Some(stat.f_bavail * stat.f_frsize)
}

fn way(directory: &Directory, cursor: &CursorInfo, next_seq: u64) -> anyhow::Result<Way> {
    let mut all = Counts::new();
    let mut oldest = None;
    for gap in cursor.gaps(Seq(u64::MAX)) {
        for (name, count) in pending(directory, gap)? {
            *all.entry(name).or_default() += count;
        }
        if oldest.is_some() {
            continue;
        }
        directory.walk(gap.first, gap.end, &mut |found| match found {
            Found::Record(record) => {
                oldest = Some(record.received_at_ms);
                ControlFlow::Break(())
            }
            Found::Lost(_) => ControlFlow::Continue(()),
        })?;
    }
    let ahead_requests = cursor.ahead.iter().map(Span::requests).sum();
    let place = Place {
        next_seq: cursor.next.0,
        ahead_requests,
        end_seq: next_seq,
    };
    Ok(Way::new(&cursor.name, place, None, &all, &cursor.ledger).waiting_since(oldest))
}

/// The events of a range: whole generations by their own counts, those that it cuts by
/// reading them.
fn pending(directory: &Directory, range: Span) -> Result<Counts, InspectError> {
    let mut all = Counts::new();
    let mut add = |counts: Counts| {
        for (name, count) in counts {
            *all.entry(name).or_default() += count;
        }
    };
    let touches = |g: &&GenerationInfo| g.first < range.end && range.first < g.end;
    for generation in directory.generations().iter().filter(touches) {
        if generation.first >= range.first && generation.end <= range.end {
            add(counts(&generation.events));
            continue;
        }
        let (first, end) = (
            generation.first.max(range.first),
            generation.end.min(range.end),
        );
        directory.walk(first, end, &mut |found| {
            if let Found::Record(record) = found {
                add(counts(&record.events));
            }
            ControlFlow::Continue(())
        })?;
    }
    Ok(all)
}
