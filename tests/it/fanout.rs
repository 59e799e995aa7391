//! Three nodes, clients on each, three ways to publish: all get all, once, in order per channel.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::support::node::fanlight;
use crate::support::swarm::Log;
use crate::support::wait::secs;
use crate::support::{Node, RedisServer, Request, SseClient, Swarm};

const CHANNELS: [&str; 2] = ["jobs", "pending-changes"];

/// Events of each publisher on each channel.
const EVENTS: usize = 40;

fn addrs(nodes: &[Node]) -> Vec<SocketAddr> {
    nodes.iter().map(Node::addr).collect()
}

fn data(from: &str, channel: &str, n: usize) -> Value {
    json!({ "from": from, "channel": channel, "n": n })
}

async fn publish_by_redis_cli(redis: &RedisServer) {
    for n in 0..EVENTS {
        for channel in CHANNELS {
            let payload = json!({ "event": "numbered", "data": data("redis-cli", channel, n) });
            assert_eq!(redis.publish(channel, &payload.to_string()).await, 3, "one connection for each node");
        }
    }
}

async fn publish_by_http(nodes: &[Node]) {
    for n in 0..EVENTS {
        for channel in CHANNELS {
            nodes[n % nodes.len()].publish(channel, "numbered", &data("http", channel, n)).await;
        }
    }
}

/// `fanlight publish`: the first event as an argument, the others as lines of its standard input.
async fn publish_by_command(node: &Node) {
    let url = node.url();
    tokio::task::spawn_blocking(move || {
        for channel in CHANNELS {
            let publish = |text: &str| {
                let mut command = fanlight();
                command.args(["publish", channel, "--event", "numbered", "--url", &url, text]);
                command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
            };
            assert!(publish(&data("command", channel, 0).to_string()).wait().unwrap().success());
            let mut lines = publish("-");
            let mut input = lines.stdin.take().unwrap();
            (1..EVENTS).for_each(|n| writeln!(input, "{}", data("command", channel, n)).unwrap());
            drop(input);
            assert!(lines.wait().unwrap().success());
        }
    })
    .await
    .unwrap();
}

/// What a stream got on `channel`, as (publisher, number), in order.
fn received(log: &Log, channel: &str) -> Vec<(String, u64)> {
    let events = log.named("numbered").map(|event| event.json());
    let on_channel = events.filter(|data| data["channel"] == channel);
    on_channel.map(|data| (data["from"].as_str().unwrap().to_owned(), data["n"].as_u64().unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_stream_of_every_node_gets_every_event_once_and_all_in_the_same_order() {
    let redis = RedisServer::start().await;
    let nodes = Node::cluster(&redis, 3, &[]).await;
    let swarm = Swarm::open(&addrs(&nodes), 60, "/api/sse/stream").await;

    tokio::join!(publish_by_redis_cli(&redis), publish_by_http(&nodes), publish_by_command(&nodes[0]));
    for channel in CHANNELS {
        nodes[1].publish(channel, "end", &json!({})).await;
    }
    swarm.each_has(CHANNELS.len(), "end", secs(20)).await;

    for channel in CHANNELS {
        let first = received(&swarm.logs().next().unwrap(), channel);
        for from in ["redis-cli", "http", "command"] {
            let numbers: Vec<u64> = first.iter().filter(|(f, _)| f == from).map(|(_, n)| *n).collect();
            assert_eq!(numbers, (0..EVENTS as u64).collect::<Vec<_>>(), "{from} on {channel}");
        }
        assert_eq!(first.len(), 3 * EVENTS);
        for log in swarm.logs() {
            assert_eq!(received(&log, channel), first, "another order on {channel}");
        }
    }
    let others = swarm.tally(|log| {
        let other = log.events.iter().find(|event| !["numbered", "end"].contains(&event.name()));
        format!("{other:?}")
    });
    assert_eq!(
        others.into_iter().collect::<Vec<_>>(),
        [("None".to_owned(), 60)],
        "nothing but what was published"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn durable_events_carry_rising_ids_and_plain_ones_none() {
    let redis = RedisServer::start().await;
    let nodes = Node::cluster(&redis, 2, &[]).await;
    let mut client = nodes[0].subscribe("/api/sse/stream").await;
    let batch: Vec<Value> = (0..1000)
        .map(|n| json!({ "channel": CHANNELS[n % 2], "event": "numbered", "data": { "n": n } }))
        .collect();
    let answer = nodes[1].send(&Request::post("/api/events", &Value::Array(batch))).await;
    assert_eq!(answer.status(), 202, "{}", answer.text());
    redis.publish("jobs", r#"{"event":"plain","data":1}"#).await;

    let ids: Vec<String> = serde_json::from_value(answer.json()["ids"].clone()).unwrap();
    assert_eq!(ids.len(), 1000);
    let mut got = Vec::new();
    for n in 0..1000 {
        let event = client.expect("numbered").await;
        assert_eq!(event.json()["n"], n, "over all channels in the order of one request");
        got.push(event.id.expect("an id"));
    }
    assert_eq!(got, ids);
    assert_eq!(client.expect("plain").await.id, None);
    assert!(
        ids.iter()
            .all(|id| id.len() <= 64 && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b)))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_gets_its_channels_and_no_other() {
    let redis = RedisServer::start().await;
    let node = Node::start(&redis, &[("FANLIGHT_CHANNELS", "jobs,pending-changes,news:*")]).await;
    let streams: [(&str, &[&str]); 6] = [
        ("/api/sse/stream", &["jobs", "pending-changes"]),
        ("/stream?channels=all", &["jobs", "pending-changes"]),
        ("/api/jobs/stream", &["jobs"]),
        ("/api/sse/stream?channels=pending-changes", &["pending-changes"]),
        ("/api/sse/stream?channels=news:a,jobs", &["jobs", "news:a"]),
        ("/stream?channels=news:a/b", &["news:a/b"]),
    ];
    let mut clients: Vec<SseClient> = Vec::new();
    for (path, _) in streams {
        clients.push(node.subscribe(path).await);
    }
    let published = ["jobs", "news:a", "news:a/b", "pending-changes"];
    for channel in published {
        node.publish(channel, "to", &json!(channel)).await;
    }
    for (client, (path, channels)) in clients.iter_mut().zip(streams) {
        for channel in published.iter().filter(|channel| channels.contains(channel)) {
            assert_eq!(client.expect("to").await.json(), json!(channel), "{path}");
        }
    }
    // Whatever went to a wrong stream would come before this.
    for channel in published {
        redis.publish(channel, r#"{"event":"last","data":0}"#).await;
    }
    for client in &mut clients {
        client.expect("last").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_redis_delivers_what_is_published_on_it() {
    let node = Node::builder().start().await;
    let swarm = Swarm::open(&[node.addr()], 20, "/api/sse/stream").await;
    for n in 0..100 {
        node.publish("jobs", "numbered", &data("http", "jobs", n)).await;
    }
    swarm.each_has(100, "numbered", secs(10)).await;
    for log in swarm.logs() {
        assert!(received(&log, "jobs").iter().map(|(_, n)| *n).eq(0..100));
    }
}
