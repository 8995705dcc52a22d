//! `[drill]`: whether outages may be played on this host.

use serde::Deserialize;

/// `[drill]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Drill {
    /// Whether `holdfast drill` may play outages here. Default false: for staging hosts.
    pub allowed: bool,
}
