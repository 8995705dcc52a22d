//! Why a request is not accepted, and what each door answers. The one place
//! where status codes live. Called by `grpc`, `http` and `webhooks`.
//!
//! # Invariants
//! - What may be taken later is not answered as what never is, whatever was refused beside it
//!   (test `of_several_refusals_one_that_passes_is_said`).

use crate::event::scan::ScanError;
use crate::journal::AppendError;
use http::StatusCode;
use std::time::Duration;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

/// How long a refused client should wait when the journal is full: deliveries
/// free a generation at a time, which takes seconds.
const FULL_PUSHBACK: Duration = Duration::from_secs(5);

/// How long after a request was not made durable in time.
const BUSY_PUSHBACK: Duration = Duration::from_secs(1);

/// At least, after a client's rate was used up: else it would ask again at once.
const RATE_PUSHBACK_MIN: Duration = Duration::from_millis(100);

/// Why a request is not accepted.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Refusal {
    /// Not an `event.Events`; nothing is kept.
    #[error("not a valid Events message: {0}")]
    Malformed(String),
    /// No header or no device id; kept for diagnosis.
    #[error("Incomplete event")]
    Incomplete,
    /// A webhook's body is not what its source sends; nothing is kept.
    #[error("{0}")]
    BadWebhook(String),
    /// A webhook without the proof of who sent it; nothing is kept.
    #[error("not signed as configured")]
    Unverified,
    /// Nobody that the configuration names; nothing is read.
    #[error("not authenticated")]
    Unauthenticated,
    /// An event of a type that this client may not send; nothing is kept.
    #[error("this client may not send {0}")]
    Forbidden(&'static str),
    /// The client's rate is used up; after so long it has caught up.
    #[error("this client sends more than its rate")]
    TooFast(Duration),
    /// The body is larger than this many bytes; nothing is kept.
    #[error("larger than {0} bytes")]
    TooLarge(usize),
    /// It holds more than one request may; nothing is kept.
    #[error("{0}; send smaller batches")]
    TooMany(ScanError),
    /// The lane is full of requests in work.
    #[error("too many requests in work")]
    Busy,
    /// An operator drains this host.
    #[error("this host is being drained; send to another")]
    Draining,
    /// The body did not come in time.
    #[error("the body did not come in time")]
    Slow,
    /// The bodies of other requests take all the room there is, or all that one peer may have.
    #[error("too many bytes are on their way in")]
    NoRoom,
    /// The journal did not take it.
    #[error("{0}")]
    Append(#[from] AppendError),
}

/// What a refusal means to a client, whatever the door.
struct Meaning {
    /// For metrics.
    outcome: &'static str,
    code: Code,
    http: StatusCode,
    text: String,
    retry_after: Option<Duration>,
}

impl From<ScanError> for Refusal {
    fn from(error: ScanError) -> Self {
        match error {
            ScanError::TooManyEvents(_) | ScanError::TooManyFields(_) => Self::TooMany(error),
            error => Self::Malformed(error.to_string()),
        }
    }
}

impl Refusal {
    fn meaning(&self) -> Meaning {
        let text = self.to_string();
        let (outcome, code, http, text, retry_after) = match self {
            Self::Malformed(_) => {
                let bad = StatusCode::BAD_REQUEST;
                ("malformed", Code::InvalidArgument, bad, text, None)
            }
            Self::Incomplete => {
                let bad = StatusCode::BAD_REQUEST;
                ("incomplete", Code::InvalidArgument, bad, text, None)
            }
            Self::BadWebhook(_) => {
                let bad = StatusCode::BAD_REQUEST;
                ("malformed", Code::InvalidArgument, bad, text, None)
            }
            Self::Unverified => {
                let who = StatusCode::UNAUTHORIZED;
                ("unverified", Code::Unauthenticated, who, text, None)
            }
            Self::Unauthenticated => {
                let who = StatusCode::UNAUTHORIZED;
                ("unauthenticated", Code::Unauthenticated, who, text, None)
            }
            Self::Forbidden(_) => {
                let no = StatusCode::FORBIDDEN;
                ("forbidden", Code::PermissionDenied, no, text, None)
            }
            Self::TooFast(wait) => {
                let busy = StatusCode::TOO_MANY_REQUESTS;
                let wait = Some((*wait).max(RATE_PUSHBACK_MIN));
                ("too_fast", Code::ResourceExhausted, busy, text, wait)
            }
            Self::Busy => {
                let busy = StatusCode::TOO_MANY_REQUESTS;
                let wait = Some(BUSY_PUSHBACK);
                ("busy", Code::ResourceExhausted, busy, text, wait)
            }
            Self::Draining => {
                let away = StatusCode::SERVICE_UNAVAILABLE;
                let wait = Some(BUSY_PUSHBACK);
                ("draining", Code::Unavailable, away, text, wait)
            }
            Self::Slow => {
                let slow = StatusCode::REQUEST_TIMEOUT;
                ("slow", Code::DeadlineExceeded, slow, text, None)
            }
            Self::NoRoom => {
                let away = StatusCode::SERVICE_UNAVAILABLE;
                let wait = Some(BUSY_PUSHBACK);
                ("no_room", Code::Unavailable, away, text, wait)
            }
            Self::TooLarge(_) | Self::TooMany(_) | Self::Append(AppendError::TooLarge { .. }) => {
                let large = StatusCode::PAYLOAD_TOO_LARGE;
                ("too_large", Code::OutOfRange, large, text, None)
            }
            Self::Append(AppendError::Full { .. } | AppendError::DiskLow { .. }) => {
                let full = StatusCode::TOO_MANY_REQUESTS;
                (
                    "full",
                    Code::ResourceExhausted,
                    full,
                    text,
                    Some(FULL_PUSHBACK),
                )
            }
            Self::Append(
                AppendError::NoDescriptors
                | AppendError::NoMemory
                | AppendError::Deadline
                | AppendError::Fenced(_)
                | AppendError::Closed,
            ) => {
                // The text that clients in the field know; the cause is in the log.
                let text = "Error publishing event".to_owned();
                let away = StatusCode::SERVICE_UNAVAILABLE;
                (
                    "unavailable",
                    Code::Unavailable,
                    away,
                    text,
                    Some(BUSY_PUSHBACK),
                )
            }
        };
        Meaning {
            outcome,
            code,
            http,
            text,
            retry_after,
        }
    }

    /// What a request is answered of which several parts were refused: the first refusal that
    /// passes, so that its client sends again what may be taken then; else the first.
    pub(super) fn of_several(refusals: impl IntoIterator<Item = Self>) -> Option<Self> {
        let passes = |refusal: &Self| refusal.meaning().retry_after.is_some();
        let mut refusals = refusals.into_iter();
        let first = refusals.next()?;
        if passes(&first) {
            return Some(first);
        }
        Some(refusals.find(passes).unwrap_or(first))
    }

    /// The refusal's name in metrics.
    #[must_use]
    pub fn outcome(&self) -> &'static str {
        self.meaning().outcome
    }

    /// The gRPC answer, with retry pushback where a retry may help
    /// (gRFC A6, `grpc-retry-pushback-ms`).
    #[must_use]
    pub fn to_status(&self) -> Status {
        let meaning = self.meaning();
        let mut metadata = MetadataMap::new();
        if let Some(after) = meaning.retry_after {
            let ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
            metadata.insert("grpc-retry-pushback-ms", MetadataValue::from(ms));
        }
        Status::with_metadata(meaning.code, meaning.text, metadata)
    }

    /// The HTTP answer: status, text, and `Retry-After` in seconds.
    #[must_use]
    pub fn to_http(&self) -> (StatusCode, String, Option<u64>) {
        let meaning = self.meaning();
        let after = meaning.retry_after.map(|after| after.as_secs().max(1));
        (meaning.http, meaning.text, after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_refusals_one_that_passes_is_said() {
        let said = |refusals: &[Refusal]| {
            let said = Refusal::of_several(refusals.to_vec());
            said.map(|refusal| refusal.outcome())
        };
        let away = || Refusal::Append(AppendError::Closed);
        let fast = || Refusal::TooFast(Duration::ZERO);
        let no = || Refusal::Forbidden("LaunchEvent");
        assert_eq!(said(&[]), None);
        assert_eq!(said(&[Refusal::Incomplete, no()]), Some("incomplete"));
        let hidden = [Refusal::Incomplete, no(), away(), fast()];
        assert_eq!(said(&hidden), Some("unavailable"));
        assert_eq!(said(&[fast(), Refusal::Incomplete]), Some("too_fast"));
    }
}
