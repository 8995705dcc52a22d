//! Files and names below the recorded directory as the operations make them, and how
//! much of them is synced. Called by `recording` (compare with the real directory),
//! `order` (which names are durable) and `image` (what a cut could leave).
//!
//! # Invariants
//! - A sync covers the changes of its file, or the names in its directory, that were
//!   logged before its start; they count as durable from its end.
//! - A rename is one step: durable when either of its directories is synced.
//! - `committed` is the laxer view of a file system that writes all metadata in order:
//!   every name before the start of any returned sync is durable there.

use super::log::{Handle, Log, Op, Span};
use std::collections::{BTreeMap, HashMap};
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

pub type NodeId = usize;

/// The recorded directory itself.
pub const ROOT: NodeId = 0;

/// A change of a file's content.
#[derive(Debug, Clone)]
pub enum Change {
    Write { offset: u64, data: Span },
    Resize { size: u64 },
}

#[derive(Debug, Default)]
pub struct Node {
    pub is_dir: bool,
    /// Where it was made.
    pub made_as: String,
    /// SQLite's shared memory (mapped) or a socket: not needed after a cut.
    pub is_memory: bool,
    /// Synced content.
    pub synced: Vec<u8>,
    /// Changes since, in order, with their operation numbers.
    pub pending: Vec<(usize, Change)>,
    /// Size with all changes.
    pub size: u64,
    /// Its first name's step; `None`: it was there before.
    pub made_by: Option<usize>,
    /// Syncs that returned: numbers of their start and end.
    pub syncs: Vec<(usize, usize)>,
}

/// A name: a directory and an entry in it.
pub type Name = (NodeId, String);

/// A change of names.
#[derive(Debug, Clone)]
pub struct NameStep {
    /// Its operation number.
    pub at: usize,
    pub node: NodeId,
    /// The name that goes.
    pub from: Option<Name>,
    /// The name that comes.
    pub to: Option<Name>,
    /// The operation that made it durable.
    pub durable_at: Option<usize>,
}

/// Everything up to some operation.
pub struct World {
    pub log: Log,
    pub nodes: Vec<Node>,
    /// Names as they are.
    pub names: BTreeMap<Name, NodeId>,
    pub steps: Vec<NameStep>,
    /// Names before the first operation.
    pub names_at_start: BTreeMap<Name, NodeId>,
    pub committed: usize,
    /// Operations applied.
    pub applied: usize,
    /// Sizes that grew by a call that the recorder did not see.
    pub unseen_growth: usize,
    handles: HashMap<Handle, NodeId>,
    /// Steps that are not durable yet.
    open_steps: Vec<usize>,
}

impl World {
    /// Before the first operation, on an empty directory.
    pub fn new(log: Log) -> Self {
        let root = Node {
            is_dir: true,
            ..Node::default()
        };
        Self {
            log,
            nodes: vec![root],
            names: BTreeMap::new(),
            steps: Vec::new(),
            names_at_start: BTreeMap::new(),
            committed: 0,
            applied: 0,
            unseen_growth: 0,
            handles: HashMap::new(),
            open_steps: Vec::new(),
        }
    }

    /// Before the first operation, on a directory as it is now: all of it durable.
    pub fn on(log: Log, dir: &Path) -> Self {
        let mut world = Self::new(log);
        world.load(dir, ROOT, "");
        world.names_at_start = world.names.clone();
        world
    }

