//! The log replayed against the real directory: what differs was done by a call that
//! the recorder did not see. Called by `recording`.

use super::world::{NodeId, ROOT, World, apply_change};
use std::path::Path;

impl World {
    /// A file's content with all its changes.
    pub fn content(&self, node: NodeId) -> Vec<u8> {
        let node = &self.nodes[node];
        let mut content = node.synced.clone();
        for (_, change) in &node.pending {
            apply_change(&mut content, change, &self.log);
        }
        content
    }

    /// Compares with the real directory; what differs.
    pub fn differences(&self, dir: &Path) -> Vec<String> {
        let mut real = Self::on(self.log.clone(), dir);
        let mut wrong = Vec::new();
        let mut paths = Vec::new();
        Self::paths(&self.names, ROOT, "", &mut paths);
        for (path, node) in paths {
            if self.nodes[node].is_memory {
                continue;
            }
            let name = real.try_find(&path);
            match name {
                None => wrong.push(format!("{path} is missing")),
                Some(found) if real.nodes[found].is_dir != self.nodes[node].is_dir => {
                    wrong.push(format!("{path} is of another kind"));
                }
                Some(found) => {
                    if !self.nodes[node].is_dir && real.nodes[found].synced != self.content(node) {
                        wrong.push(format!("{path} has other bytes"));
                    }
                    real.nodes[found].is_memory = true;
                }
            }
        }
        let rest = real.nodes.iter().skip(1).filter(|node| !node.is_memory);
        wrong.extend(rest.map(|node| format!("{} was not recorded", node.made_as)));
        wrong
    }

    fn try_find(&self, path: &str) -> Option<NodeId> {
        path.split('/').try_fold(ROOT, |node, part| {
            self.names.get(&(node, part.to_owned())).copied()
        })
    }
}
