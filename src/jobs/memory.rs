//! The states of all jobs in memory: for the embedded broker, gone with the process.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt as _, ready};

use super::rule::{Standing, Verdict, judge};
use super::{JobCounts, JobState, JobStore, JobUpdate, JobsError, Span, Status, Turn};
use crate::clock::Clock;
use crate::protocol::event::Key;

/// How many bytes of jobs are kept at most. When it is full the jobs that would expire first are forgotten, as if they had.
const MAX_BYTES: usize = 64 * 1024 * 1024;

/// What a job costs beside its texts, roughly.
const OVERHEAD: usize = 256;

/// The store of the embedded broker. There is one node, so it is always the recorder.
#[derive(Debug)]
pub struct MemoryJobs {
    table: Mutex<Table>,
    clock: Clock,
}

impl MemoryJobs {
    /// No jobs yet. A job is kept for `ttl` after its last event.
    pub fn new(ttl: Duration, clock: Clock) -> Self {
        let ttl = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        Self { table: Mutex::new(Table::new(ttl, MAX_BYTES)), clock }
    }

    /// The table as of now. A panic cannot leave it half changed in a way that matters more than answering.
    fn table(&self) -> MutexGuard<'_, Table> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.expire(self.clock.unix_millis());
        table
    }

    fn record_all(&self, updates: &[JobUpdate]) {
        let now = self.clock.unix_millis();
        let mut table = self.table();
        updates.iter().for_each(|update| table.record(update, now));
    }
}

impl JobStore for MemoryJobs {
    fn record<'a>(&'a self, updates: &'a [JobUpdate]) -> BoxFuture<'a, Result<(), JobsError>> {
        self.record_all(updates);
        ready(Ok(())).boxed()
    }

    fn lead<'a>(&'a self, updates: &'a [JobUpdate], _span: Span) -> BoxFuture<'a, Result<Turn, JobsError>> {
        self.record_all(updates);
        ready(Ok(Turn::Recorded)).boxed()
    }

    fn resign(&self) -> BoxFuture<'_, Result<(), JobsError>> {
        ready(Ok(())).boxed()
    }

    fn get<'a>(&'a self, id: &'a Key) -> BoxFuture<'a, Result<Option<JobState>, JobsError>> {
        ready(Ok(self.table().jobs.get(id).map(|job| job.state.clone()))).boxed()
    }

    fn counts(&self) -> BoxFuture<'_, Result<JobCounts, JobsError>> {
        ready(Ok(JobCounts::new(self.table().counts))).boxed()
    }
}

/// A pure value that is told the time.
#[derive(Debug)]
struct Table {
    ttl: u64,
    max_bytes: usize,
    bytes: usize,
    jobs: HashMap<Key, Job>,
    /// The jobs by the time at which they expire.
    ends: BTreeSet<(u64, Key)>,
    counts: [u64; Status::ALL.len()],
}

#[derive(Debug)]
struct Job {
    standing: Standing,
    state: JobState,
    expires: u64,
}

impl Table {
    fn new(ttl: u64, max_bytes: usize) -> Self {
        let (jobs, ends) = (HashMap::new(), BTreeSet::new());
        Self { ttl, max_bytes, bytes: 0, jobs, ends, counts: [0; Status::ALL.len()] }
    }

    fn expire(&mut self, now: u64) {
        while self.ends.first().is_some_and(|(end, _)| *end <= now) {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        if let Some((_, id)) = self.ends.pop_first() {
            self.take(&id);
        }
    }

    fn record(&mut self, update: &JobUpdate, now: u64) {
        let happened = update.place.happened(now);
        let expires = happened.saturating_add(self.ttl);
        if expires <= now {
            return;
        }
        let known = self.take(&update.id);
        let Verdict { start, replaces } = judge(known.as_ref().map(|job| &job.standing), update);
        let job = match known {
            Some(job) if !replaces => Job { standing: Standing { start, ..job.standing }, ..job },
            known => {
                let standing = Standing { start, at: update.place, status: update.status };
                let expires = known.map_or(0, |job| job.expires);
                Job { standing, state: JobState::new(update, happened), expires }
            }
        };
        let expires = job.expires.max(expires);
        self.put(update.id.clone(), Job { expires, ..job });
        while self.bytes > self.max_bytes && self.jobs.len() > 1 {
            self.forget_first();
        }
    }

    fn put(&mut self, id: Key, job: Job) {
        self.bytes += cost(&id, &job);
        self.counts[job.state.status.index()] += 1;
        self.ends.insert((job.expires, id.clone()));
        self.jobs.insert(id, job);
    }

    fn take(&mut self, id: &Key) -> Option<Job> {
        let (id, job) = self.jobs.remove_entry(id)?;
        self.bytes -= cost(&id, &job);
        self.counts[job.state.status.index()] -= 1;
        self.ends.remove(&(job.expires, id));
        Some(job)
    }
}

impl JobState {
    /// What `update`, of that Unix time in milliseconds, makes of a job.
    pub(super) fn new(update: &JobUpdate, happened: u64) -> Self {
        Self {
            status: update.status,
            word: update.word.clone(),
            kind: update.kind.clone(),
            data: update.data.clone(),
            position: update.place.position(),
            updated_at: happened,
        }
    }
}

fn cost(id: &Key, job: &Job) -> usize {
    OVERHEAD + 2 * id.as_str().len() + job.state.word.len() + job.state.data.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::Place;
    use crate::protocol::position::Position;

    fn update(id: &str, ms: u64, bytes: usize) -> JobUpdate {
        JobUpdate {
            id: Key::parse(id).unwrap(),
            place: Place::at(Position { epoch: 1, n: ms << 11 }),
            status: Status::InProgress,
            word: "running".into(),
            starts: false,
            kind: None,
            data: "x".repeat(bytes),
        }
    }

    #[test]
    fn when_it_is_full_the_jobs_that_would_expire_first_are_forgotten_and_not_counted() {
        let mut table = Table::new(1000, 10_000);
        for (id, ms) in [("a", 100), ("b", 101), ("a", 102), ("c", 103)] {
            table.record(&update(id, ms, 4_000), 110);
        }
        let mut left: Vec<&str> = table.jobs.keys().map(Key::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["a", "c"]);
        assert_eq!((table.counts, table.ends.len()), ([0, 2, 0, 0, 0], 2));
        assert!(table.bytes <= table.max_bytes);
        table.record(&update("huge", 104, 20_000), 110);
        assert_eq!(table.jobs.len(), 1, "one job is kept whatever its size");
        table.expire(5_000);
        assert_eq!((table.bytes, table.counts), (0, [0; 5]));
    }
}
