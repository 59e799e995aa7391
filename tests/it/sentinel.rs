//! Redis under Sentinel: after a failover everything reaches the new master by itself, and what the old one took with it
//! is told.
//!
//! A replica that takes over may lack the last events that the master had acknowledged; a Redis cannot promise more. They
//! are counted here, and whoever misses one must have been told `gap`.

use futures_util::future::join_all;

use crate::support::node::fanlight;
use crate::support::resuming::{Balancer, CHANNEL, Resuming, Unacknowledged};
use crate::support::sentinel::{Failover, Sentinels};
use crate::support::{Node, NodeBuilder, SseRequest, full, secs};

const CLIENTS: usize = 60;

fn node(sentinels: &Sentinels) -> NodeBuilder {
    // With a limit, admission asks Redis as well.
    let builder = Node::builder().redis_at(&sentinels.url(), sentinels.prefix());
    builder.set("FANLIGHT_MAX_PER_IP", 1000).set("FANLIGHT_HISTORY_SIZE", 20000)
}

/// A stream is admitted by Redis' count, and the command line finds the master too.
async fn serves(sentinels: &Sentinels, node: &Node, streams: usize) {
    let ip = |stream: usize| [127, 0, 2, stream as u8];
    let mut client = SseRequest::new("/stream?channels=jobs").from(ip(streams)).open(node.addr()).await;
    client.expect("connected").await;
    let (url, prefix) = (sentinels.url(), sentinels.prefix().to_owned());
    let published = tokio::task::spawn_blocking(move || {
        let mut publish = fanlight();
        publish.args(["publish", CHANNEL, "1", "--redis-url", &url, "--redis-prefix", &prefix]);
        publish.output().unwrap()
    });
    let published = published.await.unwrap();
    assert!(published.status.success(), "{}", String::from_utf8_lossy(&published.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_failover_everything_reaches_the_new_master_and_what_was_lost_is_told() {
    let failovers = if full() { 10 } else { 2 };
    let mut sentinels = Sentinels::start().await;
    let mut nodes = join_all((0..3).map(|_| node(&sentinels).start())).await;
    let balancer = Balancer::new(nodes.iter().map(Node::addr));
    // A replica may not know the key of an event that the master has delivered: published again, it would come twice.
    let clients = Resuming::start(balancer.clone(), CLIENTS, 10, Unacknowledged::Left).await;
    clients.all_current(secs(20)).await;
    sentinels.stop_first_sentinel();
    for round in 0..failovers {
        let how = [Failover::Kill, Failover::Planned, Failover::Stop][round % 3];
        sentinels.fail_over(how).await;
        let took = clients.all_current(secs(20)).await;
        println!("{how:?}: everybody has a new event {took:?} after the replica is the master");
        serves(&sentinels, &nodes[round % 3], round).await;
        if round + 1 < failovers {
            sentinels.heal(how).await;
            // Some come back over another node while the next failover is under way.
            let gone = round % 3;
            balancer.leave(nodes[gone].addr());
            nodes[gone] = node(&sentinels).start().await;
            balancer.join(nodes[gone].addr());
        }
    }
    let untold = clients.gaps().iter().filter(|gaps| **gaps == 0).count();
    assert_eq!(untold, 0, "clients were told of no failover");
    let verdict = clients.settle().await;
    println!("{failovers} failovers: {verdict:?}");
    assert!(verdict.acknowledged > 0 && verdict.received > 0, "{verdict:?}");
    assert_eq!((verdict.lost, verdict.duplicated, verdict.out_of_order), (0, 0, 0), "{verdict:?}");
}
