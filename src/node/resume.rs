//! What a client missed: from its position to the live stream.
//!
//! By the time that this is asked, the connection is registered in the hub and parked, so every event is either in the
//! history that is read now, or comes live and waits behind the replay, or is both: then its number tells.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::Node;
use super::history::Replay;
use super::subscribe::Greeting;
use crate::broker::BrokerError;
use crate::hub::ConnectionKey;
use crate::protocol::channel::ChannelName;
use crate::protocol::close::GapReason;
use crate::protocol::control;
use crate::protocol::position::Position;
use crate::protocol::sse::Block;

/// How long a client waits for its history; then it is told a gap and goes live.
pub(super) const READ_LIMIT: Duration = Duration::from_secs(5);

/// How long a history that cannot be read is asked for again: a Redis that is restarted, is replaced or has too much to do
/// for a moment costs nobody a gap. Longer than one answer may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(100);

/// How far ahead of what its node knows a client may truly be.
const AHEAD: Duration = Duration::from_secs(60);

/// What a connection is released with.
pub(super) struct Release {
    pub(super) blocks: Vec<Block>,
    pub(super) replayed_to: u64,
    /// The stream is complete with these blocks.
    pub(super) last: bool,
}

impl Release {
    /// These blocks, which hold no history, and then whatever comes live.
    pub(super) const fn new(blocks: Vec<Block>) -> Self {
        Self { blocks, replayed_to: 0, last: false }
    }
}

impl Node {
    /// Gives a parked connection everything after `last_event_id`, or tells it that there is a gap, and lets it go live.
    /// `present` is where the node stood before the connection was registered.
    pub(super) async fn resume(
        &self,
        id: Uuid,
        key: ConnectionKey,
        greeting: &Greeting,
        last_event_id: &str,
        present: Option<Position>,
    ) {
        let release = match Position::parse(last_event_id) {
            Some(position) => self.catch_up(id, greeting, position).await,
            None => {
                let mut release = self.gap_everywhere(id, greeting, GapReason::UnknownPosition);
                release.blocks.extend(present.map(control::position));
                release
            }
        };
        self.hub.release(key, release.blocks, release.replayed_to, release.last).await;
    }

    async fn catch_up(&self, id: Uuid, greeting: &Greeting, after: Position) -> Release {
        match self.missed(&greeting.channels, after).await {
            Ok(replay) => self.replay(id, greeting, after, &replay),
            Err(reason) => {
                self.tally.error();
                tracing::debug!(connection = %id, reason, "cannot read what a client missed; it is told a gap");
                let replayed_to = self.passed.get().map_or(0, |passed| had(after, passed));
                Release { replayed_to, ..self.gap_everywhere(id, greeting, GapReason::BrokerInterrupted) }
            }
        }
    }

    /// What `channels` had after a position, or why that cannot be had.
    pub(super) async fn missed(
        &self,
        channels: &Arc<[ChannelName]>,
        after: Position,
    ) -> Result<Arc<Replay>, String> {
        let asked = self.clock.now();
        let reading = async {
            loop {
                match self.history.read(Arc::clone(channels), after).await {
                    Err(BrokerError::Unavailable(_)) if self.clock.now().since(asked) < PATIENCE => {
                        sleep(PAUSE).await;
                    }
                    answer => return answer.map_err(|error| error.to_string()),
                }
            }
        };
        timeout(READ_LIMIT, reading).await.unwrap_or_else(|_| Err("no answer in time".into()))
    }

    fn replay(&self, id: Uuid, greeting: &Greeting, after: Position, replay: &Replay) -> Release {
        let gap = |channel| Some(self.gap(id, channel, replay.history.gap(channel, after)?));
        let gaps: Vec<Block> = greeting.channels.iter().filter_map(gap).collect();
        let mut blocks = vec![self.hello(id, greeting, Some(gaps.is_empty()))];
        let missed = !gaps.is_empty();
        blocks.extend(gaps);
        blocks.extend(replay.after(&greeting.channels, after).map(|(_, block)| block.clone()));
        let up_to = replay.history.up_to;
        let replayed_to = up_to.n.max(had(after, up_to));
        if missed {
            blocks.push(control::position(Position { n: replayed_to, ..up_to }));
        }
        Release { replayed_to, ..Release::new(blocks) }
    }

    /// The client keeps its position: what could not be read now may be there when it comes back.
    fn gap_everywhere(&self, id: Uuid, greeting: &Greeting, reason: GapReason) -> Release {
        let mut blocks = vec![self.hello(id, greeting, Some(false))];
        blocks.extend(greeting.channels.iter().map(|channel| self.gap(id, channel, reason)));
        Release::new(blocks)
    }

    /// Tells one client a gap, and counts it.
    pub(super) fn gap(&self, id: Uuid, channel: &ChannelName, reason: GapReason) -> Block {
        self.tally.gap(reason);
        tracing::debug!(connection = %id, %channel, reason = reason.name(), "a client is told a gap");
        control::gap(channel, reason)
    }
}

/// The last event that a client at `after` has had, as a number, by a node that knows what there was up to `known`. Another
/// node may have been quicker to deliver, and after a failover the new master knows less than the clients: what comes live
/// up to there would come twice. A client may say anything; what cannot be true counts for nothing, or it would hear nothing.
fn had(after: Position, known: Position) -> u64 {
    let ahead = after.unix_millis().saturating_sub(known.unix_millis());
    if after.epoch == known.epoch && u128::from(ahead) <= AHEAD.as_millis() { after.n } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_is_a_little_ahead_of_its_node_is_believed_and_no_other() {
        let at = |epoch, seconds: u64| Position { epoch, n: (seconds * 1000) << 11 };
        let known = at(7, 1000);
        assert_eq!(had(at(7, 1030), known), at(7, 1030).n);
        assert_eq!(had(at(7, 10), known), at(7, 10).n);
        for other in [at(6, 1000), at(8, 1000), at(7, 1100), Position { epoch: 7, n: (1 << 53) - 1 }] {
            assert_eq!(had(other, known), 0, "{other}");
        }
    }
}
