//! The greatest number of streams on this node.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts the node's streams against their greatest number. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Capacity {
    seats: Arc<Seats>,
    max: usize,
}

#[derive(Debug, Default)]
struct Seats {
    taken: AtomicUsize,
    settled: AtomicUsize,
}

/// One stream's place; given back when dropped.
#[derive(Debug)]
pub struct Seat {
    seats: Arc<Seats>,
    settled: bool,
}

impl Capacity {
    /// Room for `max` streams.
    pub fn new(max: usize) -> Self {
        Self { seats: Arc::default(), max }
    }

    /// Takes a seat, or `None` when all are taken.
    pub fn take(&self) -> Option<Seat> {
        let more = |taken: usize| (taken < self.max).then_some(taken + 1);
        self.seats.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Seat { seats: Arc::clone(&self.seats), settled: false })
    }

    /// Seats taken, those of handshakes under way included.
    pub fn taken(&self) -> usize {
        self.seats.taken.load(Ordering::Relaxed)
    }

    /// Seats whose handshake is over.
    pub fn settled(&self) -> usize {
        self.seats.settled.load(Ordering::Relaxed)
    }

    /// The greatest number.
    pub const fn max(&self) -> usize {
        self.max
    }
}

impl Seat {
    /// The handshake is over: the seat is a stream's.
    pub fn settle(&mut self) {
        if !std::mem::replace(&mut self.settled, true) {
            self.seats.settled.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.settled.fetch_sub(usize::from(self.settled), Ordering::Relaxed);
        self.seats.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_the_greatest_number_gets_a_seat_and_a_dropped_one_is_free_again() {
        let capacity = Capacity::new(100);
        let takers: Vec<_> = (0..8)
            .map(|_| {
                let capacity = capacity.clone();
                std::thread::spawn(move || (0..50).filter_map(|_| capacity.take()).collect::<Vec<_>>())
            })
            .collect();
        let mut seats: Vec<Seat> = takers.into_iter().flat_map(|t| t.join().unwrap()).collect();
        assert_eq!((seats.len(), capacity.taken(), capacity.settled()), (100, 100, 0));
        seats[0].settle();
        seats[0].settle();
        assert_eq!((capacity.taken(), capacity.settled()), (100, 1));
        drop(seats);
        assert_eq!((capacity.taken(), capacity.settled()), (0, 0));
    }
}
