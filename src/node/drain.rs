//! Leaving: no newcomers, and the streams closed one by one.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Node;

/// How often a draining node looks who else drains: as often as nodes tell.
const LOOK: Duration = Duration::from_secs(1);

impl Node {
    /// Whether the node is going.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Over how long a drain spreads the closings.
    pub const fn drain_time(&self) -> Duration {
        self.config.drain
    }

    /// Asks for a drain; whoever runs the node carries it out, as for a signal. Once is as good as often.
    pub fn order_drain(&self) {
        self.drain_ordered.notify_one();
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
