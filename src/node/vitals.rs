//! Once a second the node looks at itself, acts on what it sees, and tells the cluster.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, timeout};

use super::process::{Process, Usage};
use super::watch::{Pressure, Signs, Watch};
use super::{Node, Tasks};
use crate::broker::Status;
use crate::clock::Tick;
use crate::hub::{Counters, Strain};
use crate::protocol::close::CloseReason;

/// How often the node looks at itself and how often its heartbeat goes.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long the shards are waited for. One that does not answer for so long is stuck.
const SHARD_LIMIT: Duration = Duration::from_millis(900);

/// How long the last heartbeat may take.
const FAREWELL_LIMIT: Duration = Duration::from_secs(1);

/// While memory or files are short, one stream in so many is closed in a second, but at least [`MIN_SHED`].
const SHED_SHARE: u64 = 50;

const MIN_SHED: u64 = 10;

/// What the node knows of itself.
pub(super) struct Vitals {
    pub(super) started: Tick,
    pub(super) address: OnceLock<String>,
    was_ready: AtomicBool,
    refusing: AtomicBool,
    watch: Mutex<Watch>,
    usage: Mutex<Usage>,
    /// What the shards said last.
    counters: Mutex<Counters>,
    /// How hard they had to work in the last second.
    strain: Mutex<Strain>,
}

impl Vitals {
    pub(super) fn new(started: Tick) -> Self {
        Self {
            started,
            address: OnceLock::new(),
            was_ready: AtomicBool::new(false),
            refusing: AtomicBool::new(false),
            watch: Mutex::default(),
            usage: Mutex::default(),
            counters: Mutex::default(),
            strain: Mutex::default(),
        }
    }

    fn watch(&self) -> MutexGuard<'_, Watch> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the process used at the last look.
    pub(super) fn usage(&self) -> MutexGuard<'_, Usage> {
        self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How hard the shards had to work in the last second.
    pub(super) fn strain(&self) -> Strain {
        *self.strain.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether memory or files are too short for newcomers.
    pub(super) fn is_refusing(&self) -> bool {
        self.refusing.load(Ordering::Relaxed)
    }
}

impl Node {
    /// Tells the cluster of this node from now on, and that it listens there.
    pub fn announce(self: &Arc<Self>, address: impl Into<String>, tasks: &mut Tasks) {
        // A second address would be another listener's; the first one is the public one.
        let _ = self.vitals.address.set(address.into());
        tasks.0.push(tokio::spawn(Arc::clone(self).beat()));
    }

    /// Ready once, ready for good: all nodes going unready together when Redis is lost would help nobody.
    pub fn was_ready(&self) -> bool {
        let status = self.broker_status();
        if status.subscribed && status.probed_at.is_some() {
            self.vitals.was_ready.store(true, Ordering::Relaxed);
        }
        self.vitals.was_ready.load(Ordering::Relaxed)
    }

    /// Why the node does not work as it should; empty when it does. Without secrets.
    pub fn troubles(&self) -> Vec<String> {
        let status = self.broker_status();
        let unsubscribed = || status.problem.clone().unwrap_or_else(|| "not subscribed to the broker".into());
        let broker = (!status.subscribed).then(unsubscribed);
        broker.into_iter().chain(self.vitals.watch().reasons()).collect()
    }

    /// Sends the heartbeats, for as long as it is polled.
    async fn beat(self: Arc<Self>) {
        let mut timer = tokio::time::interval(INTERVAL);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failing = false;
        loop {
            timer.tick().await;
            let answer = self.cluster.beat(&self.report().await).await;
            match &answer {
                Err(error) if !failing => tracing::warn!(%error, "heartbeats fail; trying on"),
                Ok(()) if failing => tracing::info!("heartbeats arrive again"),
                _ => {}
            }
            failing = answer.is_err();
        }
    }

    /// Tells the cluster what was counted in the end, and that this node is gone. To be called when nothing is counted or
    /// recorded any more.
    pub async fn say_farewell(&self) {
        self.jobs.resign().await;
        let counts = self.report().await.counts;
        match timeout(FAREWELL_LIMIT, self.cluster.leave(&counts)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the cluster was not told the last counts"),
            Err(_) => tracing::warn!("the cluster was not told the last counts in time"),
        }
    }

    /// Looks at the node, and does what follows from it, for as long as it is polled.
    pub(super) async fn look_after_itself(self: Arc<Self>, mut process: Process) {
        let mut timer = tokio::time::interval(INTERVAL);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            timer.tick().await;
            let looked = tokio::task::spawn_blocking(move || {
                let usage = process.look();
                (process, usage)
            });
            // Fails only when reading panicked, which the panic hook has reported, or at the end of the runtime.
            let Ok((back, usage)) = looked.await else { return };
            process = back;
            *self.vitals.usage() = usage;
            self.judge(usage).await;
        }
    }

    async fn judge(&self, usage: Usage) {
        let stuck = Strain { longest_turn: SHARD_LIMIT, fullest_inbox: 1.0 };
        let strain = timeout(SHARD_LIMIT, self.hub.strain()).await.unwrap_or(stuck);
        *self.vitals.strain.lock().unwrap_or_else(PoisonError::into_inner) = strain;
        let counters = self.counters().await;
        let pressure = {
            let mut watch = self.vitals.watch();
            watch.look(&self.signs(usage, strain, &counters));
            watch.pressure()
        };
        self.vitals.refusing.store(pressure >= Pressure::Refuse, Ordering::Relaxed);
        if pressure == Pressure::Shed && counters.connections > 0 {
            let count = (counters.connections / SHED_SHARE).max(MIN_SHED);
            let shed =
                timeout(SHARD_LIMIT, self.hub.shed(usize::try_from(count).unwrap_or(usize::MAX))).await;
            tracing::warn!(streams = ?shed.ok(), "memory or files are short: streams that were idle for longest are closed");
        }
    }

    /// What the shards have counted; what they said last when one of them is stuck.
    pub async fn counters(&self) -> Counters {
        let counted = timeout(SHARD_LIMIT, self.hub.counters()).await;
        let mut last = self.vitals.counters.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(counters) = counted {
            *last = counters;
        }
        last.clone()
    }

    fn signs(&self, usage: Usage, strain: Strain, counters: &Counters) -> Signs {
        let Status { lag, probed_at, .. } = self.broker_status();
        let (publications, failed_publications) = self.tally.publications();
        let share = |used: u64, limit: u64| if limit == 0 { 0.0 } else { used as f64 / limit as f64 };
        Signs {
            broker_lag: lag,
            probe_age: probed_at.map(|at| self.clock.now().since(at)),
            silence: self.cluster.silence(),
            strain,
            streams: counters.connections,
            slow: counters.closed_for(CloseReason::SlowConsumer),
            errors: self.errors(),
            publications,
            failed_publications,
            memory: usage.memory_limit.map(|limit| share(usage.against_limit, limit)),
            files: share(usage.open_files, usage.max_files),
        }
    }

    /// What failed, here and in the broker.
    pub(super) fn errors(&self) -> u64 {
        self.tally.errors() + self.broker_status().dropped
    }
}
