//! How long to wait before the next try.

use std::time::Duration;

use rand::Rng as _;

/// The first window.
const BASE: Duration = Duration::from_millis(100);

/// The largest window. A delivery must be back within two seconds of Redis being back, and connecting, subscribing and
/// catching up take their share.
const CAP: Duration = Duration::from_millis(750);

/// Capped exponential backoff with full jitter: any time up to a window that doubles, so that nodes that lost their
/// Redis together do not come back together. It never gives up.
#[derive(Clone, Debug, Default)]
pub struct Backoff {
    tries: u32,
}

impl Backoff {
    /// The next wait; each call is one failed try.
    pub fn next_wait(&mut self) -> Duration {
        rand::rng().random_range(Duration::ZERO..=self.widen())
    }

    /// It worked, and held: the next failure begins anew.
    pub fn reset(&mut self) {
        self.tries = 0;
    }

    fn widen(&mut self) -> Duration {
        let window = BASE.saturating_mul(1 << self.tries.min(16)).min(CAP);
        self.tries = self.tries.saturating_add(1);
        window
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_doubles_to_its_cap_and_begins_anew_after_success() {
        let mut backoff = Backoff::default();
        let windows: Vec<u128> = (0..6).map(|_| backoff.widen().as_millis()).collect();
        assert_eq!(windows, [100, 200, 400, 750, 750, 750]);
        backoff.reset();
        assert_eq!(backoff.widen(), BASE);
    }

    #[test]
    fn it_never_gives_up_and_never_waits_longer_than_the_cap() {
        let mut backoff = Backoff { tries: u32::MAX - 3 };
        assert!((0..10).all(|_| backoff.next_wait() <= CAP));
    }
}
