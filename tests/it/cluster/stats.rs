//! The statistics as a user asks for them: the same from every node, each thing counted once, and honest when Redis is away.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::time::timeout;

use crate::support::swarm::source;
use crate::support::wait::check;
use crate::support::{Fault, Node, RedisServer, Request, SseRequest, Swarm, TcpProxy, eventually, secs};

/// Statistics of the whole cluster from the node at `addr`.
pub(super) async fn stats_of(addr: SocketAddr) -> Value {
    let answer = Request::get("/api/sse/stats").send(addr).await.unwrap();
    assert_eq!(answer.status(), 200, "{}", answer.text());
    answer.json()
}

/// Waits until the statistics of every node are as wanted; `wanted` says what it sees when they are not.
pub(super) async fn all_say(nodes: &[Node], what: &str, wanted: impl Fn(&Value) -> Result<(), String>) {
    for node in nodes {
        eventually(what, secs(30), async || {
            let stats = stats_of(node.addr()).await;
            wanted(&stats).map_err(|why| format!("{why} of {stats:#}"))
        })
        .await;
    }
}

pub(super) fn number(stats: &Value, path: &str) -> u64 {
    stats.pointer(path).and_then(Value::as_u64).unwrap_or_else(|| panic!("no {path} in {stats:#}"))
}

