//! A JSON object taken apart without changing any of it: each value is read as
//! what its handler wants, or passed on in its own words. Used by `webhook` and by
//! the handlers of JSON messages.
//!
//! # Invariants
//! - Numbers keep every digit: a nested value is the text that came, and whole
//!   numbers never pass through a float (test `large_numbers_keep_their_digits`).
//! - A key that is there with `null` is not one that is missing.

use chrono::{DateTime, FixedOffset, NaiveDateTime, TimeZone as _};
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// The keys and values of a message.
#[derive(Debug)]
pub struct Fields<'a> {
    values: BTreeMap<String, &'a RawValue>,
    /// The object in its own words.
    whole: &'a str,
    /// What the object is called in errors; empty for the message itself.
    path: String,
}

impl<'a> Fields<'a> {
    /// Reads a message's body.
    ///
    /// # Errors
    /// The reason, when it is not a JSON object in UTF-8.
    pub fn of_body(body: &'a [u8]) -> Result<Self, String> {
        // Editors and some producers put a byte order mark before it.
        let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
        let text = std::str::from_utf8(body).map_err(|error| format!("not UTF-8: {error}"))?;
        let values =
            serde_json::from_str(text).map_err(|error| format!("not a JSON object: {error}"))?;
        Ok(Self {
            values,
            whole: text.trim(),
            path: String::new(),
        })
    }

    fn named(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    /// The object as it came.
    #[must_use]
    pub fn whole(&self) -> &'a str {
        self.whole
    }

    /// Whether the key is there, be it with `null`.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    /// Demands that keys are there, be it with `null`.
    ///
    /// # Errors
    /// Names those that are missing.
    pub fn demand(&self, keys: &[&str]) -> Result<(), String> {
        let missing: Vec<_> = keys.iter().filter(|key| !self.has(key)).copied().collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(format!("missing: {}", missing.join(", ")))
    }

