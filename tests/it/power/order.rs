//! The proof over the log alone: for every acknowledgement, each end of its request
//! was written to a file, an fdatasync of that file started after the write had
//! returned, and returned before the acknowledgement's send began; and by then the
//! names that lead to that file were synced too. Called by the tests and the controls.

use super::load::{Mark, marks};
use super::log::Op;
use super::recording::Recording;
use super::verdict::{Fault, Finding, Verdict};
use super::world::{NodeId, ROOT, World};
use std::collections::HashMap;

/// Judges every acknowledgement of a recording.
pub fn prove(recording: &Recording) -> Verdict {
    let mut world = World::new(recording.log.clone());
    let mut written: HashMap<Mark, Vec<(usize, NodeId)>> = HashMap::new();
    for (at, op) in recording.log.ops.iter().enumerate() {
        world.advance(at);
        if let Op::Write { handle, data, .. } = op {
            let node = world.node_of(*handle).expect("opened before");
            // Rows in SQLite are not what an acknowledgement promises.
            if !world.nodes[node].made_as.contains(".sqlite") {
                for mark in marks(recording.log.bytes(data)) {
                    written.entry(mark).or_default().push((at, node));
                }
            }
        }
    }
    world.advance(recording.log.ops.len());

    let mut verdict = Verdict::default();
    for (token, ack) in &recording.acks {
        verdict.checked += 1;
        for mark in recording.sent[token].marks() {
            let writes = written.get(&mark).map_or(&[][..], Vec::as_slice);
            let synced: Vec<_> = writes
                .iter()
                .filter(|(write, node)| {
                    let syncs = &world.nodes[*node].syncs;
                    syncs.iter().any(|(start, end)| start > write && end < ack)
                })
                .collect();
            let finding = if synced.is_empty() {
                let text = format!("{mark:?}: sent at {ack}, written at {writes:?}");
                Finding::new(Fault::AckBeforeSync, text)
            } else if !synced.iter().any(|(_, node)| named(&world, *node, *ack)) {
                let text = format!("{mark:?}: sent at {ack}");
                Finding::new(Fault::AckBeforeName, text)
            } else {
                continue;
            };
            verdict.findings.push(finding);
        }
    }
    verdict
}

/// Whether all names on the way to a file were durable before an operation.
fn named(world: &World, mut node: NodeId, before: usize) -> bool {
    while node != ROOT {
        let Some(step) = world.nodes[node].made_by else {
            return true;
        };
        let step = &world.steps[step];
        if step.durable_at.is_none_or(|at| at >= before) {
            return false;
        }
        let (dir, _) = step.to.as_ref().expect("a first name comes");
        node = *dir;
    }
    true
}
