//! `[forward]`: how fast the log goes out. Used by `app`; can be changed while the service
//! runs.

use crate::pace::Settings;
use serde::{Deserialize, Serialize};

/// `[forward]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default)]
pub struct Forward {
    /// Events a second that leave by one way out; 0: as many as it takes. Default 0.
    pub max_rate: u32,
    /// The part of that, and of `rabbitmq.confirm_window`, that a backlog may take while
    /// fresh events go beside it. Default 0.75: fresh events rarely need more than a fourth.
    pub backlog_share: f64,
}

impl Default for Forward {
    fn default() -> Self {
        Self {
            max_rate: 0,
            backlog_share: Settings::default().backlog_share,
        }
    }
}

impl From<Settings> for Forward {
    fn from(settings: Settings) -> Self {
        Self {
            max_rate: settings.max_rate.unwrap_or(0),
            backlog_share: settings.backlog_share,
        }
    }
}

impl Forward {
    /// As the ways out take it.
    #[must_use]
    pub fn settings(&self) -> Settings {
        Settings {
            max_rate: (self.max_rate > 0).then_some(self.max_rate),
            backlog_share: self.backlog_share,
        }
    }
}
