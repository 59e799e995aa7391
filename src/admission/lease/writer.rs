//! The task that talks to Redis for a node: one call at a time, each with everything that has come up meanwhile.
//!
//! Nothing is waited for to fill a call: a lone newcomer is asked for at once, and under load a call carries what came in
//! while the one before it was on its way.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::call::{Call, NodeTag};
use super::state::{Lease, MAX_REQUESTS, Outcome};
use super::store::LeaseStore;
use crate::admission::local::{Met, Request};
use crate::admission::permit::{Books, Hold};
use crate::clock::{Clock, Tick};

/// How often a node that is at rest shows that it lives, and so how soon it notices that Redis has forgotten it.
pub(in crate::admission) const BEAT: Duration = Duration::from_millis(500);

/// For how long after Redis was found empty nobody is admitted: within it every node that reaches Redis has had a
/// heartbeat and has told what it holds. Less than [`PATIENCE`], so that newcomers wait it out.
pub(in crate::admission) const YOUNG: Duration = Duration::from_millis(600);

/// How long a newcomer waits for Redis, and for how long Redis may fail before newcomers no longer wait for it at all:
/// with the rest of the handshake everybody is answered within a second.
pub(in crate::admission) const PATIENCE: Duration = Duration::from_millis(800);

/// After this a call is given up.
const CALL_LIMIT: Duration = Duration::from_millis(700);

/// A call that took this much longer than its limit tells of this process, not of Redis: it was stopped or starved.
const OVERSLEPT: Duration = Duration::from_millis(250);

/// Between tries while Redis fails and newcomers wait; jittered by half of it.
const RETRY: Duration = Duration::from_millis(60);

/// Calls in a row that may be answered without being carried out (a lease lost, a member that came) before that counts
/// as a failure of Redis.
const MAX_ROUNDS: u32 = 8;

/// A newcomer that waits.
pub(in crate::admission) struct Waiting {
    pub(in crate::admission) request: Request,
    pub(in crate::admission) answer: oneshot::Sender<Answer>,
}

/// What a newcomer is told.
pub(in crate::admission) enum Answer {
    Admitted(Hold),
    Refused(Met),
    /// Redis does not answer.
    Unreachable,
}

/// What the writer and everybody else know of each other.
#[derive(Debug, Default)]
pub(in crate::admission) struct Link {
    /// Whether asking Redis makes sense. False once it has failed for [`PATIENCE`], until a call is carried out.
    pub(in crate::admission) reachable: AtomicBool,
    pub(in crate::admission) calls: AtomicU64,
    pub(in crate::admission) failed_calls: AtomicU64,
    pub(in crate::admission) lost_leases: AtomicU64,
    pub(in crate::admission) renewals: AtomicU64,
    pub(in crate::admission) failed_renewals: AtomicU64,
    /// Rung when another node has left a mandate in this node's lease.
    pub(in crate::admission) nudged: Notify,
}

/// Called with the node that should be nudged.
pub(in crate::admission) type Nudge = Box<dyn Fn(NodeTag) + Send + Sync>;

/// How Redis has been lately.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    Well,
    /// It has failed for less than [`PATIENCE`]: newcomers wait, and it is tried again soon.
    Troubled {
        since: Tick,
    },
    /// Newcomers are answered without it, and only heartbeats try it.
    Down,
}

/// See the module.
pub(in crate::admission) struct Writer {
    lease: Lease,
    store: Arc<dyn LeaseStore>,
    books: Arc<Books>,
    queue: mpsc::Receiver<Waiting>,
    link: Arc<Link>,
    clock: Clock,
    nudge: Nudge,
    /// Taken from the queue, not decided about, oldest first; at most [`MAX_REQUESTS`].
    front: VecDeque<Waiting>,
    beat_due: bool,
    health: Health,
    /// Until when nobody is admitted, because the members' record is young.
    young_until: Tick,
    /// Calls in a row that were not carried out.
    rounds: u32,
}

impl Writer {
    pub(in crate::admission) fn new(
        lease: Lease,
        store: Arc<dyn LeaseStore>,
        books: Arc<Books>,
        queue: mpsc::Receiver<Waiting>,
        link: Arc<Link>,
        clock: Clock,
        nudge: Nudge,
    ) -> Self {
        // Newcomers of the first moment wait for Redis as they would at any other.
        link.reachable.store(true, Ordering::Relaxed);
        Self {
            lease,
            store,
            books,
            queue,
            link,
            clock,
            nudge,
            front: VecDeque::new(),
            beat_due: true,
            health: Health::Well,
            young_until: Tick::default(),
            rounds: 0,
        }
    }

