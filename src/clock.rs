//! The one place where time enters (invariant 5), so that tests can hold it.
//!
//! Everything that decides by time takes a [`Clock`]; nothing else calls `Instant::now` (clippy forbids it).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A point on a [`Clock`]'s monotonic scale: milliseconds since the clock was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tick(u64);

impl Tick {
    /// The tick `ms` milliseconds after the clock was made.
    pub const fn from_millis(ms: u64) -> Self {
        Self(ms)
    }

    /// Milliseconds since the clock was made.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// This tick plus `duration`; saturates at the end of time.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }

    /// How long ago `earlier` was; zero when it lies ahead.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// Monotonic and wall-clock time, cheap to clone and to read.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System {
        start: std::time::Instant,
    },
    /// Moves only when a test says so.
    Held {
        now: Arc<AtomicU64>,
    },
}

impl Clock {
    /// The machine's clock.
    #[allow(clippy::disallowed_methods)] // the one place that may
    pub fn system() -> Self {
        Self(Source::System { start: std::time::Instant::now() })
    }

    /// A clock that stands still until [`Clock::advance`].
    pub fn held() -> Self {
        Self(Source::Held { now: Arc::new(AtomicU64::new(0)) })
    }

    /// Moves a held clock forward; the machine's clock cannot be moved and ignores it.
    pub fn advance(&self, by: Duration) {
        if let Source::Held { now } = &self.0 {
            now.fetch_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX), Ordering::SeqCst);
        }
    }

    /// The monotonic time.
    #[allow(clippy::disallowed_methods)] // the one place that may
    pub fn now(&self) -> Tick {
        match &self.0 {
            Source::System { start } => Tick(u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX)),
            Source::Held { now } => Tick(now.load(Ordering::SeqCst)),
        }
    }

    /// Microseconds on the same scale as [`Clock::now`], for measuring short spans.
    #[allow(clippy::disallowed_methods)] // the one place that may
    pub fn micros(&self) -> u64 {
        match &self.0 {
            Source::System { start } => u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX),
            Source::Held { now } => now.load(Ordering::SeqCst).saturating_mul(1000),
        }
    }

    /// Wall-clock milliseconds since the Unix epoch, for people to read; never compared between machines.
    #[allow(clippy::disallowed_methods)] // the one place that may
    pub fn unix_millis(&self) -> u64 {
        match &self.0 {
            Source::System { .. } => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX)),
            Source::Held { now } => now.load(Ordering::SeqCst),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_clock_moves_only_when_told() {
        let clock = Clock::held();
        let before = clock.now();
        assert_eq!(clock.now(), before);
        clock.advance(Duration::from_secs(3));
        assert_eq!(clock.now().since(before), Duration::from_secs(3));
        assert_eq!(before.since(clock.now()), Duration::ZERO);
    }

    #[test]
    fn ticks_saturate_at_the_end_of_time() {
        assert_eq!(Tick::from_millis(5).after(Duration::MAX), Tick::from_millis(u64::MAX));
    }
}
