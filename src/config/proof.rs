//! `[receipts]` and `[drill]`: proving that nothing is missing, and rehearsing it.

use super::{Size, Span};
use serde::{Deserialize, Serialize};

/// `[receipts]`: what the log remembers of what it has let go, for `reconcile`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default)]
pub struct Receipts {
    /// For how long. Default 7 d: an outage at the start of a weekend is looked into on
    /// Monday, and the week's reports are made after it.
    pub keep: Span,
    /// Bytes of all of it. Default 1 GiB: some tens of millions of events.
    pub max_bytes: Size,
}

impl Default for Receipts {
    fn default() -> Self {
        Self {
            keep: Span::secs(7 * 24 * 3600),
            max_bytes: Size::gib(1),
        }
    }
}

/// `[drill]`
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Drill {
    /// Whether `holdfast drill` may play outages here. Default false: for staging hosts.
    pub allowed: bool,
}
