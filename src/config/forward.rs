//! `[forward]`: how fast the log goes out, and in how large messages. Used by `app`; can be
//! changed while the service runs.

use super::Size;
use crate::pace::Settings;
use serde::{Deserialize, Serialize};

/// Documents of a message that every consumer of this version takes.
pub const DOCUMENTS_PER_MESSAGE_MAX: usize = 1000;

/// Less is less than many a single document.
pub(super) const MESSAGE_BYTES_MIN: Size = Size::kib(4);

/// A message's rows are in its consumer's memory together, and each repeats its header: from
/// a larger message they would be more than twice those of the largest single document.
pub(super) const MESSAGE_BYTES_MAX: Size = Size::kib(128);

/// `[forward]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default)]
pub struct Forward {
    /// Events a second that leave by one way out; 0: as many as it takes. Default 0.
    pub max_rate: u32,
    /// The part of that, and of `rabbitmq.confirm_window`, that a backlog may take while
    /// fresh events go beside it. Default 0.75: fresh events rarely need more than a fourth.
    pub backlog_share: f64,
    /// Requests whose events of one type may go to RabbitMQ in one message, each a document
    /// of its own in it. Default 1, which is what queues in the field rely on; more needs
    /// consumers that take NDJSON.
    pub documents_per_message: usize,
    /// Bytes of the body of such a message; a single document may be larger. Default 64 KiB:
    /// from there on a broker is slowed by bytes and not by messages.
    pub message_bytes: Size,
}

impl Default for Forward {
    fn default() -> Self {
        let pace = Settings::default();
        Self {
            max_rate: pace.max_rate.unwrap_or(0),
            backlog_share: pace.backlog_share,
            documents_per_message: 1,
            message_bytes: Size::kib(64),
        }
    }
}

impl Forward {
    /// The same at another pace.
    #[must_use]
    pub fn at(self, pace: Settings) -> Self {
        Self {
            max_rate: pace.max_rate.unwrap_or(0),
            backlog_share: pace.backlog_share,
            ..self
        }
    }

    /// As the ways out take it.
    #[must_use]
    pub fn settings(&self) -> Settings {
        Settings {
            max_rate: (self.max_rate > 0).then_some(self.max_rate),
            backlog_share: self.backlog_share,
        }
    }
}
