//! Listing a crowd of connections while events go to them.

use std::collections::BTreeSet;

use serde_json::json;

use crate::support::wait::check;
use crate::support::{Node, Swarm, eventually, full, secs};

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_is_listed_while_events_go_to_it_and_nobody_misses_one() {
    let crowd = if full() { 15_000 } else { 3_000 };
    let node = Node::builder().start().await;
    let swarm = Swarm::open(&[node.addr()], crowd, "/api/sse/stream?channels=jobs").await;
    let list = async {
        let (mut ids, mut rows, mut cursor) = (BTreeSet::new(), 0, String::new());
        loop {
            let page = node.get(&format!("/api/sse/connections?limit=1000&cursor={cursor}")).await.json();
            let connections = page["connections"].as_array().unwrap();
            rows += connections.len();
            ids.extend(connections.iter().map(|row| row["id"].as_str().unwrap().to_owned()));
            match page["nextCursor"].as_str() {
                Some(next) => cursor = next.to_owned(),
                None => return (ids.len(), rows),
            }
        }
    };
    const EVENTS: usize = 30;
    let publish = async {
        for n in 0..EVENTS {
            node.publish("jobs", "numbered", &json!({ "n": n })).await;
        }
    };
    let (listed, ()) = tokio::join!(list, publish);
    assert_eq!(listed, (crowd, crowd), "everybody once");
    swarm.each_has(EVENTS, "numbered", secs(60)).await;
    for log in swarm.logs() {
        let numbers = log.named("numbered").map(|event| event.json()["n"].as_u64().unwrap());
        assert!(numbers.eq(0..EVENTS as u64), "in order, once");
        assert_eq!(log.ended, None);
    }
    let metrics = node.get("/metrics").await.text();
    let turn = metrics.lines().find(|line| line.starts_with("fanlight_shard_turn_max_seconds")).unwrap();
    println!("{crowd} listed beside {EVENTS} events to each; {turn}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_listing_of_a_connection_says_the_same_time_of_its_opening_and_of_its_last_event() {
    let node = Node::builder().start().await;
    let swarm = Swarm::open(&[node.addr()], 1, "/api/sse/stream?channels=jobs").await;
    node.publish("jobs", "only", &json!({})).await;
    swarm.each_has(1, "only", secs(5)).await;
    let mut seen = BTreeSet::new();
    eventually("half a second passes", secs(10), async || {
        let page = node.get("/api/sse/connections").await.json();
        let row = page["connections"][0].clone();
        seen.insert((row["createdAt"].to_string(), row["lastActivityAt"].to_string()));
        check(row["durationMs"].as_u64() >= Some(500), format!("{row}"))
    })
    .await;
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert!(seen.iter().all(|(created, active)| created <= active), "{seen:?}");
}
