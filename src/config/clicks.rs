//! `[clicks]`: what makes a click on a short link a bot's. Called by `app`.

use serde::Deserialize;

/// `[clicks]`
#[derive(Debug, Clone, Deserialize, Default)]
#[serde(default)]
pub struct Clicks {}
