//! Redis dies, comes back, stops, is cut off: streams stay open, nobody misses anything in silence, and everything heals.
//!
//! The rule behind all of them ([`unannounced_holes`]) is invariant 1: where a number is missing in what a stream got,
//! a `gap` stands at that place.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, interval, sleep, timeout};

use crate::support::redis::Publisher;
use crate::support::swarm::Log;
use crate::support::wait::{check, secs};
use crate::support::{Fault, Node, Persistence, RedisServer, Request, Swarm, TcpProxy, eventually, stays};

/// How soon delivery must be back after Redis is (issue 2).
const BACK_WITHIN: Duration = secs(2);

fn addrs(nodes: &[Node]) -> Vec<SocketAddr> {
    nodes.iter().map(Node::addr).collect()
}

fn numbered(n: u64) -> Vec<u8> {
    json!({ "event": "numbered", "data": { "n": n } }).to_string().into_bytes()
}

/// The numbers that a stream got, in order.
fn numbers(log: &Log, name: &str) -> Vec<u64> {
    log.named(name).map(|event| event.json()["n"].as_u64().unwrap()).collect()
}

fn gaps(log: &Log, channel: &str) -> usize {
    log.named("gap").filter(|gap| gap.json()["channel"] == channel).count()
}

/// Places where numbers are missing (or repeated, or out of order) and no `gap` of `channel` stands between.
fn unannounced_holes(log: &Log, name: &str, channel: &str) -> Vec<(u64, u64)> {
    let (mut last, mut announced, mut holes) = (None, false, Vec::new());
    for event in &log.events {
        if event.name() == "gap" && event.json()["channel"] == channel {
            announced = true;
        } else if event.name() == name {
            let n = event.json()["n"].as_u64().unwrap();
            if last.is_some_and(|last| n <= last || (n != last + 1 && !announced)) {
                holes.push((last.unwrap(), n));
            }
            (last, announced) = (Some(n), false);
        }
    }
    holes
}

fn assert_told(swarm: &Swarm) {
    for log in swarm.logs() {
        assert_eq!(unannounced_holes(&log, "numbered", "jobs"), [], "missing, and no gap");
        assert_eq!(log.ended, None);
    }
}

/// Publishes from number `next` on until every stream got one of these, and returns how long that took.
async fn until_delivered(publisher: &mut Publisher, swarm: &Swarm, next: &mut u64) -> Duration {
    let (start, first) = (Instant::now(), *next);
    let mut ticks = interval(Duration::from_millis(20));
    while !swarm.logs().all(|log| numbers(&log, "numbered").last().is_some_and(|last| *last >= first)) {
        assert!(start.elapsed() < secs(30), "no delivery any more");
        ticks.tick().await;
        let _ = publisher.publish("jobs", &numbered(*next)).await;
        *next += 1;
    }
    start.elapsed()
}

async fn pings(swarm: &Swarm) -> Vec<usize> {
    swarm.logs().map(|log| log.pings).collect()
}

/// Two nodes with twenty streams each, which have seen plain events.
async fn warm_cluster(redis: &RedisServer, next: &mut u64) -> (Vec<Node>, Swarm, Publisher) {
    let nodes = Node::cluster(redis, 2, &[("FANLIGHT_HEARTBEAT", "1s")]).await;
    let swarm = Swarm::open(&addrs(&nodes), 40, "/api/sse/stream").await;
    let mut publisher = redis.publisher();
    until_delivered(&mut publisher, &swarm, next).await;
    (nodes, swarm, publisher)
}

