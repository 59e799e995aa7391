//! May this connection come in: the connect rate per address, the node's capacity, and the limits per address and per
//! session that hold over the whole cluster.
//!
//! It knows nothing of HTTP: a refusal is a value with a code. It does not know what a connection is either: it hands out
//! a [`Permit`], and whoever holds that is counted. Which addresses may speak for a client is decided here
//! ([`TrustedProxies`]); reading the headers and checking origins and tokens is not. `docs/limits.md` says what the limits
//! promise.

mod address;
mod capacity;
mod forwarded;
#[cfg(test)]
mod hostile_headers;
pub mod key;
pub mod lease;
pub mod local;
mod permit;
mod rate;
mod refusal;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{Instrument as _, Span, field};

use self::lease::state::Lease;
use self::lease::writer::{Answer, Link, Nudge, PATIENCE, Waiting, Writer, YOUNG};
use self::local::{Ledger, Met};
use self::permit::{Books, Hold};
use self::rate::ConnectRates;
use crate::clock::Clock;
use crate::trace;

pub use self::address::{BadNetwork, TrustedProxies};
pub use self::capacity::{Capacity, Seat};
pub use self::key::{IpKey, SessionKey};
pub use self::lease::call::NodeTag;
pub use self::lease::store::{LeaseStore, RedisLeases};
pub use self::local::{Limits, Request, SessionPolicy};
pub use self::permit::Permit;
pub use self::rate::{BadRate, ConnectRate};
pub use self::refusal::Refusal;

/// Newcomers that may wait for Redis at once; for more it is as if Redis did not answer. It decides about so many within
/// a second, so in a longer queue people would lose their patience before their turn.
const QUEUE: usize = 16_384;

/// What happens to newcomers while Redis does not answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WithoutRedis {
    /// The limits hold for this node's own connections.
    #[default]
    Local,
    /// Nobody comes in.
    Closed,
    /// Everybody comes in, up to the node's capacity.
    Open,
}

/// The settings of this room.
#[derive(Clone, Debug)]
pub struct Config {
    /// Connections that this node takes.
    pub max_connections: usize,
    /// The cluster-wide limits.
    pub limits: Limits,
    /// Tries per address on this node; `None` = no limit.
    pub connect_rate: Option<ConnectRate>,
    /// After a node dies its slots are free within this + 2 s. At least [`MIN_LEASE_TTL`].
    pub lease_ttl: Duration,
    /// What happens while Redis does not answer.
    pub without_redis: WithoutRedis,
}

/// Shorter leases would end between two heartbeats of a node that merely waits for its processor.
pub const MIN_LEASE_TTL: Duration = Duration::from_secs(2);

/// What the statistics and the health of a node say about its admission.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Redis decides. False while newcomers are answered without it; always true without a Redis.
    pub cluster_wide: bool,
    /// Connections, undecided newcomers included.
    pub connections: usize,
    /// Calls to Redis since the start.
    pub calls: u64,
    /// Calls to Redis that failed.
    pub failed_calls: u64,
    /// How often Redis had forgotten this node's lease.
    pub lost_leases: u64,
    /// Heartbeats of the lease that Redis has taken.
    pub renewals: u64,
    /// Heartbeats of the lease that it has not, or of which that is not known.
    pub failed_renewals: u64,
}

/// The door. Shared by everybody who lets connections in; the task behind it ends with it.
pub struct Admission {
    config: Config,
    rates: Option<ConnectRates>,
    capacity: Capacity,
    books: Arc<Books>,
    cluster: Option<Cluster>,
}

/// The way to the task that asks Redis.
struct Cluster {
    tag: NodeTag,
    link: Arc<Link>,
    queue: mpsc::Sender<Waiting>,
    stop: CancellationToken,
    /// Ends with its owner. Without [`Admission::shutdown`] that is as if the node had died: the lease ends by itself.
    task: Mutex<Option<AbortOnDropHandle<()>>>,
}

impl Cluster {
    fn start(admission: &Admission, store: Arc<dyn LeaseStore>, clock: Clock, nudge: Nudge) -> Self {
        let tag = NodeTag::random();
        let link = Arc::new(Link::default());
        let stop = CancellationToken::new();
        let (queue, waiting) = mpsc::channel(QUEUE);
        let lease = Lease::new(tag, admission.config.lease_ttl.max(MIN_LEASE_TTL), YOUNG);
        let books = Arc::clone(&admission.books);
        let writer = Writer::new(lease, store, books, waiting, Arc::clone(&link), clock, nudge);
        let task = AbortOnDropHandle::new(tokio::spawn(writer.run(stop.clone())));
        Self { tag, link, queue, stop, task: Mutex::new(Some(task)) }
    }
}

impl Admission {
    /// Without a Redis: this node is the cluster.
    pub fn alone(config: Config, clock: Clock) -> Self {
        let rates = config.connect_rate.map(|rate| ConnectRates::new(rate, clock));
        let capacity = Capacity::new(config.max_connections);
        let books = Books::new(Ledger::new(config.limits));
        Self { config, rates, capacity, books, cluster: None }
    }

    /// With the other nodes that share `store`. Call it within a tokio runtime.
    ///
    /// `nudge` should see to it that the node with that tag calls [`Admission::nudged`], for example by a message to all
    /// nodes. It only makes replacing fast: a message that is lost costs at most a heartbeat of half a second.
    pub fn clustered(
        config: Config,
        store: Arc<dyn LeaseStore>,
        clock: Clock,
        nudge: impl Fn(NodeTag) + Send + Sync + 'static,
    ) -> Self {
        let mut admission = Self::alone(config, clock.clone());
        admission.cluster = Some(Cluster::start(&admission, store, clock, Box::new(nudge)));
        admission
    }

