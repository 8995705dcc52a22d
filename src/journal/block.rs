//! The unit that is written to the store: frames of one or more records under
//! one checksum. Called by `writer` (build), `scan` and `contents` (parse).
//!
//! ```text
//! 16 bytes  the generation's salt: random, never shown to clients
//! u8        format version, 1
//! u32 LE    crc32c of everything after this field, padding included
//! u32 LE    length of the whole block
//! u64 LE    number of this block in its generation
//! u64 LE    blocks of this generation that were synced when this one was built
//! u32 LE    count of frames
//! frames    u64 LE sequence, u32 LE part, u32 LE parts, u32 LE length, bytes
//! zeros     up to BLOCK_BYTES_MIN
//! ```
//!
//! A record longer than a block is cut into parts, each alone in its block.
//!
//! # Invariants
//! - A block is known for what it is wherever its bytes lie: by salt, length and
//!   checksum. A client cannot forge one, since it does not know the salt.
//! - A block proves what was synced before it, so that a hole before it is a loss
//!   and a hole after all such proofs is a write that was cut off.

use crate::event::identity::Seq;
use bytes::Bytes;

/// Payload of a block. sled keeps up to 17 values in one page and moves pages
/// over a quarter of a segment (2 MiB) into `blobs/` files that nothing syncs:
/// 17 blocks of 64 KiB stay well below.
pub(super) const BLOCK_BYTES_MAX: usize = 64 << 10;

/// Smaller blocks are padded: below 1 KiB sled writes up to 7 times the payload,
/// which would break the bound on bytes between two syncs.
pub(super) const BLOCK_BYTES_MIN: usize = 1 << 10;

/// Blocks of a generation, and above all that one can hold: 256 MiB in the smallest blocks
/// are a 64th of it. Whoever reads a generation counts up to what it claims.
pub(super) const BLOCKS_MAX: u64 = 1 << 24;

/// Parts of a record. The largest request has 64 MiB; this is four times that. Parts are
/// gathered in memory until a record is whole.
pub(super) const PARTS_MAX: u32 = (256 << 20) / PART_BYTES_MAX as u32;

const VERSION: u8 = 1;
const CRC_AT: usize = SALT_BYTES + 1;
/// Where the bytes begin that are under the checksum.
const CRC_FROM: usize = CRC_AT + 4;
const HEADER_BYTES: usize = CRC_FROM + 4 + 8 + 8 + 4;
const FRAME_HEADER_BYTES: usize = 8 + 4 + 4 + 4;

/// Bytes of a record that fit one block as one part.
pub(super) const PART_BYTES_MAX: usize = BLOCK_BYTES_MAX - HEADER_BYTES - FRAME_HEADER_BYTES;

/// Length of a [`Salt`].
pub(super) const SALT_BYTES: usize = 16;

/// Marks the blocks of one generation.
pub(super) type Salt = [u8; SALT_BYTES];

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

/// A block that was read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) number: u64,
    /// Blocks that were synced when this one was built.
    pub(super) durable_blocks: u64,
    /// Its length in the store.
    pub(super) bytes: usize,
    pub(super) frames: Vec<Frame>,
}

/// Bytes that are not a block of this generation.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BlockError {
    #[error("block is too short")]
    Short,
    #[error("block is not of this generation")]
    Salt,
    #[error("block has format version {0}")]
    Version(u8),
    #[error("block checksum does not match")]
    Checksum,
    #[error("block claims what no generation holds")]
    Claim,
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

    /// Adds a frame, whose bytes may come in two pieces.
    pub(super) fn push(&mut self, seq: Seq, part: u32, parts: u32, pieces: [&[u8]; 2]) {
        let length = pieces[0].len() + pieces[1].len();
        assert!(self.fits(length), "the writer cuts records to parts");
        let length = u32::try_from(length).expect("a part is under 64 KiB");
        self.bytes.extend(seq.0.to_le_bytes());
        self.bytes.extend(part.to_le_bytes());
        self.bytes.extend(parts.to_le_bytes());
        self.bytes.extend(length.to_le_bytes());
        for piece in pieces {
            self.bytes.extend_from_slice(piece);
        }
        self.frames += 1;
    }

    /// The finished block.
    pub(super) fn finish(mut self, salt: &Salt, number: u64, durable_blocks: u64) -> Vec<u8> {
        if self.bytes.len() < BLOCK_BYTES_MIN {
            self.bytes.resize(BLOCK_BYTES_MIN, 0);
        }
        let length = u32::try_from(self.bytes.len()).expect("a block is at most 64 KiB");
        let mut header = Vec::with_capacity(HEADER_BYTES - CRC_FROM);
        header.extend(length.to_le_bytes());
        header.extend(number.to_le_bytes());
        header.extend(durable_blocks.to_le_bytes());
        header.extend(self.frames.to_le_bytes());
        self.bytes[..SALT_BYTES].copy_from_slice(salt);
        self.bytes[SALT_BYTES] = VERSION;
        self.bytes[CRC_FROM..HEADER_BYTES].copy_from_slice(&header);
        let crc = crc32c::crc32c(&self.bytes[CRC_FROM..]);
        self.bytes[CRC_AT..CRC_FROM].copy_from_slice(&crc.to_le_bytes());
        self.bytes
    }
}

