//! Changes seeds a little, for the tests: the fuzzers have their own, better ways.
//!
//! # Invariants
//! - The same number and seeds give the same bytes (test `changes_can_be_replayed`).

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

/// Bytes of a changed seed; parsers do not get more interesting with more.
const BYTES_MAX: usize = 16 << 10;

/// Texts and numbers at which parsers turn.
const PIECES: [&[u8]; 20] = [
    b"",
    b"\0",
    b"\n",
    b"\xff",
    b"\xff\xff\xff\xff",
    b"\0\0\0\0\0\0\0\x80",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"-",
    b"\"",
    b"\\u0000",
    b"\\ud800",
    b"null",
    b"{}",
    b"[[[[[[[[",
    b"1e999",
    b"-0.0",
    b"18446744073709551616",
    b"\"NaN\"",
    "é".as_bytes(),
    b"\xed\xa0\x80",
];

/// A seed with up to eight changes.
pub(super) fn change(seeds: &[Vec<u8>], number: u64) -> Vec<u8> {
    let mut rng = StdRng::seed_from_u64(number);
    let mut bytes = seeds[rng.random_range(0..seeds.len())].clone();
    for _ in 0..rng.random_range(1..=8) {
        let at = rng.random_range(0..=bytes.len());
        let end = rng.random_range(at..=bytes.len().min(at + 64));
        match rng.random_range(0..8) {
            0 if at < bytes.len() => bytes[at] ^= 1 << rng.random_range(0..8),
            1 if at < bytes.len() => bytes[at] = rng.random(),
            2 if at < bytes.len() => {
                let by = rng.random_range(-3..=3);
                bytes[at] = bytes[at].wrapping_add_signed(by);
            }
            3 => drop(bytes.drain(at..end)),
            4 => {
                let again = bytes[at..end].repeat(rng.random_range(1..=4));
                bytes.splice(at..at, again);
            }
            5 => {
                let other = &seeds[rng.random_range(0..seeds.len())];
                let from = rng.random_range(0..=other.len());
                let to = rng.random_range(from..=other.len().min(from + 256));
                bytes.splice(at..end, other[from..to].iter().copied());
            }
            6 => bytes.truncate(at),
            _ => {
                let piece = PIECES[rng.random_range(0..PIECES.len())];
                bytes.splice(at..end, piece.iter().copied());
            }
        }
    }
    bytes.truncate(BYTES_MAX);
    bytes
}
