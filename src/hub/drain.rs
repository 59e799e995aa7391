//! Closing every connection of a shard, evenly spread over time.

use tokio::sync::oneshot;

use super::wheel::WheelTick;

/// The order of the closings of one shard and how far they are.
pub(super) struct Drain {
    /// Slot and generation; taken from the end.
    order: Vec<(u32, u32)>,
    total: u64,
    taken: u64,
    started: WheelTick,
    over: WheelTick,
    done: Vec<oneshot::Sender<()>>,
}

impl Drain {
    pub(super) fn new(order: Vec<(u32, u32)>, started: WheelTick, over: WheelTick) -> Self {
        Self { total: order.len() as u64, order, taken: 0, started, over, done: Vec::new() }
    }

    /// Also tells `done` when the last connection has gone.
    pub(super) fn tell(&mut self, done: oneshot::Sender<()>) {
        self.done.push(done);
    }

    /// A connection that was attached while draining goes with the others.
    pub(super) fn add(&mut self, slot: u32, generation: u32) {
        self.order.insert(0, (slot, generation));
        self.total += 1;
    }

    /// The next connection to close at `now`, if its time has come. A connection that left by itself used its turn up:
    /// the pace stays that of the beginning.
    pub(super) fn next(&mut self, now: WheelTick) -> Option<(u32, u32)> {
        let elapsed = u64::from(now.saturating_sub(self.started));
        let over = u64::from(self.over);
        let due = if elapsed >= over { self.total } else { self.total * elapsed / over };
        if self.taken >= due {
            return None;
        }
        self.taken += 1;
        self.order.pop()
    }

    /// Everybody has gone.
    pub(super) fn finish(&mut self) {
        for done in self.done.drain(..) {
            // The one who asked may have stopped waiting.
            let _ = done.send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closings_are_spread_evenly_and_complete_at_the_end() {
        let order = (0..1000).map(|slot| (slot, 0)).collect();
        let mut drain = Drain::new(order, 50, 100);
        let mut per_tick = Vec::new();
        for now in 50..=150 {
            per_tick.push(std::iter::from_fn(|| drain.next(now)).count());
        }
        assert_eq!(per_tick.iter().sum::<usize>(), 1000);
        assert!(per_tick.iter().all(|n| *n <= 10), "{per_tick:?}");
    }

    #[test]
    fn no_time_means_all_at_once() {
        let mut drain = Drain::new(vec![(1, 0), (2, 0)], 7, 0);
        assert_eq!(std::iter::from_fn(|| drain.next(7)).count(), 2);
    }
}
