//! What kind of events a node has seen on which channels, since it subscribed: it decides who must be told after an
//! interruption.
//!
//! 90,000 channels must cost next to nothing here, and the interest holds their names already: this holds 64-bit
//! hashes, under a random key so that nobody can choose names that collide. Two names that do so by chance (one in
//! 10^9 at 100,000 channels) share what is known about them.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use hashbrown::HashSet;

use crate::protocol::channel::ChannelName;

/// What has been seen where.
#[derive(Debug, Default)]
pub(super) struct Seen {
    names: RandomState,
    plain: HashSet<u64>,
    durable: HashSet<u64>,
}

impl Seen {
    fn hash(&self, channel: &ChannelName) -> u64 {
        self.names.hash_one(channel)
    }

    /// A plain `PUBLISH` came, which no history knows.
    pub(super) fn plain(&mut self, channel: &ChannelName) {
        self.plain.insert(self.hash(channel));
    }

    /// A durable event came.
    pub(super) fn durable(&mut self, channel: &ChannelName) {
        self.durable.insert(self.hash(channel));
    }

    /// The channel is left.
    pub(super) fn forget(&mut self, channel: &ChannelName) {
        let hash = self.hash(channel);
        self.plain.remove(&hash);
        self.durable.remove(&hash);
    }

    /// Whether an interruption of `channel` can be filled from history, which is there or is not.
    pub(super) fn can_be_filled(&self, channel: &ChannelName, has_history: bool) -> bool {
        let hash = self.hash(channel);
        !self.plain.contains(&hash) && (has_history || self.durable.contains(&hash))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_channel_that_is_known_to_be_all_durable_can_be_filled() {
        let channel = |name| ChannelName::parse(name).unwrap();
        let (plain, durable, both, silent) = (channel("p"), channel("d"), channel("b"), channel("s"));
        let mut seen = Seen::default();
        seen.plain(&plain);
        seen.durable(&durable);
        seen.plain(&both);
        seen.durable(&both);
        assert!(!seen.can_be_filled(&plain, true));
        assert!(seen.can_be_filled(&durable, false));
        assert!(!seen.can_be_filled(&both, true));
        assert!(!seen.can_be_filled(&silent, false), "what it missed cannot be known");
        assert!(seen.can_be_filled(&silent, true));
        seen.forget(&plain);
        assert!(seen.can_be_filled(&plain, true));
    }
}