fn is(stats: &Value, path: &str, wanted: u64) -> Result<(), String> {
    let found = number(stats, path);
    check(found == wanted, format!("{path} is {found}, not {wanted},"))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_says_the_same_and_everything_counts_once() {
    let redis = RedisServer::start().await;
    let nodes = Node::cluster(&redis, 3, &[("FANLIGHT_CHANNELS", "jobs,quiet,public:*")]).await;
    let to = |i: usize| nodes[i % 3].addr();
    let mut clients = Vec::new();
    for i in 0..9 {
        // Addresses and sessions that are on several nodes: 0 to 3, each with the connections i, i + 4 and perhaps i + 8.
        let mut client =
            SseRequest::new(&format!("/api/sse/stream?channels=jobs,public:{i}&session=s{}", i % 4))
                .from(source(i % 4))
                .open(to(i))
                .await;
        client.expect("connected").await;
        clients.push(client);
    }
    visit(to(20), 1).await;
    let events = 20;
    for n in 0..events / 2 {
        nodes[n % 3].publish("jobs", "job_progress", &json!({ "id": "1", "n": n })).await;
        redis.publish("jobs", r#"{"event":"job_progress","data":{"id":"1"}}"#).await;
    }
    for client in &mut clients {
        for _ in 0..events {
            client.expect("job_progress").await;
        }
    }
    all_say(&nodes, "everything is counted", |stats| {
        is(stats, "/activeConnections", 9)?;
        is(stats, "/uniqueIps", 4)?;
        is(stats, "/uniqueSessions", 4)?;
        is(stats, "/metrics/totalConnections", 10)?;
        is(stats, "/metrics/totalDisconnections", 1)?;
        is(stats, "/metrics/closedBy/client", 1)?;
        is(stats, "/metrics/totalBroadcasts", events as u64)?;
        is(stats, "/metrics/totalMessagesSent", 9 * events as u64)?;
        is(stats, "/channels/jobs", 9)?;
        is(stats, "/channels/public:7", 1)?;
        is(stats, "/channels/quiet", 0)
    })
    .await;
    let mut said = Vec::new();
    for node in &nodes {
        let mut stats = stats_of(node.addr()).await;
        for passing in ["/generatedAt", "/metrics/uptimeMs", "/nodes"] {
            *stats.pointer_mut(passing).unwrap() = Value::Null;
        }
        said.push(stats);
    }
    assert!(said.windows(2).all(|pair| pair[0] == pair[1]), "{said:#?}");
    // A node that the machine is too busy for is degraded for a moment.
    all_say(&nodes, "every node is healthy", |stats| {
        let rows = stats["nodes"].as_array().unwrap();
        check(rows.iter().all(|row| row["state"] == "healthy"), "a node is not healthy in the rows")
    })
    .await;
    rows_are_right(&nodes, &stats_of(nodes[0].addr()).await);
}

/// Three nodes of three streams each, under the addresses that they listen on.
fn rows_are_right(nodes: &[Node], stats: &Value) {
    let rows = stats["nodes"].as_array().unwrap();
    let addresses: Vec<&str> = rows.iter().map(|row| row["address"].as_str().unwrap()).collect();
    assert!(nodes.iter().all(|node| addresses.contains(&node.addr().to_string().as_str())), "{addresses:?}");
    for row in rows {
        assert_eq!(row["connections"], 3, "{row:#}");
        assert_eq!(
            (&row["redis"]["connected"], row["version"].as_str()),
            (&json!(true), Some(env!("CARGO_PKG_VERSION")))
        );
        assert!(
            row["memoryBytes"].as_u64() > Some(1 << 20) && row["openFiles"].as_u64() > Some(5),
            "{row:#}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reconnects_refusals_closings_and_durations_are_counted_by_what_they_are() {
    let redis = RedisServer::start().await;
    let nodes = Node::cluster(&redis, 2, &[("FANLIGHT_MAX_AGE", "300ms")]).await;
    for _ in 0..2 {
        let mut client = nodes[0].subscribe("/api/sse/stream?session=tab").await;
        client.rest(secs(10)).await;
    }
    let _resumed = SseRequest::new("/api/sse/stream").last_event_id("nonsense").open(nodes[1].addr()).await;
    let mut kicked = nodes[1].subscribe("/api/sse/stream?session=other").await;
    nodes[0].send(&Request::new("DELETE", "/api/sse/connections?session=other")).await;
    kicked.rest(secs(10)).await;
    for (path, status) in
        [("/api/sse/stream?channels=secret", 403), ("/api/sse/stream?channels=a%20b", 400), ("/x", 404)]
    {
        assert_eq!(nodes[0].get(path).await.status(), status, "{path}");
    }
    all_say(&nodes, "everything is counted by what it is", |stats| {
        is(stats, "/activeConnections", 0)?;
        is(stats, "/metrics/totalConnections", 4)?;
        is(stats, "/metrics/totalDisconnections", 4)?;
        is(stats, "/metrics/totalReconnects", 2)?;
        is(stats, "/metrics/totalRejected/forbidden", 1)?;
        is(stats, "/metrics/totalRejected/bad_channel", 1)?;
        is(stats, "/metrics/totalRejected/not_found", 1)?;
        // It may have reached its age before it was kicked.
        let closed =
            ["max_age", "kicked"].map(|reason| number(stats, &format!("/metrics/closedBy/{reason}")));
        check(closed[0] >= 3 && closed[0] + closed[1] == 4, format!("{closed:?}"))
    })
    .await;
    let metrics = &stats_of(nodes[0].addr()).await["metrics"];
    let lived = ["avgConnectionDurationMs", "p50ConnectionDurationMs", "p95ConnectionDurationMs"]
        .map(|name| metrics[name].as_u64().unwrap());
    assert!(lived.iter().all(|ms| (1..20_000).contains(ms)) && lived[1] <= lived[2], "{metrics:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_on_its_own_says_the_same_of_itself() {
    let node = Node::builder().start().await;
    let _clients = Swarm::open(&[node.addr()], 3, "/api/jobs/stream").await;
    node.publish("jobs", "job_progress", &json!({ "id": "1" })).await;
    for path in ["/api/sse/stats", "/api/jobs/stream/stats", "/api/sse/stats?scope=node"] {
        eventually("all of it is counted", secs(10), async || {
            let stats = node.get(path).await.json();
            is(&stats, "/activeConnections", 3)?;
            is(&stats, "/uniqueIps", 3)?;
            is(&stats, "/metrics/totalConnections", 3)?;
            is(&stats, "/metrics/totalBroadcasts", 1)?;
            is(&stats, "/metrics/totalMessagesSent", 3)?;
            is(&stats, "/channels/jobs", 3)?;
            check(stats["nodes"].as_array().unwrap().len() == 1 && stats["stale"] == false, &stats)
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_node_can_be_asked_for_itself_and_what_is_no_wish_is_refused() {
    let redis = RedisServer::start().await;
    let nodes = Node::cluster(&redis, 2, &[]).await;
    let _clients = Swarm::open(&[nodes[0].addr()], 2, "/stream").await;
    all_say(&nodes, "two streams", |stats| is(stats, "/activeConnections", 2)).await;
    for (node, streams) in nodes.iter().zip([2, 0]) {
        let own = node.get("/api/sse/stats?scope=node").await.json();
        assert_eq!(
            (number(&own, "/activeConnections"), own["nodes"].as_array().unwrap().len()),
            (streams, 1)
        );
    }
    for path in ["/api/sse/stats?scope=all", "/api/sse/stats?stream=maybe"] {
        let answer = nodes[0].get(path).await;
        assert_eq!((answer.status(), answer.code().as_str()), (400, "bad_request"), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_statistics_come_as_a_stream_and_only_with_the_key() {
    let redis = RedisServer::start().await;
    let node = Node::start(&redis, &[("FANLIGHT_API_KEYS", "0123456789abcdef")]).await;
    for path in ["/api/sse/stats", "/api/sse/stats?stream=1", "/api/jobs/stream/stats"] {
        assert_eq!(node.get(path).await.code(), "unauthorized", "{path}");
    }
    let request = SseRequest::new("/api/sse/stats?stream=1").header("X-API-Key", "0123456789abcdef");
    let mut watcher = request.open(node.addr()).await;
    assert_eq!(watcher.head.get("content-type"), Some("text/event-stream"));
    let first = watcher.next_event(secs(10)).await.unwrap().json();
    assert_eq!(number(&first, "/activeConnections"), 0, "a stream of statistics is no stream of events");
    let _client = node.subscribe("/stream").await;
    eventually("the stream tells of a new connection", secs(10), async || {
        let told = watcher.next_event(secs(10)).await.unwrap().json();
        is(&told, "/activeConnections", 1)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_told_is_of_the_last_two_seconds() {
    let redis = RedisServer::start().await;
    let nodes = Node::cluster(&redis, 2, &[]).await;
    for round in 1..=5 {
        let client = nodes[0].subscribe("/stream").await;
        // Two seconds are promised; the rest is for a machine that is busy with other tests.
        let told =
            async { while number(&stats_of(nodes[1].addr()).await, "/metrics/totalConnections") < round {} };
        assert!(timeout(secs(4), told).await.is_ok(), "round {round}");
        drop(client);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_node_disappears_and_one_that_goes_says_so_and_is_gone_at_once() {
    let redis = RedisServer::start().await;
    let mut nodes = Node::cluster(&redis, 3, &[("FANLIGHT_DRAIN", "3s")]).await;
    let addresses: Vec<SocketAddr> = nodes.iter().map(Node::addr).collect();
    let streams = Swarm::open(&addresses, 9, "/stream").await;
    all_say(&nodes, "nine streams", |stats| is(stats, "/activeConnections", 9)).await;
    nodes.remove(0).kill();
    all_say(&nodes, "the killed node is gone with its streams", |stats| {
        check(stats["nodes"].as_array().unwrap().len() == 2, "the nodes")?;
        is(stats, "/activeConnections", 6)?;
        is(stats, "/metrics/totalConnections", 9)
    })
    .await;
    nodes[0].terminate();
    eventually("the draining node is shown as that", secs(3), async || {
        let stats = stats_of(nodes[1].addr()).await;
        let states: Vec<_> =
            stats["nodes"].as_array().unwrap().iter().map(|row| row["state"].clone()).collect();
        check(states.contains(&json!("draining")), format!("{states:?}"))
    })
    .await;
    assert!(nodes[0].exit(secs(20)).await.success());
    let stats = stats_of(nodes[1].addr()).await;
    assert_eq!(stats["nodes"].as_array().unwrap().len(), 1, "it has said farewell: {stats:#}");
    assert_eq!(number(&stats, "/metrics/closedBy/server_shutdown"), 3, "what it counted in the end is there");
    assert_eq!(streams.open_count(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_the_last_known_numbers_are_told_as_such_within_a_second() {
    let mut redis = RedisServer::start().await;
    let nodes = Node::cluster(&redis, 2, &[]).await;
    let addresses: Vec<SocketAddr> = nodes.iter().map(Node::addr).collect();
    let _streams = Swarm::open(&addresses, 4, "/stream").await;
    all_say(&nodes, "four streams", |stats| is(stats, "/activeConnections", 4)).await;
    redis.pause();
    let _more = nodes[0].subscribe("/stream").await;
    for _ in 0..5 {
        // One second is promised, and as much again for a busy machine.
        let stats = timeout(secs(2), stats_of(nodes[0].addr())).await.expect("an answer");
        assert_eq!(
            (&stats["stale"], number(&stats, "/activeConnections")),
            (&json!(true), 5),
            "this node is as it is"
        );
        assert_eq!(number(&stats, "/metrics/totalConnections"), 4, "the totals are the last known");
        assert_eq!(stats["nodes"].as_array().unwrap().len(), 2);
    }
    redis.resume();
    all_say(&nodes, "the numbers are of now again", |stats| {
        check(stats["stale"] == false, "stale")?;
        is(stats, "/activeConnections", 5)?;
        is(stats, "/metrics/totalConnections", 5)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_never_reached_redis_tells_of_itself() {
    let redis = RedisServer::start().await;
    let proxy = TcpProxy::start(redis.addr()).await;
    proxy.set(Fault::Refuse);
    let url = format!("redis://{}", proxy.addr());
    let node = Node::builder().redis_at(&url, redis.prefix()).start_unready().await;
    let stats = timeout(secs(2), stats_of(node.addr())).await.expect("an answer");
    let row = &stats["nodes"][0];
    assert_eq!((&stats["stale"], &row["state"]), (&json!(true), &json!("starting")), "{stats:#}");
    assert_eq!(row["redis"]["connected"], false);
    proxy.set(Fault::None);
    all_say(&[node], "it has joined", |stats| check(stats["stale"] == false, "stale")).await;
}

/// Opens `count` streams, and leaves them when their first block is there.
pub(super) async fn visit(to: SocketAddr, count: usize) {
    let visitors = (0..count).map(|i| async move {
        let mut client = SseRequest::new("/stream").from(source(i)).open(to).await;
        client.expect("connected").await;
    });
    futures_util::future::join_all(visitors).await;
}
