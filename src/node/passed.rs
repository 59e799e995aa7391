//! How far the live events have come: the position that a new stream begins at.
//!
//! A client that has had no durable event yet would have no position, and what is published while it reconnects would be
//! lost to it in silence. So the first block of a stream carries this one.
//!
//! It is noted behind the events, after they went to the shards. A stream that reads it and is registered later gets every later
//! event live, or finds it in the history when it comes back. Between the reading and the registration an event may pass:
//! the stream does not get it live, and has it in its history only if it comes back before any other event; like every
//! event from before a stream, it is no loss. What must not be is the opposite, a position ahead of an event that is still to
//! come, and that cannot be: the position is read before the registration.

use std::sync::{Mutex, PoisonError};

use crate::protocol::position::Position;

/// The position up to which everything has been broadcast; none before the broker has said any.
#[derive(Debug, Default)]
pub(super) struct Passed(Mutex<Option<Position>>);

impl Passed {
    /// Everything up to `position` has been broadcast. A position of a new life of the data counts from its beginning.
    pub(super) fn note(&self, position: Position) {
        let mut passed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *passed = Some(passed.map_or(position, |before| before.max(position)));
    }

    /// Where a stream that opens now begins.
    pub(super) fn get(&self) -> Option<Position> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_never_goes_back_and_a_new_epoch_begins_anew() {
        let passed = Passed::default();
        assert_eq!(passed.get(), None);
        let at = |epoch, n| Position { epoch, n };
        for (noted, then) in [(at(1, 5), at(1, 5)), (at(1, 3), at(1, 5)), (at(2, 1), at(2, 1))] {
            passed.note(noted);
            assert_eq!(passed.get(), Some(then));
        }
    }
}
