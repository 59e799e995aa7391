//! The use cases: subscribe, publish, deliver, drain. Each is small; the rooms below do the work.
//!
//! The node is the only place that knows both the hub and the broker. It has never heard of HTTP.

mod agents;
mod connections;
mod deliver;
mod drain;
mod history;
pub mod interest;
mod job_stream;
mod jobs;
mod metrics;
mod passed;
mod peers;
mod process;
mod publish;
mod report;
mod resume;
mod spans;
mod streak;
mod subscribe;
mod tally;
mod topics;
mod vitals;
mod watch;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::JoinHandle;

use crate::admission::{self, Admission};
use crate::broker::{Broker, Notice, Status};
use crate::clock::Clock;
use crate::cluster::Cluster;
use crate::hub::Hub;
use crate::jobs::JobStore;
use crate::protocol::channel::ChannelPattern;
use agents::Agents;
use history::HistoryReader;
use interest::Interest;
use jobs::Jobs;
use passed::Passed;
use peers::Peers;
use process::Process;
use streak::Streak;
use tally::Tally;
use vitals::Vitals;

pub use crate::admission::{Refusal as LimitMet, TrustedProxies};
pub use crate::cluster::Stats;
pub use connections::{ConnectionPage, Kicked};
pub use jobs::{JobRefusal, JobsOverview};
pub use metrics::MetricsFormat;
pub use peers::{PeersUnreachable, nudge};
pub use publish::PublishRefusal;
pub use subscribe::{Attachment, Client, Socket, SubscribeRequest};

/// Handshakes that wait for the broker at a time: as many as their channels fit into one `SUBSCRIBE`, so that more would
/// only wait elsewhere.
const MAX_HANDSHAKES: usize = 512;

/// What a node is told at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// Shown to clients and in the statistics.
    pub node_id: Arc<str>,
    /// Channels that anyone may read.
    pub channels: Vec<ChannelPattern>,
    /// The largest event data, in bytes.
    pub max_event_bytes: usize,
    /// Over how long a drain spreads the closings.
    pub drain: Duration,
    /// An event's span on a node points at the publisher's and is not its child.
    pub trace_links: bool,
    /// The memory that the node may use, in bytes; `None` for the limit of its container, if it is in one.
    pub memory_limit: Option<u64>,
}

/// Why a stream is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A limit, of the node or of the cluster.
    Admission(admission::Refusal),
    /// The node is short of memory or files.
    Overloaded,
    /// The node is going.
    Draining,
    /// A channel that may not be read, or that does not exist: both answer alike.
    Forbidden,
}

/// What a node is put together from.
pub struct Rooms {
    /// The time.
    pub clock: Clock,
    /// The local fanout.
    pub hub: Hub,
    /// What the broker is asked for.
    pub interest: Arc<Interest>,
    /// The door.
    pub admission: Admission,
    /// The other nodes, and the totals.
    pub cluster: Cluster,
    /// Pub/sub and history.
    pub broker: Arc<dyn Broker>,
    /// What the broker yields.
    pub notices: mpsc::Receiver<Notice>,
    /// The states of the jobs.
    pub jobs: Arc<dyn JobStore>,
}

/// One `fanlight` process, without its HTTP.
pub struct Node {
    config: Config,
    clock: Clock,
    hub: Arc<Hub>,
    broker: Arc<dyn Broker>,
    interest: Arc<Interest>,
    history: HistoryReader,
    publishing: Streak,
    jobs: Jobs,
    passed: Arc<Passed>,
    peers: Peers,
    agents: Agents,
    admission: Admission,
    handshakes: Semaphore,
    cluster: Cluster,
    tally: Arc<Tally>,
    vitals: Vitals,
    draining: AtomicBool,
    drain_ordered: Notify,
}

/// The tasks of a node; they end when this is dropped.
pub struct Tasks(Vec<JoinHandle<()>>);

impl Drop for Tasks {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

impl Node {
    /// Puts a node together and starts its tasks on the current runtime.
    pub fn start(config: Config, rooms: Rooms) -> (Arc<Self>, Tasks) {
        let Rooms { clock, hub, interest, admission, cluster, broker, notices, jobs } = rooms;
        let handshakes = Semaphore::new(MAX_HANDSHAKES);
        let draining = AtomicBool::new(false);
        let hub = Arc::new(hub);
        let (peer_words, peer_queue) = mpsc::channel(connections::PEER_QUEUE);
        let tally = Arc::new(Tally::new(Arc::clone(cluster.heard())));
        let (jobs, recorder, backlog) = Jobs::start(jobs, &broker, &interest, &clock);
        let passed = Arc::new(Passed::default());
        let pump = deliver::Pump::new(
            Arc::clone(&hub),
            Arc::clone(&interest),
            Arc::clone(&tally),
            Arc::clone(&passed),
            deliver::Tracing { clock: clock.clone(), link: config.trace_links },
            peer_words,
            backlog,
        );
        let (history, readers) = history::reader(Arc::clone(&broker));
        let (peers, agents) = (Peers::new(Arc::clone(&broker)), Agents::default());
        let expiry = Arc::clone(&interest).expire();
        let process = Process::new(config.memory_limit, clock.clone());
        let vitals = Vitals::new(clock.now());
        let node = Arc::new(Self {
            config,
            clock,
            hub,
            broker,
            interest,
            history,
            publishing: Streak::new("publishing"),
            jobs,
            passed,
            peers,
            agents,
            admission,
            handshakes,
            cluster,
            tally,
            vitals,
            draining,
            drain_ordered: Notify::new(),
        });
        let tasks = vec![
            tokio::spawn(pump.run(notices)),
            tokio::spawn(readers.run()),
            tokio::spawn(recorder.run()),
            tokio::spawn(expiry),
            tokio::spawn(Arc::clone(&node).answer_peers(peer_queue)),
            tokio::spawn(Arc::clone(&node).look_after_itself(process)),
        ];
        (node, Tasks(tasks))
    }

    /// The node's id.
    pub fn id(&self) -> &str {
        &self.config.node_id
    }

    /// The node's clock.
    pub const fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The largest event data, in bytes.
    pub const fn max_event_bytes(&self) -> usize {
        self.config.max_event_bytes
    }

    /// How the broker is doing.
    pub fn broker_status(&self) -> Status {
        self.broker.status().borrow().clone()
    }

    /// Streams open or in their handshake.
    pub fn seats_taken(&self) -> usize {
        self.admission.taken()
    }

    /// Streams whose handshake is over.
    pub fn streams(&self) -> usize {
        self.admission.settled()
    }

    /// The greatest number of streams.
    pub fn max_connections(&self) -> usize {
        self.admission.max_connections()
    }

    /// Counts a try of this address to open a stream. To be asked before any other work.
    ///
    /// # Errors
    /// When the address tries too often.
    pub fn check_rate(&self, ip: IpAddr) -> Result<(), Refusal> {
        self.admission.check_rate(ip.into()).map_err(Refusal::Admission)
    }

    /// Gives the node's slots back to the cluster; whoever asks to come in is then answered as if Redis were away.
    pub async fn leave(&self) {
        self.admission.shutdown().await;
    }
}
