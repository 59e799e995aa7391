//! Redis under Sentinel: after a failover everything reaches the new master by itself, and what the old one took with it
//! is told.
//!
//! A replica that takes over may lack the last events that the master had acknowledged; a Redis cannot promise more. They
//! are counted here, and whoever misses one must have been told `gap`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use futures_util::future::join_all;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant, sleep};

use crate::support::node::fanlight;
use crate::support::sentinel::{Failover, Sentinels};
use crate::support::wait::check;
use crate::support::{Node, NodeBuilder, Request, SseRequest, eventually, secs};

const PATH: &str = "/stream?channels=jobs";

/// How many masters fall in `make chaos`; in `make test` one does.
const FAILOVERS: usize = 10;

fn failovers() -> usize {
    if std::env::var_os("FANLIGHT_CHAOS").is_some() { FAILOVERS } else { 1 }
}

/// The numbers whose publication was acknowledged, and when.
type Acknowledged = BTreeMap<u64, Instant>;

/// Where the nodes are now.
type Places = Arc<Mutex<Vec<SocketAddr>>>;

/// What a client got, over all its connections.
#[derive(Debug, Default)]
struct Seen {
    /// The numbers of the events, in order.
    numbers: Vec<u64>,
    /// When there was a `gap`, with its reason.
    gaps: Vec<(Instant, String)>,
    /// Numbers that came again, or out of order, within a connection.
    astray: Vec<u64>,
    connections: usize,
}

impl Seen {
    /// What was acknowledged and is missing: all of it, and what no `gap` was told of afterwards.
    fn missing(&self, acknowledged: &Acknowledged) -> (usize, Vec<u64>) {
        let got: BTreeSet<u64> = self.numbers.iter().copied().collect();
        let lost: Vec<_> = acknowledged.iter().filter(|(n, _)| !got.contains(n)).collect();
        let told = |since: Instant| self.gaps.iter().any(|(at, _)| *at >= since);
        (lost.len(), lost.into_iter().filter(|(_, at)| !told(**at)).map(|(n, _)| *n).collect())
    }
}

/// Clients that come back with their position, to the next node.
struct Clients {
    seen: Vec<Arc<Mutex<Seen>>>,
    _tasks: JoinSet<()>,
}

impl Clients {
    async fn start(nodes: &Places, count: usize) -> Self {
        let seen: Vec<_> = (0..count).map(|_| Arc::<Mutex<Seen>>::default()).collect();
        let mut tasks = JoinSet::new();
        for (i, seen) in seen.iter().enumerate() {
            tasks.spawn(follow(Arc::clone(nodes), i, Arc::clone(seen)));
        }
        let this = Self { seen, _tasks: tasks };
        this.all("connected", secs(20), |seen| seen.connections > 0).await;
        this
    }

    fn each(&self) -> impl Iterator<Item = MutexGuard<'_, Seen>> {
        self.seen.iter().map(|seen| seen.lock().unwrap())
    }

    async fn all(&self, what: &str, within: Duration, holds: impl Fn(&Seen) -> bool) {
        eventually(what, within, async || {
            let not = self.each().filter(|seen| !holds(seen)).count();
            check(not == 0, format!("{not} clients not"))
        })
        .await;
    }
}

