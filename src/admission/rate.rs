//! How often one address may try to connect to this node, decided before any work is done for it.
//!
//! It knows nothing of other nodes and keeps no list of addresses: its memory is the same under a flood of a million of
//! them as at rest.

use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed, StateStore};
use governor::{Quota, RateLimiter};

use super::key::IpKey;
use crate::clock::Clock;

/// Addresses are spread over so many buckets (512 KiB). An address that flows within its rate is refused only when it
/// shares a bucket with one that does not: one in 65,536 for each address that floods at the time.
const BUCKETS: usize = 1 << 16;

/// How many tries in how much time, written `20/s`, `100/m` or `1000/h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectRate {
    tries: NonZeroU32,
    unit: Unit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Second,
    Minute,
    Hour,
}

impl Unit {
    const ALL: [Self; 3] = [Self::Second, Self::Minute, Self::Hour];

    const fn name(self) -> &'static str {
        match self {
            Self::Second => "s",
            Self::Minute => "m",
            Self::Hour => "h",
        }
    }

    const fn seconds(self) -> u32 {
        match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3600,
        }
    }
}

/// A text that is not a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a rate is a whole number of at least 1 and a unit: 20/s, 100/m, 1000/h")]
pub struct BadRate;

impl ConnectRate {
    /// `tries` per second.
    pub const fn per_second(tries: NonZeroU32) -> Self {
        Self { tries, unit: Unit::Second }
    }

    /// One try per `1/rate`, and after a rest up to twice the rate's number at once: enough for a browser that restores
    /// all its tabs.
    fn quota(self) -> Quota {
        let nanos =
            u64::from(self.unit.seconds()).saturating_mul(1_000_000_000) / u64::from(self.tries.get());
        let period = Duration::from_nanos(nanos.max(1));
        let burst = self.tries.saturating_mul(NonZeroU32::MIN.saturating_add(1));
        Quota::with_period(period)
            .map_or_else(|| Quota::per_second(self.tries), |quota| quota.allow_burst(burst))
    }
}

impl FromStr for ConnectRate {
    type Err = BadRate;

    fn from_str(text: &str) -> Result<Self, BadRate> {
        let (tries, unit) = text.split_once('/').ok_or(BadRate)?;
        let unit = Unit::ALL.into_iter().find(|u| u.name() == unit.trim()).ok_or(BadRate)?;
        Ok(Self { tries: tries.trim().parse().map_err(|_| BadRate)?, unit })
    }
}

impl fmt::Display for ConnectRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.tries, self.unit.name())
    }
}

/// Counts the tries of every address; any number of threads may ask it at once, without a lock.
pub(super) struct ConnectRates(RateLimiter<IpKey, Buckets, MonotonicClock, NoOpMiddleware<Duration>>);

impl ConnectRates {
    pub(super) fn new(rate: ConnectRate, clock: Clock) -> Self {
        Self(RateLimiter::new(rate.quota(), Buckets::new(BUCKETS), MonotonicClock(clock)))
    }

    /// Counts one try of `ip`.
    ///
    /// # Errors
    /// When it came too soon: how long to wait. A refused try is not counted.
    pub(super) fn check(&self, ip: IpKey) -> Result<(), Duration> {
        self.0.check_key(&ip).map_err(|until| until.wait_time_from(self.now()))
    }

    fn now(&self) -> Duration {
        governor::clock::Clock::now(self.0.clock())
    }
}

impl fmt::Debug for ConnectRates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConnectRates")
    }
}

/// A fixed number of states; an address has the one that its hash points at. The hash is keyed anew in every process,
/// so that nobody can aim at somebody else's bucket.
struct Buckets {
    states: Box<[InMemoryState]>,
    hasher: RandomState,
}

impl Buckets {
    fn new(count: usize) -> Self {
        let states = std::iter::repeat_with(InMemoryState::default).take(count).collect();
        Self { states, hasher: RandomState::new() }
    }
}

impl StateStore for Buckets {
    type Key = IpKey;

    #[allow(clippy::cast_possible_truncation, reason = "any bits of the hash will do")]
    fn measure_and_replace<T, F, E>(&self, key: &IpKey, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let at = self.hasher.hash_one(key) as usize % self.states.len().max(1);
        match self.states.get(at) {
            Some(state) => state.measure_and_replace(&NotKeyed::NonKey, decide),
            None => decide(None).map(|(verdict, _)| verdict),
        }
    }
}

/// The process' clock as `governor` wants to see it.
struct MonotonicClock(Clock);

impl governor::clock::Clock for MonotonicClock {
    type Instant = Duration;

    fn now(&self) -> Duration {
        Duration::from_micros(self.0.micros())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> IpKey {
        IpKey::V4([192, 0, 2, last])
    }

    fn rates(rate: &str) -> (ConnectRates, Clock) {
        let clock = Clock::held();
        (ConnectRates::new(rate.parse().unwrap(), clock.clone()), clock)
    }

    fn accepted(rates: &ConnectRates, ip: IpKey, tries: usize) -> usize {
        (0..tries).filter(|_| rates.check(ip).is_ok()).count()
    }

    #[test]
    fn a_burst_of_twice_the_rate_then_the_rate() {
        let (rates, clock) = rates("20/s");
        assert_eq!(accepted(&rates, ip(1), 100), 40);
        clock.advance(Duration::from_millis(50));
        assert_eq!(accepted(&rates, ip(1), 100), 1);
        clock.advance(Duration::from_secs(1));
        assert_eq!(accepted(&rates, ip(1), 100), 20);
        clock.advance(Duration::from_secs(60));
        assert_eq!(accepted(&rates, ip(1), 100), 40);
    }

    #[test]
    fn a_refusal_says_how_long_to_wait() {
        let (rates, clock) = rates("2/m");
        assert_eq!(accepted(&rates, ip(1), 4), 4);
        assert_eq!(rates.check(ip(1)), Err(Duration::from_secs(30)));
        clock.advance(Duration::from_secs(30));
        assert_eq!(rates.check(ip(1)), Ok(()));
    }

    #[test]
    fn one_address_does_not_use_up_another_ones_rate() {
        let (rates, _clock) = rates("1/s");
        assert_eq!(accepted(&rates, ip(1), 10), 2);
        // Sharing a bucket has a chance of one in 65,536 for each; two of 200 would be a broken hash.
        let disturbed = (2..=201).filter(|last| rates.check(ip(*last)).is_err()).count();
        assert!(disturbed < 2, "{disturbed}");
    }

    #[test]
    fn a_flood_of_addresses_takes_no_memory_and_still_limits_each() {
        let (rates, _clock) = rates("1/s");
        for n in 0..200_000_u32 {
            let _ = rates.check(IpKey::V4(n.to_be_bytes()));
        }
        assert_eq!(rates.0.into_state_store().states.len(), BUCKETS);
    }

    #[test]
    fn rates_are_read_and_written_alike_and_nonsense_is_refused() {
        for good in ["20/s", "1/m", "4294967295/h"] {
            assert_eq!(good.parse::<ConnectRate>().unwrap().to_string(), good);
        }
        for bad in ["", "20", "0/s", "-1/s", "20/d", "x/s", "20/", "/s", "4294967296/s", "1.5/s"] {
            assert_eq!(bad.parse::<ConnectRate>(), Err(BadRate), "{bad}");
        }
        let fastest = ConnectRates::new("4294967295/s".parse().unwrap(), Clock::held());
        assert_eq!(fastest.check(ip(1)), Ok(()));
    }
}
