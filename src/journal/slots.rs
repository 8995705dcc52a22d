//! A small file that is rewritten often and must never need new room: two slots,
//! written in turn, in place. Called by `cursor` and `high_water`.
//!
//! ```text
//! slot 0, slot 1, SLOT_BYTES each:
//! u32 LE   crc32c of all that follows in use
//! u64 LE   number of this write; the higher whole slot counts
//! u32 LE   length
//! bytes    content
//! ```
//!
//! # Invariants
//! - A write goes to the slot that does not count, and is synced: a power cut at
//!   any moment leaves the one or the other (test `a_torn_write_leaves_the_other`).
//! - What was read is made durable before anything is done by it: whoever opens the file
//!   calls `make_durable`.
//! - Both slots are written out when the file is made: on file systems that write
//!   in place, a full disk does not keep a cursor from being saved.

use super::durable_file::sync_dir;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// Room of one slot: a position with every type in each of its tallies, and all of its
/// spans (test `the_largest_position_fits_its_file`).
pub(super) const SLOT_BYTES: usize = 64 << 10;

const HEADER_BYTES: usize = 4 + 8 + 4;

/// More writes than a disk survives; a slot with a higher number is damaged.
const NUMBER_MAX: u64 = 1 << 62;

/// The open file.
#[derive(Debug)]
pub(super) struct Slots {
    file: File,
    /// The number of the write that counts.
    number: u64,
}

impl Slots {
    /// Opens the file: its content, or `None` when there is no such file.
    pub(super) fn open(path: &Path) -> io::Result<Option<(Self, Vec<u8>)>> {
        let file = match File::options().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let (number, content) = newest(&read(&file)?).ok_or_else(damaged)?;
        Ok(Some((Self { file, number }, content)))
    }

    /// Makes durable what [`Slots::open`] read: a process that was killed between its write
    /// and its sync leaves a slot that only the memory of this machine has, and what is done by
    /// it (deletions) must not outlive it.
    pub(super) fn make_durable(&self, path: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        path.parent().map_or(Ok(()), sync_dir)
    }

    /// Reads the file without a handle to it.
    pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
        let (_, content) = newest(&read(&File::open(path)?)?).ok_or_else(damaged)?;
        Ok(content)
    }

    /// Makes the file, in place of a damaged one if need be.
    pub(super) fn create(path: &Path, content: &[u8]) -> io::Result<Self> {
        let temporary = path.with_extension("new");
        let file = File::options()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(&temporary)?;
        file.write_all_at(&[0; 2 * SLOT_BYTES], 0)?;
        let mut slots = Self { file, number: 0 };
        slots.write(content)?;
        slots.file.sync_all()?;
        fs::rename(&temporary, path)?;
        if let Some(dir) = path.parent() {
            sync_dir(dir)?;
        }
        Ok(slots)
    }

    /// Replaces the content; returns once it is on the disk. After an error the old
    /// content counts, and the write may be tried again.
    pub(super) fn write(&mut self, content: &[u8]) -> io::Result<()> {
        if content.len() > SLOT_BYTES - HEADER_BYTES {
            return Err(io::Error::other("content does not fit its slot"));
        }
        let number = self.number + 1;
        let length = u32::try_from(content.len()).unwrap_or(u32::MAX);
        let mut bytes = vec![0; 4];
        bytes.extend(number.to_le_bytes());
        bytes.extend(length.to_le_bytes());
        bytes.extend(content);
        let crc = crc32c::crc32c(&bytes[4..]);
        bytes[..4].copy_from_slice(&crc.to_le_bytes());
        self.file
            .write_all_at(&bytes, (number % 2) * SLOT_BYTES as u64)?;
        self.file.sync_data()?;
        self.number = number;
        Ok(())
    }
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "no slot is whole")
}

/// The bytes of both slots; what lies behind them is none of ours.
fn read(file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(2 * SLOT_BYTES);
    file.take(2 * SLOT_BYTES as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

pub(super) fn newest(bytes: &[u8]) -> Option<(u64, Vec<u8>)> {
    let slots = [bytes.get(..SLOT_BYTES), bytes.get(SLOT_BYTES..)];
    slots.into_iter().flatten().filter_map(parse).max()
}

fn parse(slot: &[u8]) -> Option<(u64, Vec<u8>)> {
    let (crc, rest) = slot.split_first_chunk::<4>()?;
    let (number, after) = rest.split_first_chunk::<8>()?;
    let (length, content) = after.split_first_chunk::<4>()?;
    let length = u32::from_le_bytes(*length) as usize;
    let content = content.get(..length)?;
    let number = u64::from_le_bytes(*number);
    let is_whole = crc32c::crc32c(&rest[..12 + length]) == u32::from_le_bytes(*crc);
    // The next write has a number, too.
    (is_whole && (1..NUMBER_MAX).contains(&number)).then(|| (number, content.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_write_leaves_the_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c");
        assert!(Slots::open(&path).unwrap().is_none());
        let mut slots = Slots::create(&path, b"one").unwrap();
        let size = fs::metadata(&path).unwrap().len();
        for round in 0..9u8 {
            let before = Slots::read(&path).unwrap();
            let old = fs::read(&path).unwrap();
            slots.write(&[round; 40]).unwrap();
            let new = fs::read(&path).unwrap();
            assert_eq!(Slots::read(&path).unwrap(), [round; 40]);
            assert_eq!(new.len() as u64, size, "it never grows");
            // Any prefix of the changed bytes may have reached the disk.
            for cut in (0..new.len()).filter(|&at| old[at] != new[at]) {
                let mut torn = old.clone();
                torn[..cut].copy_from_slice(&new[..cut]);
                let (_, content) = newest(&torn).unwrap();
                assert_eq!(content, before, "round {round} cut {cut}");
            }
        }
        drop(slots);
        let (mut slots, content) = Slots::open(&path).unwrap().unwrap();
        assert_eq!(content, [8; 40]);
        slots.write(b"on").unwrap();
        assert_eq!(Slots::read(&path).unwrap(), b"on");
    }

    #[test]
    fn damage_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c");
        let mut slots = Slots::create(&path, b"one").unwrap();
        slots.write(b"two").unwrap();
        let whole = fs::read(&path).unwrap();
        for at in [0, 5, 12, 17].map(|at| at + if whole[4] == 2 { 0 } else { SLOT_BYTES }) {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            assert_eq!(newest(&bytes).unwrap().1, b"one".to_vec(), "byte {at}");
        }
        let mut claims = vec![0; 4];
        claims.extend(u64::MAX.to_le_bytes());
        claims.extend([0; 4]);
        let crc = crc32c::crc32c(&claims[4..]);
        claims[..4].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(parse(&claims), None, "nothing could be written after it");
        fs::write(&path, &whole[..8]).unwrap();
        assert!(Slots::open(&path).is_err());
    }
}