async fn everything_is_subscribed(redis: &RedisServer, nodes: u64) {
    for channel in ["jobs", "pending-changes"] {
        redis.has_subscribers(channel, nodes, BACK_WITHIN).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_killed_and_comes_back_empty_is_told_and_healed() {
    let mut redis = RedisServer::start().await;
    let mut next = 0;
    let (nodes, swarm, mut publisher) = warm_cluster(&redis, &mut next).await;
    for _ in 0..3 {
        redis.kill();
        // Long enough for several tries to connect to fail.
        sleep(secs(1)).await;
        for node in &nodes {
            assert_eq!(node.get("/livez").await.status(), 200);
            assert_eq!(node.get("/readyz").await.status(), 200, "it was ready before: degraded, not unready");
        }
        redis.restart_empty().await;
        let took = until_delivered(&mut publisher, &swarm, &mut next).await;
        assert!(took <= BACK_WITHIN, "delivery was back {took:?} after Redis");
        everything_is_subscribed(&redis, 2).await;
    }
    swarm.all("told three gaps on jobs", secs(5), |log| gaps(log, "jobs") >= 3).await;
    assert_told(&swarm);
    let position = nodes[0].publish("jobs", "after", &json!({})).await;
    swarm
        .all("the durable event", secs(5), |log| log.named("after").any(|e| e.id.as_ref() == Some(&position)))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_keeps_its_data_loses_no_durable_event_and_nobody_is_alarmed() {
    let mut redis = RedisServer::start_with(Persistence::Aof, &[]).await;
    let nodes = Node::cluster(&redis, 2, &[]).await;
    let swarm = Swarm::open(&addrs(&nodes), 40, "/api/sse/stream?channels=pending-changes").await;
    let mut acknowledged = 0;
    for round in 0..4 {
        for _ in 0..20 {
            nodes[acknowledged % 2]
                .publish("pending-changes", "numbered", &json!({ "n": acknowledged }))
                .await;
            acknowledged += 1;
        }
        if round < 3 {
            redis.restart().await;
            for node in &nodes {
                let heals = async || match publish_is_taken(node).await {
                    202 => Ok(()),
                    status => Err(status),
                };
                eventually("publishing works again", secs(5), heals).await;
            }
        }
    }
    swarm.each_has(acknowledged, "numbered", secs(10)).await;
    for log in swarm.logs() {
        assert!(
            numbers(&log, "numbered").into_iter().eq(0..acknowledged as u64),
            "{:?}",
            numbers(&log, "numbered")
        );
        assert_eq!(gaps(&log, "pending-changes"), 0);
        assert_eq!(log.ended, None);
    }
}

/// The status of publishing something that no stream of these tests reads.
async fn publish_is_taken(node: &Node) -> u16 {
    let event = json!({ "channel": "elsewhere", "data": 0 });
    Request::post("/api/events", &event).send(node.addr()).await.map_or(0, |answer| answer.status())
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_killed_subscriber_connections_under_load_lose_nothing_in_silence() {
    let redis = RedisServer::start().await;
    let mut next = 0;
    let (nodes, swarm, mut publisher) = warm_cluster(&redis, &mut next).await;
    // What was published on a channel that had no durable event yet cannot be known: an interruption before the first is
    // told.
    nodes[0].publish("pending-changes", "first", &json!({})).await;

    let (stop, mut stopped) = tokio::sync::oneshot::channel();
    let plain = async {
        let mut ticks = interval(Duration::from_millis(5));
        while stopped.try_recv().is_err() {
            ticks.tick().await;
            publisher.publish("jobs", &numbered(next)).await.unwrap();
            next += 1;
        }
    };
    let kill = async {
        let mut durable = 0;
        for _ in 0..50 {
            let killed = redis.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
            assert!(killed.parse::<u32>().unwrap() >= 2, "killed {killed}");
            // While they are away, and after.
            for _ in 0..3 {
                nodes[durable % 2].publish("pending-changes", "durable", &json!({ "n": durable })).await;
                durable += 1;
            }
            everything_is_subscribed(&redis, 2).await;
        }
        let _ = stop.send(());
        durable
    };
    let ((), durable) = tokio::join!(plain, kill);

    let took = until_delivered(&mut publisher, &swarm, &mut next).await;
    assert!(took <= BACK_WITHIN, "{took:?}");
    swarm.each_has(durable, "durable", secs(10)).await;
    swarm.all("told on jobs", secs(5), |log| gaps(log, "jobs") > 0).await;
    assert_told(&swarm);
    for log in swarm.logs() {
        assert!(numbers(&log, "durable").into_iter().eq(0..durable as u64), "durable events are filled in");
        assert_eq!(gaps(&log, "pending-changes"), 0, "a channel with durable events alone is told nothing");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_stops_for_ten_seconds_leaves_the_streams_alive() {
    let mut redis = RedisServer::start().await;
    let mut next = 0;
    let (nodes, swarm, mut publisher) = warm_cluster(&redis, &mut next).await;
    redis.pause();
    let before = pings(&swarm).await;
    let refused = timeout(secs(8), publish_is_taken(&nodes[0])).await;
    stays("streams are open and nodes alive", secs(10), async || {
        check(swarm.open_count() == swarm.len(), swarm.open_count())?;
        let answer = nodes[1].get("/livez").await;
        check(answer.status() == 200, answer.status())
    })
    .await;
    let heartbeats = pings(&swarm).await.into_iter().zip(before).map(|(now, then)| now - then).min();
    redis.resume();
    let took = until_delivered(&mut publisher, &swarm, &mut next).await;

    assert!(took <= BACK_WITHIN, "delivery was back {took:?} after Redis went on");
    assert!(heartbeats >= Some(5), "in ten seconds of silence at a heartbeat of 1 s: {heartbeats:?}");
    assert_eq!(refused, Ok(503), "publishing is answered while Redis is silent");
    everything_is_subscribed(&redis, 2).await;
    swarm.all("told on jobs", secs(5), |log| gaps(log, "jobs") > 0).await;
    assert_told(&swarm);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_starts_without_redis_lives_unready_and_heals() {
    let mut redis = RedisServer::start().await;
    redis.kill();
    let mut node = Node::builder().redis(&redis).start_unready().await;
    stays("alive and unready", secs(1), async || {
        let (live, ready) = (node.get("/livez").await, node.get("/readyz").await);
        check((live.status(), ready.status()) == (200, 503), format!("{} {}", live.status(), ready.status()))
    })
    .await;
    assert!(node.process().status().is_none());
    redis.restart().await;
    node.ready(secs(10)).await;
    let mut client = node.subscribe("/api/jobs/stream").await;
    node.publish("jobs", "healed", &json!({})).await;
    client.expect("healed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_off_node_goes_on_when_the_way_to_redis_is_back() {
    let redis = RedisServer::start().await;
    let proxy = TcpProxy::start(redis.addr()).await;
    let node = Node::builder().redis_at(&format!("redis://{}", proxy.addr()), redis.prefix()).start().await;
    let swarm = Swarm::open(&[node.addr()], 10, "/api/jobs/stream").await;
    let (mut publisher, mut next) = (redis.publisher(), 0);
    until_delivered(&mut publisher, &swarm, &mut next).await;
    for fault in [Fault::BlackHole, Fault::Refuse, Fault::SwallowAnswers] {
        proxy.set(fault);
        if fault == Fault::Refuse {
            proxy.cut().await;
        }
        let refused = timeout(secs(8), publish_is_taken(&node)).await;
        assert_eq!(refused, Ok(503), "{fault:?}: an answer, and soon");
        assert_eq!(node.get("/livez").await.status(), 200);
        // What is published while the node cannot hear it is what must be announced.
        for _ in 0..5 {
            publisher.publish("jobs", &numbered(next)).await.unwrap();
            next += 1;
        }
        if fault == Fault::SwallowAnswers {
            proxy.cut().await;
        }
        proxy.set(Fault::None);
        // The node may first have to find out that its old connection is dead: bounded by its own time-outs.
        until_delivered(&mut publisher, &swarm, &mut next).await;
        eventually("publishing works again", secs(10), async || match publish_is_taken(&node).await {
            202 => Ok(()),
            status => Err(status),
        })
        .await;
    }
    assert_told(&swarm);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_cut_every_second_still_delivers_every_durable_event() {
    let redis = RedisServer::start().await;
    let mut proxy = TcpProxy::start(redis.addr()).await;
    let far = Node::builder().redis_at(&format!("redis://{}", proxy.addr()), redis.prefix()).start().await;
    let near = Node::start(&redis, &[]).await;
    let swarm = Swarm::open(&[far.addr()], 10, "/api/sse/stream?channels=pending-changes").await;
    proxy.cut_every(secs(1));
    let start = Instant::now();
    let mut count = 0;
    // No faster than what the history holds for the longest absence.
    let mut ticks = interval(Duration::from_millis(5));
    while start.elapsed() < secs(6) {
        ticks.tick().await;
        near.publish("pending-changes", "durable", &json!({ "n": count })).await;
        count += 1;
    }
    swarm.each_has(count, "durable", secs(10)).await;
    for log in swarm.logs() {
        assert!(
            numbers(&log, "durable").into_iter().eq(0..count as u64),
            "{count} events, once and in order"
        );
        assert_eq!(gaps(&log, "pending-changes"), 0);
    }
}
