//! How long events take until their sockets have been given them.
//!
//! One observation for each event and shard, never one for each delivery: when the last socket that stood in the list of
//! those to be written to has had its turn. A socket that is full is not waited for; that is the slow consumer's matter.

use std::collections::VecDeque;

use crate::hub::{Born, Counters};

/// Observations that are waited for at most. Past it an event is counted with the one before it, as if it were as old: more
/// than it was, and only while the shard is thousands of events behind.
const WAITING: usize = 4096;

/// Events that are on their way to the sockets, oldest first.
#[derive(Default)]
pub(super) struct OnTheWay(VecDeque<Waiting>);

struct Waiting {
    /// Done when so many sockets have had their turn, of all since the start.
    turns: u64,
    born: Born,
    events: u64,
}

impl OnTheWay {
    /// An event stands in the queues of its sockets; all of them have been written to after `turns`.
    pub(super) fn begin(&mut self, born: Born, turns: u64) {
        let full = self.0.len() >= WAITING;
        match self.0.back_mut() {
            Some(last) if full || (last.turns, last.born) == (turns, born) => {
                last.turns = turns;
                last.events += 1;
            }
            _ => self.0.push_back(Waiting { turns, born, events: 1 }),
        }
    }

    /// So many sockets have had their turn by `now`, in microseconds.
    pub(super) fn done(&mut self, turns: u64, now: u64, counters: &mut Counters) {
        while let Some(first) = self.0.front()
            && first.turns <= turns
        {
            match first.born {
                Born::Published(at) => counters.lag_published.record(now.saturating_sub(at), first.events),
                Born::Arrived(at) => counters.lag_arrived.record(now.saturating_sub(at), first.events),
            }
            self.0.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_observed_once_and_only_when_its_last_socket_has_had_its_turn() {
        let (mut way, mut counters) = (OnTheWay::default(), Counters::default());
        way.begin(Born::Published(1_000), 512);
        way.begin(Born::Arrived(2_000), 600);
        way.done(511, 9_000, &mut counters);
        assert_eq!((counters.lag_published.count(), counters.lag_arrived.count()), (0, 0));
        way.done(512, 9_000, &mut counters);
        assert_eq!((counters.lag_published.count(), counters.lag_arrived.count()), (1, 0));
        assert_eq!(counters.lag_published.sum().as_micros(), 8_000);
        way.done(10_000, 9_000, &mut counters);
        way.done(10_000, 9_000, &mut counters);
        assert_eq!((counters.lag_published.count(), counters.lag_arrived.count()), (1, 1));
    }

    #[test]
    fn far_behind_the_memory_is_bounded_and_every_event_still_counts() {
        let (mut way, mut counters) = (OnTheWay::default(), Counters::default());
        for n in 0..3 * WAITING as u64 {
            way.begin(Born::Published(n), n);
        }
        assert_eq!(way.0.len(), WAITING);
        way.done(u64::MAX, 0, &mut counters);
        assert_eq!(counters.lag_published.count(), 3 * WAITING as u64);
    }
}
