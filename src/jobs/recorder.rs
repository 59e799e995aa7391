//! The task that records what is heard on channel `jobs`, on one node of the cluster.
//!
//! Every node has one, and hears every event into its [`Backlog`]. One of them has the office, which the store gives for
//! some seconds at a time; the others forget what is old. When the office changes hands the new recorder first records the
//! durable events since its predecessor's last one, from the history, together with all that it remembers itself. What the
//! predecessor had recorded too is recorded twice, which changes nothing.
//!
//! Not recorded are plain events that the recorder has not heard because its own subscription was interrupted, and those that
//! a full backlog has dropped.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::{MissedTickBehavior, interval};

use super::backlog::Heard;
use super::{Backlog, JobStore, JobUpdate, Span, Turn};
use crate::protocol::event::Delivery;
use crate::protocol::position::Position;

/// How often the recorder renews its office and the others ask for it.
const TURN: Duration = Duration::from_secs(1);

/// How long a node that does not record remembers what it has heard: longer than the office of a recorder that has died
/// lasts (4 s), a turn, and what that recorder may have left undone while Redis was slow.
const MEMORY: Duration = Duration::from_secs(10);

/// The most events in one call of the store: some milliseconds for Redis.
const MAX_BATCH: usize = 256;

/// The most bytes of data in one call, unless one event is larger.
const MAX_BATCH_BYTES: usize = 1024 * 1024;

/// Where the events come from, as far as the recorder asks.
pub trait Source: Send + Sync + 'static {
    /// Whether events are heard now. A node that hears nothing leaves the office to others.
    fn is_live(&self) -> bool;

    /// Returns when events are heard.
    fn live(&self) -> BoxFuture<'_, ()>;

    /// The durable events of channel `jobs` after a position, in their order; all there are for `None`. What the history
    /// no longer has is left out.
    fn since(&self, after: Option<Position>) -> BoxFuture<'_, Result<Vec<Delivery>, String>>;
}

/// The task.
pub struct Recorder {
    store: Arc<dyn JobStore>,
    source: Arc<dyn Source>,
    backlog: Arc<Backlog>,
    role: Role,
    /// The last durable event that is known to be recorded with all before it.
    up_to: Option<Position>,
    failing: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// Somebody else records, or nobody.
    Waiting,
    /// In office, but what happened since `up_to` is not recorded yet.
    Beginning,
    /// In office, and up to date but for the backlog.
    Recording,
}

impl Recorder {
    /// A recorder that is to be [`run`](Self::run).
    pub fn new(store: Arc<dyn JobStore>, source: Arc<dyn Source>, backlog: Arc<Backlog>) -> Self {
        Self { store, source, backlog, role: Role::Waiting, up_to: None, failing: false }
    }

    /// Records for as long as it is polled.
    pub async fn run(mut self) {
        let mut timer = interval(TURN);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (backlog, source) = (Arc::clone(&self.backlog), Arc::clone(&self.source));
        loop {
            // While the store fails only the timer tries again.
            let eager = self.role == Role::Recording && !self.failing;
            tokio::select! {
                _ = timer.tick() => {}
                () = backlog.arrived(), if eager => {}
                // A node that has just started does not wait for its next turn: what it hears by then could not be read.
                () = source.live(), if !source.is_live() => {}
            }
            let done = self.turn().await;
            self.told(&done);
        }
    }

    async fn turn(&mut self) -> Result<(), String> {
        if !self.source.is_live() {
            self.role = Role::Waiting;
            return Ok(());
        }
        if self.role == Role::Waiting {
            self.lead(&[]).await?;
        }
        match self.role {
            Role::Waiting => {
                self.backlog.forget(MEMORY);
                Ok(())
            }
            Role::Beginning => self.catch_up().await,
            Role::Recording => self.record().await,
        }
    }

