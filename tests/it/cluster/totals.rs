//! The totals while everything dies: they never fall, count nothing twice, and are in the end what the test has counted.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinHandle;

use super::stats::{all_say, number, stats_of, visit};
use crate::support::swarm::source;
use crate::support::wait::check;
use crate::support::{
    Fault, Node, Persistence, RedisServer, Request, SseRequest, TcpProxy, eventually, secs,
};

/// What must never fall.
const TOTALS: [&str; 5] = [
    "/metrics/totalConnections",
    "/metrics/totalDisconnections",
    "/metrics/totalMessagesSent",
    "/metrics/totalBytesSent",
    "/metrics/closedBy/client",
];

/// Asks nodes in turn, all the time, and fails when a total falls.
struct Auditor {
    stop: Arc<AtomicBool>,
    task: JoinHandle<u64>,
}

impl Auditor {
    /// With `apart`, what one node says is compared with what the same node said, else with what any of them said.
    fn start(nodes: &[SocketAddr], apart: bool) -> Self {
        let (nodes, stop) = (nodes.to_vec(), Arc::new(AtomicBool::new(false)));
        let stopped = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            let mut last = vec![[0; TOTALS.len()]; nodes.len()];
            let mut looks = 0;
            while !stopped.load(Ordering::Relaxed) {
                for (i, node) in nodes.iter().enumerate() {
                    // A node that is down says nothing.
                    let Ok(answer) = Request::get("/api/sse/stats").send(*node).await else { continue };
                    let (stats, last) = (answer.json(), &mut last[if apart { i } else { 0 }]);
                    for (total, before) in TOTALS.iter().zip(last.iter_mut()) {
                        let now = number(&stats, total);
                        assert!(now >= *before, "{total} fell from {before} to {now} at {node}: {stats:#}");
                        *before = now;
                    }
                    looks += 1;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            looks
        });
        Self { stop, task }
    }

    async fn finish(self) {
        self.stop.store(true, Ordering::Relaxed);
        let looks = self.task.await.expect("no total fell");
        assert!(looks > 20, "only {looks} looks");
    }
}

