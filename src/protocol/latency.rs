//! How long short things take, as a histogram with fixed bounds: a tenth of a millisecond to ten seconds.
//!
//! Whoever measures owns one and adds to it; those of shards are added up bucket by bucket. Streams' lives are another
//! order of magnitude: [`durations`](super::durations).

use std::time::Duration;

/// Where the buckets end, in microseconds; a bucket holds its end. What is longer than the last has a bucket of its own.
const BOUNDS_US: [u64; 16] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000,
];

/// How many took how long.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    counts: [u64; BOUNDS_US.len() + 1],
    sum_us: u64,
}

impl Latency {
    /// Counts `times` spans of `us` microseconds each.
    pub fn record(&mut self, us: u64, times: u64) {
        self.counts[BOUNDS_US.partition_point(|bound| *bound < us)] += times;
        self.sum_us = self.sum_us.saturating_add(us.saturating_mul(times));
    }

    /// Adds another one's counts.
    pub fn add(&mut self, other: &Self) {
        self.counts.iter_mut().zip(other.counts).for_each(|(mine, theirs)| *mine += theirs);
        self.sum_us = self.sum_us.saturating_add(other.sum_us);
    }

    /// The buckets: where each ends, in seconds (the last at infinity), and how many are in it alone.
    pub fn buckets(&self) -> impl Iterator<Item = (f64, u64)> {
        let ends = BOUNDS_US.iter().map(|us| *us as f64 / 1e6).chain([f64::INFINITY]);
        ends.zip(self.counts)
    }

    /// All spans together.
    pub const fn sum(&self) -> Duration {
        Duration::from_micros(self.sum_us)
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// Calls of another server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoundTrips {
    /// How long they took, whatever came of them.
    pub took: Latency,
    /// How many failed.
    pub failed: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_its_end_and_the_last_one_everything_else() {
        let mut latency = Latency::default();
        latency.record(0, 1);
        latency.record(500, 1);
        latency.record(501, 2);
        latency.record(10_000_001, 3);
        let filled: Vec<(f64, u64)> = latency.buckets().filter(|(_, count)| *count > 0).collect();
        assert_eq!(filled, [(0.0001, 1), (0.0005, 1), (0.001, 2), (f64::INFINITY, 3)]);
        assert_eq!((latency.count(), latency.sum()), (7, Duration::from_micros(500 + 1002 + 30_000_003)));
    }

    #[test]
    fn added_up_nothing_is_lost() {
        let (mut a, mut b) = (Latency::default(), Latency::default());
        a.record(1, 2);
        b.record(7_000, 1);
        b.add(&a);
        assert_eq!((b.count(), b.sum()), (3, Duration::from_micros(7_002)));
    }
}