    /// The value in its own words; `None` when it is missing or null.
    #[must_use]
    pub fn raw(&self, key: &str) -> Option<&'a str> {
        let text = self.values.get(key)?.get();
        (text != "null").then_some(text)
    }

    /// Text; `None` when it is missing or null.
    ///
    /// # Errors
    /// When it is something else.
    pub fn text(&self, key: &str) -> Result<Option<String>, String> {
        let Some(raw) = self.raw(key) else {
            return Ok(None);
        };
        serde_json::from_str(raw)
            .map(Some)
            .map_err(|_| format!("{}: text expected, not {}", self.named(key), kind(raw)))
    }

    /// Text that must be there.
    ///
    /// # Errors
    /// When it is missing, null or something else.
    pub fn needed_text(&self, key: &str) -> Result<String, String> {
        let missing = || format!("{}: missing", self.named(key));
        self.text(key)?.ok_or_else(missing)
    }

    /// Text, or a number or boolean in its own words; for ids that producers write
    /// either way.
    ///
    /// # Errors
    /// When it is an object or a list.
    pub fn loose_text(&self, key: &str) -> Result<Option<String>, String> {
        match self.raw(key) {
            Some(raw) if raw.starts_with(['{', '[']) => Err(format!(
                "{}: text or a number expected, not {}",
                self.named(key),
                kind(raw)
            )),
            Some(raw) if !raw.starts_with('"') => Ok(Some(raw.to_owned())),
            _ => self.text(key),
        }
    }

    /// A whole number, also as text or with a fraction of 0; `None` when it is
    /// missing or null.
    ///
    /// # Errors
    /// When it is something else, or beyond 64 bits.
    pub fn int(&self, key: &str) -> Result<Option<i64>, String> {
        let Some(text) = self.loose_text(key)? else {
            return Ok(None);
        };
        whole(&text).map(Some).ok_or_else(|| {
            let name = self.named(key);
            format!("{name}: a whole number of 64 bits expected")
        })
    }

    /// A whole number that is not negative, also as text; `None` when it is missing or
    /// null.
    ///
    /// # Errors
    /// When it is something else, or beyond 64 bits.
    pub fn uint(&self, key: &str) -> Result<Option<u64>, String> {
        let Some(text) = self.loose_text(key)? else {
            return Ok(None);
        };
        let text = text.trim();
        let number = text.parse().ok().or_else(|| whole(text)?.try_into().ok());
        number.map(Some).ok_or_else(|| {
            let name = self.named(key);
            format!("{name}: a whole number from 0, of 64 bits, expected")
        })
    }

    /// A number, also as text; `None` when it is missing or null.
    ///
    /// # Errors
    /// When it is something else.
    pub fn float(&self, key: &str) -> Result<Option<f64>, String> {
        let Some(text) = self.loose_text(key)? else {
            return Ok(None);
        };
        let number = text.trim().parse::<f64>().ok().filter(|n| n.is_finite());
        number
            .map(Some)
            .ok_or_else(|| format!("{}: a number expected", self.named(key)))
    }

    /// A boolean, also as 0 or 1; `None` when it is missing or null.
    ///
    /// # Errors
    /// When it is something else.
    pub fn flag(&self, key: &str) -> Result<Option<bool>, String> {
        match self.raw(key) {
            None => Ok(None),
            Some("true" | "1" | "\"true\"") => Ok(Some(true)),
            Some("false" | "0" | "\"false\"") => Ok(Some(false)),
            Some(_) => Err(format!("{}: true or false expected", self.named(key))),
        }
    }

    /// Text; a value of another kind in its own words; empty when it is missing or
    /// null. For columns of text that senders also fill with documents.
    #[must_use]
    pub fn words(&self, key: &str) -> String {
        let raw = self.raw(key).unwrap_or_default();
        serde_json::from_str(raw).unwrap_or_else(|_| raw.to_owned())
    }

    /// The object as JSON again, without keys that are null if `drop_nulls`, and with
    /// these keys set to these JSON texts.
    #[must_use]
    pub fn with(&self, drop_nulls: bool, set: &[(&str, &str)]) -> String {
        let kept = self.values.iter().filter(|(key, value)| {
            let is_dropped = drop_nulls && value.get() == "null";
            !is_dropped && !set.iter().any(|(name, _)| name == key)
        });
        let kept = kept.map(|(key, value)| (key.as_str(), value.get()));
        let mut text = String::from("{");
        for (key, value) in kept.chain(set.iter().copied()) {
            if text.len() > 1 {
                text.push(',');
            }
            text.push_str(&serde_json::Value::from(key).to_string());
            text.push(':');
            text.push_str(value);
        }
        text.push('}');
        text
    }

    /// The keys whose values are texts, as a JSON object.
    #[must_use]
    pub fn texts(mut self) -> String {
        self.values.retain(|_, value| value.get().starts_with('"'));
        self.with(false, &[])
    }

    /// The object without these keys.
    #[must_use]
    pub fn without(mut self, keys: &[&str]) -> Self {
        self.values.retain(|key, _| !keys.contains(&key.as_str()));
        self
    }

    /// An object's text, `{}` where it is missing, null or something else.
    #[must_use]
    pub fn object_or_empty(&self, key: &str) -> String {
        match self.raw(key) {
            Some(raw) if raw.starts_with('{') => raw.to_owned(),
            _ => "{}".to_owned(),
        }
    }

    /// An object's keys and values; `None` when it is missing or null.
    ///
    /// # Errors
    /// When it is something else.
    pub fn object(&self, key: &str) -> Result<Option<Self>, String> {
        let Some(raw) = self.raw(key) else {
            return Ok(None);
        };
        let values = serde_json::from_str(raw)
            .map_err(|_| format!("{}: an object expected, not {}", self.named(key), kind(raw)))?;
        Ok(Some(Self {
            values,
            whole: raw,
            path: self.named(key),
        }))
    }

    /// A time: epoch seconds or milliseconds as number or text, RFC 3339, or
    /// `YYYY-MM-DD HH:MM:SS` in `zone`; in epoch milliseconds. `None` when it is
    /// missing or null.
    ///
    /// # Errors
    /// When it is something else.
    pub fn time_ms(&self, key: &str, zone: FixedOffset) -> Result<Option<i64>, String> {
        let Some(text) = self.loose_text(key)? else {
            return Ok(None);
        };
        time_ms(&text, zone)
            .map(Some)
            .ok_or_else(|| format!("{}: not a time: {:?}", self.named(key), brief(&text)))
    }

    /// A time that must be there.
    ///
    /// # Errors
    /// When it is missing, null or no time.
    pub fn needed_time_ms(&self, key: &str, zone: FixedOffset) -> Result<i64, String> {
        let missing = || format!("{}: missing", self.named(key));
        self.time_ms(key, zone)?.ok_or_else(missing)
    }
}

