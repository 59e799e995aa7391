//! What is left of a history read when it is larger than a node should hold: its end.

use std::collections::{HashMap, VecDeque};

use crate::protocol::channel::ChannelName;
use crate::protocol::close::GapReason;
use crate::protocol::event::Delivery;
use crate::protocol::position::Position;

use super::History;

/// How many bytes of events one history read holds at most. When it is full the oldest events are left out and their
/// channels are told as `history_trimmed`: a client's own queue is a hundredth of it.
pub(super) const MAX_BYTES: usize = 32 * 1024 * 1024;

/// A rough size of what a delivery costs beside its texts.
const OVERHEAD: usize = 128;

/// The memory that a delivery takes, roughly.
pub(super) fn cost(delivery: &Delivery) -> usize {
    let event = &delivery.event;
    OVERHEAD + event.data.len() + event.key.as_ref().map_or(0, |key| key.as_str().len())
}

/// What is there of the events of a channel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    /// Up to here everything of the channel is gone.
    pub(super) floor: u64,
    /// Up to here events of any channel may be missing without a trace; 0 when none are.
    pub(super) lost: u64,
    /// The last position given out.
    pub(super) end: Position,
}

impl Extent {
    /// The number after which events are to be read for somebody who has seen everything up to `after`, and why they
    /// are not all that he wants.
    pub(super) fn judge(&self, after: Position) -> (u64, Option<GapReason>) {
        if after > self.end {
            (self.end.n, Some(GapReason::UnknownPosition))
        } else if after.epoch < self.end.epoch {
            (0, Some(GapReason::HistoryLost))
        } else if after.n <= self.lost && self.lost > 0 {
            (after.n, Some(GapReason::HistoryLost))
        } else {
            (after.n, (after.n < self.floor).then_some(GapReason::HistoryTrimmed))
        }
    }
}

/// Collects events in the order of their positions and keeps the last [`MAX_BYTES`] of them.
#[derive(Debug, Default)]
pub(super) struct Replay {
    events: VecDeque<Delivery>,
    bytes: usize,
    floors: HashMap<ChannelName, u64>,
}

impl Replay {
    /// Adds the next event.
    pub(super) fn push(&mut self, delivery: Delivery) {
        self.bytes += cost(&delivery);
        self.events.push_back(delivery);
        while self.bytes > MAX_BYTES
            && let Some(oldest) = self.events.pop_front()
        {
            self.bytes -= cost(&oldest);
            let n = oldest.position.map_or(0, |position| position.n);
            self.floors.insert(oldest.channel, n);
        }
    }

    /// Everything of `channel` after `floor` was pushed, as far as it was asked for.
    pub(super) fn complete_after(&mut self, channel: ChannelName, floor: u64) {
        let known = self.floors.entry(channel).or_default();
        *known = floor.max(*known);
    }

    /// The answer; up to `lost` events may be missing without a trace.
    pub(super) fn finish(self, up_to: Position, lost: u64) -> History {
        History { up_to, lost, events: self.events.into(), floors: self.floors }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::event::Event;

    fn delivery(channel: &str, n: u64, bytes: usize) -> Delivery {
        Delivery {
            channel: ChannelName::parse(channel).unwrap(),
            event: Event::unnamed("x".repeat(bytes)),
            position: Some(Position { epoch: 1, n }),
        }
    }

    #[test]
    fn too_much_loses_its_beginning_and_says_so_for_the_channels_concerned() {
        let mut replay = Replay::default();
        replay.push(delivery("cut", 2, 10));
        replay.push(delivery("cut", 3, 10));
        replay.push(delivery("kept", 4, MAX_BYTES - OVERHEAD));
        let [cut, kept] = ["cut", "kept"].map(|name| ChannelName::parse(name).unwrap());
        replay.complete_after(cut.clone(), 1);
        replay.complete_after(kept.clone(), 1);
        let history = replay.finish(Position { epoch: 1, n: 9 }, 0);
        assert_eq!(history.events.len(), 1);
        let at = |n| Position { epoch: 1, n };
        assert_eq!(history.gap(&kept, at(1)), None);
        assert_eq!(history.gap(&kept, at(0)), Some(GapReason::HistoryTrimmed));
        assert_eq!(history.gap(&cut, at(2)), Some(GapReason::HistoryTrimmed));
        assert_eq!(history.gap(&cut, at(3)), None);
    }

    #[test]
    fn a_position_is_judged_by_its_epoch_then_by_what_is_left() {
        let end = Position { epoch: 5, n: 100 };
        let at = |epoch, n| Extent { floor: 50, lost: 20, end }.judge(Position { epoch, n });
        assert_eq!(at(5, 50), (50, None));
        assert_eq!(at(5, 100), (100, None));
        assert_eq!(at(5, 49), (49, Some(GapReason::HistoryTrimmed)));
        assert_eq!(at(5, 20), (20, Some(GapReason::HistoryLost)));
        assert_eq!(at(4, 70), (0, Some(GapReason::HistoryLost)));
        assert_eq!(at(5, 101), (100, Some(GapReason::UnknownPosition)));
        assert_eq!(at(6, 1), (100, Some(GapReason::UnknownPosition)));
    }

    #[test]
    fn nothing_lost_is_no_gap_for_the_first_position() {
        let extent = Extent { floor: 0, lost: 0, end: Position { epoch: 5, n: 1 } };
        assert_eq!(extent.judge(Position { epoch: 5, n: 0 }), (0, None));
    }
}
