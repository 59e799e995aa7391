//! Waiting for a condition with a limit, never for a time.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How long between two looks.
const STEP: Duration = Duration::from_millis(10);

/// Short for [`Duration::from_secs`].
pub(crate) const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Whether the counts of the issues are asked for in full (`make chaos`), and not those that fit into `make test`.
pub(crate) fn full() -> bool {
    std::env::var_os("FANLIGHT_CHAOS").is_some()
}

/// Asks `look` again and again until it is `Ok`, and returns that.
///
/// # Panics
/// When it is still `Err` after `within`, with `what` and the last error.
pub(crate) async fn eventually<T, E: std::fmt::Display>(
    what: &str,
    within: Duration,
    mut look: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    let deadline = Instant::now() + within;
    loop {
        match look().await {
            Ok(found) => return found,
            Err(why) if Instant::now() >= deadline => {
                panic!("not within {within:?}: {what}; last seen: {why}")
            }
            Err(_) => sleep(STEP).await,
        }
    }
}

/// Asks `look` again and again during `during`; it must be `Ok` every time.
///
/// # Panics
/// At the first `Err`.
pub(crate) async fn stays<E: std::fmt::Display>(
    what: &str,
    during: Duration,
    mut look: impl AsyncFnMut() -> Result<(), E>,
) {
    let start = Instant::now();
    while start.elapsed() < during {
        if let Err(why) = look().await {
            panic!("did not stay so (after {:?}): {what}: {why}", start.elapsed());
        }
        sleep(STEP).await;
    }
}

/// `Ok` when `condition` holds, else `Err` with what was seen: for [`eventually`] and [`stays`].
pub(crate) fn check(condition: bool, seen: impl std::fmt::Display) -> Result<(), String> {
    if condition { Ok(()) } else { Err(seen.to_string()) }
}
