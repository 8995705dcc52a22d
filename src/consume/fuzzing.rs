//! What a worker reads of a message, and what of it goes to another attempt. Called by
//! `crate::fuzzing` alone, and compiled for it alone.

use super::handlers::Input;
use crate::broker::Message;

/// What handlers read of a message.
pub(crate) fn input(message: &Message) -> Input<'_> {
    super::worker::input(message)
}

/// A copy of the message with the event at a place of it, or all of it.
pub(crate) fn part(message: &Message, at: Option<usize>) -> Message {
    super::part::part(message, at)
}
