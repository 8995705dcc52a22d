//! What must hold of a server's answers. Called by `crate::fuzzing` alone, and compiled for it
//! alone.

use super::{launches, verdict};
use crate::sink::Device;
use clickhouse::error::Error;

/// What an error means for its batch, in the words of a server, a proxy or nobody known.
pub(crate) fn answer(text: &str) {
    let error = Error::BadResponse(text.to_owned());
    let is_refused = !verdict::of(&error).is_retryable();
    if is_refused {
        assert!(
            verdict::leaves_it_to_json(&error),
            "rows are refused that JSON may bring in"
        );
    }
    if let Some(code) = verdict::code(text) {
        assert!(text.contains(&code.to_string()));
    }
}

/// Which launch is found in an answer's lines, for the device of the first.
pub(crate) fn rows(text: &str) {
    let lines = text.lines().map(serde_json::from_str::<Vec<String>>);
    let Ok(rows) = lines.collect::<Result<Vec<_>, _>>() else {
        return;
    };
    let cell = |at: usize| rows.first().and_then(|row| row.get(at)).cloned();
    let device = Device {
        device_id: cell(0).unwrap_or_default(),
        bb_device_id: cell(1).unwrap_or_default(),
    };
    if let Some(launch) = launches::first(&rows, &device) {
        assert!(!device.device_id.is_empty() || !device.bb_device_id.is_empty());
        let has = |text: &String| rows.iter().any(|row| row.contains(text));
        assert!(has(&launch.referral_identifier) && has(&launch.dynamic_link));
        assert!(launch.deep_link.as_ref().is_none_or(has));
    }
}
