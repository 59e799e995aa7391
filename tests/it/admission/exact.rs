//! While all nodes reach Redis the limits are exact.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fanlight::admission::{Refusal, SessionPolicy};
use futures_util::future::join_all;
use tokio::time::timeout;

use super::cluster::{Cluster, Crowd, limits, of, with};
use crate::support::{eventually, secs};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exactly_a_hundred_of_a_thousand_come_in_at_three_nodes_every_time() {
    let cluster = Cluster::new(limits(100, 0, SessionPolicy::Reject)).await;
    let doors = cluster.ready_doors(3).await;
    for trial in 0..100 {
        let tries = (0..1000).map(|n| {
            let door = Arc::clone(&doors[n % 3]);
            tokio::spawn(async move { door.admit(of(1)).await })
        });
        let answers: Vec<_> = join_all(tries).await.into_iter().map(|answer| answer.unwrap()).collect();
        let refused = answers.iter().filter(|a| matches!(a, Err(Refusal::IpLimit { limit: 100 }))).count();
        let admitted: Vec<_> = answers.into_iter().flatten().collect();
        assert_eq!((admitted.len(), refused), (100, 900), "trial {trial}");
        drop(admitted);
        cluster.comes_to(&BTreeMap::new()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_counts_over_all_nodes_and_addresses_and_nothing_is_counted_for_the_refused() {
    let cluster = Cluster::new(limits(2, 1, SessionPolicy::Reject)).await;
    let doors = cluster.ready_doors(2).await;
    let first = doors[0].admit(with(1, "tab")).await.unwrap();
    assert_eq!(doors[1].admit(with(2, "tab")).await.unwrap_err(), Refusal::SessionLimit { limit: 1 });
    let other = doors[1].admit(with(1, "another")).await.unwrap();
    assert_eq!(doors[0].admit(of(1)).await.unwrap_err(), Refusal::IpLimit { limit: 2 });
    let counted = cluster.counted().await;
    assert_eq!(counted.values().sum::<u64>(), 4, "{counted:?}");
    drop(first);
    eventually("its place is free", secs(5), async || doors[1].admit(with(2, "tab")).await.map(drop)).await;
    drop(other);
    cluster.comes_to(&BTreeMap::new()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_leaves_before_the_answer_is_not_counted() {
    let cluster = Cluster::new(limits(50, 1, SessionPolicy::Reject)).await;
    let doors = cluster.ready_doors(3).await;
    for round in 0..20 {
        let tries = (0..200).map(|n| {
            let door = Arc::clone(&doors[n % 3]);
            let patience = Duration::from_micros(n as u64 * 20);
            tokio::spawn(async move { timeout(patience, door.admit(with(1, &n.to_string()))).await })
        });
        let answers = join_all(tries).await;
        let admitted = answers.iter().filter(|a| matches!(a, Ok(Ok(Ok(_))))).count();
        assert!(admitted <= 50, "round {round}: {admitted}");
        drop(answers);
    }
    cluster.comes_to(&BTreeMap::new()).await;
    assert!(doors.iter().all(|door| door.status().connections == 0));
    let full = join_all((0..60).map(|n| doors[n % 3].admit(of(1)))).await;
    assert_eq!(full.iter().filter(|answer| answer.is_ok()).count(), 50);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_come_and_go_are_noticed_before_anybody_is_admitted() {
    let cluster = Cluster::new(limits(10, 0, SessionPolicy::Reject)).await;
    let crowd = Arc::new(Crowd::default());
    let old = cluster.ready_doors(1).await.remove(0);
    let mut guests = Vec::new();
    for _ in 0..10 {
        // Each newcomer's node is unknown to all others when it first admits somebody.
        let new = cluster.door();
        let answers = join_all((0..5).flat_map(|_| [&old, &new].map(|door| crowd.enter(door, of(1))))).await;
        guests.extend(answers.into_iter().flatten());
        assert_eq!(guests.len(), 10);
        guests.drain(..3);
        new.shutdown().await;
        cluster.comes_to(&BTreeMap::from([("i192.0.2.1".to_owned(), old.status().connections as u64)])).await;
        guests.clear();
        cluster.comes_to(&BTreeMap::new()).await;
    }
    assert_eq!(crowd.most(), 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_others_do_not_know_of_admits_nobody_before_they_do() {
    let cluster = Cluster::new(limits(3, 0, SessionPolicy::Reject)).await;
    let doors = cluster.ready_doors(2).await;
    let _held = [doors[0].admit(of(1)).await.unwrap(), doors[0].admit(of(1)).await.unwrap()];
    // Somebody removes the first node from the record: now the two disagree about who is a member.
    let tag = doors[0].tag().unwrap().to_string();
    cluster.redis.cli(&["HDEL", &cluster.redis.key("@leases"), &tag]).await;
    let answers = join_all((0..6).map(|n| doors[n % 2].admit(of(1)))).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
    assert_eq!(doors[0].status().lost_leases, 1);
}