/// Publishes on and on through whichever node lives.
fn load(nodes: Vec<SocketAddr>) -> JoinHandle<()> {
    tokio::spawn(async move {
        let event = serde_json::json!({ "channel": "jobs", "event": "job_progress", "data": { "id": "1" } });
        for i in 0.. {
            let _ = Request::post("/api/events", &event).send(nodes[i % nodes.len()]).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
}

fn settled(opened: u64) -> impl Fn(&Value) -> Result<(), String> {
    move |stats: &Value| {
        let found = [number(stats, TOTALS[0]), number(stats, TOTALS[1]), number(stats, "/activeConnections")];
        check(found == [opened, opened, 0], format!("{found:?}, not {opened},"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn totals_never_fall_and_never_double_while_nodes_are_killed_and_restarted_under_load() {
    let redis = RedisServer::start().await;
    let mut nodes = Node::cluster(&redis, 3, &[]).await;
    let stays: Vec<SocketAddr> = nodes[..2].iter().map(Node::addr).collect();
    let (auditor, load) = (Auditor::start(&stays, false), load(stays.clone()));
    let (mut opened, mut doubtful) = (0, 0);
    for round in 0..4 {
        for node in &nodes {
            visit(node.addr(), 20).await;
        }
        opened += 60;
        // What the victim has counted up to here must arrive; what it counts from now on may die with it.
        let least = opened - doubtful;
        let known = |stats: &Value| {
            let found = number(stats, TOTALS[0]);
            check(found >= least, format!("{found} of {least}"))
        };
        all_say(&nodes[..1], "what was counted has arrived", known).await;
        visit(nodes[2].addr(), 10).await;
        (opened, doubtful) = (opened + 10, doubtful + 10);
        nodes[2].kill();
        visit(nodes[round % 2].addr(), 15).await;
        opened += 15;
        nodes[2] = Node::start(&redis, &[]).await;
    }
    load.abort();
    eventually("everything has arrived but what died with its node", secs(10), async || {
        let found = number(&stats_of(nodes[0].addr()).await, TOTALS[0]);
        check(found >= opened - doubtful, format!("{found} of {opened}"))
    })
    .await;
    tokio::time::sleep(secs(2)).await;
    let stats = stats_of(nodes[0].addr()).await;
    let (found, ended) = (number(&stats, TOTALS[0]), number(&stats, TOTALS[1]));
    assert!((opened - doubtful..=opened).contains(&found), "{found} of {opened}, {doubtful} in doubt");
    assert!((opened - doubtful..=opened).contains(&ended), "{ended} of {opened}, {doubtful} in doubt");
    auditor.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_node_counts_on_when_it_wakes_and_nothing_twice() {
    let redis = RedisServer::start().await;
    let mut nodes = Node::cluster(&redis, 2, &[]).await;
    let auditor = Auditor::start(&[nodes[0].addr()], false);
    visit(nodes[1].addr(), 25).await;
    all_say(&nodes, "counted", settled(25)).await;
    let held = SseRequest::new("/stream").from(source(1)).open(nodes[1].addr()).await;
    nodes[1].pause();
    eventually("the paused node is not shown", secs(10), async || {
        let shown = stats_of(nodes[0].addr()).await["nodes"].as_array().unwrap().len();
        check(shown == 1, shown)
    })
    .await;
    visit(nodes[0].addr(), 25).await;
    nodes[1].resume();
    drop(held);
    all_say(&nodes, "all of both", settled(51)).await;
    auditor.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_loses_everything_gets_the_totals_back() {
    let mut redis = RedisServer::start().await;
    let nodes = Node::cluster(&redis, 3, &[]).await;
    let addresses: Vec<SocketAddr> = nodes.iter().map(Node::addr).collect();
    let auditor = Auditor::start(&addresses, true);
    let mut opened = 0;
    for round in 0..4 {
        for node in &nodes {
            visit(node.addr(), 10).await;
        }
        opened += 30;
        match round {
            0 => drop(redis.cli(&["FLUSHALL"]).await),
            1 => redis.restart_empty().await,
            2 => drop((redis.cli(&["FLUSHALL"]).await, redis.cli(&["SCRIPT", "FLUSH"]).await)),
            _ => {}
        }
        for node in &nodes {
            visit(node.addr(), 10).await;
        }
        opened += 30;
        all_say(&nodes, "everything is there", settled(opened)).await;
    }
    auditor.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_counts_of_a_node_that_is_gone_survive_a_redis_that_lost_them() {
    let redis = RedisServer::start().await;
    let mut nodes = Node::cluster(&redis, 2, &[]).await;
    visit(nodes[1].addr(), 30).await;
    nodes[1].terminate();
    assert!(nodes[1].exit(secs(40)).await.success());
    let left = &nodes[..1];
    all_say(left, "counted", settled(30)).await;
    // Its copy of the totals is at most two heartbeats old.
    tokio::time::sleep(secs(3)).await;
    redis.cli(&["FLUSHALL"]).await;
    visit(left[0].addr(), 5).await;
    all_say(left, "both are there", settled(35)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_answers_and_cut_connections_count_nothing_twice_and_lose_nothing() {
    let redis = RedisServer::start().await;
    let proxy = TcpProxy::start(redis.addr()).await;
    let url = format!("redis://{}", proxy.addr());
    let nodes =
        [Node::start(&redis, &[]).await, Node::builder().redis_at(&url, redis.prefix()).start().await];
    let auditor = Auditor::start(&[nodes[0].addr()], false);
    let mut opened = 0;
    for fault in [Fault::SwallowAnswers, Fault::BlackHole, Fault::Refuse, Fault::SwallowAnswers] {
        proxy.set(fault);
        proxy.cut().await;
        for _ in 0..3 {
            visit(nodes[1].addr(), 10).await;
            opened += 10;
            tokio::time::sleep(Duration::from_millis(700)).await;
        }
        proxy.set(Fault::None);
        if fault != Fault::BlackHole {
            proxy.cut().await;
        }
        all_say(&nodes[..1], "everything is there once", settled(opened)).await;
    }
    auditor.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn totals_go_on_after_the_whole_cluster_was_away() {
    let mut redis = RedisServer::start_with(Persistence::Aof, &[]).await;
    for opened in [12, 24] {
        let mut node = Node::start(&redis, &[]).await;
        visit(node.addr(), 12).await;
        all_say(std::slice::from_ref(&node), "counted", settled(opened)).await;
        node.terminate();
        assert!(node.exit(secs(40)).await.success());
        redis.restart().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_heartbeat_costs_the_same_for_ten_streams_and_for_a_thousand() {
    let redis = RedisServer::start().await;
    let node = Node::start(&redis, &[]).await;
    let mut commands = Vec::new();
    let mut streams = Vec::new();
    for count in [10, 990] {
        let requests =
            (0..count).map(|i| (node.addr(), SseRequest::new("/stream").from(source(i)).unrecorded()));
        streams.push(crate::support::Swarm::open_all(requests.collect()).await);
        // The heartbeats that tell of the newcomers.
        tokio::time::sleep(secs(3)).await;
        let before: u64 = redis.info("total_commands_processed").await.parse().unwrap();
        tokio::time::sleep(secs(5)).await;
        let after: u64 = redis.info("total_commands_processed").await.parse().unwrap();
        commands.push(after - before);
    }
    assert!(commands[1] <= commands[0] * 12 / 10 + 2, "{commands:?} commands in five seconds");
}
