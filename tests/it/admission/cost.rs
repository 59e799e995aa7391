//! What the limits ask of Redis.

use std::sync::Arc;

use fanlight::admission::{Admission, IpKey, Permit, Request, SessionKey, SessionPolicy};
use futures_util::future::join_all;
use tokio::time::sleep;

use super::cluster::{Cluster, limits};
use crate::support::secs;

/// Commands since the start by `INFO commandstats`: those that clients sent to run scripts, and all, those inside scripts
/// included.
async fn commands(cluster: &Cluster) -> (u64, u64) {
    let text = cluster.redis.cli(&["INFO", "commandstats"]).await;
    let calls = text.lines().filter_map(|line| {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        Some((name.to_owned(), rest.split(',').next()?.parse::<u64>().ok()?))
    });
    let calls: Vec<_> = calls.filter(|(name, _)| !name.starts_with("info")).collect();
    let scripts = calls.iter().filter(|(name, _)| name.starts_with("eval")).map(|(_, calls)| calls).sum();
    (scripts, calls.iter().map(|(_, calls)| calls).sum())
}

fn client(n: usize) -> Request {
    let [_, _, a, b] = (n as u32).to_be_bytes();
    Request { ip: IpKey::V4([10, 0, a, b]), session: Some(SessionKey::of(&n.to_string())) }
}

async fn connect(doors: &[Arc<Admission>], clients: std::ops::Range<usize>) -> Vec<Permit> {
    let answers = join_all(clients.map(|n| doors[n % doors.len()].admit(client(n)))).await;
    answers.into_iter().map(|answer| answer.unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_cluster_costs_the_same_with_ten_thousand_connections_as_with_a_hundred() {
    let cluster = Cluster::new(limits(2, 1, SessionPolicy::Reject)).await;
    let doors = cluster.ready_doors(3).await;
    let mut held = connect(&doors, 0..100).await;
    let mut idle = Vec::new();
    for more in [100..100, 100..10_000] {
        held.extend(connect(&doors, more).await);
        sleep(secs(1)).await;
        let before = commands(&cluster).await;
        sleep(secs(4)).await;
        let after = commands(&cluster).await;
        idle.push((after.0 - before.0, after.1 - before.1));
    }
    println!("idle, in 4 s, 100 and 10,000 connections: {idle:?}");
    assert!(idle[1].0 * 10 <= idle[0].0 * 12 && idle[1].1 * 10 <= idle[0].1 * 12, "{idle:?}");
    assert!(idle[1].0 <= 3 * 4 * 2 + 3, "{idle:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_costs_two_commands_alone_and_a_fraction_of_one_under_load() {
    let cluster = Cluster::new(limits(2, 1, SessionPolicy::Reject)).await;
    let doors = cluster.ready_doors(3).await;
    let before = commands(&cluster).await;
    for n in 0..300 {
        drop(doors[n % 3].admit(client(n)).await.unwrap());
    }
    cluster.comes_to(&std::collections::BTreeMap::new()).await;
    let alone = commands(&cluster).await;
    println!("alone, 300 connections: {} commands", alone.0 - before.0);
    // A few heartbeats are among them.
    assert!(alone.0 - before.0 <= 300 * 2 + 60, "{before:?} {alone:?}");

    let before = commands(&cluster).await;
    drop(connect(&doors, 0..6000).await);
    cluster.comes_to(&std::collections::BTreeMap::new()).await;
    let crowd = commands(&cluster).await;
    println!(
        "a crowd of 6,000: {} commands, {} with those in scripts",
        crowd.0 - before.0,
        crowd.1 - before.1
    );
    // The reader's own commands are among the latter.
    assert!(crowd.0 - before.0 <= 6000 / 10, "{before:?} {crowd:?}");
}
