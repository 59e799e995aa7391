//! When the next events are due.
//!
//! Open loop (`--rate`): by the clock, however the server keeps up; an event's latency counts from when it was due, so
//! that a stall is seen by all events that it delayed (coordinated omission). Closed loop (`--in-flight`): when earlier
//! events have arrived everywhere; then latency counts from the sending.

/// The pace of publishing; times in microseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Events per second; none means as fast as the events in flight allow.
    pub(super) rate: Option<f64>,
    /// The most events that are on their way.
    pub(super) in_flight: Option<u64>,
    /// So many are published together.
    pub(super) burst: u64,
}

/// What may be published now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Due {
    /// This many, due at this time.
    Now {
        /// A burst.
        events: u64,
        /// When it was due.
        at: u64,
    },
    /// None before this time.
    At(u64),
    /// None before something has arrived.
    AfterDeliveries,
}

impl Pace {
    /// What is due at `now`, `sent` events after `start`, while `outstanding` of them have not arrived everywhere.
    pub(super) fn due(&self, start: u64, now: u64, sent: u64, outstanding: u64) -> Due {
        let at = match self.rate {
            Some(rate) => start + (sent as f64 * 1e6 / rate) as u64,
            None => now,
        };
        if at > now {
            return Due::At(at);
        }
        if self.in_flight.is_some_and(|limit| outstanding > 0 && outstanding + self.burst > limit) {
            return Due::AfterDeliveries;
        }
        Due::Now { events: self.burst, at }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_loop_is_due_by_the_clock_and_keeps_the_intended_time() {
        let pace = Pace { rate: Some(1000.0), in_flight: None, burst: 1 };
        assert_eq!(pace.due(5000, 5000, 0, 0), Due::Now { events: 1, at: 5000 });
        assert_eq!(pace.due(5000, 5000, 1, 1), Due::At(6000));
        assert_eq!(
            pace.due(5000, 50_000, 1, 1),
            Due::Now { events: 1, at: 6000 },
            "late, and counted from when it was due"
        );
    }

    #[test]
    fn bursts_come_at_the_rate_of_their_events() {
        let pace = Pace { rate: Some(1000.0), in_flight: None, burst: 10 };
        assert_eq!(pace.due(0, 0, 0, 0), Due::Now { events: 10, at: 0 });
        assert_eq!(pace.due(0, 5000, 10, 10), Due::At(10_000));
    }

    #[test]
    fn a_closed_loop_waits_for_room_for_a_whole_burst() {
        let pace = Pace { rate: None, in_flight: Some(64), burst: 16 };
        assert_eq!(pace.due(0, 7, 0, 48), Due::Now { events: 16, at: 7 });
        assert_eq!(pace.due(0, 7, 0, 49), Due::AfterDeliveries);
        let larger_than_its_window = Pace { rate: None, in_flight: Some(1), burst: 16 };
        assert_eq!(larger_than_its_window.due(0, 7, 0, 0), Due::Now { events: 16, at: 7 });
        assert_eq!(larger_than_its_window.due(0, 7, 16, 1), Due::AfterDeliveries);
    }
}
