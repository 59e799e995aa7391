//! How long connections live, as a histogram: log-spaced buckets, so that one form holds a tenth of a second and a day.
//!
//! Histograms of shards and nodes are added bucket by bucket; a percentile of the sum is as exact as one of a part.

/// Buckets per doubling: a bucket ends 19 % above where it begins.
const PER_DOUBLING: u32 = 4;

/// Where the first bucket ends; streams' times are kept in steps of this.
const FIRST_MS: f64 = 100.0;

/// How many buckets there are. The last but one ends after 20 hours; everything longer is in the last.
const BUCKETS: usize = 80;

/// How many lived how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram([u64; BUCKETS]);

impl Default for Histogram {
    fn default() -> Self {
        Self([0; BUCKETS])
    }
}

impl Histogram {
    /// Counts one that lived so long.
    pub fn record(&mut self, ms: u64) {
        self.0[bucket_of(ms)] += 1;
    }

    /// Adds another one's counts.
    pub fn add(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(mine, theirs)| *mine += theirs);
    }

    /// The buckets that are not empty: where each ends, in milliseconds, and its count.
    pub fn filled(&self) -> impl Iterator<Item = (u64, u64)> {
        let filled = |(_, count): &(usize, u64)| *count > 0;
        self.0.iter().copied().enumerate().filter(filled).map(|(bucket, count)| (end_ms(bucket), count))
    }
}

/// The bucket of a connection that lived so long.
fn bucket_of(ms: u64) -> usize {
    // Exact to the last bit is not needed, but that a bucket holds nothing beyond its end is.
    let guess = ((ms as f64 / FIRST_MS).log2() * f64::from(PER_DOUBLING)).floor().max(0.0) as usize;
    (guess..BUCKETS - 1).find(|bucket| ms <= end_ms(*bucket)).unwrap_or(BUCKETS - 1)
}

/// Where a bucket ends, in milliseconds; it holds its end.
fn end_ms(bucket: usize) -> u64 {
    (FIRST_MS * (bucket as f64 / f64::from(PER_DOUBLING)).exp2()).round() as u64
}

/// The time below which the share `q` (0 to 1) of the connections stayed, to within the width of a bucket; `None` without any. `buckets`
/// are pairs of a bucket's end in milliseconds and its count, rising; empty ones may be left out.
pub fn percentile(buckets: &[(u64, u64)], q: f64) -> Option<u64> {
    let total: u64 = buckets.iter().map(|(_, count)| count).sum();
    let rank = (total as f64 * q).max(1.0);
    let mut below = 0.0;
    for (end, count) in buckets {
        let count = *count as f64;
        if count > 0.0 && below + count >= rank {
            let begin = begin_of(*end);
            return Some((begin + (*end as f64 - begin) * (rank - below) / count).round() as u64);
        }
        below += count;
    }
    None
}

fn begin_of(end: u64) -> f64 {
    if end as f64 <= FIRST_MS { 0.0 } else { end as f64 / (1.0 / f64::from(PER_DOUBLING)).exp2() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_buckets_reach_from_a_tenth_of_a_second_to_a_day() {
        assert_eq!((bucket_of(0), bucket_of(100), bucket_of(101)), (0, 0, 1));
        assert_eq!((end_ms(0), end_ms(4), end_ms(8)), (100, 200, 400));
        assert!(end_ms(BUCKETS - 2) > 20 * 3_600_000);
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn percentiles_of_nothing_are_nothing_and_empty_buckets_do_not_matter() {
        assert_eq!(percentile(&[], 0.5), None);
        assert_eq!(percentile(&[(100, 0)], 0.5), None);
        let with = [(100, 0), (200, 10), (400, 0), (800, 10)];
        assert_eq!(percentile(&with, 0.5), percentile(&[(200, 10), (800, 10)], 0.5));
        assert_eq!(percentile(&with, 0.5), Some(200));
        assert_eq!(percentile(&with, 1.0), Some(800));
    }

    proptest! {
        #[test]
        fn a_time_lies_in_its_bucket(ms in 0u64..200_000_000) {
            let bucket = bucket_of(ms);
            prop_assert!(bucket == BUCKETS - 1 || ms <= end_ms(bucket));
            prop_assert!(bucket == 0 || ms > end_ms(bucket - 1));
        }

        /// Against the sorted list itself.
        #[test]
        fn a_percentile_is_right_to_within_a_bucket(mut times in prop::collection::vec(101u64..50_000_000, 1..200), q in 0.01f64..1.0) {
            let mut histogram = Histogram::default();
            times.iter().for_each(|ms| histogram.record(*ms));
            let buckets: Vec<(u64, u64)> = histogram.filled().collect();
            times.sort_unstable();
            let exact = times[((times.len() as f64 * q).max(1.0).ceil() as usize - 1).min(times.len() - 1)] as f64;
            let told = percentile(&buckets, q).unwrap() as f64;
            prop_assert!((0.8..=1.25).contains(&(told / exact)), "{} instead of {}", told, exact);
        }
    }
}
