//! Redis cuts connections, is restarted, and comes back empty.

use std::collections::BTreeSet;

use super::{World, times};
use crate::support::wait::check;
use crate::support::{Persistence, RedisServer, Swarm, eventually, full, secs};

#[tokio::test(flavor = "multi_thread")]
async fn cut_subscriber_connections_are_filled_and_told_to_nobody() {
    let redis = RedisServer::start().await;
    let world = World::start(&redis, &[], 10).await;
    for _ in 0..times(10, 100) {
        eventually("every node is subscribed", secs(20), async || {
            let there = subscribers(&redis).await.len();
            check(there >= 3, format!("{there} connections"))
        })
        .await;
        let cut: u64 = redis.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]).await.parse().unwrap();
        assert!(cut >= 3, "{cut} connections were cut");
        world.clients.all_current(secs(20)).await;
    }
    world.nothing_was_missed().await;
}

async fn subscribers(redis: &RedisServer) -> BTreeSet<String> {
    let list = redis.cli(&["CLIENT", "LIST", "TYPE", "pubsub"]).await;
    list.lines().filter_map(|line| line.split(' ').next()).map(ToOwned::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_too_slow_for_redis_is_cut_off_and_fills_what_it_missed() {
    let limit = ["--client-output-buffer-limit", "pubsub 1mb 1mb 1"];
    let redis = RedisServer::start_with(Persistence::None, &limit).await;
    let mut world = World::start(&redis, &[], 10).await;
    // Plain events on another channel fill the buffers: each node must hear that as well.
    let addresses: Vec<_> = world.nodes.iter().map(crate::support::Node::addr).collect();
    let _others = Swarm::open(&addresses, 3, "/api/sse/stream?channels=jobs").await;
    let large = vec![b'x'; 200 * 1024];
    let mut publisher = redis.publisher();
    for round in 0..times(1, 10) {
        let before = subscribers(&redis).await;
        let slow = round % world.nodes.len();
        world.nodes[slow].pause();
        eventually("redis cuts the slow node off", secs(30), async || {
            for _ in 0..20 {
                let _ = publisher.publish("jobs", &large).await;
            }
            let gone = before.difference(&subscribers(&redis).await).count();
            check(gone > 0, "all are connected still")
        })
        .await;
        world.nodes[slow].resume();
        world.clients.all_open().await;
        world.clients.all_current(secs(30)).await;
    }
    world.nothing_was_missed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_restarted_with_its_data_is_back_within_two_seconds_and_nothing_is_lost() {
    let mut redis = RedisServer::start_with(Persistence::Aof, &[]).await;
    let world = World::start(&redis, &[], 10).await;
    let mut slowest = std::time::Duration::ZERO;
    for _ in 0..times(2, 20) {
        redis.restart().await;
        slowest = slowest.max(world.clients.all_current(secs(20)).await);
    }
    println!("delivery was back at most {slowest:?} after Redis");
    // A time is asserted only where the machine is this test's alone.
    assert!(!full() || slowest <= secs(2), "delivery was back {slowest:?} after Redis");
    world.nothing_was_missed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_comes_back_empty_is_told_to_everybody_and_publishing_goes_on() {
    let mut redis = RedisServer::start().await;
    let world = World::start(&redis, &[], 10).await;
    for _ in 0..times(2, 10) {
        let before = world.clients.gaps();
        redis.restart_empty().await;
        eventually("every client is told a gap", if full() { secs(3) } else { secs(20) }, async || {
            let told = world.clients.gaps().iter().zip(&before).filter(|(now, before)| now > before).count();
            check(told == before.len(), format!("{told} were told"))
        })
        .await;
        world.clients.all_current(secs(20)).await;
    }
    let verdict = world.verdict().await;
    println!("{} acknowledged events were lost with Redis and announced", verdict.announced);
}
