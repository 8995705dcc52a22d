//! How many messages a worker may hold unacknowledged, by how large they are. Pure. Called by
//! `intake`.
//!
//! A broker counts messages alone, so the bytes are reckoned with: few at first, and once they
//! have shown their size as many as fit.
//!
//! # Invariants
//! - Nothing is taken for small before it was seen (test `it_opens_narrow`).
//! - Small messages get all that a batch needs (test `small_messages_get_all_of_it`), large ones
//!   what fits (test `large_messages_get_what_fits`), and what has become too much is taken back
//!   (test `it_narrows_once_messages_became_large`).
//! - One message of another size changes nothing (test `one_large_message_changes_nothing`).

/// Messages that a worker may hold whatever their size: so that one of calls need not wait for
/// the broker between two, and so that their size is seen.
pub(super) const FIRST: u16 = 8;

/// Messages of which the mean is, about: older ones weigh less and less.
const SAMPLES: f64 = 128.0;

/// How many times the bytes are reached before a window is narrowed: twice what a window is
/// widened by, and once more for a mean that wavers.
const OVER_MAX: f64 = 4.0;

/// What a message has besides its body: headers and what is kept of it, reckoned high.
const BESIDE_BODY_BYTES: f64 = 1024.0;

/// What one worker may hold.
#[derive(Debug)]
pub(super) struct Window {
    /// Messages beyond the first ones; none before they are known, or where none fits.
    further: u16,
    further_max: u16,
    bytes_max: f64,
    /// Messages that came, as far as they count.
    seen: f64,
    mean_bytes: f64,
}

impl Window {
    /// Of at most so many messages, and bytes beyond the first messages'.
    pub(super) fn new(messages_max: usize, bytes_max: u64) -> Self {
        let messages_max = u16::try_from(messages_max).unwrap_or(u16::MAX);
        Self {
            further: 0,
            further_max: messages_max.saturating_sub(FIRST),
            bytes_max: bytes_max as f64,
            seen: 0.0,
            mean_bytes: 0.0,
        }
    }

    /// A message of so many bytes came.
    pub(super) fn came(&mut self, body_bytes: usize) {
        self.seen = (self.seen + 1.0).min(SAMPLES);
        let bytes = body_bytes as f64 + BESIDE_BODY_BYTES;
        self.mean_bytes += (bytes - self.mean_bytes) / self.seen;
        let fits = (self.bytes_max / self.mean_bytes).min(f64::from(self.further_max));
        // Smaller than `u16::MAX`, and not negative.
        let fits = fits as u16;
        let is_known = self.seen >= f64::from(FIRST);
        let has_doubled = fits >= self.further.saturating_mul(2) || fits == self.further_max;
        let is_over = f64::from(self.further) * self.mean_bytes > OVER_MAX * self.bytes_max;
        if is_known && ((has_doubled && fits > self.further) || is_over) {
            self.further = fits;
        }
    }

    /// Messages that the worker may hold beyond the first ones.
    pub(super) fn further(&self) -> u16 {
        self.further
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(window: &mut Window, count: usize, bytes: usize) -> u16 {
        (0..count).for_each(|_| window.came(bytes));
        window.further()
    }

    #[test]
    fn it_opens_narrow() {
        let mut window = Window::new(1000, 64 << 20);
        assert_eq!(window.further(), 0);
        assert_eq!(after(&mut window, usize::from(FIRST) - 1, 10), 0);
        assert_ne!(after(&mut window, 1, 10), 0);
    }

    #[test]
    fn small_messages_get_all_of_it() {
        let mut window = Window::new(1000, 6 << 20);
        assert_eq!(after(&mut window, 8, 3000), 1000 - FIRST);
        assert_eq!(after(&mut window, 100_000, 3000), 1000 - FIRST);
        let mut calls = Window::new(4, 6 << 20);
        assert_eq!(after(&mut calls, 1000, 1), 0);
    }

    #[test]
    fn large_messages_get_what_fits() {
        let mut window = Window::new(1000, 6 << 20);
        let further = after(&mut window, 1000, 64 << 10);
        assert!((90..=96).contains(&further), "{further}");
        let mut window = Window::new(1000, 6 << 20);
        assert_eq!(after(&mut window, 1000, 8 << 20), 0);
    }

    #[test]
    fn it_narrows_once_messages_became_large() {
        let mut window = Window::new(1000, 6 << 20);
        assert_eq!(after(&mut window, 1000, 1000), 992);
        // Within as few messages as it takes to hold a small part of what it may.
        let further = after(&mut window, 8, 1 << 20);
        assert!(further < 300, "{further}");
        let further = after(&mut window, 1000, 1 << 20);
        assert!(further <= 24, "{further}");
        // And it widens again.
        assert_eq!(after(&mut window, 2000, 1000), 992);
    }

    #[test]
    fn one_large_message_changes_nothing() {
        let mut window = Window::new(1000, 6 << 20);
        assert_eq!(after(&mut window, 1000, 1000), 992);
        assert_eq!(after(&mut window, 1, 1 << 20), 992);
        let mut window = Window::new(1000, 6 << 20);
        let few = after(&mut window, 1000, 1 << 20);
        assert_eq!(after(&mut window, 1, 10), few);
    }
}
