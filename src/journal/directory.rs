//! A look at a data directory, of a running service or a detached one. Called by
//! `cli` and, for what it counts, by `offline` and `verify`.
//!
//! # Invariants
//! - Changes nothing and opens no store: what it shows is still there afterwards.
//! - Of a generation that is being written it shows what is proven to be synced.
//! - What is missing is shown as exactly as what is there.

use super::contents::Contents;
use super::cursor_info::{self, CursorInfo};
use super::data_lock;
use super::doomed::is_doomed;
use super::durable_file::dir_bytes;
use super::error::InspectError;
use super::high_water::{self, HighWater};
use super::host_id;
use super::losses::Loss;
use super::manifest::{Header, Manifest};
use super::receipts::{self, ReceiptFile};
use super::record::Record;
use super::recovery::number_of;
use super::survey::{self, Survey, Tail};
use super::unread::{Unread, marked};
use crate::event::identity::{HostId, Seq};
use crate::event::tally::Tally;
use serde::Serialize;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A generation, for people.
#[derive(Debug, Clone, Serialize)]
pub struct GenerationInfo {
    /// Its number.
    pub number: u64,
    /// The end of what was before it: numbers between that and its first are nobody's.
    pub previous_end: Seq,
    /// Its first sequence.
    pub first: Seq,
    /// The sequence after its last.
    pub end: Seq,
    /// Whether it takes no more appends.
    pub sealed: bool,
    /// Whether it was set aside because something is missing.
    pub quarantined: bool,
    /// When it was begun, epoch milliseconds.
    pub created_at_ms: i64,
    /// When its last record came, or a little before; its beginning if it has none.
    pub last_received_at_ms: i64,
    /// Bytes on disk.
    pub disk_bytes: u64,
    /// Its events.
    pub events: Tally,
}

/// What a walk comes by.
#[derive(Debug)]
pub enum Found {
    /// A record.
    Record(Record),
    /// Acknowledged records that are not there.
    Lost(Loss),
}

/// A generation on the disk.
pub(super) struct Entry {
    pub(super) info: GenerationInfo,
    pub(super) dir: PathBuf,
    pub(super) header: Header,
    pub(super) manifest: Manifest,
}

/// The directory.
pub struct Directory {
    data_dir: PathBuf,
    host: Option<HostId>,
    running: bool,
    entries: Vec<Entry>,
    infos: Vec<GenerationInfo>,
    cursors: Vec<CursorInfo>,
    pub(super) high_water: Option<HighWater>,
    /// What delivery may still need, and cannot be read.
    unreadable: Vec<String>,
    unknown_generations: Vec<u64>,
    /// What could not be made sense of.
    pub(super) problems: Vec<String>,
}

impl std::fmt::Debug for Directory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Directory")
            .field("data_dir", &self.data_dir)
            .finish_non_exhaustive()
    }
}

impl Directory {
    /// Looks at a data directory. Reads manifests, and looks through generations
    /// that are not sealed.
    ///
    /// # Errors
    /// See [`InspectError`]; damage is none, it is shown.
    pub fn open(data_dir: &Path) -> Result<Self, InspectError> {
        let running = data_lock::is_held(data_dir).map_err(read_error(data_dir))?;
        Self::of(data_dir, running)
    }

    /// As [`Directory::open`], by someone who knows whether a service runs on it.
    pub(super) fn of(data_dir: &Path, running: bool) -> Result<Self, InspectError> {
        let generations = data_dir.join("generations");
        if !generations.is_dir() {
            return Err(InspectError::NotOne(data_dir.to_owned()));
        }
        let mut directory = Self {
            data_dir: data_dir.to_owned(),
            host: host_id::read(data_dir),
            running,
            entries: Vec::new(),
            infos: Vec::new(),
            cursors: Vec::new(),
            high_water: None,
            unreadable: Vec::new(),
            unknown_generations: Vec::new(),
            problems: Vec::new(),
        };
        match HighWater::read(data_dir) {
            Ok(found) => directory.high_water = found,
            Err(error) => directory.problem(&data_dir.join("high_water"), &error.to_string()),
        }
        directory.cursors = cursor_info::list(&data_dir.join("cursors"))?;
        for cursor in directory.cursors.clone() {
            if let Some(damage) = &cursor.damage {
                directory.cannot_read(&data_dir.join("cursors").join(cursor.name), damage);
            }
        }
        directory.load(&generations, false)?;
        directory.load(&data_dir.join("quarantine"), true)?;
        directory.entries.sort_by_key(|entry| entry.info.number);
        directory.infos = directory.entries.iter().map(|e| e.info.clone()).collect();
        directory.place_unreadable_cursors();
        Ok(directory)
    }

