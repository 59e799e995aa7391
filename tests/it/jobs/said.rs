//! Updates as a test writes them, and a store to put them into.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fanlight::clock::Clock;
use fanlight::jobs::{JobState, JobStore, JobUpdate, MemoryJobs, Place, RedisJobs};
use fanlight::protocol::event::{Event, EventType, Key};
use fanlight::protocol::position::Position;
use fanlight::redis::{Commands, Config};

use crate::support::{RedisServer, secs};

/// Longer than any test.
pub(crate) const LONG: Duration = secs(3600);

pub(crate) fn memory(ttl: Duration) -> Arc<dyn JobStore> {
    Arc::new(MemoryJobs::new(ttl, Clock::system()))
}

pub(crate) fn redis(server: &RedisServer, prefix: &str, ttl: Duration) -> Arc<dyn JobStore> {
    let commands = Commands::new(Config::new(&server.url(), prefix).unwrap()).unwrap();
    Arc::new(RedisJobs::new(commands, ttl))
}

pub(crate) fn id(text: &str) -> Key {
    Key::parse(text).unwrap()
}

/// The `i`th position of this moment; all of one test are of one moment.
#[derive(Clone, Copy)]
pub(crate) struct Moment(u64);

impl Moment {
    pub(crate) fn now() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        Self(u64::try_from(now.as_millis()).unwrap())
    }

    pub(crate) fn before(self, by: Duration) -> Self {
        Self(self.0 - u64::try_from(by.as_millis()).unwrap())
    }

    pub(crate) fn millis(self) -> u64 {
        self.0
    }

    pub(crate) fn position(self, i: u64) -> Position {
        Position { epoch: 7, n: (self.0 << 11) + i }
    }

    /// A durable event.
    pub(crate) fn durable(self, i: u64, job: &str, kind: &str, data: &str) -> JobUpdate {
        update(job, kind, data, Place::at(self.position(i)))
    }

    /// A plain event behind the durable one.
    pub(crate) fn plain(self, i: u64, job: &str, kind: &str, data: &str) -> JobUpdate {
        update(job, kind, data, Place::behind(Some(self.position(i))))
    }
}

fn update(job: &str, kind: &str, data: &str, place: Place) -> JobUpdate {
    let kind = EventType::parse(kind).ok();
    let event = Event { kind, key: Some(id(job)), data: data.into(), traceparent: None };
    JobUpdate::from_event(&event, place).expect("a job's event")
}

/// The published word of a job's status, or `gone`.
pub(crate) async fn word(store: &Arc<dyn JobStore>, job: &str) -> String {
    get(store, job).await.map_or("gone".into(), |state| state.word.into())
}

pub(crate) async fn get(store: &Arc<dyn JobStore>, job: &str) -> Option<JobState> {
    store.get(&id(job)).await.unwrap()
}

/// Pending, in progress, completed, cancelled, error; the total must be their sum.
pub(crate) async fn counts(store: &Arc<dyn JobStore>) -> [u64; 5] {
    let found = store.counts().await.unwrap();
    let by_status = [found.pending, found.in_progress, found.completed, found.cancelled, found.error];
    assert_eq!(found.total, by_status.iter().sum::<u64>());
    by_status
}
