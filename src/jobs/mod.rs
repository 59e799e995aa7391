//! The last known state of every job and their counts, from the events on channel `jobs`.
//!
//! What an event says of a job ([`JobUpdate`]) and what becomes of two of them ([`Place`], the order of the stream) are
//! pure values; a [`JobStore`] keeps the outcome, in memory or in Redis, and one contract suite runs on both. The
//! [`Recorder`] is the one in the cluster that records what was not published through a node.
//!
//! # The rule
//! A job's state is what the events in their order make of it: an event that starts the job begins a new run; within a run
//! the first terminal event is final, and until then the latest event holds. The stores come to the same state when events
//! are repeated, and when a later one is recorded before an earlier one, because they remember where the run began and where
//! the state stands. (A start that is recorded after the events of its run is the exception; it is mended when the recorder,
//! which has all events in their order, comes to it.)
//!
//! A job is kept for the history's time after its last event, counted from when that event happened: recording an old
//! event again does not prolong it, nor does it bring back what has expired.
//!
//! It deliberately does not keep what happened before (that is the history's business), and does not deliver anything.

mod backlog;
mod memory;
mod place;
mod recorder;
mod redis;
mod rule;
mod update;

use futures_util::future::BoxFuture;

use crate::protocol::event::{EventType, Key};
use crate::protocol::position::Position;

pub use backlog::Backlog;
pub use memory::MemoryJobs;
pub use place::Place;
pub use recorder::{Recorder, Source};
pub use redis::RedisJobs;
pub use update::{JobUpdate, Status};

/// The last known state of one job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobState {
    /// What it is counted as.
    pub status: Status,
    /// The status in the publisher's word; where there was none, what the event's type says.
    pub word: Box<str>,
    /// The type of the event that made it so.
    pub kind: Option<EventType>,
    /// That event's data, as it was published.
    pub data: String,
    /// That event's position; none for one that came by plain `PUBLISH`.
    pub position: Option<Position>,
    /// When it happened, in Unix milliseconds on the broker's clock.
    pub updated_at: u64,
}

/// How many jobs there are, by status. A job that has expired is not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct JobCounts {
    /// All of them.
    pub total: u64,
    /// Waiting to start.
    pub pending: u64,
    /// Running.
    pub in_progress: u64,
    /// Ended well.
    pub completed: u64,
    /// Ended on request.
    pub cancelled: u64,
    /// Failed.
    pub error: u64,
}

impl JobCounts {
    /// From the counts in the order of [`Status::ALL`].
    fn new(by_status: [u64; Status::ALL.len()]) -> Self {
        let [pending, in_progress, completed, cancelled, error] = by_status;
        Self { total: by_status.iter().sum(), pending, in_progress, completed, cancelled, error }
    }
}

/// What of the stream one call of the recorder covers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// The last durable event that is recorded with all before it, as far as the recorder knows.
    pub after: Option<Position>,
    /// The last durable event once the call has succeeded.
    pub up_to: Option<Position>,
}

/// Why the store did not answer, for people; without secrets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the states of the jobs cannot be reached: {0}")]
pub struct JobsError(String);

/// What a recorder is told when it records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It is the cluster's recorder, and its updates are in the store.
    Recorded,
    /// It is the cluster's recorder, but the store does not end where it thinks: it is new in office, an answer was lost,
    /// or the store has lost data. Nothing was recorded: everything after `up_to` may be missing and comes first.
    Begin {
        /// Up to here all durable events are in the store; `None` when none are.
        up_to: Option<Position>,
    },
    /// Another node records.
    Other,
}

/// The states of all jobs. Everything here may be called again after an error or a lost answer.
pub trait JobStore: Send + Sync + 'static {
    /// Records updates in any order: for whoever has published them and wants to read them at once.
    fn record<'a>(&'a self, updates: &'a [JobUpdate]) -> BoxFuture<'a, Result<(), JobsError>>;

    /// Records updates in the order of the stream, as the cluster's only recorder. Keeps that office for some seconds, or
    /// takes it when nobody has it.
    fn lead<'a>(&'a self, updates: &'a [JobUpdate], span: Span) -> BoxFuture<'a, Result<Turn, JobsError>>;

    /// Gives the office up, where it is held: another node takes it with its next turn, and not only when it expires.
    fn resign(&self) -> BoxFuture<'_, Result<(), JobsError>>;

    /// The state of one job; `None` when it is unknown or has expired.
    fn get<'a>(&'a self, id: &'a Key) -> BoxFuture<'a, Result<Option<JobState>, JobsError>>;

    /// How many there are.
    fn counts(&self) -> BoxFuture<'_, Result<JobCounts, JobsError>>;
}
