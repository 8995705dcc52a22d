//! How many messages a worker may hold unacknowledged, by how large they are. Pure. Called by
//! `intake`.
//!
//! A broker counts messages alone, so the bytes are reckoned with: few at first, and once they
//! have shown their size as many as fit.
//!
//! # Invariants
//! - Nothing is taken for small before it was seen (test `it_opens_narrow`).
//! - Small messages get all that a batch needs (test `small_messages_get_all_of_it`), large ones
//!   what fits (test `large_messages_get_what_fits`), and what may have become too much is taken
//!   back at once (test `it_narrows_once_messages_became_large`).
//! - One message of another size changes nothing (test `one_large_message_changes_nothing`).

/// Messages that a worker may hold whatever their size: so that one of calls need not wait for
/// the broker between two, and so that their size is seen.
const FIRST: u16 = 8;

/// Messages of which the mean is, about: older ones weigh less and less.
const SAMPLES: f64 = 128.0;

/// How many times the bytes are reached before a window is narrowed: twice what a window is
/// widened by, and once more for a mean that wavers.
const OVER_MAX: f64 = 4.0;

/// What is kept of a message besides its body and headers, reckoned high.
const BESIDE_BYTES: f64 = 1024.0;

/// What one worker may hold.
#[derive(Debug)]
pub(super) struct Window {
    messages: u16,
    messages_max: u16,
    bytes_max: f64,
    /// Messages that came, as far as they count.
    seen: f64,
    mean_bytes: f64,
}

impl Window {
    /// Of at most so many messages, of which all but the first are within so many bytes.
    pub(super) fn new(messages_max: usize, bytes_max: u64) -> Self {
        let messages_max = u16::try_from(messages_max).unwrap_or(u16::MAX);
        Self {
            messages: FIRST,
            messages_max: messages_max.max(FIRST),
            bytes_max: bytes_max as f64,
            seen: 0.0,
            mean_bytes: 0.0,
        }
    }

    /// A message came, of so many bytes of body and headers.
    pub(super) fn came(&mut self, bytes: usize) {
        self.seen = (self.seen + 1.0).min(SAMPLES);
        let bytes = bytes as f64 + BESIDE_BYTES;
        self.mean_bytes += (bytes - self.mean_bytes) / self.seen;
        if f64::from(self.messages) * self.mean_bytes > OVER_MAX * self.bytes_max
            && self.messages > FIRST
        {
            // How large they have become the mean will know too late.
            *self = Self {
                messages: FIRST,
                seen: 0.0,
                mean_bytes: 0.0,
                ..*self
            };
            return;
        }
        let (least, most) = (f64::from(FIRST), f64::from(self.messages_max));
        // Between two of `u16`.
        let fits = (self.bytes_max / self.mean_bytes).clamp(least, most) as u16;
        let has_doubled = fits >= self.messages.saturating_mul(2) || fits == self.messages_max;
        if self.seen >= least && has_doubled && fits > self.messages {
            self.messages = fits;
        }
    }

    /// Messages that the worker may hold.
    pub(super) fn messages(&self) -> u16 {
        self.messages
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(window: &mut Window, count: usize, bytes: usize) -> u16 {
        (0..count).for_each(|_| window.came(bytes));
        window.messages()
    }

    #[test]
    fn it_opens_narrow() {
        let mut window = Window::new(1000, 64 << 20);
        assert_eq!(window.messages(), FIRST);
        assert_eq!(after(&mut window, usize::from(FIRST) - 1, 10), FIRST);
        assert_eq!(after(&mut window, 1, 10), 1000);
    }

    #[test]
    fn small_messages_get_all_of_it() {
        let mut window = Window::new(1000, 6 << 20);
        assert_eq!(after(&mut window, 8, 3000), 1000);
        assert_eq!(after(&mut window, 100_000, 3000), 1000);
        let mut calls = Window::new(4, 6 << 20);
        assert_eq!(after(&mut calls, 1000, 1), FIRST);
    }

    #[test]
    fn large_messages_get_what_fits() {
        let mut window = Window::new(1000, 6 << 20);
        let messages = after(&mut window, 1000, 64 << 10);
        assert!((90..=96).contains(&messages), "{messages}");
        let mut window = Window::new(1000, 6 << 20);
        assert_eq!(after(&mut window, 1000, 8 << 20), FIRST);
    }

    #[test]
    fn it_narrows_once_messages_became_large() {
        let mut window = Window::new(1000, 6 << 20);
        assert_eq!(after(&mut window, 1000, 1000), 1000);
        // As soon as they may be too much, and to what is safe: a mean of both kinds is not.
        assert_eq!(after(&mut window, 4, 1 << 20), FIRST);
        let messages = after(&mut window, 1000, 1 << 20);
        assert!(messages <= 24, "{messages}");
        // And it widens again.
        assert_eq!(after(&mut window, 2000, 1000), 1000);
    }

    #[test]
    fn one_large_message_changes_nothing() {
        let mut window = Window::new(1000, 6 << 20);
        assert_eq!(after(&mut window, 1000, 1000), 1000);
        assert_eq!(after(&mut window, 1, 1 << 20), 1000);
        let mut window = Window::new(1000, 6 << 20);
        let few = after(&mut window, 1000, 1 << 20);
        assert_eq!(after(&mut window, 1, 10), few);
    }
}
