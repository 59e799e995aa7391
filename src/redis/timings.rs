//! How long Redis takes: one note for each command, whoever sends it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::protocol::latency::RoundTrips;

/// Where the times of commands are noted; clones share it. Beside a round trip its lock is nothing.
#[derive(Clone, Debug, Default)]
pub struct Timings(Arc<Mutex<RoundTrips>>);

impl Timings {
    /// Runs `call` and notes how long it took, and whether it failed. What is given up half-way is not noted.
    pub(super) async fn note<T, E>(&self, call: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let began = Instant::now();
        let result = call.await;
        let took = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        let mut noted = self.lock();
        noted.took.record(took, 1);
        noted.failed += u64::from(result.is_err());
        drop(noted);
        result
    }

    /// What has been noted so far.
    pub fn get(&self) -> RoundTrips {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, RoundTrips> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
