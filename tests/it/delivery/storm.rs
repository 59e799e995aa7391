//! Everybody comes back at once, a hundred events late.

use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::times;
use crate::support::{Node, RedisServer, SseRequest, Swarm, secs};

const MISSED: u64 = 100;

/// How often the nodes have asked Redis for histories of clients that came back, together.
async fn reads(nodes: &[Node]) -> u64 {
    let mut sum = 0;
    for node in nodes {
        let metrics = node.get("/metrics").await.text();
        let line = metrics.lines().find_map(|line| line.strip_prefix("fanlight_history_reads_total "));
        sum += line.expect("the counter").parse::<u64>().unwrap();
    }
    sum
}

/// Publishes ten events a second apart by 10 ms, and how long the slowest hundredth took to reach one of `swarm`'s streams.
async fn live_p99(node: &Node, swarm: &Swarm, name: &str, events: u64) -> Duration {
    let mut times = Vec::new();
    for n in 0..events {
        let began = Instant::now();
        node.publish("jobs", name, &json!({ "n": n })).await;
        let count = usize::try_from(n).unwrap() + 1;
        swarm.each_has(count, name, secs(20)).await;
        times.push(began.elapsed());
        sleep(Duration::from_millis(5)).await;
    }
    times.sort();
    times[times.len() * 99 / 100]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_resuming_clients_shares_its_reads_and_everybody_gets_everything() {
    let redis = RedisServer::start().await;
    let nodes = Node::cluster(&redis, 3, &[]).await;
    let live =
        Swarm::open(&[nodes[0].addr(), nodes[1].addr(), nodes[2].addr()], 30, "/stream?channels=jobs").await;
    let mut position = String::new();
    for n in 0..=MISSED {
        let id = nodes[0].publish("pending-changes", "missed", &json!({ "n": n })).await;
        if n == 0 {
            position = id;
        }
    }
    let before = live_p99(&nodes[0], &live, "calm", 100).await;
    let (reads_before, began) = (reads(&nodes).await, Instant::now());
    let mut coming = JoinSet::new();
    let count = times(2_000, 10_000);
    for i in 0..count {
        let request =
            SseRequest::new("/stream?channels=pending-changes").unrecorded().last_event_id(&position);
        let request = request.from(crate::support::swarm::source(i));
        let to = nodes[i % 3].addr();
        coming.spawn(async move {
            let mut client = request.open(to).await;
            assert_eq!(client.expect("connected").await.json()["recovered"], true);
            for n in 1..=MISSED {
                assert_eq!(client.expect("missed").await.json()["n"], n);
            }
            client
        });
    }
    let during = live_p99(&nodes[0], &live, "storm", 50).await;
    let mut kept = Vec::new();
    while let Some(client) = coming.join_next().await {
        kept.push(client.unwrap());
    }
    let took = began.elapsed();
    let read = reads(&nodes).await - reads_before;
    let bound = 2 * 3 * (took.as_millis() as u64 / 100 + 1);
    println!(
        "{count} clients in {took:?}; {read} history reads (bound {bound}); live p99 {before:?} before, {during:?} during"
    );
    assert!(read > 0 && read <= bound, "{read} reads in {took:?}");
}
