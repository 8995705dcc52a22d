//! What a JSON text is before it is parsed: how many values, how deep, and whether a key stands
//! twice. Called by the HTTP door and the readers of webhooks.
//!
//! # Invariants
//! - Nothing is made of a text that is beyond its bounds (test
//!   `values_are_counted_before_they_are_made`).

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use std::collections::HashSet;
use std::fmt;

/// Levels of a JSON text: as many as the parsers take on every way from here to the tables.
pub const DEPTH_MAX: usize = 128;

/// Why a text is not even parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Excess {
    /// Parsed, a value takes a hundred bytes and more, even where it is two in the text.
    #[error("more than {0} values")]
    Values(usize),
    /// More than [`DEPTH_MAX`] levels.
    #[error("nested deeper than {DEPTH_MAX} levels")]
    Depth,
}

/// Whether a text may be parsed: it has at most so many values, where an empty list or object
/// counts as two, and is not nested too deep. Texts that are not JSON get some answer.
///
/// # Errors
/// See [`Excess`].
pub fn bounded(text: &[u8], values_max: usize) -> Result<(), Excess> {
    let (mut values, mut depth) = (1, 0_usize);
    let (mut in_string, mut escaped) = (false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_string,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            // Each value but the first comes after one of these.
            b'{' | b'[' | b',' => {
                values += 1;
                depth += usize::from(*byte != b',');
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if values > values_max {
            return Err(Excess::Values(values_max));
        }
        if depth > DEPTH_MAX {
            return Err(Excess::Depth);
        }
    }
    Ok(())
}

/// Checks that no object has a key twice: of two readers one may take the first and one the
/// last.
///
/// # Errors
/// At the second of a key, or where the text is not JSON.
pub fn keys_are_unique(text: &[u8]) -> Result<(), serde_json::Error> {
    serde_json::from_slice::<Unique>(text).map(|Unique| ())
}

/// A value in which no object has a key twice.
struct Unique;

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Unique {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self, A::Error> {
        while list.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        let mut keys = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            map.next_value::<Self>()?;
            if let Some(key) = keys.replace(key) {
                let shown: String = key.chars().take(64).collect();
                return Err(serde::de::Error::custom(format!("the key {shown:?} twice")));
            }
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_twice_is_found_wherever_it_is() {
        for text in [
            r#"{"a":1,"a":1}"#,
            r#"[{"b":{"a":null,"c":[1.5,-1,true,"x"],"\u0061":2}}]"#,
        ] {
            let error = keys_are_unique(text.as_bytes()).unwrap_err();
            assert!(error.to_string().contains("the key \"a\" twice"), "{error}");
        }
        assert!(keys_are_unique(br#"{"a":{"a":1},"A":[{"a":1},{"a":2}]}"#).is_ok());
    }

    #[test]
    fn values_are_counted_before_they_are_made() {
        for (text, values) in [
            ("{}", 2),
            (r#"{"a":1,"b":[{},{}]}"#, 7),
            (r#"{"a,[{":"\\\",,,"}"#, 2),
            (r#"["\\",1]"#, 3),
            ("", 1),
        ] {
            let less = bounded(text.as_bytes(), values - 1);
            let is_empty = text.is_empty();
            assert!(
                is_empty || less == Err(Excess::Values(values - 1)),
                "{text}"
            );
            assert_eq!(bounded(text.as_bytes(), values), Ok(()), "{text}");
        }
        for (depth, is_taken) in [(DEPTH_MAX, true), (DEPTH_MAX + 1, false), (100_000, false)] {
            let text = [b"[".repeat(depth), b"]".repeat(depth)].concat();
            assert_eq!(bounded(&text, usize::MAX).is_ok(), is_taken, "{depth}");
        }
        let beside = b"{\"a\":[]},".repeat(1000);
        assert_eq!(bounded(&beside, usize::MAX), Ok(()));
    }
}