/// The zone of times that name none.
pub const UTC: FixedOffset = match FixedOffset::east_opt(0) {
    Some(zone) => zone,
    None => panic!("0 is an offset"),
};

/// Asia/Kolkata, which has no summer time.
pub const KOLKATA: FixedOffset = match FixedOffset::east_opt(5 * 3600 + 1800) {
    Some(zone) => zone,
    None => panic!("5:30 is an offset"),
};

/// Epoch numbers below this are seconds, others milliseconds: as seconds the year
/// 5138, as milliseconds March 1973.
const SECONDS_MAX: u64 = 100_000_000_000;

/// Forms of times beside epoch numbers and RFC 3339, with 24 hours; the first have
/// no zone of their own.
const LOCAL_FORMS: [&str; 2] = ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f"];
const ZONED_FORMS: [&str; 3] = [
    "%Y-%m-%d %H:%M:%S%.f%#z",
    "%Y-%m-%d %H:%M:%S%.f %#z",
    "%Y-%m-%dT%H:%M:%S%.f%#z",
];

fn time_ms(text: &str, zone: FixedOffset) -> Option<i64> {
    let text = text.trim();
    if let Some(number) = whole(text) {
        // What an unset clock is written as.
        if number == 0 {
            return None;
        }
        let is_seconds = number.unsigned_abs() < SECONDS_MAX;
        return Some(if is_seconds { number * 1000 } else { number });
    }
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(time.timestamp_millis());
    }
    for form in ZONED_FORMS {
        if let Ok(time) = DateTime::parse_from_str(text, form) {
            return Some(time.timestamp_millis());
        }
    }
    let text = text.strip_suffix(" UTC").unwrap_or(text);
    LOCAL_FORMS.iter().find_map(|form| {
        let time = NaiveDateTime::parse_from_str(text, form).ok()?;
        let time = zone.from_local_datetime(&time).single()?;
        Some(time.timestamp_millis())
    })
}

/// A whole number written as such, with a fraction of zeros, or with an exponent
/// that a double holds exactly.
fn whole(text: &str) -> Option<i64> {
    let text = text.trim();
    if let Ok(number) = text.parse() {
        return Some(number);
    }
    if let Some((digits, fraction)) = text.split_once('.')
        && fraction.bytes().all(|b| b == b'0')
        && !fraction.is_empty()
    {
        return digits.parse().ok();
    }
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let number = text.parse::<f64>().ok()?;
    let is_whole = number.fract() == 0.0 && number.abs() <= EXACT;
    #[allow(
        clippy::cast_possible_truncation,
        reason = "checked: whole and in range"
    )]
    let number = is_whole.then_some(number as i64);
    number
}

/// What a JSON text is, for errors.
fn kind(raw: &str) -> &'static str {
    match raw.as_bytes().first() {
        Some(b'"') => "text",
        Some(b'{') => "an object",
        Some(b'[') => "a list",
        Some(b't' | b'f') => "true or false",
        _ => "a number",
    }
}

/// The beginning of a value, for errors.
fn brief(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
#[path = "fields_tests.rs"]
mod tests;
