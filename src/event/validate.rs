//! The rules that a batch and its events must keep, in one place for the door
//! (which answers with them) and for `split` (which sets single events aside).

use super::reject::Invalid;
use super::scan::Found;

/// Checks what holds for the whole batch.
///
/// # Errors
/// The first rule that does not hold.
pub fn header(found: &Found) -> Result<(), Invalid> {
    if !found.has_header {
        Err(Invalid::NoHeader)
    } else if !found.has_device_id {
        Err(Invalid::NoDeviceId)
    } else {
        Ok(())
    }
}

/// Checks one event by its id and timestamp; the value is the timestamp in
/// epoch milliseconds.
///
/// # Errors
/// The first rule that does not hold.
pub fn event(id: &str, timestamp: &str) -> Result<i64, Invalid> {
    if id.is_empty() {
        return Err(Invalid::NoId);
    }
    timestamp_ms(timestamp)
}

/// Reads an event timestamp: epoch milliseconds as decimal text, from 1970 on
/// (the tables' time types start there).
///
/// # Errors
/// [`Invalid::BadTimestamp`] for anything else.
pub fn timestamp_ms(text: &str) -> Result<i64, Invalid> {
    let bad = || Invalid::BadTimestamp(text.chars().take(64).collect());
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(bad());
    }
    // All digits: what does not fit is far in the future, and is clamped as such.
    Ok(text.parse::<i64>().unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_decimal_milliseconds() {
        assert_eq!(timestamp_ms("1700000000123"), Ok(1_700_000_000_123));
        assert_eq!(timestamp_ms("0"), Ok(0));
        assert_eq!(timestamp_ms("99999999999999999999999"), Ok(i64::MAX));
        for bad in ["", "abc", "-5", "+5", "1.5", " 1", "1e3", "٣"] {
            assert_eq!(
                timestamp_ms(bad),
                Err(Invalid::BadTimestamp(bad.to_owned())),
                "{bad}"
            );
        }
    }

    #[test]
    fn a_header_needs_a_device() {
        let mut found = Found::default();
        assert_eq!(header(&found), Err(Invalid::NoHeader));
        found.has_header = true;
        assert_eq!(header(&found), Err(Invalid::NoDeviceId));
        found.has_device_id = true;
        assert_eq!(header(&found), Ok(()));
    }
}
