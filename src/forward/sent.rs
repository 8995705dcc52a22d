//! What was sent and is kept until the broker's word on it: messages and their bytes. Pure;
//! called by `pump`.
//!
//! # Invariants
//! - Bounded by the window and by [`SENT_BYTES_MAX`], beyond which goes one message at most (test
//!   `room_is_for_few_large_messages_and_for_many_small_ones`).

/// Bytes of the bodies of messages that may wait for their confirm, of which the last may go
/// beyond it. A broker that takes 300 MB a second and confirms within 100 ms is never kept
/// waiting by it; without it, a full window of large messages would be hundreds of MiB.
const SENT_BYTES_MAX: usize = 32 << 20;

/// Messages that are kept.
#[derive(Debug, Default)]
pub(super) struct Sent {
    messages: usize,
    bytes: usize,
}

impl Sent {
    /// One more, whose body has so many bytes.
    pub(super) fn add(&mut self, bytes: usize) {
        self.messages += 1;
        self.bytes += bytes;
    }

    /// One less.
    pub(super) fn remove(&mut self, bytes: usize) {
        self.messages = self.messages.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// Whether another may be sent, beside `others`, in a window of so many.
    pub(super) fn has_room(&self, others: &Self, window: usize) -> bool {
        self.messages + others.messages < window && self.bytes + others.bytes < SENT_BYTES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_for_few_large_messages_and_for_many_small_ones() {
        let none = Sent::default();
        for (bytes, fit) in [
            (1_500, 2_000),
            (64 << 10, 512),
            (1 << 20, 32),
            (100 << 20, 1),
        ] {
            let mut sent = Sent::default();
            let mut count = 0;
            while sent.has_room(&none, 2_000) {
                sent.add(bytes);
                count += 1;
            }
            assert_eq!(count, fit, "of {bytes} bytes");
            // What waits for another try takes room, too.
            assert!(!none.has_room(&sent, 2_000));
            sent.remove(bytes);
            assert!(sent.has_room(&none, 2_000));
        }
    }
}