async fn follow(nodes: Places, first: usize, seen: Arc<Mutex<Seen>>) {
    let mut position: Option<String> = None;
    for turn in first.. {
        let mut request = SseRequest::new(PATH).unrecorded();
        if let Some(position) = &position {
            request = request.last_event_id(position);
        }
        let node = {
            let nodes = nodes.lock().unwrap();
            nodes[turn % nodes.len()]
        };
        if let Ok(mut client) = request.try_open(node).await {
            let mut last = 0;
            while let Ok(block) = client.next_event(secs(3600)).await {
                let mut seen = seen.lock().unwrap();
                position = block.id.clone().or(position);
                match block.name() {
                    "connected" => seen.connections += 1,
                    "gap" => {
                        seen.gaps.push((Instant::now(), block.json()["reason"].to_string()));
                    }
                    "n" => {
                        let n = block.json()["n"].as_u64().unwrap();
                        if n <= last {
                            seen.astray.push(n);
                        }
                        last = n;
                        seen.numbers.push(n);
                    }
                    _ => {}
                }
            }
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// Publishes one number after the other through all nodes in turn.
struct Publishing {
    acknowledged: Arc<Mutex<Acknowledged>>,
    task: JoinSet<()>,
}

impl Publishing {
    fn start(nodes: &Places) -> Self {
        let acknowledged: Arc<Mutex<Acknowledged>> = Arc::default();
        let (nodes, ours, mut task) = (Arc::clone(nodes), Arc::clone(&acknowledged), JoinSet::new());
        task.spawn(async move {
            for n in 1_u64.. {
                let node = {
                    let nodes = nodes.lock().unwrap();
                    nodes[n as usize % nodes.len()]
                };
                let body = json!({ "channel": "jobs", "event": "n", "data": { "n": n } });
                let answer = Request::post("/api/events", &body).send(node).await;
                if answer.is_ok_and(|answer| answer.status() == 202) {
                    ours.lock().unwrap().insert(n, Instant::now());
                }
                sleep(Duration::from_millis(5)).await;
            }
        });
        Self { acknowledged, task }
    }

    fn acknowledged(&self) -> Acknowledged {
        self.acknowledged.lock().unwrap().clone()
    }

    fn last(&self) -> u64 {
        self.acknowledged.lock().unwrap().keys().next_back().copied().unwrap_or(0)
    }

    /// Publishes no more; returns when every client has the last one.
    async fn end(&mut self, clients: &Clients) {
        self.task.shutdown().await;
        let last = self.last();
        clients.all("the last event", secs(20), |seen| seen.numbers.last() >= Some(&last)).await;
    }

    /// Fifty more than there are now are acknowledged, and the clients have one of them.
    async fn goes_on(&self, clients: &Clients, within: Duration) {
        let (before, now) = (self.acknowledged().len(), self.last());
        eventually("publishing goes on", within, async || {
            let count = self.acknowledged().len();
            check(count > before + 50, format!("{count} acknowledged, {before} before"))
        })
        .await;
        let newer = |seen: &Seen| seen.numbers.last().is_some_and(|last| *last > now);
        clients.all("delivery goes on", within, newer).await;
    }
}

fn node(sentinels: &Sentinels) -> NodeBuilder {
    // With a limit, admission asks Redis as well.
    Node::builder().redis_at(&sentinels.url(), sentinels.prefix()).set("FANLIGHT_MAX_PER_IP", 1000)
}

/// A stream is admitted by Redis' count, and the command line finds the master too.
async fn serves(sentinels: &Sentinels, node: &Node, streams: usize) {
    let ip = |stream: usize| [127, 0, 2, stream as u8];
    let mut client = SseRequest::new(PATH).from(ip(streams)).open(node.addr()).await;
    client.expect("connected").await;
    let (url, prefix) = (sentinels.url(), sentinels.prefix().to_owned());
    let published = tokio::task::spawn_blocking(move || {
        let mut publish = fanlight();
        publish.args(["publish", "pending-changes", "1", "--redis-url", &url, "--redis-prefix", &prefix]);
        publish.output().unwrap()
    });
    let published = published.await.unwrap();
    assert!(published.status.success(), "{}", String::from_utf8_lossy(&published.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_failover_everything_reaches_the_new_master_and_what_was_lost_is_told() {
    let mut sentinels = Sentinels::start().await;
    let mut nodes = join_all((0..3).map(|_| node(&sentinels).start())).await;
    let places: Places = Arc::new(Mutex::new(nodes.iter().map(Node::addr).collect()));
    let clients = Clients::start(&places, 30).await;
    let mut publishing = Publishing::start(&places);
    publishing.goes_on(&clients, secs(20)).await;
    sentinels.stop_first_sentinel();
    for round in 0..failovers() {
        let how = [Failover::Kill, Failover::Planned, Failover::Stop][round % 3];
        sentinels.fail_over(how).await;
        publishing.goes_on(&clients, secs(20)).await;
        serves(&sentinels, &nodes[round % 3], round).await;
        if round + 1 < failovers() {
            sentinels.heal(how).await;
            // Some come back over another node while the next failover is under way.
            let gone = round % 3;
            nodes[gone] = node(&sentinels).start().await;
            places.lock().unwrap()[gone] = nodes[gone].addr();
        }
    }
    publishing.end(&clients).await;
    let acknowledged = publishing.acknowledged();
    let mut most = 0;
    for seen in clients.each() {
        let (lost, silent) = seen.missing(&acknowledged);
        assert_eq!(silent, [0; 0], "acknowledged, missing, and no gap");
        assert_eq!(seen.astray, [0; 0], "twice or out of order");
        assert!(seen.gaps.iter().any(|(_, why)| why.contains("history_lost")), "{:?}", seen.gaps);
        most = most.max(lost);
    }
    println!(
        "{} failovers: of {} acknowledged events a client lost at most {most}, all of them told",
        failovers(),
        acknowledged.len()
    );
}
