//! The states of all jobs in Redis, the same for every node.
//!
//! A job is a hash that expires. A count is a sorted set of the jobs of one status by the time at which they expire, so that
//! it is exact although nobody sees them expire. One script records a batch, and knows who records for the cluster: a key
//! with the name of this process that expires in some seconds.

use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt as _};
use uuid::Uuid;

use super::{JobCounts, JobState, JobStore, JobUpdate, JobsError, Place, Span, Status, Turn};
use crate::protocol::event::{EventType, Key};
use crate::protocol::position::Position;
use crate::redis::{Call, CommandError, Commands, Invoke as _, Script};

/// How long the recorder's office lasts without a sign of it: longer than a command may take, and short enough that what
/// the others remember covers it.
pub(super) const LEASE: Duration = Duration::from_secs(4);

/// The number of a status in the script: its place in [`Status::ALL`], counted from 1. Terminal are 3 and more.
const fn number(status: Status) -> usize {
    status.index() + 1
}

/// The fields of a job's hash that make its state.
const STATE: [&str; 6] = ["status", "word", "type", "data", "at", "updated"];

type Fields = (Option<usize>, Option<String>, Option<String>, Option<String>, Option<String>, Option<u64>);

/// The store of a cluster.
#[derive(Debug)]
pub struct RedisJobs {
    commands: Commands,
    record: Script,
    count: Script,
    resign: Script,
    /// The lease and the place up to which the recorder has recorded, then the set of each status.
    names: Vec<String>,
    ttl: Duration,
    incarnation: String,
}

impl RedisJobs {
    /// A store in that Redis. A job is kept for `ttl` after its last event.
    pub fn new(commands: Commands, ttl: Duration) -> Self {
        let keys = commands.config().keys();
        let mut names = vec![keys.jobs_recorder(), keys.jobs_up_to()];
        names.extend(Status::ALL.map(|status| keys.jobs_by(status.as_str())));
        Self {
            record: Script::new(include_str!("record.lua")),
            count: Script::new(include_str!("count.lua")),
            resign: Script::new(include_str!("resign.lua")),
            names,
            ttl,
            incarnation: Uuid::new_v4().to_string(),
            commands,
        }
    }

    async fn call(&self, who: &str, updates: &[JobUpdate], span: Span) -> Result<Turn, JobsError> {
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        let mut call = self.record.call(&names);
        let end =
            |position: Option<Position>| position.map(|p| format!("{} {}", p.epoch, p.n)).unwrap_or_default();
        call.arg(who).arg(millis(LEASE)).arg(millis(self.ttl)).arg(end(span.after)).arg(end(span.up_to));
        updates.iter().for_each(|update| self.add(&mut call, update));
        let answer: Vec<String> = self.commands.invoke(&call).await?;
        match answer.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["recorded"] => Ok(Turn::Recorded),
            ["other"] => Ok(Turn::Other),
            ["begin", up_to] => Ok(Turn::Begin { up_to: position(up_to) }),
            _ => Err(JobsError(format!("the script answered {answer:?}"))),
        }
    }

    fn add(&self, call: &mut Call<'_>, update: &JobUpdate) {
        call.arg(self.commands.config().keys().job(&update.id))
            .arg(update.id.as_str())
            .arg(update.place.to_string())
            .arg(number(update.status))
            .arg(u8::from(update.starts))
            .arg(&*update.word)
            .arg(update.kind.as_ref().map_or("", EventType::as_str))
            .arg(&update.data);
    }
}

impl JobStore for RedisJobs {
    fn record<'a>(&'a self, updates: &'a [JobUpdate]) -> BoxFuture<'a, Result<(), JobsError>> {
        self.call("", updates, Span::default()).map(|turn| turn.map(drop)).boxed()
    }

    fn lead<'a>(&'a self, updates: &'a [JobUpdate], span: Span) -> BoxFuture<'a, Result<Turn, JobsError>> {
        self.call(&self.incarnation, updates, span).boxed()
    }

    fn resign(&self) -> BoxFuture<'_, Result<(), JobsError>> {
        async move {
            let mut call = self.resign.call(&[&self.names[0]]);
            Ok(self.commands.invoke(call.arg(&self.incarnation)).await?)
        }
        .boxed()
    }

    fn get<'a>(&'a self, id: &'a Key) -> BoxFuture<'a, Result<Option<JobState>, JobsError>> {
        async move {
            let mut command = redis::cmd("HMGET");
            command.arg(self.commands.config().keys().job(id)).arg(&STATE);
            Ok(state(self.commands.run(&command).await?))
        }
        .boxed()
    }

    fn counts(&self) -> BoxFuture<'_, Result<JobCounts, JobsError>> {
        async move {
            let sets: Vec<&str> = self.names[2..].iter().map(String::as_str).collect();
            let counts: [u64; Status::ALL.len()] = self.commands.invoke(&self.count.call(&sets)).await?;
            Ok(JobCounts::new(counts))
        }
        .boxed()
    }
}

/// The state in a job's hash; `None` when there is none, or when it is not one of ours.
fn state(fields: Fields) -> Option<JobState> {
    let (status, word, kind, data, at, updated) = fields;
    Some(JobState {
        status: *Status::ALL.get(status?.checked_sub(1)?)?,
        word: word?.into(),
        kind: EventType::parse(&kind?).ok(),
        data: data?,
        position: Place::parse(&at?)?.position(),
        updated_at: updated?,
    })
}

fn position(text: &str) -> Option<Position> {
    let (epoch, n) = text.split_once(' ')?;
    Some(Position { epoch: epoch.parse().ok()?, n: n.parse().ok()? })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl From<CommandError> for JobsError {
    fn from(error: CommandError) -> Self {
        Self(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_knows_the_terminal_statuses_by_their_numbers() {
        for status in Status::ALL {
            assert_eq!(status.is_terminal(), number(status) >= 3, "{status:?}");
        }
        assert!(include_str!("record.lua").contains("return status >= 3"));
    }

    #[test]
    fn a_hash_that_is_incomplete_or_strange_is_no_job() {
        let whole = || {
            let text = |text: &str| Some(text.to_owned());
            (Some(3), text("completed"), text(""), text("{}"), text("1 2 0"), Some(7))
        };
        let found = state(whole()).unwrap();
        assert_eq!((found.status, found.position), (Status::Completed, Some(Position { epoch: 1, n: 2 })));
        assert_eq!(found.kind, None);
        assert_eq!(state((None, None, None, None, None, None)), None);
        for strange in [Some(0), Some(6), None] {
            assert_eq!(state((strange, whole().1, whole().2, whole().3, whole().4, whole().5)), None);
        }
        assert_eq!(state((whole().0, whole().1, whole().2, whole().3, Some("x".into()), whole().5)), None);
    }
}
