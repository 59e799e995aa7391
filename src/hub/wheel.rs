//! A timing wheel: one entry per connection instead of one timer.

use std::time::Duration;

use crate::clock::Tick;

/// The wheel's resolution. A heartbeat or a time-out may come so much late; ten wake-ups a second cost nothing.
pub(super) const GRANULARITY: Duration = Duration::from_millis(100);

/// Slots of the wheel. What lies further ahead than one turn (51 s) waits in its slot for another turn.
const SLOTS: usize = 512;

/// A point on the wheel's scale: multiples of [`GRANULARITY`] since the clock was made. Lasts 13 years.
pub(super) type WheelTick = u32;

/// The wheel tick that `tick` falls in.
pub(super) fn wheel_tick(tick: Tick) -> WheelTick {
    WheelTick::try_from(tick.as_millis() / GRANULARITY.as_millis() as u64).unwrap_or(WheelTick::MAX)
}

/// The first wheel tick that is not before `tick`.
pub(super) fn wheel_tick_after(tick: Tick) -> WheelTick {
    ticks(Duration::from_millis(tick.as_millis()))
}

/// A duration in wheel ticks, rounded up.
pub(super) fn ticks(duration: Duration) -> WheelTick {
    WheelTick::try_from(duration.as_millis().div_ceil(GRANULARITY.as_millis())).unwrap_or(WheelTick::MAX)
}

/// Slots to look at when their time comes. The wheel does not know whether an entry still matters: the owner keeps the
/// valid due time with the slot and ignores what does not fit (so nothing is ever searched to be cancelled).
pub(super) struct Wheel {
    slots: Vec<Vec<(WheelTick, u32)>>,
    now: WheelTick,
    len: usize,
}

impl Wheel {
    pub(super) fn new(now: WheelTick) -> Self {
        Self { slots: vec![Vec::new(); SLOTS], now, len: 0 }
    }

    /// Remembers `slot` for `due`; what is due already comes at the next tick.
    pub(super) fn insert(&mut self, due: WheelTick, slot: u32) {
        let due = due.max(self.now + 1);
        self.slots[due as usize % SLOTS].push((due, slot));
        self.len += 1;
    }

    /// Moves to `now` and appends to `due` every entry whose time has come, with its due time.
    pub(super) fn advance(&mut self, now: WheelTick, due: &mut Vec<(WheelTick, u32)>) {
        // After a long pause (SIGSTOP) one turn over all slots finds everything.
        let first = (self.now + 1).max(now.saturating_sub(SLOTS as u32 - 1));
        for tick in first..=now {
            let slot = &mut self.slots[tick as usize % SLOTS];
            let before = due.len();
            slot.retain(|entry| {
                let waits = entry.0 > now;
                if !waits {
                    due.push(*entry);
                }
                waits
            });
            if slot.is_empty() && slot.capacity() > 64 {
                slot.shrink_to(64);
            }
            self.len -= due.len() - before;
        }
        self.now = self.now.max(now);
    }

    /// Entries up to here have come.
    pub(super) const fn now(&self) -> WheelTick {
        self.now
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_entry_comes_exactly_once_and_never_early(
            entries in prop::collection::vec(0u32..3000, 1..100),
            steps in prop::collection::vec(1u32..900, 1..40),
        ) {
            let mut wheel = Wheel::new(0);
            for (slot, due) in entries.iter().enumerate() {
                wheel.insert(*due, slot as u32);
            }
            let (mut now, mut seen, mut due) = (0, vec![false; entries.len()], Vec::new());
            for step in steps.into_iter().chain([3000]) {
                now += step;
                wheel.advance(now, &mut due);
                for (at, slot) in due.drain(..) {
                    prop_assert!(at <= now);
                    prop_assert!(!std::mem::replace(&mut seen[slot as usize], true), "twice");
                }
                for (slot, at) in entries.iter().enumerate() {
                    prop_assert_eq!(seen[slot], *at <= now, "entry {} due {} at {}", slot, at, now);
                }
            }
            prop_assert!(wheel.is_empty());
        }
    }
}
