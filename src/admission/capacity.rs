//! The greatest number of streams on this node.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts the node's streams against their greatest number. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Capacity {
    taken: Arc<AtomicUsize>,
    max: usize,
}

/// One stream's place; given back when dropped.
#[derive(Debug)]
pub struct Seat {
    taken: Arc<AtomicUsize>,
}

impl Capacity {
    /// Room for `max` streams.
    pub fn new(max: usize) -> Self {
        Self { taken: Arc::default(), max }
    }

    /// Takes a seat, or `None` when all are taken.
    pub fn take(&self) -> Option<Seat> {
        let more = |taken: usize| (taken < self.max).then_some(taken + 1);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Seat { taken: Arc::clone(&self.taken) })
    }

    /// Seats taken, those of handshakes under way included.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// The greatest number.
    pub const fn max(&self) -> usize {
        self.max
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
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
        let seats: Vec<Seat> = takers.into_iter().flat_map(|t| t.join().unwrap()).collect();
        assert_eq!((seats.len(), capacity.taken()), (100, 100));
        drop(seats);
        assert_eq!(capacity.taken(), 0);
    }
}
