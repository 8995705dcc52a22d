//! How the journal's files and the heads of records are encoded: bincode 2, standard
//! configuration. Called by all who read or write them.
//!
//! # Invariants
//! - A length that a file claims is never believed beyond a bound: no claim makes the
//!   process allocate what is not there (test `a_claimed_length_is_not_believed`).

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io;

/// What the values of a small file, or of a record's head, may claim in all, in bytes. A
/// manifest with a loss at every second block has some MiB.
const VALUES_BYTES_MAX: usize = 64 << 20;

/// Encodes a value.
pub(super) fn encode<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    bincode::serde::encode_to_vec(value, bincode::config::standard()).map_err(io::Error::other)
}

/// Reads a value, and how many bytes it took.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<(T, usize)> {
    decode_within::<T, VALUES_BYTES_MAX>(bytes)
}

/// As [`decode`], with another bound.
pub(super) fn decode_within<T: DeserializeOwned, const BYTES_MAX: usize>(
    bytes: &[u8],
) -> io::Result<(T, usize)> {
    let config = bincode::config::standard().with_limit::<BYTES_MAX>();
    bincode::serde::decode_from_slice(bytes, config)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claimed_length_is_not_believed() {
        // 253: a length of 64 bits follows.
        for length in [1u64 << 40, u64::MAX / 2, u64::MAX] {
            let bytes = [&[253][..], &length.to_le_bytes(), b"x"].concat();
            let error = decode::<String>(&bytes).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
            assert!(decode::<Vec<(u64, u64)>>(&bytes).is_err());
        }
        let (text, used): (String, usize) = decode(&encode(&"as it was").unwrap()).unwrap();
        assert_eq!((text.as_str(), used), ("as it was", 10));
    }
}