/// Reads the block at the start of `bytes`, which may go on behind it; every byte
/// of the block is under the checksum or compared.
pub(super) fn parse(bytes: &Bytes, salt: &Salt) -> Result<Block, BlockError> {
    if bytes.len() < HEADER_BYTES {
        return Err(BlockError::Short);
    }
    if &bytes[..SALT_BYTES] != salt {
        return Err(BlockError::Salt);
    }
    let version = bytes[SALT_BYTES];
    if version != VERSION {
        return Err(BlockError::Version(version));
    }
    let mut at = CRC_AT;
    let crc = take_u32(bytes, &mut at)?;
    let length = take_u32(bytes, &mut at)? as usize;
    if !(BLOCK_BYTES_MIN..=BLOCK_BYTES_MAX).contains(&length) || bytes.len() < length {
        return Err(BlockError::Short);
    }
    let bytes = bytes.slice(..length);
    if crc != crc32c::crc32c(&bytes[CRC_FROM..]) {
        return Err(BlockError::Checksum);
    }
    let number = take_u64(&bytes, &mut at)?;
    let durable_blocks = take_u64(&bytes, &mut at)?;
    let count = take_u32(&bytes, &mut at)?;
    if number > BLOCKS_MAX || durable_blocks > BLOCKS_MAX {
        return Err(BlockError::Claim);
    }
    let mut frames = Vec::new();
    for _ in 0..count {
        let seq = Seq(take_u64(&bytes, &mut at)?);
        let part = take_u32(&bytes, &mut at)?;
        let parts = take_u32(&bytes, &mut at)?;
        let length = take_u32(&bytes, &mut at)? as usize;
        if bytes.len() - at < length {
            return Err(BlockError::Short);
        }
        if part >= parts || parts > PARTS_MAX || seq > Seq::MAX {
            return Err(BlockError::Claim);
        }
        frames.push(Frame {
            seq,
            part,
            parts,
            bytes: bytes.slice(at..at + length),
        });
        at += length;
    }
    Ok(Block {
        number,
        durable_blocks,
        bytes: length,
        frames,
    })
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

    const SALT: Salt = *b"0123456789abcdef";

    fn block(parts: &[Vec<u8>]) -> Bytes {
        let mut builder = Builder::new();
        for (i, bytes) in parts.iter().enumerate() {
            builder.push(Seq(7 + i as u64), 0, 1, [bytes, b""]);
        }
        builder.finish(&SALT, 3, 2).into()
    }

    proptest! {
        #[test]
        fn a_block_gives_back_its_frames(parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..900), 0..40), more in 0usize..9) {
            let mut bytes = block(&parts).to_vec();
            let length = bytes.len();
            prop_assert!((BLOCK_BYTES_MIN..=BLOCK_BYTES_MAX).contains(&length));
            bytes.resize(length + more, 9);
            let block = parse(&bytes.into(), &SALT).unwrap();
            prop_assert_eq!((block.number, block.durable_blocks, block.bytes), (3, 2, length));
            prop_assert_eq!(block.frames.len(), parts.len());
            for (i, frame) in block.frames.iter().enumerate() {
                prop_assert_eq!(frame.seq, Seq(7 + i as u64));
                prop_assert_eq!(&frame.bytes[..], &parts[i][..]);
            }
        }

        #[test]
        fn any_flipped_bit_is_noticed(at in 0usize..1024, bit in 0u8..8) {
            let mut bytes = block(&[b"hello".to_vec()]).to_vec();
            bytes[at] ^= 1 << bit;
            prop_assert!(parse(&bytes.into(), &SALT).is_err());
        }

        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut salted = SALT.to_vec();
            salted.push(VERSION);
            salted.extend(&bytes);
            prop_assert!(parse(&bytes.into(), &SALT).is_err());
            prop_assert!(parse(&salted.into(), &SALT).is_err());
        }
    }

    #[test]
    fn claims_beyond_any_generation_are_refused() {
        let built = |seq, part, parts, number, durable| {
            let mut builder = Builder::new();
            builder.push(Seq(seq), part, parts, [b"", b"x"]);
            let bytes = builder.finish(&SALT, number, durable);
            parse(&bytes.into(), &SALT).map(|_| ())
        };
        let last = PARTS_MAX - 1;
        assert_eq!(built(1 << 62, last, PARTS_MAX, BLOCKS_MAX, 2), Ok(()));
        for bad in [
            built(u64::MAX, 0, 1, 3, 2),
            built(1, 0, 0, 3, 2),
            built(1, 1, 1, 3, 2),
            built(1, 0, PARTS_MAX + 1, 3, 2),
            built(1, u32::MAX, u32::MAX, 3, 2),
            built(1, 0, 1, u64::MAX, 2),
            built(1, 0, 1, 3, u64::MAX),
        ] {
            assert_eq!(bad, Err(BlockError::Claim));
        }
    }

    #[test]
    fn a_block_of_another_generation_is_refused() {
        let error = parse(&block(&[vec![]]), b"another salt 16b").unwrap_err();
        assert_eq!(error, BlockError::Salt);
    }

    #[test]
    fn the_format_stays_as_it_is() {
        let mut builder = Builder::new();
        builder.push(Seq(1), 0, 1, [b"x", b""]);
        let bytes = builder.finish(&SALT, 2, 1);
        assert_eq!(bytes[..17], *b"0123456789abcdef\x01");
        assert_eq!(bytes[21..25], [0, 4, 0, 0]);
        assert_eq!(
            bytes[25..45],
            [2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]
        );
        assert_eq!(
            bytes[45..66],
            [
                1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, b'x'
            ]
        );
        assert_eq!(bytes.len(), BLOCK_BYTES_MIN);
    }
}
