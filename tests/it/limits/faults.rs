//! Redis forgets, answers are lost, and nodes disagree about who they are: over HTTP, at real nodes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;

use super::crowd::{Inside, SOMEBODY, SOMEBODYS_FIELD, addresses, admits, builder, nodes, of, storm};
use crate::support::{Fault, Node, RedisServer, TcpProxy, eventually, full, leases, secs};

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_emptied_under_way_lets_nobody_in_above_the_limit() {
    let redis = RedisServer::start().await;
    let nodes = nodes(&redis, 3, 10).await;
    let (inside, stop) = (Arc::new(Inside::default()), AtomicBool::new(false));
    let flushes = async {
        for _ in 0..if full() { 30 } else { 3 } {
            sleep(Duration::from_millis(900)).await;
            redis.cli(&["FLUSHALL"]).await;
        }
        sleep(Duration::from_millis(900)).await;
        stop.store(true, Ordering::SeqCst);
    };
    let addresses = addresses(&nodes);
    tokio::join!(inside.bustle(&addresses, &stop), flushes);
    assert_eq!(inside.most(), 10, "the limit is reached and never passed ({} entries)", inside.entries());
    leases::come_to(&redis, &BTreeMap::new()).await;
    assert_eq!(storm(&addresses, 50).await.0.len(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_lost_cost_no_place_and_give_none() {
    let redis = RedisServer::start().await;
    let direct = nodes(&redis, 2, 10).await;
    let proxy = TcpProxy::start(redis.addr()).await;
    let shaky =
        builder(&redis, 10).redis_at(&format!("redis://{}", proxy.addr()), redis.prefix()).start().await;
    admits(shaky.addr(), "192.0.2.251").await;
    let all = [direct[0].addr(), shaky.addr(), direct[1].addr()];
    let (inside, stop) = (Arc::new(Inside::default()), AtomicBool::new(false));
    let trouble = async {
        for _ in 0..if full() { 300 } else { 40 } {
            sleep(Duration::from_millis(40)).await;
            // What is asked now is carried out, and its answer never arrives.
            proxy.set(Fault::SwallowAnswers);
            sleep(Duration::from_millis(20)).await;
            proxy.cut().await;
            proxy.set(Fault::None);
        }
        stop.store(true, Ordering::SeqCst);
    };
    tokio::join!(inside.bustle(&all, &stop), trouble);
    assert_eq!(inside.most(), 10, "the limit is reached and never passed ({} entries)", inside.entries());
    leases::come_to(&redis, &BTreeMap::new()).await;
    admits(shaky.addr(), "192.0.2.251").await;
    leases::come_to(&redis, &BTreeMap::new()).await;
    assert_eq!(storm(&all, 60).await.0.len(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_the_record_has_lost_is_known_again_before_anybody_comes_in() {
    let redis = RedisServer::start().await;
    let nodes = nodes(&redis, 2, 3).await;
    let _held = [of(SOMEBODY).open(nodes[0].addr()).await, of(SOMEBODY).open(nodes[0].addr()).await];
    let record = redis.key("@leases");
    for lease in leases::keys(&redis).await.iter().filter(|key| key.contains("@lease:")) {
        if redis.cli(&["HEXISTS", lease, SOMEBODYS_FIELD]).await == "1" {
            // From now on the two nodes disagree about who is a member.
            let (_, tag) = lease.split_once("@lease:").unwrap();
            assert_eq!(redis.cli(&["HDEL", &record, tag]).await, "1");
        }
    }
    let (inside, refused) = storm(&addresses(&nodes), 10).await;
    assert_eq!((inside.len(), refused.len()), (1, 9));
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_join_and_die_in_a_storm_are_counted_from_their_first_client_on() {
    let redis = RedisServer::start().await;
    let old = nodes(&redis, 2, 10).await;
    let (inside, stop) = (Arc::new(Inside::default()), AtomicBool::new(false));
    let addresses = addresses(&old);
    let newcomers = async {
        for _ in 0..if full() { 30 } else { 3 } {
            // The others do not know of it when its first client comes.
            let new = builder(&redis, 10).start().await;
            let enough = AtomicBool::new(false);
            let all = [new.addr()];
            let while_it_lives = async {
                sleep(Duration::from_millis(500)).await;
                enough.store(true, Ordering::SeqCst);
            };
            tokio::join!(inside.bustle(&all, &enough), while_it_lives);
        }
        stop.store(true, Ordering::SeqCst);
    };
    tokio::join!(inside.bustle(&addresses, &stop), newcomers);
    assert_eq!(inside.most(), 10, "the limit is reached and never passed ({} entries)", inside.entries());
    leases::come_to(&redis, &BTreeMap::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_moves_over_three_nodes_and_only_its_newest_stream_stays() {
    let redis = RedisServer::start().await;
    let settings = [("FANLIGHT_MAX_PER_SESSION", "1"), ("FANLIGHT_SESSION_POLICY", "replace")];
    let nodes = Node::cluster(&redis, 3, &settings).await;
    let mut last = nodes[2].subscribe("/stream?session=r").await;
    for step in 0..if full() { 100 } else { 9 } {
        let new = nodes[step % 3].subscribe("/stream?session=r").await;
        let bye = last.expect("bye").await.json();
        assert_eq!((&bye["reason"], &bye["reconnect"]), (&json!("replaced"), &json!(false)), "step {step}");
        last = new;
        eventually("one is counted", secs(5), async || {
            let counted = leases::counted(&redis).await;
            if counted.values().eq([&1]) { Ok(()) } else { Err(format!("{counted:?}")) }
        })
        .await;
    }
    nodes[0].publish("jobs", "n", &json!({})).await;
    last.expect("n").await;
    drop(last);
    leases::come_to(&redis, &BTreeMap::new()).await;
}