    /// Keeps the lease until `stop`, then gives it back.
    pub(in crate::admission) async fn run(mut self, stop: CancellationToken) {
        let mut beats = interval(BEAT);
        // After a pause one heartbeat is enough.
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                _ = beats.tick() => self.beat_due = true,
                () = self.work() => {}
            }
            while self.exchange().await && !stop.is_cancelled() {}
        }
        self.give_up();
        let leave = self.lease.leave();
        if !matches!(timeout(CALL_LIMIT, self.store.call(&leave)).await, Ok(Ok(_))) {
            tracing::warn!("the lease could not be given back; it ends by itself");
        }
    }

    /// Waits until there is something to tell or to ask.
    async fn work(&mut self) {
        match self.health {
            Health::Troubled { .. } => sleep(RETRY.mul_f64(rand::random_range(0.5..1.5))).await,
            Health::Down => std::future::pending().await,
            Health::Well => {
                while !self.has_work() {
                    self.wait_for_change().await;
                }
            }
        }
    }

    fn has_work(&self) -> bool {
        let asking = !self.front.is_empty() && self.clock.now() >= self.young_until;
        asking || self.beat_due || !self.lease.is_joined() || self.books.ask(|ledger| ledger.has_untold())
    }

    async fn wait_for_change(&mut self) {
        let young = self.young_until.since(self.clock.now());
        tokio::select! {
            Some(waiting) = self.queue.recv(), if self.front.is_empty() => self.front.push_back(waiting),
            () = self.books.changed() => {}
            () = self.link.nudged.notified() => self.beat_due = true,
            () = sleep(young), if !self.front.is_empty() => {}
        }
    }

    /// Makes one call and acts on its answer. True when the next call should follow at once, because Redis answered but
    /// did not carry this one out.
    async fn exchange(&mut self) -> bool {
        self.fill();
        let requests: Vec<Request> = self.front.iter().map(|waiting| waiting.request).collect();
        let call = self.books.next_call(&mut self.lease, &requests, self.beat_due);
        let sent = self.clock.now();
        let answer = timeout(CALL_LIMIT, self.store.call(&call)).await;
        self.link.calls.fetch_add(1, Ordering::Relaxed);
        let took = self.clock.now().since(sent);
        match answer {
            // Not after its time: while this process stood still its lease may have ended, and a decision from before
            // that would admit on counts that others no longer see.
            Ok(Ok(reply)) if took < CALL_LIMIT => {
                let (outcome, decisions) = self.books.settle(&mut self.lease, &call, reply);
                return self.act(&call, outcome, decisions);
            }
            Ok(Ok(_)) => self.failed(&call, took, "it answered too late"),
            Ok(Err(error)) => self.failed(&call, took, &error.to_string()),
            Err(_) => self.failed(&call, took, "it did not answer"),
        }
        false
    }

    /// Takes more newcomers from the queue, and forgets those who have given up.
    fn fill(&mut self) {
        self.front.retain(|waiting| !waiting.answer.is_closed());
        while self.front.len() < MAX_REQUESTS {
            let Ok(waiting) = self.queue.try_recv() else { break };
            if !waiting.answer.is_closed() {
                self.front.push_back(waiting);
            }
        }
    }

    fn act(&mut self, call: &Call, outcome: Outcome, decisions: Vec<Result<Hold, Met>>) -> bool {
        match outcome {
            Outcome::Applied { wait, mandate, nudge, .. } => {
                self.recovered();
                if is_beat(call) {
                    self.beat_due = false;
                    self.link.renewals.fetch_add(1, Ordering::Relaxed);
                }
                self.young_until = self.clock.now().after(wait);
                self.answer(decisions);
                mandate.into_iter().for_each(|(session, stamp)| self.books.replace_up_to(session, stamp));
                nudge.into_iter().for_each(|tag| (self.nudge)(tag));
                false
            }
            Outcome::Again => self.round(),
            Outcome::Lost => {
                self.link.lost_leases.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(tag = %self.lease.tag(), "Redis no longer knows this node's lease: taking a new one");
                self.round()
            }
        }
    }

    /// The decisions are about the front of the queue, in order. Whoever has left meanwhile drops the hold, and with it
    /// the count.
    fn answer(&mut self, decisions: Vec<Result<Hold, Met>>) {
        for decision in decisions {
            let Some(waiting) = self.front.pop_front() else { break };
            let answer = decision.map_or_else(Answer::Refused, Answer::Admitted);
            let _ = waiting.answer.send(answer);
        }
    }

    /// A call was answered but not carried out. False when that happens too often to try again at once.
    fn round(&mut self) -> bool {
        self.rounds += 1;
        let again = self.rounds <= MAX_ROUNDS;
        if !again {
            self.suffer("it answers, but carries nothing out", false);
        }
        again
    }

    fn failed(&mut self, call: &Call, took: Duration, why: &str) {
        self.link.failed_calls.fetch_add(1, Ordering::Relaxed);
        if is_beat(call) {
            self.link.failed_renewals.fetch_add(1, Ordering::Relaxed);
        }
        self.books.doubt(&mut self.lease, call);
        if took <= CALL_LIMIT + OVERSLEPT {
            self.suffer(why, took >= CALL_LIMIT);
        }
    }

    /// One call that hangs has used up everybody's patience by itself; others are tried again for as long as it lasts.
    fn suffer(&mut self, why: &str, hung: bool) {
        if self.health == Health::Well {
            tracing::warn!(why, "Redis fails: limits cannot be checked across the cluster");
        }
        let now = self.clock.now();
        self.health = match self.health {
            Health::Troubled { since } if !hung && now.since(since) < PATIENCE => Health::Troubled { since },
            Health::Well if !hung => Health::Troubled { since: now },
            _ => Health::Down,
        };
        if self.health == Health::Down {
            self.link.reachable.store(false, Ordering::Relaxed);
            self.give_up();
        }
    }

    /// Sends everybody who waits away without a decision.
    fn give_up(&mut self) {
        let queued = std::iter::from_fn(|| self.queue.try_recv().ok());
        for waiting in self.front.drain(..).chain(queued) {
            let _ = waiting.answer.send(Answer::Unreachable);
        }
    }

    fn recovered(&mut self) {
        self.rounds = 0;
        if self.health != Health::Well {
            tracing::info!("Redis answers again: limits hold across the cluster");
        }
        self.health = Health::Well;
        self.link.reachable.store(true, Ordering::Relaxed);
    }
}

/// Whether the call renews the lease's time.
const fn is_beat(call: &Call) -> bool {
    matches!(call, Call::Apply(apply) if apply.beat.is_some())
}
