//! The unit that is written to the store: frames of one or more records under
//! one checksum. Called by `writer` (build) and `reader`, `recovery` (parse).
//!
//! ```text
//! u8      format version, 1
//! u32 LE  crc32c of everything after this field, padding included
//! u64 LE  number of this block in its generation (a block at the wrong key fails)
//! u32 LE  count of frames
//! frames  u64 LE sequence, u32 LE part, u32 LE parts, u32 LE length, bytes
//! zeros   up to BLOCK_BYTES_MIN
//! ```
//!
//! A record longer than a block is cut into parts, each alone in its block.

use crate::event::identity::Seq;
use bytes::Bytes;

/// Payload of a block. sled keeps up to 17 values in one page and moves pages
/// over a quarter of a segment (2 MiB) into `blobs/` files that nothing syncs:
/// 17 blocks of 64 KiB stay well below.
pub(super) const BLOCK_BYTES_MAX: usize = 64 << 10;

/// Smaller blocks are padded: below 1 KiB sled writes up to 7 times the payload,
/// which would break the bound on bytes between two syncs.
pub(super) const BLOCK_BYTES_MIN: usize = 1 << 10;

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 1 + 4 + 8 + 4;
const FRAME_HEADER_BYTES: usize = 8 + 4 + 4 + 4;

/// Bytes of a record that fit one block as one part.
pub(super) const PART_BYTES_MAX: usize = BLOCK_BYTES_MAX - HEADER_BYTES - FRAME_HEADER_BYTES;

/// A piece of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) seq: Seq,
    /// Which part of its record this is, from 0.
    pub(super) part: u32,
    /// Of how many.
    pub(super) parts: u32,
    pub(super) bytes: Bytes,
}

/// Bytes that are not the block they should be.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BlockError {
    #[error("block is too short")]
    Short,
    #[error("block has format version {0}")]
    Version(u8),
    #[error("block checksum does not match")]
    Checksum,
    #[error("block {found} is stored as block {expected}")]
    Misplaced { found: u64, expected: u64 },
}

/// Collects frames into a block.
#[derive(Debug)]
pub(super) struct Builder {
    bytes: Vec<u8>,
    frames: u32,
}

impl Builder {
    pub(super) fn new() -> Self {
        let mut bytes = Vec::with_capacity(BLOCK_BYTES_MAX);
        bytes.resize(HEADER_BYTES, 0);
        Self { bytes, frames: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.frames == 0
    }

    /// Whether a frame of this many bytes still fits.
    pub(super) fn fits(&self, frame_bytes: usize) -> bool {
        self.bytes.len() + FRAME_HEADER_BYTES + frame_bytes <= BLOCK_BYTES_MAX
    }

    pub(super) fn push(&mut self, seq: Seq, part: u32, parts: u32, bytes: &[u8]) {
        assert!(self.fits(bytes.len()), "the writer cuts records to parts");
        let length = u32::try_from(bytes.len()).expect("a part is under 64 KiB");
        self.bytes.extend(seq.0.to_le_bytes());
        self.bytes.extend(part.to_le_bytes());
        self.bytes.extend(parts.to_le_bytes());
        self.bytes.extend(length.to_le_bytes());
        self.bytes.extend(bytes);
        self.frames += 1;
    }

    /// The finished block.
    pub(super) fn finish(mut self, block: u64) -> Vec<u8> {
        if self.bytes.len() < BLOCK_BYTES_MIN {
            self.bytes.resize(BLOCK_BYTES_MIN, 0);
        }
        self.bytes[0] = VERSION;
        self.bytes[5..13].copy_from_slice(&block.to_le_bytes());
        self.bytes[13..17].copy_from_slice(&self.frames.to_le_bytes());
        let crc = crc32c::crc32c(&self.bytes[5..]);
        self.bytes[1..5].copy_from_slice(&crc.to_le_bytes());
        self.bytes
    }
}

/// Reads a block; every byte is under the checksum.
pub(super) fn parse(bytes: &Bytes, block: u64) -> Result<Vec<Frame>, BlockError> {
    let mut at = 0;
    if bytes.len() < HEADER_BYTES {
        return Err(BlockError::Short);
    }
    let version = bytes[0];
    if version != VERSION {
        return Err(BlockError::Version(version));
    }
    at += 1;
    if take_u32(bytes, &mut at)? != crc32c::crc32c(&bytes[5..]) {
        return Err(BlockError::Checksum);
    }
    let found = take_u64(bytes, &mut at)?;
    if found != block {
        return Err(BlockError::Misplaced {
            found,
            expected: block,
        });
    }
    let count = take_u32(bytes, &mut at)?;
    let mut frames = Vec::new();
    for _ in 0..count {
        let seq = Seq(take_u64(bytes, &mut at)?);
        let part = take_u32(bytes, &mut at)?;
        let parts = take_u32(bytes, &mut at)?;
        let length = take_u32(bytes, &mut at)? as usize;
        if bytes.len() - at < length {
            return Err(BlockError::Short);
        }
        frames.push(Frame {
            seq,
            part,
            parts,
            bytes: bytes.slice(at..at + length),
        });
        at += length;
    }
    Ok(frames)
}

fn take_u32(bytes: &[u8], at: &mut usize) -> Result<u32, BlockError> {
    let chunk = bytes[*at..].first_chunk::<4>().ok_or(BlockError::Short)?;
    *at += 4;
    Ok(u32::from_le_bytes(*chunk))
}

fn take_u64(bytes: &[u8], at: &mut usize) -> Result<u64, BlockError> {
    let chunk = bytes[*at..].first_chunk::<8>().ok_or(BlockError::Short)?;
    *at += 8;
    Ok(u64::from_le_bytes(*chunk))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn block(parts: &[Vec<u8>]) -> Bytes {
        let mut builder = Builder::new();
        for (i, bytes) in parts.iter().enumerate() {
            builder.push(Seq(7 + i as u64), 0, 1, bytes);
        }
        builder.finish(3).into()
    }

    proptest! {
        #[test]
        fn a_block_gives_back_its_frames(parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..900), 0..40)) {
            let bytes = block(&parts);
            prop_assert!((BLOCK_BYTES_MIN..=BLOCK_BYTES_MAX).contains(&bytes.len()));
            let frames = parse(&bytes, 3).unwrap();
            prop_assert_eq!(frames.len(), parts.len());
            for (i, frame) in frames.iter().enumerate() {
                prop_assert_eq!(frame.seq, Seq(7 + i as u64));
                prop_assert_eq!(&frame.bytes[..], &parts[i][..]);
            }
        }

        #[test]
        fn any_flipped_bit_is_noticed(at in 0usize..1024, bit in 0u8..8) {
            let mut bytes = block(&[b"hello".to_vec()]).to_vec();
            bytes[at] ^= 1 << bit;
            prop_assert!(parse(&bytes.into(), 3).is_err());
        }

        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(parse(&bytes.into(), 0).is_err());
        }
    }

    #[test]
    fn a_block_at_the_wrong_place_is_refused() {
        let error = parse(&block(&[vec![]]), 4).unwrap_err();
        assert_eq!(
            error,
            BlockError::Misplaced {
                found: 3,
                expected: 4
            }
        );
    }

    #[test]
    fn the_format_stays_as_it_is() {
        let mut builder = Builder::new();
        builder.push(Seq(1), 0, 1, b"x");
        let bytes = builder.finish(2);
        assert_eq!(bytes[0], 1);
        assert_eq!(bytes[5..17], [2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(
            bytes[17..38],
            [
                1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, b'x'
            ]
        );
        assert_eq!(bytes.len(), BLOCK_BYTES_MIN);
    }
}
