//! What a client missed: from its position to the live stream.
//!
//! By the time that this is asked, the connection is registered in the hub and parked, so every event is either in the
//! history that is read now, or comes live and waits behind the replay, or is both: then its number tells.

use std::time::Duration;

use tokio::time::timeout;
use uuid::Uuid;

use super::Node;
use super::history::Replay;
use super::subscribe::Greeting;
use crate::hub::ConnectionKey;
use crate::protocol::channel::ChannelName;
use crate::protocol::close::GapReason;
use crate::protocol::control;
use crate::protocol::position::Position;
use crate::protocol::sse::Block;

/// How long a client waits for its history; then it is told a gap and goes live.
pub(super) const READ_LIMIT: Duration = Duration::from_secs(5);

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
    pub(super) async fn resume(
        &self,
        id: Uuid,
        key: ConnectionKey,
        greeting: &Greeting,
        last_event_id: &str,
    ) {
        let release = match Position::parse(last_event_id) {
            Some(position) => self.catch_up(id, greeting, position).await,
            None => self.gap_everywhere(id, greeting, GapReason::UnknownPosition),
        };
        self.hub.release(key, release.blocks, release.replayed_to, release.last).await;
    }

    async fn catch_up(&self, id: Uuid, greeting: &Greeting, after: Position) -> Release {
        let read = self.history.read(greeting.channels.clone(), after);
        match timeout(READ_LIMIT, read).await {
            Ok(Ok(replay)) => self.replay(id, greeting, after, &replay),
            Ok(Err(error)) => {
                self.tally.error();
                tracing::debug!(connection = %id, %error, "cannot read what a client missed; it is told a gap");
                self.gap_everywhere(id, greeting, GapReason::BrokerInterrupted)
            }
            Err(_) => {
                self.tally.error();
                tracing::debug!(connection = %id, limit = ?READ_LIMIT, "history takes too long; a client is told a gap");
                self.gap_everywhere(id, greeting, GapReason::BrokerInterrupted)
            }
        }
    }

    fn replay(&self, id: Uuid, greeting: &Greeting, after: Position, replay: &Replay) -> Release {
        let gap = |channel| Some(self.gap(id, channel, replay.history.gap(channel, after)?));
        let gaps: Vec<Block> = greeting.channels.iter().filter_map(gap).collect();
        let mut blocks = vec![self.hello(id, greeting, Some(gaps.is_empty()))];
        blocks.extend(gaps);
        blocks.extend(replay.after(&greeting.channels, after).map(|(_, block)| block.clone()));
        Release { replayed_to: replay.history.up_to.n, ..Release::new(blocks) }
    }

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