    /// The host that the directory belongs to; `None` when its files are damaged.
    #[must_use]
    pub fn host(&self) -> Option<&HostId> {
        self.host.as_ref()
    }

    /// Whether a service owns the directory.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.running
    }

    /// The generations in order, those in quarantine, too.
    #[must_use]
    pub fn generations(&self) -> &[GenerationInfo] {
        &self.infos
    }

    /// The cursors by name.
    #[must_use]
    pub fn cursors(&self) -> &[CursorInfo] {
        &self.cursors
    }

    /// Cursors and generations that cannot be read, and why: what has them to be delivered is
    /// not known.
    #[must_use]
    pub fn unreadable(&self) -> &[String] {
        &self.unreadable
    }

    /// The sequence after the last that anything here tells of.
    #[must_use]
    pub fn end(&self) -> Seq {
        let ends = self.infos.iter().map(|info| info.end);
        let reach = self.cursors.iter().map(CursorInfo::reach);
        let high_water = self.high_water.iter().map(|known| known.end);
        ends.chain(reach)
            .chain(high_water)
            .fold(Seq::FIRST, Seq::max)
    }

    /// Generations that do not say what they hold, by number.
    #[must_use]
    pub fn unknown_generations(&self) -> &[u64] {
        &self.unknown_generations
    }

    /// What deleted generations held, as far as it is kept.
    ///
    /// # Errors
    /// When the list cannot be read.
    pub fn receipts(&self) -> Result<Vec<ReceiptFile>, InspectError> {
        let dir = self.data_dir.join("receipts");
        receipts::list(&dir).map_err(read_error(&dir))
    }

    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Gives each record and each lost range from `from` up to `to`, in order.
    ///
    /// # Errors
    /// When a generation's file cannot be opened.
    pub fn walk(
        &self,
        from: Seq,
        to: Seq,
        visit: &mut dyn FnMut(Found) -> ControlFlow<()>,
    ) -> Result<(), InspectError> {
        let lost = |generation, first: Seq, end: Seq, visit: &mut dyn FnMut(Found) -> _| {
            let (first, end) = (first.max(from), end.min(to));
            if first < end {
                return visit(Found::Lost(Loss {
                    generation,
                    first,
                    end,
                }));
            }
            ControlFlow::Continue(())
        };
        let missing = self.missing();
        for entry in &self.entries {
            let number = entry.info.number;
            for loss in missing
                .iter()
                .filter(|loss| loss.end == entry.header.previous_end)
            {
                if lost(loss.generation, loss.first, loss.end, visit).is_break() {
                    return Ok(());
                }
            }
            if entry.manifest.end <= from || entry.header.base >= to {
                continue;
            }
            let Some(mut contents) = self.contents(entry, from)? else {
                continue;
            };
            let mut expected = entry.header.base.max(from);
            while contents.block() < entry.manifest.blocks {
                for record in contents.next().map_err(|e| store_error(number, &e))? {
                    if record.seq < expected {
                        continue;
                    }
                    if lost(number, expected, record.seq, visit).is_break() || record.seq >= to {
                        return Ok(());
                    }
                    expected = record.seq.next();
                    if visit(Found::Record(record)).is_break() {
                        return Ok(());
                    }
                }
            }
            if lost(number, expected, entry.manifest.end, visit).is_break() {
                return Ok(());
            }
        }
        let held = self.entries.iter().map(|entry| entry.manifest.end).max();
        for loss in missing.iter().filter(|loss| Some(loss.end) > held) {
            if lost(loss.generation, loss.first, loss.end, visit).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// From where on there should be everything, as a start takes it.
    pub(super) fn floor(&self) -> Option<(Seq, Tally)> {
        let (readable, damaged): (Vec<_>, Vec<_>) =
            self.cursors.iter().partition(|c| c.damage.is_none());
        let places = readable
            .iter()
            .map(|cursor| (cursor.next, cursor.position.accounted()));
        let high_water = self.high_water.as_ref().map(HighWater::place);
        high_water::floor(places, !damaged.is_empty(), high_water)
    }

    /// Puts each cursor that cannot be read where a start puts it.
    fn place_unreadable_cursors(&mut self) {
        let floor = self.floor().map_or(Seq(0), |(floor, _)| floor);
        let mut entries = self.entries.iter();
        let oldest = entries.find(|e| !e.info.quarantined || e.manifest.end > floor);
        let (next, since) = match (oldest, &self.high_water) {
            (Some(entry), _) => (entry.header.base, entry.header.accepted_before.clone()),
            (None, Some(known)) => (known.end, known.accepted.clone()),
            (None, None) => (Seq::FIRST, Tally::default()),
        };
        for cursor in self.cursors.iter_mut().filter(|c| c.damage.is_some()) {
            cursor.next = next;
            cursor.since = since.clone();
        }
    }

    /// `None` when a running service has deleted or moved it meanwhile.
    fn contents(&self, entry: &Entry, from: Seq) -> Result<Option<Contents>, InspectError> {
        let number = entry.info.number;
        let salt = entry.header.salt;
        let blocks = survey::open_blocks(&entry.dir, &salt, entry.manifest.blocks)
            .map_err(read_error(&entry.dir))?;
        if self.running && !entry.dir.exists() {
            return Ok(None);
        }
        let end = entry.manifest.blocks;
        Contents::starting_at(Arc::new(blocks), salt, end, from)
            .map(Some)
            .map_err(|error| store_error(number, &error))
    }

    fn load(&mut self, parent: &Path, quarantined: bool) -> Result<(), InspectError> {
        let entries = match std::fs::read_dir(parent) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(read_error(parent)(error)),
        };
        for entry in entries {
            let entry = entry.map_err(read_error(parent))?;
            let name = entry.file_name();
            match number_of(&name) {
                Some(number) => self.load_generation(number, entry.path(), quarantined)?,
                // Half deleted: the next start removes the rest.
                None if is_doomed(&name.to_string_lossy()) => {}
                None => self.problem(&entry.path(), "is not known"),
            }
        }
        Ok(())
    }

    fn load_generation(
        &mut self,
        number: u64,
        dir: PathBuf,
        quarantined: bool,
    ) -> Result<(), InspectError> {
        let manifest = Manifest::read(&dir);
        let header = Header::read(&dir);
        if let Err(error) = &manifest {
            self.problem(&dir.join("manifest"), &error.to_string());
        }
        if let Err(error) = &header {
            self.problem(&dir.join("header"), &error.to_string());
        }
        let (manifest, header) = (manifest.ok().flatten(), header.ok().flatten());
        let mark = marked(&dir);
        if mark.is_some() {
            self.cannot_read(&dir, "could not be read: nothing tells what else it holds");
            self.unknown_generations.push(number);
        }
        let is_sealed = manifest.as_ref().is_some_and(|manifest| manifest.sealed);
        if mark == Some(Unread::Whole) && quarantined && !is_sealed {
            // Nobody delivers from there.
            return Ok(());
        }
        let header = manifest.as_ref().map(|m| m.header.clone()).or(header);
        let Some(header) = header else {
            if survey::store_file(&dir).exists() && mark.is_none() {
                let text = "has neither header nor manifest: nothing tells what it holds";
                self.cannot_read(&dir, text);
                self.unknown_generations.push(number);
            }
            return Ok(());
        };
        let sealed = manifest.as_ref().is_some_and(|manifest| manifest.sealed);
        let manifest = match manifest {
            Some(manifest) if sealed => manifest,
            manifest => self.look_through(number, &dir, &header, manifest)?.manifest,
        };
        let info = GenerationInfo {
            number,
            previous_end: header.previous_end,
            first: header.base,
            end: manifest.end,
            sealed,
            quarantined,
            created_at_ms: header.created_at_ms,
            last_received_at_ms: manifest.times.last().unwrap_or(header.created_at_ms),
            disk_bytes: dir_bytes(&dir),
            events: manifest.events.clone(),
        };
        self.entries.push(Entry {
            info,
            dir,
            header,
            manifest,
        });
        Ok(())
    }

    fn look_through(
        &self,
        number: u64,
        dir: &Path,
        header: &Header,
        manifest: Option<Manifest>,
    ) -> Result<Survey, InspectError> {
        let tail = if self.running {
            Tail::Leave
        } else {
            Tail::Take
        };
        let expected = manifest.as_ref().map_or(0, |manifest| manifest.blocks);
        let blocks = survey::open_blocks(dir, &header.salt, expected).map_err(read_error(dir))?;
        survey::survey(&Arc::new(blocks), header, manifest.as_ref(), tail)
            .map_err(|error| store_error(number, &error))
    }

    /// A problem of something that delivery may still need.
    fn cannot_read(&mut self, path: &Path, what: &str) {
        self.problem(path, what);
        self.unreadable.extend(self.problems.last().cloned());
    }

    fn problem(&mut self, path: &Path, what: &str) {
        let path = path.strip_prefix(&self.data_dir).unwrap_or(path);
        self.problems.push(format!("{}: {what}", path.display()));
    }
}

pub(super) fn read_error(path: &Path) -> impl FnOnce(io::Error) -> InspectError {
    let path = path.to_owned();
    move |source| InspectError::Io { path, source }
}

pub(super) fn store_error(generation: u64, error: &super::store::StoreError) -> InspectError {
    InspectError::Store {
        generation,
        reason: error.to_string(),
    }
}
