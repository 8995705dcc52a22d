//! What a generation should hold, kept outside its store: the only way to notice
//! that a store opened but lost something. Called by `generation`, `recovery`.
//!
//! # Invariants
//! - Written before the generation takes its first append, about once a second
//!   while it grows, and when it is sealed; never claims more than what was synced.
//! - Start reads manifests only, so its time does not depend on the backlog.

use super::durable_file;
use crate::event::identity::Seq;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::Path;

const FILE: &str = "manifest";

/// What a generation is known to hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    /// Format of this file.
    version: u32,
    /// The generation's number.
    pub(super) generation: u64,
    /// The sequence of its first record.
    pub(super) base_seq: u64,
    /// Synced blocks, numbered from 0.
    pub(super) blocks: u64,
    /// The sequence after its last synced whole record.
    pub(super) end_seq: u64,
    /// Whether it takes no more appends.
    pub(super) sealed: bool,
}

impl Manifest {
    pub(super) fn new(generation: u64, base: Seq) -> Self {
        Self {
            version: 1,
            generation,
            base_seq: base.0,
            blocks: 0,
            end_seq: base.0,
            sealed: false,
        }
    }

    pub(super) fn write(&self, generation_dir: &Path) -> io::Result<()> {
        let bytes = bincode::serde::encode_to_vec(self, bincode::config::standard())
            .map_err(io::Error::other)?;
        durable_file::replace(&generation_dir.join(FILE), &bytes)
    }

    /// `None` when the generation has no manifest: it was cut off while being made.
    pub(super) fn read(generation_dir: &Path) -> io::Result<Option<Self>> {
        let Some(bytes) = durable_file::read(&generation_dir.join(FILE))? else {
            return Ok(None);
        };
        let (manifest, _): (Self, usize) =
            bincode::serde::decode_from_slice(&bytes, bincode::config::standard())
                .map_err(io::Error::other)?;
        if manifest.version != 1 {
            let text = format!("manifest has format version {}", manifest.version);
            return Err(io::Error::other(text));
        }
        Ok(Some(manifest))
    }
}
