//! Many clients of one address at several nodes, by way of a proxy that the nodes trust.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures_util::future::join_all;
use tokio::time::sleep;

use crate::support::wait::secs;
use crate::support::{Node, NodeBuilder, RedisServer, SseClient, SseRequest, eventually};

/// The address of everybody who is told apart by nothing else.
pub(super) const SOMEBODY: &str = "192.0.2.9";

/// The field of [`SOMEBODY`] in a lease.
pub(super) const SOMEBODYS_FIELD: &str = "i192.0.2.9";

/// The shortest lease that a node takes.
pub(super) const TTL: std::time::Duration = secs(2);

/// A node behind a proxy at 127.0.0.1, with this limit per address, and the shortest lease. Without Redis it admits nobody.
pub(super) fn builder(redis: &RedisServer, max_per_ip: usize) -> NodeBuilder {
    Node::builder()
        .redis(redis)
        .set("FANLIGHT_LOG", "info")
        .set("FANLIGHT_TRUSTED_PROXIES", "127.0.0.1")
        .set("FANLIGHT_MAX_PER_IP", max_per_ip)
        .set("FANLIGHT_LEASE_TTL", format!("{}s", TTL.as_secs()))
        .set("FANLIGHT_LIMITS_WITHOUT_REDIS", "closed")
}

/// `count` such nodes, each of which has admitted somebody already.
pub(super) async fn nodes(redis: &RedisServer, count: usize, max_per_ip: usize) -> Vec<Node> {
    let nodes = join_all((0..count).map(|_| builder(redis, max_per_ip).start())).await;
    for node in &nodes {
        admits(node.addr(), "192.0.2.250").await;
    }
    nodes
}

/// Waits until the node at `addr` lets somebody of `address` in, who leaves at once.
pub(super) async fn admits(addr: SocketAddr, address: &str) {
    eventually("it admits", secs(15), async || match of(address).try_open(addr).await?.head.status {
        200 => Ok(()),
        status => Err(status.to_string()),
    })
    .await;
}

/// A stream for somebody at `address`.
pub(super) fn of(address: &str) -> SseRequest {
    SseRequest::new("/stream").header("X-Forwarded-For", address).unrecorded()
}

/// `tries` at once, in turn at each node: who came in, and the status of everybody else.
pub(super) async fn storm(nodes: &[SocketAddr], tries: usize) -> (Vec<SseClient>, Vec<u16>) {
    let all = (0..tries).map(|i| {
        let node = nodes[i % nodes.len()];
        tokio::spawn(async move { of(SOMEBODY).try_open(node).await.expect("an answer") })
    });
    let answers = join_all(all).await.into_iter().map(Result::unwrap);
    let (inside, refused): (Vec<_>, Vec<_>) = answers.partition(|stream| stream.head.status == 200);
    (inside, refused.iter().map(|stream| stream.head.status).collect())
}

/// How many are inside as they see it, and the most that ever were. A client counts itself in after it was let in and out
/// before it leaves, so there are never fewer at the nodes.
#[derive(Debug, Default)]
pub(super) struct Inside {
    now: AtomicUsize,
    most: AtomicUsize,
    entries: AtomicUsize,
}

impl Inside {
    pub(super) fn most(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }

    pub(super) fn entries(&self) -> usize {
        self.entries.load(Ordering::SeqCst)
    }

    /// 60 clients of [`SOMEBODY`] come and go at all nodes until `stop`.
    pub(super) async fn bustle(self: &Arc<Self>, nodes: &[SocketAddr], stop: &AtomicBool) {
        let clients = (0..60).map(|n| async move {
            while !stop.load(Ordering::SeqCst) {
                let Ok(stream) = of(SOMEBODY).try_open(nodes[n % nodes.len()]).await else { continue };
                if stream.head.status == 200 {
                    self.stay().await;
                } else {
                    sleep(std::time::Duration::from_millis(5)).await;
                }
                drop(stream);
            }
        });
        join_all(clients).await;
    }

    async fn stay(&self) {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        self.entries.fetch_add(1, Ordering::SeqCst);
        sleep(std::time::Duration::from_millis(20)).await;
        self.now.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Their public addresses.
pub(super) fn addresses(nodes: &[Node]) -> Vec<SocketAddr> {
    nodes.iter().map(Node::addr).collect()
}
