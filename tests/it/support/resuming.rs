//! Clients that come back as a browser's `EventSource` does, publishers that try again, and the account of both.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fanlight::cli::bench::checker::{Checker, Receipt, Verdict};
use rand::Rng as _;
use serde_json::{Value, json};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::http::Request;
use super::sse::{End, SseClient, SseRequest};
use super::wait::{check, eventually, secs};

/// The channel of the numbered events; nothing but durable events is published on it.
pub(crate) const CHANNEL: &str = "pending-changes";

/// Numbered events in one request, and how often: 500 a second.
const BATCH: u64 = 10;
const PERIOD: Duration = Duration::from_millis(20);

/// The nodes that a balancer would send to at the moment.
#[derive(Clone, Debug)]
pub(crate) struct Balancer(Arc<Mutex<Vec<SocketAddr>>>);

impl Balancer {
    pub(crate) fn new(nodes: impl IntoIterator<Item = SocketAddr>) -> Self {
        Self(Arc::new(Mutex::new(nodes.into_iter().collect())))
    }

    pub(crate) fn leave(&self, node: SocketAddr) {
        self.0.lock().unwrap().retain(|other| *other != node);
    }

    pub(crate) fn join(&self, node: SocketAddr) {
        self.0.lock().unwrap().push(node);
    }

    fn pick(&self) -> SocketAddr {
        let nodes = self.0.lock().unwrap();
        nodes[rand::rng().random_range(0..nodes.len())]
    }
}

/// What becomes of a batch that was not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unacknowledged {
    /// It is published again, with the same keys.
    Again,
    /// It is left. For a Redis that may forget the keys of what it has delivered, as a failover does.
    Left,
}

/// What is known of one client beside what it received.
#[derive(Clone, Copy, Debug, Default)]
struct Standing {
    at: Option<SocketAddr>,
    gaps: u64,
}

#[derive(Debug)]
struct Shared {
    balancer: Balancer,
    checker: Mutex<Checker>,
    standings: Vec<Mutex<Standing>>,
    /// When somebody came back.
    returns: Mutex<Vec<Instant>>,
    /// By how much the pauses that the server asks for are divided.
    haste: u32,
    unacknowledged: Unacknowledged,
    published: AtomicU64,
}

/// Clients that resume wherever the balancer sends them, and one publisher of 500 durable events a second.
#[derive(Debug)]
pub(crate) struct Resuming {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
    publisher: Option<AbortHandle>,
    stop: Arc<AtomicU64>,
}

impl Resuming {
    /// Opens `count` clients and begins to publish when all are there. Pauses are `haste` times shorter than the server asks
    /// for.
    pub(crate) async fn start(
        balancer: Balancer,
        count: usize,
        haste: u32,
        unacknowledged: Unacknowledged,
    ) -> Self {
        let shared = Arc::new(Shared {
            balancer,
            checker: Mutex::new(Checker::new(count, 0)),
            standings: (0..count).map(|_| Mutex::default()).collect(),
            returns: Mutex::default(),
            haste,
            unacknowledged,
            published: AtomicU64::new(0),
        });
        let mut tasks = JoinSet::new();
        for index in 0..count {
            tasks.spawn(Arc::clone(&shared).live(index));
        }
        let stop = Arc::new(AtomicU64::new(0));
        let mut resuming = Self { shared, tasks, publisher: None, stop };
        resuming.all_open().await;
        let publishing = Arc::clone(&resuming.shared).publish(Arc::clone(&resuming.stop));
        resuming.publisher = Some(resuming.tasks.spawn(publishing));
        resuming
    }

    /// How many clients are connected to `node`.
    pub(crate) fn at(&self, node: SocketAddr) -> usize {
        self.shared.standings.iter().filter(|standing| standing.lock().unwrap().at == Some(node)).count()
    }

    /// Waits until every client is connected.
    pub(crate) async fn all_open(&self) {
        eventually("every client is connected", secs(60), async || {
            let away =
                self.shared.standings.iter().filter(|standing| standing.lock().unwrap().at.is_none()).count();
            check(away == 0, format!("{away} are away"))
        })
        .await;
    }

    /// Waits until every client has an event that was published after this was called, and returns how long that took.
    pub(crate) async fn all_current(&self, within: Duration) -> Duration {
        let start = Instant::now();
        let wanted = self.shared.published.load(Ordering::Relaxed);
        eventually("every client has a new event", within, async || {
            let checker = self.shared.checker.lock().unwrap();
            let behind = checker.streams.iter().filter(|stream| !stream.is_beyond(wanted)).count();
            check(behind == 0, format!("{behind} clients have none after {wanted}"))
        })
        .await;
        start.elapsed()
    }

