//! Why an event or a batch is not delivered as what it wanted to be. Reasons
//! travel with the event to the error exchange and into `error_events`.

/// A defect of one event, or of the batch that holds it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// The batch has no header.
    #[error("incomplete event: the batch has no header")]
    NoHeader,
    /// The batch's header has no device id.
    #[error("incomplete event: header.deviceId is empty")]
    NoDeviceId,
    /// The event has no id.
    #[error("incomplete event: id is empty")]
    NoId,
    /// The event's timestamp is not epoch milliseconds as decimal text.
    #[error("timestamp {0:?} is not epoch milliseconds as decimal text")]
    BadTimestamp(String),
    /// Several events of a message have such timestamps, and not the same: its reason does
    /// not quote them. Each event's row has its own.
    #[error("timestamps are not epoch milliseconds as decimal text")]
    BadTimestamps,
}
