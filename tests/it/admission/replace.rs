//! The newcomer of a session takes the place of its oldest connection, wherever that is.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use fanlight::admission::{Admission, Permit, SessionPolicy, WithoutRedis};
use futures_util::future::join_all;
use tokio::time::sleep;

use super::cluster::{Cluster, limits, nudging_doors, with};
use crate::support::{check, eventually, secs};

/// A connection that ends when it is replaced.
type Connection = Arc<Mutex<Option<Permit>>>;

async fn connect(door: &Admission, ip: u8) -> Connection {
    let permit = door.admit(with(ip, "tab")).await.unwrap();
    let connection: Connection = Arc::default();
    let inside = Arc::downgrade(&connection);
    let mut place = connection.lock().unwrap();
    permit.on_replaced(move || {
        // Ends it as the program does: somewhere else, a little later.
        tokio::task::spawn_blocking(move || {
            inside.upgrade().map(|connection| connection.lock().unwrap().take());
        });
    });
    *place = Some(permit);
    drop(place);
    connection
}

fn is_open(connection: &Connection) -> bool {
    connection.lock().unwrap().is_some()
}

fn open(connections: &[Connection]) -> Vec<usize> {
    connections.iter().enumerate().filter(|(_, c)| is_open(c)).map(|(at, _)| at).collect()
}

async fn comes_to_be_open(connections: &[Connection], expected: &[usize]) {
    eventually(&format!("{expected:?} are open"), secs(5), async || {
        let open = open(connections);
        check(open == expected, format!("{open:?}"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_stays_and_the_count_is_exact_again() {
    let cluster = Cluster::new(limits(0, 1, SessionPolicy::Replace)).await;
    let doors = nudging_doors(&cluster, 3).await;
    let mut connections = Vec::new();
    for n in 0..9 {
        connections.push(connect(&doors[n % 3], 1).await);
        comes_to_be_open(&connections, &[n]).await;
    }
    let session = with(1, "tab").session.unwrap();
    cluster.comes_to(&BTreeMap::from([(format!("s{session}"), 1)])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_limit_of_three_the_oldest_go_first() {
    let cluster = Cluster::new(limits(0, 3, SessionPolicy::Replace)).await;
    let doors = nudging_doors(&cluster, 2).await;
    let mut connections = Vec::new();
    for n in 0..6 {
        connections.push(connect(&doors[n / 2 % 2], 1).await);
    }
    comes_to_be_open(&connections, &[3, 4, 5]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_newcomers_at_once_leave_as_many_as_the_limit() {
    let cluster = Cluster::new(limits(0, 2, SessionPolicy::Replace)).await;
    let doors = nudging_doors(&cluster, 3).await;
    let connections = join_all((0..60).map(|n| connect(&doors[n % 3], 1))).await;
    eventually("two are left", secs(5), async || {
        let open = open(&connections).len();
        check(open == 2, open)
    })
    .await;
    let session = with(1, "tab").session.unwrap();
    cluster.comes_to(&BTreeMap::from([(format!("s{session}"), 2)])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nudge_that_is_lost_costs_a_heartbeat() {
    let cluster = Cluster::new(limits(0, 1, SessionPolicy::Replace)).await;
    let doors = cluster.ready_doors(2).await;
    let connections = [connect(&doors[0], 1).await, connect(&doors[1], 1).await];
    comes_to_be_open(&connections, &[1]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_at_its_limit_replaces_nobody() {
    let cluster = Cluster::new(limits(2, 1, SessionPolicy::Replace)).await;
    let doors = nudging_doors(&cluster, 2).await;
    let first = connect(&doors[0], 1).await;
    let _second = doors[1].admit(with(1, "other")).await.unwrap();
    assert!(doors[1].admit(with(1, "tab")).await.is_err());
    sleep(secs(1)).await;
    assert!(is_open(&first));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_came_in_without_redis_is_put_right_when_it_is_back() {
    let mut cluster = Cluster::new(limits(0, 1, SessionPolicy::Replace)).await;
    cluster.config.without_redis = WithoutRedis::Local;
    let doors = nudging_doors(&cluster, 3).await;
    connect(&doors[0], 1).await;
    cluster.redis.pause();
    let mut connections = Vec::new();
    for n in 0..6 {
        connections.push(connect(&doors[n % 3], 1).await);
    }
    // One at each node, the newest.
    comes_to_be_open(&connections, &[3, 4, 5]).await;
    cluster.redis.resume();
    eventually("one is left", secs(5), async || {
        let open = open(&connections).len();
        check(open == 1, open)
    })
    .await;
    let session = with(1, "tab").session.unwrap();
    cluster.comes_to(&BTreeMap::from([(format!("s{session}"), 1)])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_that_redis_has_lost_is_given_again() {
    let cluster = Cluster::new(limits(0, 1, SessionPolicy::Replace)).await;
    let doors = cluster.ready_doors(2).await;
    let first = connect(&doors[0], 1).await;
    let second = connect(&doors[1], 1).await;
    cluster.redis.cli(&["FLUSHALL"]).await;
    comes_to_be_open(&[first, second], &[1]).await;
}
