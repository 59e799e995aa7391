//! Why somebody may not come in, as values that know their names.

use std::time::Duration;

/// A refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The address has as many connections in the cluster as it may have.
    #[error("Too many SSE connections from this IP")]
    IpLimit {
        /// How many.
        limit: u32,
    },
    /// The session has as many connections in the cluster as it may have.
    #[error("Too many SSE connections for this session")]
    SessionLimit {
        /// How many.
        limit: u32,
    },
    /// This node has as many connections as it takes.
    #[error("Too many SSE connections on this node")]
    Capacity {
        /// How many.
        limit: usize,
    },
    /// The address tries too often.
    #[error("Too many connection attempts from this IP")]
    RateLimit {
        /// When the next try may succeed.
        retry_after: Duration,
    },
    /// Redis does not say, and without it nobody comes in.
    #[error("Connection limits cannot be checked at the moment")]
    LimitsUnavailable,
}

impl Refusal {
    /// The name in answers, statistics and metrics.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::IpLimit { .. } => "ip_limit",
            Self::SessionLimit { .. } => "session_limit",
            Self::Capacity { .. } => "capacity",
            Self::RateLimit { .. } => "rate_limit",
            Self::LimitsUnavailable => "limits_unavailable",
        }
    }

    /// The limit that was met.
    pub const fn limit(&self) -> Option<usize> {
        match *self {
            Self::IpLimit { limit } | Self::SessionLimit { limit } => Some(limit as usize),
            Self::Capacity { limit } => Some(limit),
            Self::RateLimit { .. } | Self::LimitsUnavailable => None,
        }
    }
}
