//! Nodes and Redis fail: what the limits promise then, and that the counts come right again by themselves.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fanlight::admission::{Admission, Config, Refusal, SessionPolicy, WithoutRedis};
use futures_util::future::join_all;
use tokio::time::sleep;

use super::cluster::{Cluster, Crowd, TTL, limits, of, with};
use crate::support::{Fault, TcpProxy, check, eventually, secs};

fn counted(pairs: &[(&str, u64)]) -> BTreeMap<String, u64> {
    pairs.iter().map(|(key, count)| ((*key).to_owned(), *count)).collect()
}

/// A door whose whole life is one thread, so that it can be stopped with all its tasks and timers like a process.
struct Pausable {
    commands: std::sync::mpsc::SyncSender<Duration>,
    door: Arc<Admission>,
}

impl Pausable {
    fn start(cluster: &Cluster) -> Self {
        let (commands, orders) = std::sync::mpsc::sync_channel::<Duration>(1);
        let (give, take) = std::sync::mpsc::sync_channel(1);
        let (url, prefix) = (cluster.redis.url(), cluster.redis.prefix().to_owned());
        let config = cluster.config.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let redis = fanlight::redis::Config::new(&url, &prefix).unwrap();
                let store = Arc::new(fanlight::admission::RedisLeases::new(redis));
                let clock = fanlight::clock::Clock::system();
                give.send(Arc::new(Admission::clustered(config, store, clock, |_| {}))).unwrap();
                loop {
                    match orders.try_recv() {
                        // The node stands still as one thing, with all its tasks: they run on this thread.
                        Ok(pause) => std::thread::sleep(pause),
                        Err(std::sync::mpsc::TryRecvError::Empty) => sleep(Duration::from_millis(1)).await,
                        Err(std::sync::mpsc::TryRecvError::Disconnected) => break,
                    }
                }
            });
        });
        Self { commands, door: take.recv().unwrap() }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_slots_of_a_dead_node_are_free_within_the_lease_and_two_seconds_and_nothing_stays() {
    let cluster = Cluster::new(limits(2, 1, SessionPolicy::Reject)).await;
    let mut doors = cluster.ready_doors(2).await;
    let survivor = doors.remove(0);
    let victim = doors.remove(0);
    let lost = [victim.admit(with(1, "a")).await.unwrap(), victim.admit(with(1, "b")).await.unwrap()];
    assert!(survivor.admit(of(1)).await.is_err());
    // Its task ends with it and nothing is given back: as kill -9.
    std::mem::forget(lost);
    drop(victim);
    let died = Instant::now();
    eventually("a slot is free", TTL + secs(2), async || survivor.admit(with(1, "a")).await.map(drop)).await;
    assert!(died.elapsed() > TTL / 2, "the lease must not end early: {:?}", died.elapsed());
    cluster.comes_to(&BTreeMap::new()).await;
    drop(survivor);
    eventually("no key is left", TTL * 2, async || {
        let keys = cluster.keys().await;
        check(keys.is_empty(), format!("{keys:?}"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_shut_down_frees_its_slots_at_once() {
    let cluster = Cluster::new(limits(1, 0, SessionPolicy::Reject)).await;
    let doors = cluster.ready_doors(2).await;
    let _held = doors[0].admit(of(1)).await.unwrap();
    doors[0].shutdown().await;
    assert!(doors[1].admit(of(1)).await.is_ok());
    assert_eq!(cluster.keys().await.len(), 2, "the record and one lease");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stood_still_for_three_leases_is_right_again_when_it_wakes() {
    let cluster = Cluster::new(limits(3, 0, SessionPolicy::Reject)).await;
    let doors = cluster.ready_doors(1).await;
    let sleeper = Pausable::start(&cluster);
    let held = [sleeper.door.admit(of(1)).await.unwrap(), sleeper.door.admit(of(1)).await.unwrap()];
    cluster.comes_to(&counted(&[("i192.0.2.1", 2)])).await;
    sleeper.commands.send(TTL * 3).unwrap();
    eventually("its lease ends", TTL * 2, async || {
        let counted = cluster.counted().await;
        check(counted.is_empty(), format!("{counted:?}"))
    })
    .await;
    // Its two connections are real and uncounted: that is the bound.
    let others = join_all((0..5).map(|_| doors[0].admit(of(1)))).await;
    assert_eq!(others.iter().filter(|answer| answer.is_ok()).count(), 3);
    eventually("it tells what it holds", TTL * 3, async || {
        let now = cluster.counted().await;
        check(now == counted(&[("i192.0.2.1", 5)]), format!("{now:?}"))
    })
    .await;
    assert!(sleeper.door.admit(of(1)).await.is_err());
    assert_eq!(sleeper.door.status().lost_leases, 1);
    drop((held, others));
    cluster.comes_to(&BTreeMap::new()).await;
}

/// Clients come and go at all doors until `stop`.
async fn bustle(doors: &[Arc<Admission>], crowd: &Arc<Crowd>, stop: &AtomicBool) {
    let clients = (0..60).map(|n| async move {
        let door = &doors[n % doors.len()];
        while !stop.load(Ordering::SeqCst) {
            let guest = crowd.enter(door, of(1)).await;
            sleep(Duration::from_millis(if guest.is_ok() { 20 } else { 3 })).await;
        }
    });
    join_all(clients).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_emptied_under_way_lets_nobody_in_above_the_limit() {
    let cluster = Cluster::new(limits(10, 0, SessionPolicy::Reject)).await;
    let doors = cluster.ready_doors(3).await;
    let (crowd, stop) = (Arc::new(Crowd::default()), AtomicBool::new(false));
    let flushes = async {
        for _ in 0..5 {
            sleep(Duration::from_millis(900)).await;
            cluster.redis.cli(&["FLUSHALL"]).await;
        }
        sleep(Duration::from_millis(900)).await;
        stop.store(true, Ordering::SeqCst);
    };
    tokio::join!(bustle(&doors, &crowd, &stop), flushes);
    assert_eq!(crowd.most(), 10, "the limit is reached and never passed");
    cluster.comes_to(&BTreeMap::new()).await;
    assert!(doors.iter().all(|door| door.status().lost_leases == 5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_are_lost_cost_no_place_and_give_none() {
    let cluster = Cluster::new(limits(10, 0, SessionPolicy::Reject)).await;
    let direct = cluster.ready_doors(1).await.remove(0);
    let proxy = TcpProxy::start(cluster.redis.addr()).await;
    let shaky = cluster.door_at(&format!("redis://{}", proxy.addr()), &cluster.config);
    eventually("the door opens", secs(20), async || shaky.admit(of(9)).await.map(drop)).await;
    let doors = [direct, Arc::clone(&shaky)];
    let (crowd, stop) = (Arc::new(Crowd::default()), AtomicBool::new(false));
    let trouble = async {
        for _ in 0..40 {
            sleep(Duration::from_millis(40)).await;
            // What is asked now is carried out, and its answer never arrives.
            proxy.set(Fault::SwallowAnswers);
            sleep(Duration::from_millis(20)).await;
            proxy.cut().await;
            proxy.set(Fault::None);
        }
        stop.store(true, Ordering::SeqCst);
    };
    tokio::join!(bustle(&doors, &crowd, &stop), trouble);
    assert_eq!(crowd.most(), 10, "the limit is reached and never passed");
    let status = shaky.status();
    assert!(status.failed_calls > 10, "{status:?}");
    cluster.comes_to(&BTreeMap::new()).await;
    let all = join_all((0..12).map(|n| doors[n % 2].admit(of(1)))).await;
    assert_eq!(all.iter().filter(|answer| answer.is_ok()).count(), 10);
}

async fn answers_within_a_second(
    door: &Admission,
    tries: u8,
) -> Vec<Result<fanlight::admission::Permit, Refusal>> {
    join_all((0..tries).map(|_| async {
        let asked = Instant::now();
        let answer = door.admit(of(1)).await;
        assert!(asked.elapsed() < secs(1), "{:?}", asked.elapsed());
        answer
    }))
    .await
}

async fn while_redis_stands_still(policy: WithoutRedis, admitted: usize, refusal: Option<Refusal>) {
    let mut cluster = Cluster::new(limits(4, 0, SessionPolicy::Reject)).await;
    cluster.config.without_redis = policy;
    let doors = cluster.ready_doors(2).await;
    let before = [doors[0].admit(of(1)).await.unwrap(), doors[0].admit(of(1)).await.unwrap()];
    cluster.redis.pause();
    let mut held = Vec::new();
    // The first wave waits for Redis in vain, the second no longer does.
    for wave in [5, 5] {
        for answer in answers_within_a_second(&doors[1], wave).await {
            match answer {
                Ok(permit) => held.push(permit),
                Err(why) => assert_eq!(Some(why), refusal),
            }
        }
    }
    assert_eq!(held.len(), admitted, "{policy:?}");
    assert!(!doors[1].status().cluster_wide);
    cluster.redis.resume();
    eventually("everything is told", secs(5), async || {
        let now = cluster.counted().await;
        check(now == counted(&[("i192.0.2.1", 2 + admitted as u64)]), format!("{now:?}"))
    })
    .await;
    eventually("limits are checked again", secs(5), async || {
        check(doors.iter().all(|door| door.status().cluster_wide), "no")
    })
    .await;
    let full = admitted + 2 >= 4;
    assert_eq!(doors[0].admit(of(1)).await.is_err(), full);
    drop((before, held));
    cluster.comes_to(&BTreeMap::new()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_stands_still_leaves_the_limit_to_each_node() {
    while_redis_stands_still(WithoutRedis::Local, 4, Some(Refusal::IpLimit { limit: 4 })).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_stands_still_closes_the_door() {
    while_redis_stands_still(WithoutRedis::Closed, 0, Some(Refusal::LimitsUnavailable)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_stands_still_opens_the_door() {
    while_redis_stands_still(WithoutRedis::Open, 10, None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_may_start_before_its_redis() {
    let mut cluster = Cluster::new(limits(2, 0, SessionPolicy::Reject)).await;
    cluster.redis.kill();
    let local = Config { without_redis: WithoutRedis::Local, ..cluster.config.clone() };
    let door = cluster.door_at(&cluster.redis.url(), &local);
    let held = answers_within_a_second(&door, 3).await;
    assert_eq!(held.iter().filter(|answer| answer.is_ok()).count(), 2);
    cluster.redis.restart().await;
    cluster.comes_to(&counted(&[("i192.0.2.1", 2)])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_full_still_counts() {
    let cluster = Cluster::new(limits(2, 0, SessionPolicy::Reject)).await;
    let doors = cluster.ready_doors(2).await;
    cluster.redis.cli(&["CONFIG", "SET", "maxmemory", "1mb"]).await;
    assert!(cluster.redis.try_cli(&["SET", "x", "1"]).await.is_err_and(|e| e.contains("OOM")));
    let held = join_all((0..4).map(|n| doors[n % 2].admit(of(1)))).await;
    assert_eq!(held.iter().filter(|answer| answer.is_ok()).count(), 2);
    drop(held);
    cluster.comes_to(&BTreeMap::new()).await;
}
