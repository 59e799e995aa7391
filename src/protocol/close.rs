//! Why a stream ends, and why events may be missing: each reason as one type that answers every question about it.

/// Why the server ends a stream; the client reads it in `bye`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CloseReason {
    /// No event was delivered for the idle time-out.
    IdleTimeout,
    /// The stream reached its greatest age; a new one balances the load.
    MaxAge,
    /// The node drains.
    ServerShutdown,
    /// The client took its events too slowly.
    SlowConsumer,
    /// A newer connection of the same session took its place.
    Replaced,
    /// An administrator closed it.
    Kicked,
    /// The token that opened it has expired.
    TokenExpired,
    /// The node sheds load.
    Overloaded,
}

impl CloseReason {
    /// Every reason, for tables and metrics.
    pub const ALL: [Self; 8] = [
        Self::IdleTimeout,
        Self::MaxAge,
        Self::ServerShutdown,
        Self::SlowConsumer,
        Self::Replaced,
        Self::Kicked,
        Self::TokenExpired,
        Self::Overloaded,
    ];

    /// The name in `bye`, in the statistics and as metric label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::IdleTimeout => "idle_timeout",
            Self::MaxAge => "max_age",
            Self::ServerShutdown => "server_shutdown",
            Self::SlowConsumer => "slow_consumer",
            Self::Replaced => "replaced",
            Self::Kicked => "kicked",
            Self::TokenExpired => "token_expired",
            Self::Overloaded => "overloaded",
        }
    }

    /// Whether the client should come back by itself.
    ///
    /// Not after `replaced` (the newcomer would be replaced in turn, for ever), not after `kicked` (somebody meant it),
    /// and not after `token_expired` (the same token would be refused).
    pub const fn reconnect(self) -> bool {
        !matches!(self, Self::Replaced | Self::Kicked | Self::TokenExpired)
    }

    /// From where to where a client's pause before it comes back is drawn, in milliseconds.
    ///
    /// A drain spreads its closings evenly, and a wide span of pauses would undo that by chance: half a second is enough to
    /// take closings apart that fell together. A client that was too slow, or met a node that sheds load, waits longer.
    pub const fn retry_ms(self) -> std::ops::RangeInclusive<u64> {
        match self {
            Self::ServerShutdown => 500..=1_000,
            Self::IdleTimeout | Self::MaxAge => 500..=2_000,
            Self::SlowConsumer => 2_000..=5_000,
            Self::Overloaded => 10_000..=30_000,
            Self::Replaced | Self::Kicked | Self::TokenExpired => 30_000..=60_000,
        }
    }
}

impl CloseReason {
    /// [`retry_ms`](Self::retry_ms) when `together` nodes drain at the same time. Each of them spreads its closings over its drain
    /// time, so the others would get so many times the reconnects of one; a longer span of pauses takes the peak off. At
    /// most half a minute: a person looks at a page that waits.
    pub fn retry_ms_of(self, together: u32) -> std::ops::RangeInclusive<u64> {
        let usual = self.retry_ms();
        if self != Self::ServerShutdown {
            return usual;
        }
        let longest = usual.end().saturating_mul(u64::from(together.max(1))).min(MAX_SHARED_RETRY_MS);
        *usual.start()..=longest.max(*usual.end())
    }
}

/// The longest pause that a draining cluster asks of a client, in milliseconds.
const MAX_SHARED_RETRY_MS: u64 = 30_000;

/// Why events of a channel may be missing; the client reads it in `gap` and fetches its state again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum GapReason {
    /// The history no longer reaches back to the client's position.
    HistoryTrimmed,
    /// Redis lost its data.
    HistoryLost,
    /// The way from Redis to the node was cut, and plain events cannot be fetched again.
    BrokerInterrupted,
    /// The client's position was not written by this cluster.
    UnknownPosition,
}

impl GapReason {
    /// Every reason, for tables and metrics.
    pub const ALL: [Self; 4] =
        [Self::HistoryTrimmed, Self::HistoryLost, Self::BrokerInterrupted, Self::UnknownPosition];

    /// The name in `gap` and as metric label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::HistoryTrimmed => "history_trimmed",
            Self::HistoryLost => "history_lost",
            Self::BrokerInterrupted => "broker_interrupted",
            Self::UnknownPosition => "unknown_position",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_that_drain_together_ask_for_longer_pauses_and_nobody_else_does() {
        assert_eq!(CloseReason::ServerShutdown.retry_ms_of(1), 500..=1_000);
        assert_eq!(CloseReason::ServerShutdown.retry_ms_of(3), 500..=3_000);
        assert_eq!(CloseReason::ServerShutdown.retry_ms_of(u32::MAX), 500..=30_000);
        assert_eq!(CloseReason::Kicked.retry_ms_of(3), CloseReason::Kicked.retry_ms());
    }
}