    /// How many gaps each client was told.
    pub(crate) fn gaps(&self) -> Vec<u64> {
        self.shared.standings.iter().map(|standing| standing.lock().unwrap().gaps).collect()
    }

    /// When clients came back since the last time that this was asked.
    pub(crate) fn take_returns(&self) -> Vec<Instant> {
        std::mem::take(&mut self.shared.returns.lock().unwrap())
    }

    /// Ends publishing, waits for what is on its way, and sums up.
    pub(crate) async fn settle(self) -> Verdict {
        self.stop.store(1, Ordering::Relaxed);
        let publisher = self.publisher.as_ref().expect("it publishes");
        eventually("the publisher has ended", secs(30), async || check(publisher.is_finished(), "not yet"))
            .await;
        self.all_open().await;
        let last = self.shared.published.load(Ordering::Relaxed);
        let verdict = || self.shared.checker.lock().unwrap().verdict();
        // What does not come at all is for the caller to find in the verdict.
        let patience = Instant::now() + secs(20);
        while Instant::now() < patience {
            let checker = self.shared.checker.lock().unwrap().clone();
            if checker.streams.iter().all(|stream| last == 0 || stream.is_beyond(last - 1)) {
                break;
            }
            sleep(Duration::from_millis(50)).await;
        }
        verdict()
    }
}

impl Shared {
    /// The life of one client.
    async fn live(self: Arc<Self>, index: usize) {
        let mut position: Option<String> = None;
        let mut first = true;
        loop {
            let node = self.balancer.pick();
            let mut request = SseRequest::new(&format!("/api/sse/stream?channels={CHANNEL}")).unrecorded();
            if let Some(position) = &position {
                request = request.last_event_id(position);
            }
            if !std::mem::take(&mut first) {
                self.returns.lock().unwrap().push(Instant::now());
            }
            let pause = match request.try_open(node).await {
                Ok(client) if client.head.status == 200 => {
                    self.follow(index, node, client, &mut position).await
                }
                // A balancer would try the next node at once.
                _ => Duration::from_millis(50),
            };
            self.standings[index].lock().unwrap().at = None;
            sleep(pause / self.haste).await;
        }
    }

    /// Reads until the end; how long to wait before coming back.
    async fn follow(
        &self,
        index: usize,
        node: SocketAddr,
        mut client: SseClient,
        position: &mut Option<String>,
    ) -> Duration {
        let mut retry = secs(3);
        loop {
            let block = match client.next_block(secs(600)).await {
                Ok(block) => block,
                Err(End::TimedOut) => continue,
                Err(_) => return retry,
            };
            if let Some(ms) = block.retry {
                retry = Duration::from_millis(ms);
            }
            match block.event.as_deref() {
                Some("connected") => self.standings[index].lock().unwrap().at = Some(node),
                Some("gap") => {
                    self.standings[index].lock().unwrap().gaps += 1;
                    let stream = &mut self.checker.lock().unwrap().streams[index];
                    match block.json()["reason"].as_str() {
                        Some("history_lost") => stream.history_lost(),
                        _ => stream.gap(),
                    }
                }
                Some("numbered") => {
                    let n = block.json()["n"].as_u64().unwrap();
                    let receipt = self.checker.lock().unwrap().streams[index].receive(n);
                    if receipt != Receipt::InOrder {
                        let (id, before) = (&block.id, &position);
                        println!("client {index} of {node}: {n} is {receipt:?}, {id:?} after {before:?}");
                    }
                }
                _ => {}
            }
            if block.id.is_some() {
                *position = block.id;
            }
        }
    }

    /// Publishes until told to stop, wherever the balancer sends it.
    async fn publish(self: Arc<Self>, stop: Arc<AtomicU64>) {
        let run: u64 = rand::rng().random();
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut next = 0;
        while stop.load(Ordering::Relaxed) == 0 {
            ticks.tick().await;
            let batch: Vec<Value> = (next..next + BATCH)
                .map(|n| {
                    json!({ "channel": CHANNEL, "event": "numbered", "data": { "n": n },
                            "idempotencyKey": format!("{run}-{n}") })
                })
                .collect();
            let request = Request::post("/api/events", &Value::Array(batch));
            if self.is_acknowledged(&request).await {
                let mut checker = self.checker.lock().unwrap();
                (next..next + BATCH).for_each(|n| checker.acknowledge(n));
            }
            next += BATCH;
            self.published.store(next, Ordering::Relaxed);
        }
    }

    async fn is_acknowledged(&self, request: &Request) -> bool {
        while !request.send(self.balancer.pick()).await.is_ok_and(|answer| answer.status() == 202) {
            if self.unacknowledged == Unacknowledged::Left {
                return false;
            }
            sleep(Duration::from_millis(20)).await;
        }
        true
    }
}
