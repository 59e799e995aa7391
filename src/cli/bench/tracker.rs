//! Which events are on their way, to how many connections, and how long they took.

use std::collections::VecDeque;

use anyhow::Result;
use hdrhistogram::Histogram;

/// The longest latency that is told apart, in microseconds.
const MAX_LATENCY: u64 = 60_000_000;

/// Events that may be on their way at once; the publisher waits beyond it. 16 bytes each.
pub(super) const MAX_OUTSTANDING: u64 = 1 << 20;

/// A histogram of microseconds.
///
/// # Errors
/// Never with these bounds.
pub(super) fn histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, MAX_LATENCY, 3)?)
}

#[derive(Debug)]
struct Sent {
    at: u64,
    owed: u32,
}

/// The events on their way. Events are numbered from 0; times are in microseconds.
#[derive(Debug)]
pub(super) struct Tracker {
    /// The number of the first one in `sent`; all before it are done.
    base: u64,
    sent: VecDeque<Sent>,
    /// Events before this one warm up.
    measure_from: u64,
    latency: Histogram<u64>,
    deliveries: u64,
    given_up: u64,
}

impl Tracker {
    pub(super) fn new() -> Result<Self> {
        Ok(Self {
            base: 0,
            sent: VecDeque::new(),
            measure_from: u64::MAX,
            latency: histogram()?,
            deliveries: 0,
            given_up: 0,
        })
    }

    /// The next event was sent at `at`, to `owed` connections. Returns its number.
    pub(super) fn send(&mut self, at: u64, owed: u32) -> u64 {
        self.sent.push_back(Sent { at, owed });
        let n = self.published() - 1;
        self.settle(); // owed to nobody, it is done
        n
    }

    /// How many events have been sent.
    pub(super) fn published(&self) -> u64 {
        self.base + self.sent.len() as u64
    }

    /// How many are on their way. The oldest decides: what has overtaken it still counts.
    pub(super) fn outstanding(&self) -> u64 {
        self.sent.len() as u64
    }

    /// The numbers of those that are on their way.
    pub(super) fn range(&self) -> std::ops::Range<u64> {
        self.base..self.published()
    }

    /// Latencies count from the next event on.
    pub(super) fn start_measuring(&mut self) {
        self.measure_from = self.published();
    }

    /// Event `n` has arrived at one connection, for the first time there.
    pub(super) fn delivered(&mut self, n: u64, now: u64) {
        self.deliveries += 1;
        let measured = n >= self.measure_from;
        if let Some(sent) = n.checked_sub(self.base).and_then(|at| self.sent.get_mut(at as usize)) {
            if measured {
                self.latency.saturating_record(now.saturating_sub(sent.at));
            }
            sent.owed = sent.owed.saturating_sub(1);
            self.settle();
        }
    }

    /// Event `n` will not arrive at one connection any more, because that has closed.
    pub(super) fn forgive(&mut self, n: u64) {
        if let Some(sent) = n.checked_sub(self.base).and_then(|at| self.sent.get_mut(at as usize)) {
            sent.owed = sent.owed.saturating_sub(1);
            self.settle();
        }
    }

    /// Event `n` was not taken by the server and will not arrive anywhere.
    pub(super) fn refused(&mut self, n: u64) {
        if let Some(sent) = n.checked_sub(self.base).and_then(|at| self.sent.get_mut(at as usize)) {
            sent.owed = 0;
            self.settle();
        }
    }

    /// Stops to wait for what was sent more than `patience` ago.
    pub(super) fn give_up_overdue(&mut self, now: u64, patience: u64) {
        while self.sent.front().is_some_and(|sent| now.saturating_sub(sent.at) > patience) {
            self.sent.pop_front();
            self.base += 1;
            self.given_up += 1;
            self.settle();
        }
    }

    fn settle(&mut self) {
        while self.sent.front().is_some_and(|sent| sent.owed == 0) {
            self.sent.pop_front();
            self.base += 1;
        }
    }

    /// Deliveries so far, those before the measuring included.
    pub(super) fn deliveries(&self) -> u64 {
        self.deliveries
    }

    /// Events that have not arrived everywhere in time.
    pub(super) fn given_up(&self) -> u64 {
        self.given_up
    }

    /// Latencies of what was measured, in microseconds.
    pub(super) fn latency(&self) -> &Histogram<u64> {
        &self.latency
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_on_its_way_until_it_has_arrived_everywhere() {
        let mut tracker = Tracker::new().unwrap();
        tracker.start_measuring();
        assert_eq!((tracker.send(100, 2), tracker.send(100, 2)), (0, 1));
        tracker.delivered(0, 150);
        assert_eq!(tracker.outstanding(), 2);
        tracker.delivered(1, 150);
        tracker.delivered(1, 160);
        assert_eq!(tracker.outstanding(), 2, "the older one is not there");
        tracker.delivered(0, 170);
        assert_eq!((tracker.outstanding(), tracker.published(), tracker.deliveries()), (0, 2, 4));
        assert_eq!((tracker.latency().min(), tracker.latency().max()), (50, 70));
    }

    #[test]
    fn nobody_waits_for_closed_connections_refused_events_or_for_ever() {
        let mut tracker = Tracker::new().unwrap();
        (0..3).for_each(|_| _ = tracker.send(0, 1));
        tracker.forgive(0);
        tracker.refused(1);
        assert_eq!(tracker.range(), 2..3);
        tracker.give_up_overdue(100, 100);
        assert_eq!(tracker.outstanding(), 1);
        tracker.give_up_overdue(101, 100);
        assert_eq!((tracker.outstanding(), tracker.given_up()), (0, 1));
    }

    #[test]
    fn what_was_sent_before_the_measuring_leaves_no_latency() {
        let mut tracker = Tracker::new().unwrap();
        (0..2).for_each(|_| _ = tracker.send(0, 1));
        tracker.delivered(0, 1200);
        tracker.start_measuring();
        tracker.send(1000, 1);
        tracker.delivered(1, 1500);
        tracker.delivered(2, 1500);
        assert_eq!((tracker.latency().len(), tracker.latency().max()), (1, 500));
    }
}
