//! Nodes die and are restarted.

use std::time::Duration;

use rand::Rng as _;
use tokio::time::Instant;

use super::{World, times};
use crate::support::{RedisServer, full, secs};

#[tokio::test(flavor = "multi_thread")]
async fn nodes_are_killed_and_no_client_misses_anything() {
    let redis = RedisServer::start().await;
    let mut world = World::start(&redis, &[], 10).await;
    for _ in 0..times(3, 30) {
        let victim = rand::rng().random_range(0..world.nodes.len());
        world.balancer.leave(world.nodes[victim].addr());
        world.nodes[victim].kill();
        world.clients.all_current(secs(30)).await;
        world.replace(&redis, victim).await;
        world.clients.all_open().await;
    }
    world.nothing_was_missed().await;
}

/// Over how long each node drains.
const DRAIN: Duration = secs(6);

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_loses_nothing_and_brings_no_wave_of_reconnects() {
    let redis = RedisServer::start().await;
    let mut world = World::start(&redis, &[("FANLIGHT_DRAIN", "6s")], 1).await;
    for round in 0..times(1, 20) {
        for index in 0..world.nodes.len() {
            let leaving = world.nodes[index].addr();
            let clients = world.clients.at(leaving);
            world.clients.take_returns();
            world.balancer.leave(leaving);
            world.nodes[index].terminate();
            let status = world.nodes[index].exit(DRAIN + secs(20)).await;
            assert_eq!(status.code(), Some(0));
            world.clients.all_open().await;
            let peak = fullest_second(&world.clients.take_returns());
            let even = clients as f64 / DRAIN.as_secs_f64();
            println!(
                "round {round}: {clients} clients, at most {peak} reconnects in a second; even: {even:.1}"
            );
            // A dozen clients on a node make no rate, and a busy machine no even one.
            assert!(
                !full() || clients < 60 || peak as f64 <= 1.5 * even,
                "{peak} reconnects in a second; even: {even:.1}"
            );
            world.replace(&redis, index).await;
        }
    }
    world.nothing_was_missed().await;
}

/// The most returns within any second.
fn fullest_second(returns: &[Instant]) -> usize {
    let mut sorted = returns.to_vec();
    sorted.sort();
    let within = |(i, first): (usize, &Instant)| {
        sorted[i..].iter().take_while(|at| at.duration_since(*first) < secs(1)).count()
    };
    sorted.iter().enumerate().map(within).max().unwrap_or(0)
}
