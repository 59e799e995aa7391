//! Where a node stands in the order of all durable events, and what the next one means.
//!
//! One number is enough for all channels: positions rise over all channels of a Redis, and a connection keeps their
//! order. Everything up to it has been yielded, as far as it was published on a channel that was wanted at the time.

use crate::protocol::channel::ChannelName;
use crate::protocol::durable::Frame;
use crate::protocol::position::{Position, STEP_BITS};

/// An event so far ahead, 10 minutes in positions, or of another epoch is believed only when Redis knows of it. Anybody who
/// may publish on a channel can write a frame, and with a great number in it everything real would seem to be past.
const LEAP: u64 = 600_000 << STEP_BITS;

/// What a durable frame means to a node that stands at a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The next one.
    Next,
    /// It has been yielded already, read from history.
    Repeated,
    /// Something before it on its channel is missing.
    Hole,
    /// Redis has lost its data and begun again.
    NewEpoch,
    /// From a Redis that was left behind.
    OldEpoch,
}

/// A node's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Course {
    /// Everything up to here has been yielded.
    pub(super) at: Position,
    /// The server that it was settled with.
    pub(super) server: String,
    /// Which loss was the clock's last when it was read in this epoch.
    pub(super) losses: Option<u64>,
    /// The last durable event that was seen, to be looked for after a reconnect.
    pub(super) seen: Option<(ChannelName, u64)>,
}

impl Course {
    /// A place from which nothing has been seen yet.
    pub(super) fn begin(at: Position, server: String, losses: Option<u64>) -> Self {
        Self { at, server, losses, seen: None }
    }

    /// What `frame` means. On a channel that is not `settled` events before the subscription are not missing.
    pub(super) fn judge(&self, frame: &Frame<'_>, settled: bool) -> Verdict {
        let Position { epoch, n } = frame.position;
        if epoch != self.at.epoch {
            return if epoch > self.at.epoch { Verdict::NewEpoch } else { Verdict::OldEpoch };
        }
        if n <= self.at.n {
            return Verdict::Repeated;
        }
        let before = frame.previous.map_or(0, |position| position.n);
        if settled && before > self.at.n { Verdict::Hole } else { Verdict::Next }
    }

    /// Whether an event at `position` must be asked for.
    pub(super) const fn is_leap(&self, position: Position) -> bool {
        position.epoch != self.at.epoch || position.n.saturating_sub(self.at.n) > LEAP
    }

    /// Moves on after an event.
    pub(super) fn pass(&mut self, channel: &ChannelName, n: u64) {
        self.reach(n);
        self.seen = Some((channel.clone(), n));
    }

    /// Everything up to `n` has come by.
    pub(super) fn reach(&mut self, n: u64) {
        self.at.n = self.at.n.max(n);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::durable::encode;
    use crate::protocol::event::Event;

    fn judge(course: &Course, epoch: u64, n: u64, previous: u64, settled: bool) -> Verdict {
        let bytes = encode(Position { epoch, n }, Some(previous), &Event::unnamed(""));
        course.judge(&Frame::parse(&bytes).unwrap(), settled)
    }

    #[test]
    fn a_hole_is_seen_by_the_predecessor_and_only_on_a_settled_channel() {
        let course = Course::begin(Position { epoch: 7, n: 100 }, String::new(), Some(0));
        assert_eq!(judge(&course, 7, 160, 100, true), Verdict::Next);
        assert_eq!(judge(&course, 7, 160, 0, true), Verdict::Next);
        assert_eq!(judge(&course, 7, 160, 150, true), Verdict::Hole);
        assert_eq!(judge(&course, 7, 160, 150, false), Verdict::Next);
        assert_eq!(judge(&course, 7, 100, 150 - 51, true), Verdict::Repeated);
        assert_eq!(judge(&course, 8, 1, 0, true), Verdict::NewEpoch);
        assert_eq!(judge(&course, 6, 200, 0, true), Verdict::OldEpoch);
    }

    #[test]
    fn a_place_never_goes_back() {
        let mut course = Course::begin(Position { epoch: 7, n: 100 }, String::new(), Some(0));
        course.reach(90);
        assert_eq!(course.at.n, 100);
        course.pass(&ChannelName::parse("a").unwrap(), 120);
        assert_eq!(course.at.n, 120);
    }
}