    fn load(&mut self, dir: &Path, parent: NodeId, path: &str) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let kind = entry.file_type().unwrap();
            let (is_dir, is_socket) = (kind.is_dir(), kind.is_socket());
            let made_as = format!("{path}{name}");
            let synced = if is_dir || is_socket {
                Vec::new()
            } else {
                std::fs::read(entry.path()).unwrap()
            };
            let id = self.nodes.len();
            self.nodes.push(Node {
                is_dir,
                is_memory: is_socket || made_as.ends_with("-shm"),
                size: synced.len() as u64,
                synced,
                made_as: made_as.clone(),
                ..Node::default()
            });
            self.names.insert((parent, name), id);
            if is_dir {
                self.load(&entry.path(), id, &format!("{made_as}/"));
            }
        }
    }

    /// Applies operations up to, not including, `end`.
    pub fn advance(&mut self, end: usize) {
        let ops = std::sync::Arc::clone(&self.log.ops);
        while self.applied < end {
            self.apply(self.applied, &ops[self.applied]);
            self.applied += 1;
        }
    }

    pub fn node_of(&self, handle: Handle) -> Option<NodeId> {
        self.handles.get(&handle).copied()
    }

    fn apply(&mut self, at: usize, op: &Op) {
        match op {
            Op::Open {
                handle,
                path,
                created,
                cut,
            } => {
                let node = if *created {
                    self.make(at, path, false)
                } else {
                    self.find(path)
                };
                self.handles.insert(*handle, node);
                if *cut {
                    self.change(node, at, Change::Resize { size: 0 });
                }
            }
            Op::Close { handle, size } | Op::Sync { handle, size } => {
                let node = self.handles[handle];
                self.check_size(node, at, *size);
            }
            Op::Write {
                handle,
                offset,
                data,
            } => {
                let node = self.handles[handle];
                let change = Change::Write {
                    offset: *offset,
                    data: data.clone(),
                };
                self.change(node, at, change);
            }
            Op::Resize { handle, size } => {
                let node = self.handles[handle];
                self.change(node, at, Change::Resize { size: *size });
            }
            Op::Extend { handle, end } => {
                let node = self.handles[handle];
                if *end > self.nodes[node].size {
                    self.change(node, at, Change::Resize { size: *end });
                }
            }
            Op::Synced { handle, start, ok } => {
                if *ok {
                    self.synced(self.handles[handle], *start, at);
                }
            }
            Op::Rename { from, to } => {
                let (from, to) = (self.name(from), self.name(to));
                let node = self.names.remove(&from).expect("the old name is known");
                self.names.insert(to.clone(), node);
                self.step(at, node, Some(from), Some(to));
            }
            Op::Unlink { path } | Op::RemoveDir { path } => {
                let name = self.name(path);
                let node = self.names.remove(&name).expect("the name is known");
                self.step(at, node, Some(name), None);
            }
            Op::MakeDir { path } => {
                self.make(at, path, true);
            }
            Op::Bound { path } => {
                let node = self.make(at, path, false);
                self.nodes[node].is_memory = true;
            }
            Op::Start
            | Op::Accept { .. }
            | Op::Send { .. }
            | Op::Sent { .. }
            | Op::Received { .. }
            | Op::HangUp => {}
        }
    }

    fn make(&mut self, at: usize, path: &str, is_dir: bool) -> NodeId {
        let name = self.name(path);
        let id = self.nodes.len();
        self.nodes.push(Node {
            is_dir,
            is_memory: path.ends_with("-shm"),
            made_as: path.to_owned(),
            made_by: Some(self.steps.len()),
            ..Node::default()
        });
        let old = self.names.insert(name.clone(), id);
        assert_eq!(old, None, "{path} was there");
        self.step(at, id, None, Some(name));
        id
    }

    fn step(&mut self, at: usize, node: NodeId, from: Option<Name>, to: Option<Name>) {
        self.open_steps.push(self.steps.len());
        self.steps.push(NameStep {
            at,
            node,
            from,
            to,
            durable_at: None,
        });
    }

    fn name(&self, path: &str) -> Name {
        match path.rsplit_once('/') {
            Some((dir, name)) => (self.find(dir), name.to_owned()),
            None => (ROOT, path.to_owned()),
        }
    }

    fn find(&self, path: &str) -> NodeId {
        let mut node = ROOT;
        for part in path.split('/').filter(|part| !part.is_empty()) {
            node = *self
                .names
                .get(&(node, part.to_owned()))
                .unwrap_or_else(|| panic!("{path}: a call that made it was not recorded"));
        }
        node
    }

    fn change(&mut self, node: NodeId, at: usize, change: Change) {
        let node = &mut self.nodes[node];
        node.size = match &change {
            Change::Write { offset, data } => node.size.max(offset + data.len() as u64),
            Change::Resize { size } => *size,
        };
        node.pending.push((at, change));
    }

    /// A file that is longer than its calls say was grown past libc (a reserve made
    /// by a raw `fallocate`): taken as a change that is not synced yet.
    fn check_size(&mut self, node: NodeId, at: usize, size: Option<u64>) {
        let known = &self.nodes[node];
        let Some(size) = size.filter(|size| *size != known.size && !known.is_memory) else {
            return;
        };
        assert!(
            size > known.size,
            "{}: cut by a call that was not recorded",
            known.made_as
        );
        self.unseen_growth += 1;
        self.change(node, at, Change::Resize { size });
    }

    fn synced(&mut self, id: NodeId, start: usize, end: usize) {
        self.committed = self.committed.max(start);
        let node = &mut self.nodes[id];
        node.syncs.push((start, end));
        if node.is_dir {
            let steps = &mut self.steps;
            self.open_steps.retain(|step| {
                let step = &mut steps[*step];
                let touches = |name: &Option<Name>| name.as_ref().is_some_and(|n| n.0 == id);
                let covered = step.at < start && (touches(&step.from) || touches(&step.to));
                if covered {
                    step.durable_at = Some(end);
                }
                !covered
            });
            return;
        }
        let covered = node.pending.partition_point(|(at, _)| *at < start);
        let changes: Vec<_> = node.pending.drain(..covered).collect();
        for (_, change) in changes {
            apply_change(&mut node.synced, &change, &self.log);
        }
    }

    /// Every file's and directory's path below a node, by these names.
    pub fn paths<'a>(
        names: &'a BTreeMap<Name, NodeId>,
        dir: NodeId,
        path: &str,
        found: &mut Vec<(String, NodeId)>,
    ) {
        let first: &'a str = "";
        for ((parent, name), node) in names.range((dir, first.to_owned())..) {
            if *parent != dir {
                break;
            }
            let path = format!("{path}{name}");
            found.push((path.clone(), *node));
            Self::paths(names, *node, &format!("{path}/"), found);
        }
    }
}

/// Makes a change in a content.
pub fn apply_change(content: &mut Vec<u8>, change: &Change, log: &Log) {
    match change {
        Change::Write { offset, data } => {
            let start = *offset as usize;
            let end = start + data.len();
            if content.len() < end {
                content.resize(end, 0);
            }
            content[start..end].copy_from_slice(log.bytes(data));
        }
        Change::Resize { size } => content.resize(*size as usize, 0),
    }
}