    /// Records events in office, or takes or loses it. `false` when the events were not recorded.
    async fn lead(&mut self, events: &[Heard]) -> Result<bool, String> {
        let updates: Vec<JobUpdate> = events.iter().filter_map(Heard::update).collect();
        let up_to = self.up_to.max(events.iter().rev().find_map(Heard::position));
        let span = Span { after: self.up_to, up_to };
        let turn = self.store.lead(&updates, span).await.map_err(|error| error.to_string())?;
        let was_waiting = self.role == Role::Waiting;
        match turn {
            Turn::Recorded => {
                self.up_to = up_to;
                // Still in office, but whatever came meanwhile was not recorded.
                self.role = if was_waiting { Role::Beginning } else { self.role };
            }
            Turn::Begin { up_to } => (self.role, self.up_to) = (Role::Beginning, up_to),
            Turn::Other => self.role = Role::Waiting,
        }
        if was_waiting != (self.role == Role::Waiting) {
            let who = if was_waiting { "this node" } else { "another node" };
            tracing::debug!("{who} records the jobs of the cluster from now on");
        }
        Ok(turn == Turn::Recorded)
    }

    /// Records the backlog, batch by batch, and renews the office when there is nothing to record.
    async fn record(&mut self) -> Result<(), String> {
        loop {
            let dropped = self.backlog.take_dropped();
            if dropped > 0 {
                tracing::warn!(
                    dropped,
                    "job events were dropped before they were recorded; plain ones are lost"
                );
                // The durable ones are in the history.
                self.role = Role::Beginning;
                return Ok(());
            }
            let batch = self.backlog.take(MAX_BATCH, MAX_BATCH_BYTES);
            let recorded = self.lead(&batch).await;
            if !matches!(recorded, Ok(true)) {
                self.backlog.put_back(batch);
                return recorded.map(drop);
            }
            if batch.len() < MAX_BATCH {
                return Ok(());
            }
        }
    }

    /// Records what was missed: the history and all that is remembered, in the order of the stream.
    async fn catch_up(&mut self) -> Result<(), String> {
        // What was dropped until now is in the history, or lost.
        self.backlog.take_dropped();
        let missed = self.source.since(self.up_to).await?;
        let mut events = self.backlog.take_merged(missed, self.up_to);
        let mut done = 0;
        while done < events.len() {
            let batch = &events[done..events.len().min(done + MAX_BATCH)];
            let recorded = self.lead(batch).await;
            if !matches!(recorded, Ok(true)) {
                self.backlog.put_back(events.split_off(done));
                return recorded.map(drop);
            }
            done += batch.len();
        }
        self.role = Role::Recording;
        Ok(())
    }

    /// Logs that recording fails and that it works again, once each.
    fn told(&mut self, done: &Result<(), String>) {
        match done {
            Ok(()) if self.failing => tracing::info!("jobs are recorded again"),
            Err(reason) if !self.failing => tracing::warn!(reason, "jobs cannot be recorded; trying again"),
            _ => {}
        }
        self.failing = done.is_err();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering};

    use futures_util::future::{FutureExt as _, ready};
    use tokio::sync::watch;
    use tokio_util::task::AbortOnDropHandle;

    use super::*;
    use crate::clock::Clock;
    use crate::jobs::{JobCounts, JobState, JobsError, MemoryJobs};
    use crate::protocol::channel::ChannelName;
    use crate::protocol::event::{Event, Key};

    /// What all nodes share: one store with one office, and a history.
    struct Cluster {
        jobs: MemoryJobs,
        office: Mutex<(Option<usize>, Option<Position>)>,
        history: Mutex<Vec<Delivery>>,
        failing: AtomicBool,
    }

    /// One node's view of it.
    struct View {
        cluster: Arc<Cluster>,
        who: usize,
        live: watch::Sender<bool>,
    }

    impl JobStore for View {
        fn record<'a>(&'a self, updates: &'a [JobUpdate]) -> BoxFuture<'a, Result<(), JobsError>> {
            self.cluster.jobs.record(updates)
        }

