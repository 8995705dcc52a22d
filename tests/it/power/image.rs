//! One disk image that a power cut could leave: synced bytes and names, and of the
//! rest what the dice say. Called by `campaign`.
//!
//! # Invariants
//! - Nothing synced is dropped, nothing comes that was never written.
//! - Of a file's changes since its last sync either whole writes are kept or dropped
//!   on their own (reordered), or each sector holds the state after some of the writes
//!   to it (dropped, kept, torn between sectors); its size is any size it had since.
//! - Strict names: a name counts only by a sync of its own directory, each other one
//!   is kept or dropped. Ordered names: as on a file system that commits metadata in
//!   order, a prefix is kept, and any sync commits all names before it.
//! - A rename shows the old or the new name; one over an old file never shows neither.

use super::world::{Change, Name, Node, NodeId, ROOT, World, apply_change};
use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use std::collections::{BTreeMap, HashMap};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// What a disk writes in one piece: its sector, or a page of the cache.
const UNITS: [usize; 2] = [512, 4096];

/// How likely something unsynced is there.
const KEEP: [f64; 5] = [0.0, 0.1, 0.5, 0.9, 1.0];

/// Zeros are left out of files in such pieces.
const HOLE: usize = 4096;

/// What was unsynced at a cut.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unsynced {
    /// Files with changes that are not synced.
    pub files: usize,
    /// Names that are not synced, in the strict view.
    pub names: usize,
}

/// Which names there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Names {
    Strict,
    Ordered,
}

/// Builds an image in `dir`, which exists and is empty.
pub fn build(world: &World, random: &mut StdRng, dir: &Path) -> Unsynced {
    let mode = *[Names::Strict, Names::Ordered].choose(random).unwrap();
    let names = names(world, mode, random);
    let mut paths = Vec::new();
    World::paths(&names, ROOT, "", &mut paths);
    let unit = *UNITS.choose(random).unwrap();
    let keep = *KEEP.choose(random).unwrap();
    let whole = random.random_bool(0.3);
    let mut unsynced = Unsynced {
        files: 0,
        names: world
            .steps
            .iter()
            .filter(|s| s.durable_at.is_none())
            .count(),
    };
    for (path, node) in paths {
        let node = &world.nodes[node];
        let path = dir.join(path);
        if node.is_dir {
            std::fs::create_dir(&path).unwrap();
        } else if !node.is_memory {
            unsynced.files += usize::from(!node.pending.is_empty());
            let content = if node.pending.is_empty() {
                std::borrow::Cow::Borrowed(&node.synced)
            } else if whole {
                std::borrow::Cow::Owned(whole_writes(world, node, keep, random))
            } else {
                std::borrow::Cow::Owned(sectors(world, node, unit, keep, random))
            };
            write_sparse(&path, &content);
        }
    }
    unsynced
}

fn names(world: &World, mode: Names, random: &mut StdRng) -> BTreeMap<Name, NodeId> {
    let keep = *KEEP.choose(random).unwrap();
    // Of the steps that nothing has committed, so many in order.
    let first_open = world
        .steps
        .partition_point(|step| step.at < world.committed);
    let prefix = random.random_range(first_open..=world.steps.len());
    let mut names = world.names_at_start.clone();
    for (number, step) in world.steps.iter().enumerate() {
        let kept = match mode {
            Names::Strict => step.durable_at.is_some() || random.random_bool(keep),
            Names::Ordered => number < prefix,
        };
        if !kept {
            continue;
        }
        if let Some(from) = &step.from
            && names.get(from) == Some(&step.node)
        {
            names.remove(from);
        }
        if let Some(to) = &step.to {
            names.insert(to.clone(), step.node);
        }
    }
    names
}

fn whole_writes(world: &World, node: &Node, keep: f64, random: &mut StdRng) -> Vec<u8> {
    let mut content = node.synced.clone();
    for (_, change) in &node.pending {
        if random.random_bool(keep) {
            apply_change(&mut content, change, &world.log);
        }
    }
    content
}

fn sectors(world: &World, node: &Node, unit: usize, keep: f64, random: &mut StdRng) -> Vec<u8> {
    // The numbers of the changes that touch a sector.
    let mut touched: HashMap<usize, Vec<usize>> = HashMap::new();
    let mut sizes = vec![node.synced.len()];
    for (number, (_, change)) in node.pending.iter().enumerate() {
        let size = sizes[number];
        match change {
            Change::Write { offset, data } => {
                let (start, end) = (*offset as usize, *offset as usize + data.len());
                for sector in start / unit..=(end - 1) / unit {
                    touched.entry(sector).or_default().push(number);
                }
                sizes.push(size.max(end));
            }
            Change::Resize { size } => sizes.push(*size as usize),
        }
    }
    // Up to which change each sector was written back; in a fixed order, so that the
    // same dice give the same image.
    let mut order: Vec<_> = touched.into_iter().collect();
    order.sort_unstable();
    let mut last: HashMap<usize, usize> = HashMap::new();
    for (sector, numbers) in order {
        if random.random_bool(keep) {
            last.insert(sector, *numbers.choose(random).unwrap());
        }
    }
    let size_at = if random.random_bool(keep) {
        random.random_range(0..sizes.len())
    } else {
        0
    };
    let mut content = node.synced.clone();
    for (number, (_, change)) in node.pending.iter().enumerate() {
        match change {
            Change::Write { offset, data } => {
                let bytes = world.log.bytes(data);
                let start = *offset as usize;
                let end = start + bytes.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                for sector in start / unit..=(end - 1) / unit {
                    if last.get(&sector).is_some_and(|last| *last >= number) {
                        let from = start.max(sector * unit);
                        let to = end.min((sector + 1) * unit);
                        content[from..to].copy_from_slice(&bytes[from - start..to - start]);
                    }
                }
            }
            Change::Resize { size } => {
                // A cut that reached the disk took the bytes behind it along.
                let size = *size as usize;
                if number < size_at && size < content.len() {
                    content.truncate(size);
                }
            }
        }
    }
    content.resize(sizes[size_at], 0);
    content
}

fn write_sparse(path: &Path, content: &[u8]) {
    let file = std::fs::File::create(path).unwrap();
    file.set_len(content.len() as u64).unwrap();
    for (number, piece) in content.chunks(HOLE).enumerate() {
        if piece.iter().any(|byte| *byte != 0) {
            file.write_all_at(piece, (number * HOLE) as u64).unwrap();
        }
    }
}
