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

/// Where a position stands in a history that begins after `floor` and reaches to `end`.
pub(super) fn judge(after: Position, floor: u64, end: Position) -> Result<u64, (u64, GapReason)> {
    if after > end {
        Err((end.n, GapReason::UnknownPosition))
    } else if after.epoch < end.epoch {
        Err((0, GapReason::HistoryLost))
    } else if after.n < floor {
        Err((after.n, GapReason::HistoryTrimmed))
    } else {
        Ok(after.n)
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

    /// The answer.
    pub(super) fn finish(self, up_to: Position) -> History {
        History { up_to, events: self.events.into(), floors: self.floors }
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
        let history = replay.finish(Position { epoch: 1, n: 9 });
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
        let at = |epoch, n| judge(Position { epoch, n }, 50, end);
        assert_eq!(at(5, 50), Ok(50));
        assert_eq!(at(5, 100), Ok(100));
        assert_eq!(at(5, 49), Err((49, GapReason::HistoryTrimmed)));
        assert_eq!(at(4, 70), Err((0, GapReason::HistoryLost)));
        assert_eq!(at(5, 101), Err((100, GapReason::UnknownPosition)));
        assert_eq!(at(6, 1), Err((100, GapReason::UnknownPosition)));
    }
}
