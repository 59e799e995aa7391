//! Issue 4's promise under fire: three nodes, two hundred clients that resume, five hundred durable events a second, and
//! something dies again and again. A checker knows what was acknowledged and what every client received.

mod nodes;
mod redis_trouble;
mod storm;

use fanlight::cli::bench::checker::Verdict;

use crate::support::resuming::{Balancer, Resuming, Unacknowledged};
use crate::support::{Node, RedisServer, full, secs};

const CLIENTS: usize = 200;

/// How often a fault happens: the count with `make chaos`.
fn times(short: usize, whole: usize) -> usize {
    if full() { whole } else { short }
}

/// A cluster under load.
struct World {
    nodes: Vec<Node>,
    balancer: Balancer,
    clients: Resuming,
    settings: Vec<(&'static str, &'static str)>,
}

impl World {
    /// Pauses of the clients are `haste` times shorter than the server asks for.
    async fn start(redis: &RedisServer, settings: &[(&'static str, &'static str)], haste: u32) -> Self {
        let mut all = vec![("FANLIGHT_HISTORY_SIZE", "20000")];
        all.extend_from_slice(settings);
        let nodes = Node::cluster(redis, 3, &all).await;
        let balancer = Balancer::new(nodes.iter().map(Node::addr));
        let clients = Resuming::start(balancer.clone(), CLIENTS, haste, Unacknowledged::Again).await;
        // What was published on a channel that had no durable event yet cannot be known: an interruption before the first
        // is told.
        clients.all_current(secs(20)).await;
        Self { nodes, balancer, clients, settings: all }
    }

    /// A new node in the place of one that has gone.
    async fn replace(&mut self, redis: &RedisServer, index: usize) {
        self.nodes[index] = Node::start(redis, &self.settings).await;
        self.balancer.join(self.nodes[index].addr());
    }

    /// Ends the load; nothing may be lost in silence, twice or out of order.
    async fn verdict(self) -> Verdict {
        let verdict = self.clients.settle().await;
        println!("{verdict:?}");
        assert!(verdict.acknowledged > 0 && verdict.received > 0, "{verdict:?}");
        assert_eq!((verdict.lost, verdict.duplicated, verdict.out_of_order), (0, 0, 0), "{verdict:?}");
        verdict
    }

    /// The same where everything that was missed could be filled: nobody is told of a gap.
    async fn nothing_was_missed(self) {
        // While the nodes are there, so that what they logged is shown.
        assert_eq!(self.clients.gaps().iter().sum::<u64>(), 0, "clients were told gaps that are none");
        let verdict = self.verdict().await;
        assert_eq!(verdict.announced, 0, "{verdict:?}");
    }
}
