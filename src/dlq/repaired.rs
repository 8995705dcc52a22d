//! Bodies that an operator mended: lines as `dlq show --json` prints them, of which the id
//! and the body count. Called by `cli`.
//!
//! # Invariants
//! - Bounded, and every mistake is named with its line: nothing is sent of a file that has
//!   one (tests below).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use std::collections::HashMap;
use std::io::BufRead;

/// Bytes of a whole file: it is held in memory, and mended by people.
const FILE_BYTES_MAX: usize = 256 << 20;

/// Bodies by the ids of their letters.
#[derive(Debug, Clone, Default)]
pub struct Repaired(HashMap<String, Bytes>);

/// Why a file cannot be used; the operator has to mend it.
#[derive(Debug, thiserror::Error)]
pub enum RepairedError {
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] std::io::Error),
    /// A line is none.
    #[error("line {line}: {reason}")]
    Line {
        /// Which, from 1.
        line: usize,
        /// Why.
        reason: String,
    },
}

#[derive(Deserialize)]
struct Line {
    id: String,
    body: Option<String>,
    body_base64: Option<String>,
}

impl Repaired {
    /// Reads lines.
    ///
    /// # Errors
    /// [`RepairedError`].
    pub fn read(from: impl BufRead) -> Result<Self, RepairedError> {
        let mut bodies = HashMap::new();
        let mut size = 0;
        for (at, text) in from.lines().enumerate() {
            let wrong = |reason: String| RepairedError::Line {
                line: at + 1,
                reason,
            };
            let text = text?;
            if text.trim().is_empty() {
                continue;
            }
            let line: Line =
                serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
            let body = match (line.body, line.body_base64) {
                (Some(text), None) => text.into_bytes(),
                (None, Some(base64)) => STANDARD
                    .decode(base64)
                    .map_err(|error| wrong(format!("body_base64: {error}")))?,
                _ => return Err(wrong("one of body and body_base64 is needed".to_owned())),
            };
            size += body.len();
            if size > FILE_BYTES_MAX {
                return Err(wrong(format!("more than {FILE_BYTES_MAX} bytes of bodies")));
            }
            if bodies.insert(line.id.clone(), body.into()).is_some() {
                return Err(wrong(format!("{:?} stands here twice", line.id)));
            }
        }
        Ok(Self(bodies))
    }

    /// The mended body of a letter.
    #[must_use]
    pub fn body(&self, id: &str) -> Option<Bytes> {
        self.0.get(id).cloned()
    }

    /// The letters that it mends.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Whether it mends nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_show_are_read_and_mistakes_named() {
        let text = "{\"id\":\"a\",\"reason\":\"r\",\"body\":\"{}\"}\n\n{\"id\":\"b\",\"body_base64\":\"/wA=\"}\n";
        let repaired = Repaired::read(text.as_bytes()).unwrap();
        assert_eq!(repaired.body("a").unwrap(), "{}");
        assert_eq!(repaired.body("b").unwrap(), &b"\xff\x00"[..]);
        assert_eq!((repaired.body("c"), repaired.ids().count()), (None, 2));
        for (text, part) in [
            ("{\"id\":\"a\"}", "line 1: one of"),
            (
                "{\"id\":\"a\",\"body\":\"\"}\n{\"id\":\"a\",\"body\":\"\"}",
                "line 2: \"a\" stands",
            ),
            ("\nx", "line 2: expected"),
            (
                "{\"id\":\"a\",\"body_base64\":\"?\"}",
                "line 1: body_base64",
            ),
        ] {
            let error = Repaired::read(text.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with(part), "{error}");
        }
    }
}