    /// Counts a try to connect. To be asked first of all: it costs no work.
    ///
    /// # Errors
    /// [`Refusal::RateLimit`].
    pub fn check_rate(&self, ip: IpKey) -> Result<(), Refusal> {
        let Some(rates) = &self.rates else { return Ok(()) };
        rates.check(ip).map_err(|retry_after| Refusal::RateLimit { retry_after })
    }

    /// Lets a connection in, or says why not, within 800 ms whatever Redis does.
    ///
    /// It may be cancelled at any moment: then nobody is counted.
    ///
    /// # Errors
    /// Every refusal but [`Refusal::RateLimit`]. Nothing is counted for the refused.
    pub async fn admit(&self, request: Request) -> Result<Permit, Refusal> {
        let limit = self.capacity.max();
        let seat = self.capacity.take().ok_or(Refusal::Capacity { limit })?;
        let limits = &self.config.limits;
        if limits.ip_of(&request).is_none() && limits.session_of(&request).is_none() {
            return Ok(Permit::new(None, seat));
        }
        let decision = match &self.cluster {
            Some(cluster) => self.ask(cluster, request).await?,
            None => self.on_this_node(&request),
        };
        self.permit(decision, seat)
    }

    fn permit(&self, decision: Result<Hold, Met>, seat: Seat) -> Result<Permit, Refusal> {
        let Limits { per_ip, per_session, .. } = self.config.limits;
        match decision {
            Ok(hold) => Ok(Permit::new(Some(hold), seat)),
            Err(Met::Ip) => Err(Refusal::IpLimit { limit: per_ip }),
            Err(Met::Session) => Err(Refusal::SessionLimit { limit: per_session }),
        }
    }

    /// Asks Redis, unless this node's own connections answer already or Redis does not.
    async fn ask(&self, cluster: &Cluster, request: Request) -> Result<Result<Hold, Met>, Refusal> {
        if !cluster.link.reachable.load(Ordering::Relaxed) {
            return self.without_redis(&request);
        }
        if let Some(met) = self.books.ask(|ledger| ledger.meets(&request)) {
            return Ok(Err(met));
        }
        let (answer, decision) = oneshot::channel();
        let waiting = Waiting { request, answer };
        if cluster.queue.try_send(waiting).is_err() {
            return self.without_redis(&request);
        }
        let span = span();
        match timeout(PATIENCE, decision).instrument(span.clone()).await {
            Ok(Ok(Answer::Admitted(hold))) => Ok(Ok(hold)),
            Ok(Ok(Answer::Refused(met))) => Ok(Err(met)),
            Ok(Ok(Answer::Unreachable) | Err(_)) | Err(_) => {
                span.record("otel.status_code", "ERROR");
                span.record("error.type", "unavailable");
                self.without_redis(&request)
            }
        }
    }

    fn without_redis(&self, request: &Request) -> Result<Result<Hold, Met>, Refusal> {
        match self.config.without_redis {
            WithoutRedis::Local => Ok(self.on_this_node(request)),
            WithoutRedis::Closed => Err(Refusal::LimitsUnavailable),
            WithoutRedis::Open => Ok(self.books.enter_unasked(request, |_| None)),
        }
    }

    fn on_this_node(&self, request: &Request) -> Result<Hold, Met> {
        self.books.enter_unasked(request, |ledger| ledger.meets(request))
    }

    /// Connections whose handshake is over.
    pub fn settled(&self) -> usize {
        self.capacity.settled()
    }

    /// Connections, those in their handshake included.
    pub fn taken(&self) -> usize {
        self.capacity.taken()
    }

    /// The greatest number of connections on this node.
    pub const fn max_connections(&self) -> usize {
        self.capacity.max()
    }

    /// Which node this is in the leases; `None` without a Redis.
    pub fn tag(&self) -> Option<NodeTag> {
        self.cluster.as_ref().map(|cluster| cluster.tag)
    }

    /// Another node has ordered some of this node's connections to be replaced.
    pub fn nudged(&self) {
        if let Some(cluster) = &self.cluster {
            cluster.link.nudged.notify_one();
        }
    }

    /// How it is doing.
    pub fn status(&self) -> Status {
        let connections = self.capacity.taken();
        let Some(link) = self.cluster.as_ref().map(|cluster| &cluster.link) else {
            return Status { cluster_wide: true, connections, ..Status::default() };
        };
        Status {
            cluster_wide: link.reachable.load(Ordering::Relaxed),
            connections,
            calls: link.calls.load(Ordering::Relaxed),
            failed_calls: link.failed_calls.load(Ordering::Relaxed),
            lost_leases: link.lost_leases.load(Ordering::Relaxed),
            renewals: link.renewals.load(Ordering::Relaxed),
            failed_renewals: link.failed_renewals.load(Ordering::Relaxed),
        }
    }

    /// Gives the lease back, so that this node's slots are free at once; takes at most 1.5 s. Newcomers are answered as
    /// if Redis were away.
    pub async fn shutdown(&self) {
        let Some(cluster) = &self.cluster else { return };
        cluster.stop.cancel();
        if let Some(task) = cluster.task.lock().await.take()
            && let Err(error) = task.await
        {
            tracing::error!(%error, "the admission task failed");
        }
    }
}

/// Asking Redis whether a stream may open, by OpenTelemetry's conventions (semantic conventions 1.44, Redis client). The call
/// itself is one for all who ask at the time, and so in nobody's trace.
fn span() -> Span {
    if !trace::is_traced() {
        return Span::none();
    }
    tracing::info_span!(
        target: trace::TARGET,
        "admit",
        otel.kind = "client",
        otel.status_code = field::Empty,
        error.type = field::Empty,
        db.system.name = "redis",
        db.operation.name = "EVALSHA",
    )
}