        fn lead<'a>(
            &'a self,
            updates: &'a [JobUpdate],
            span: Span,
        ) -> BoxFuture<'a, Result<Turn, JobsError>> {
            if self.cluster.failing.load(Ordering::SeqCst) {
                return ready(Err(JobsError("away".into()))).boxed();
            }
            let (holder, up_to) = &mut *self.cluster.office.lock().unwrap();
            let turn = match *holder {
                Some(other) if other != self.who => Turn::Other,
                Some(_) if *up_to == span.after => {
                    *up_to = span.up_to;
                    return self.cluster.jobs.lead(updates, span);
                }
                _ => Turn::Begin { up_to: *up_to },
            };
            *holder = holder.or(Some(self.who));
            ready(Ok(turn)).boxed()
        }

        fn resign(&self) -> BoxFuture<'_, Result<(), JobsError>> {
            self.cluster.vacate();
            ready(Ok(())).boxed()
        }

        fn get<'a>(&'a self, id: &'a Key) -> BoxFuture<'a, Result<Option<JobState>, JobsError>> {
            self.cluster.jobs.get(id)
        }

        fn counts(&self) -> BoxFuture<'_, Result<JobCounts, JobsError>> {
            self.cluster.jobs.counts()
        }
    }

    impl Source for View {
        fn is_live(&self) -> bool {
            *self.live.borrow()
        }

        fn live(&self) -> BoxFuture<'_, ()> {
            let mut live = self.live.subscribe();
            async move { drop(live.wait_for(|live| *live).await) }.boxed()
        }

        fn since(&self, after: Option<Position>) -> BoxFuture<'_, Result<Vec<Delivery>, String>> {
            let events = self.cluster.history.lock().unwrap();
            ready(Ok(events.iter().filter(|event| event.position > after).cloned().collect())).boxed()
        }
    }

    impl Cluster {
        fn start() -> Arc<Self> {
            Arc::new(Self {
                jobs: MemoryJobs::new(Duration::from_secs(3600), Clock::held()),
                office: Mutex::default(),
                history: Mutex::default(),
                failing: AtomicBool::new(false),
            })
        }

        /// An event of a job; a durable one is in the history.
        fn event(&self, kind: &str, job: &str, n: Option<u64>) -> Delivery {
            let position = n.map(|n| Position { epoch: 1, n });
            let data = format!(r#"{{"status":"{kind}"}}"#);
            let event = Event { key: Key::parse(job).ok(), ..Event::unnamed(data) };
            let delivery = Delivery { channel: ChannelName::jobs(), event, position };
            self.history.lock().unwrap().extend(position.map(|_| delivery.clone()));
            delivery
        }

        async fn word(&self, job: &str) -> String {
            let state = self.jobs.get(&Key::parse(job).unwrap()).await.unwrap();
            state.map_or("gone".into(), |state| state.word.into())
        }

        /// The recorder ends without a word.
        fn vacate(&self) {
            self.office.lock().unwrap().0 = None;
        }
    }

    struct Node {
        view: Arc<View>,
        backlog: Arc<Backlog>,
        _task: AbortOnDropHandle<()>,
    }

    impl Node {
        fn start(cluster: &Arc<Cluster>, who: usize) -> Self {
            let view = Arc::new(View { cluster: Arc::clone(cluster), who, live: watch::Sender::new(true) });
            let backlog = Arc::new(Backlog::new(Clock::held()));
            let recorder = Recorder::new(view.clone(), view.clone(), Arc::clone(&backlog));
            Self { view, backlog, _task: AbortOnDropHandle::new(tokio::spawn(recorder.run())) }
        }

        fn hear(&self, events: &[Delivery]) {
            events.iter().for_each(|event| self.backlog.push(event.clone()));
        }
    }

    /// Several turns of every recorder; time is not real here.
    async fn turns() {
        tokio::time::sleep(3 * TURN).await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_over_records_what_it_has_heard_and_what_it_has_missed() {
        let cluster = Cluster::start();
        let first = Node::start(&cluster, 1);
        turns().await;
        let second = Node::start(&cluster, 2);
        turns().await;
        // Heard by nobody but the first one.
        first.hear(&[cluster.event("started", "a", Some(1)), cluster.event("completed", "a", Some(2))]);
        let both = [cluster.event("started", "a", None), cluster.event("running", "b", Some(3))];
        first.hear(&both);
        second.hear(&both);
        turns().await;
        assert_eq!((cluster.word("a").await, cluster.word("b").await), ("started".into(), "running".into()));

        drop(first);
        cluster.event("completed", "b", Some(4));
        second.hear(&[cluster.event("failed", "a", None)]);
        turns().await;
        assert_eq!(cluster.word("a").await, "started", "the office is not free yet");
        cluster.vacate();
        turns().await;
        assert_eq!((cluster.word("a").await, cluster.word("b").await), ("failed".into(), "completed".into()));
        assert_eq!(cluster.office.lock().unwrap().1, Some(Position { epoch: 1, n: 4 }));
    }

    #[tokio::test(start_paused = true)]
    async fn while_the_store_is_away_nothing_is_lost_that_fits() {
        let cluster = Cluster::start();
        let node = Node::start(&cluster, 1);
        turns().await;
        cluster.failing.store(true, Ordering::SeqCst);
        for i in 0..3 * MAX_BATCH {
            node.hear(&[cluster.event("running", &i.to_string(), None), cluster.event("failed", "x", None)]);
        }
        node.hear(&[cluster.event("queued", "x", None)]);
        turns().await;
        assert_eq!(cluster.word("x").await, "gone");
        cluster.failing.store(false, Ordering::SeqCst);
        turns().await;
        assert_eq!(cluster.word("x").await, "queued");
        assert_eq!(cluster.jobs.counts().await.unwrap().in_progress, 3 * MAX_BATCH as u64);
    }

    #[tokio::test(start_paused = true)]
    async fn durable_events_that_the_backlog_dropped_come_from_the_history() {
        let cluster = Cluster::start();
        let node = Node::start(&cluster, 1);
        turns().await;
        node.hear(&[cluster.event("completed", "42", Some(1)), cluster.event("running", "plain", None)]);
        node.backlog.interrupted();
        turns().await;
        assert_eq!(
            (cluster.word("42").await, cluster.word("plain").await),
            ("completed".into(), "gone".into())
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_store_has_lost_is_recorded_again() {
        let cluster = Cluster::start();
        let node = Node::start(&cluster, 1);
        turns().await;
        node.hear(&[cluster.event("completed", "a", Some(1))]);
        turns().await;
        // A replica has taken over: it has the office and the history, but not all that was recorded.
        cluster.event("completed", "b", Some(2));
        cluster.office.lock().unwrap().1 = None;
        turns().await;
        assert_eq!(cluster.word("b").await, "completed");
        assert_eq!(cluster.office.lock().unwrap().1, Some(Position { epoch: 1, n: 2 }));
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_hears_nothing_leaves_the_office_to_another() {
        let cluster = Cluster::start();
        let deaf = Node::start(&cluster, 1);
        deaf.view.live.send_replace(false);
        let other = Node::start(&cluster, 2);
        turns().await;
        assert_eq!(cluster.office.lock().unwrap().0, Some(2));
        other.view.live.send_replace(false);
        turns().await;
        cluster.vacate();
        turns().await;
        assert_eq!(cluster.office.lock().unwrap().0, None);
        deaf.view.live.send_replace(true);
        turns().await;
        assert_eq!(cluster.office.lock().unwrap().0, Some(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_records_as_soon_as_it_hears() {
        let cluster = Cluster::start();
        let node = Node::start(&cluster, 1);
        node.view.live.send_replace(false);
        tokio::time::sleep(TURN / 10).await;
        node.view.live.send_replace(true);
        node.hear(&[cluster.event("completed", "a", None)]);
        // Its first turn is over and its next one has not come. Time is not real here.
        tokio::time::sleep(TURN / 10).await;
        assert_eq!(cluster.word("a").await, "completed");
    }
}
