//! Leaving: no newcomers, and the streams closed one by one.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Node;
use super::peers::PeersUnreachable;
use crate::protocol::peer::{Answer, Ask, Drain};

/// How often a draining node looks who else drains: as often as nodes tell.
const LOOK: Duration = Duration::from_secs(1);

impl Node {
    /// Whether the node is going.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Asks for a drain; whoever runs the node carries it out, as for a signal. Once is as good as often.
    pub fn order_drain(&self) -> Drain {
        self.drain_ordered.notify_one();
        let over_ms = u64::try_from(self.config.drain.as_millis()).unwrap_or(u64::MAX);
        Drain { node: self.id().to_owned(), over_ms, connections: self.streams() }
    }

    /// Asks for the drain of the node of this name, wherever in the cluster it is; `None` when there is none of that name.
    ///
    /// # Errors
    /// When the nodes cannot be asked, or not all of them have answered and none of them was meant.
    pub async fn order_drain_of(&self, node: &str) -> Result<Option<Drain>, PeersUnreachable> {
        if node == self.id() {
            return Ok(Some(self.order_drain()));
        }
        let said = self.peers.ask(Ask::Drain { node: node.to_owned() }).await?;
        let meant = |answer| if let Answer::Draining { drain } = answer { drain } else { None };
        match said.answers.into_iter().find_map(meant) {
            None if said.partial => Err(PeersUnreachable::some()),
            drain => Ok(drain),
        }
    }

    /// Returns when a drain was asked for, also before this was called.
    pub async fn drain_ordered(&self) {
        self.drain_ordered.notified().await;
    }

    /// Refuses newcomers from now on, and closes all streams spread over the drain time. Returns when none is left.
    ///
    /// Nodes that drain together share the cluster's pace: they ask their clients for longer pauses, so that those that stay
    /// are not met by the reconnects of all of them at once.
    pub async fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        let drained = self.hub.drain(self.config.drain);
        tokio::pin!(drained);
        let mut look = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                () = &mut drained => return,
                _ = look.tick() => {
                    let others = self.cluster.draining().await.len();
                    self.hub.share_pace(u32::try_from(others).unwrap_or(u32::MAX).saturating_add(1)).await;
                }
            }
        }
    }
}
