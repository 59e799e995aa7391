//! What is known of jobs: recording them from what is published and heard, and answering.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt as _};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::Node;
use super::interest::{Interest, Listening};
use super::streak::Streak;
use super::subscribe::Client;
use super::topics::Topic;
use crate::broker::{Broker, HistoryRequest, Publication};
use crate::clock::{Clock, Tick};
use crate::jobs::{Backlog, JobCounts, JobState, JobStore, JobUpdate, JobsError, Place, Recorder, Source};
use crate::protocol::channel::{ChannelName, JOBS};
use crate::protocol::event::{Delivery, Key};
use crate::protocol::position::Position;

/// How long the store may take to answer: a caller is told within a second.
const ANSWER_LIMIT: Duration = Duration::from_millis(800);

/// How long the counts of the last question are good for, unless this node has recorded something since: whoever has
/// published a job's event counts it at once. Every node asks the same store, so none is older than that.
const COUNTS_AGE: Duration = Duration::from_millis(500);

/// Why there is no answer about a job.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JobRefusal {
    /// The client may not read channel `jobs`.
    #[error("jobs cannot be read")]
    Forbidden,
    /// The store could not be reached in time.
    #[error("{0}")]
    Unavailable(String),
}

/// The counts of the whole cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobsOverview {
    /// As they were last known.
    pub counts: JobCounts,
    /// Why they are not the latest.
    pub problem: Option<String>,
}

/// The node's part in the states of jobs.
pub(super) struct Jobs {
    store: Arc<dyn JobStore>,
    backlog: Arc<Backlog>,
    overview: Mutex<(Option<Tick>, JobsOverview)>,
    /// This node has recorded something since it asked for the counts.
    recorded: AtomicBool,
    clock: Clock,
    recording: Streak,
    /// Every node hears channel `jobs` for as long as it runs: any of them may have to record.
    pub(super) heard: Listening,
}

impl Jobs {
    /// Starts listening; the recorder is to be run, and what is heard to be put into the backlog.
    pub(super) fn start(
        store: Arc<dyn JobStore>,
        broker: &Arc<dyn Broker>,
        interest: &Arc<Interest>,
        clock: &Clock,
    ) -> (Self, Recorder, Arc<Backlog>) {
        let backlog = Arc::new(Backlog::new(clock.clone()));
        let source = Arc::new(History { broker: Arc::clone(broker), jobs: ChannelName::jobs() });
        let recorder = Recorder::new(Arc::clone(&store), source, Arc::clone(&backlog));
        let heard = interest.listen(&[Topic { channel: ChannelName::jobs(), key: None }]);
        let recording = Streak::new("recording what was published as job states");
        let jobs = Self {
            store,
            backlog: Arc::clone(&backlog),
            overview: Mutex::default(),
            recorded: AtomicBool::new(false),
            clock: clock.clone(),
            recording,
            heard,
        };
        (jobs, recorder, backlog)
    }

    /// Records what was just appended, so that whoever has published it can read it at once. What fails here is mended
    /// by the recorder, which hears the same events.
    pub(super) async fn published(&self, appended: &[(&Publication, Position)]) {
        let on_jobs = appended.iter().filter(|(event, _)| event.channel.as_str() == JOBS);
        let updates: Vec<JobUpdate> =
            on_jobs.filter_map(|(event, at)| JobUpdate::from_event(&event.event, Place::at(*at))).collect();
        if updates.is_empty() {
            return;
        }
        match answer(self.store.record(&updates)).await {
            Ok(_) => {
                self.recorded.store(true, Ordering::Release);
                self.recording.worked();
            }
            Err(reason) => self.recording.failed(&reason),
        }
    }

    /// Lets another node record from now on. For a node whose own recorder has ended: a call that it left on its way may
    /// still take the office again, which then expires.
    pub(super) async fn resign(&self) {
        if let Err(reason) = answer(self.store.resign()).await {
            tracing::debug!(reason, "another node records the jobs when this one's office has expired");
        }
    }

    /// The state of one job, or why it cannot be had.
    pub(super) async fn state(&self, id: &Key) -> Result<Option<JobState>, String> {
        answer(self.store.get(id)).await
    }

    /// The same for a stream, which may have begun after its job's end was heard and before that is recorded: it would wait
    /// for ever for what does not come again.
    pub(super) async fn state_or_end(&self, id: &Key) -> Result<Option<JobState>, String> {
        // Before the store is asked: what goes there meanwhile is seen here.
        let Some((end, place)) = self.backlog.end_of(id) else { return self.state(id).await };
        let state = self.state(id).await.ok().flatten();
        // A job may have begun again since then.
        let later = |state: &JobState| place.zip(state.position).is_some_and(|(end, at)| Place::at(at) > end);
        let known = state.filter(|state| state.status.is_terminal() || later(state));
        Ok(Some(known.unwrap_or(end)))
    }

    async fn counts(&self) -> JobsOverview {
        // One question at a time; whoever waited for it takes its answer.
        let mut last = self.overview.lock().await;
        let (asked, overview) = &mut *last;
        // Taken before the question: what is recorded during it makes the answer old again.
        let recorded = self.recorded.swap(false, Ordering::Acquire);
        if !recorded && asked.is_some_and(|asked| self.clock.now().since(asked) < COUNTS_AGE) {
            return overview.clone();
        }
        match answer(self.store.counts()).await {
            Ok(counts) => *overview = JobsOverview { counts, problem: None },
            Err(reason) => overview.problem = Some(reason),
        }
        *asked = Some(self.clock.now());
        overview.clone()
    }
}

impl Node {
    /// The last known state of a job; `None` when it is unknown or has expired.
    ///
    /// # Errors
    /// When the client may not read channel `jobs`, or the state cannot be had within a second.
    pub async fn job(&self, client: &Client, id: &Key) -> Result<Option<JobState>, JobRefusal> {
        let readable = self.readable(ChannelName::jobs().into(), &client.reads);
        readable.map_err(|_| JobRefusal::Forbidden)?;
        self.jobs.state(id).await.map_err(JobRefusal::Unavailable)
    }

    /// How many jobs the cluster has, not older than a second.
    pub async fn job_counts(&self) -> JobsOverview {
        self.jobs.counts().await
    }
}

async fn answer<T>(asked: BoxFuture<'_, Result<T, JobsError>>) -> Result<T, String> {
    match timeout(ANSWER_LIMIT, asked).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err("the states of the jobs cannot be reached: no answer in time".into()),
    }
}

/// The recorder's view of the broker.
struct History {
    broker: Arc<dyn Broker>,
    jobs: ChannelName,
}

impl Source for History {
    fn is_live(&self) -> bool {
        self.broker.status().borrow().subscribed
    }

    fn live(&self) -> BoxFuture<'_, ()> {
        let mut status = self.broker.status();
        async move {
            if status.wait_for(|status| status.subscribed).await.is_err() {
                // The broker has ended, and so does the node.
                std::future::pending().await
            }
        }
        .boxed()
    }

    fn since(&self, after: Option<Position>) -> BoxFuture<'_, Result<Vec<Delivery>, String>> {
        // Before everything; its epoch is no one's, so the whole history is the answer.
        let after = after.unwrap_or(Position { epoch: 0, n: 0 });
        async move {
            let request = HistoryRequest { channel: self.jobs.clone(), after };
            let history = self.broker.history(&[request]).await.map_err(|error| error.to_string())?;
            Ok(history.events)
        }
        .boxed()
    }
}
