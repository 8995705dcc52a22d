//! `[webhooks]`: sources, verification, lanes. Called by `app`.

use serde::Deserialize;

/// `[webhooks]`
#[derive(Debug, Clone, Deserialize, Default)]
#[serde(default)]
pub struct Webhooks {}
