//! What a node says of itself.

use serde::{Deserialize, Serialize};

use crate::protocol::channel::ChannelName;

/// How a node is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It has not been ready yet.
    #[default]
    Starting,
    /// All is well.
    Healthy,
    /// It works, but not as it should.
    Degraded,
    /// It is going.
    Draining,
    /// A state that this version does not know.
    #[serde(other)]
    Unknown,
}

/// A row of the contract's `nodes`. Members that another version lacks have their defaults.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeRow {
    /// The configured name.
    pub id: String,
    /// Where it listens.
    pub address: String,
    /// Its version.
    pub version: String,
    /// Since its start.
    pub uptime_ms: u64,
    /// Streams open now.
    pub connections: u64,
    /// The greatest number of streams.
    pub max_connections: u64,
    /// How it is.
    pub state: State,
    /// Why it is not healthy; without secrets.
    pub reasons: Vec<String>,
    /// Its way to Redis.
    pub redis: RedisRow,
    /// Resident memory of the process.
    pub memory_bytes: u64,
    /// What the process or its container may have; `None` without a limit.
    pub memory_limit_bytes: Option<u64>,
    /// CPU time used in the last second; 100 is one core.
    pub cpu_percent: f64,
    /// Open files, sockets included.
    pub open_files: u64,
}

/// A node's way to Redis; with the embedded broker, to that.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RedisRow {
    /// Its subscriptions stand.
    pub connected: bool,
    /// The last probe's way through Redis and back; `None` before the first.
    pub lag_ms: Option<f64>,
}

/// What a node announces once a second.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Announcement {
    /// Its row.
    pub row: NodeRow,
    /// Subscribers by channel: the configured channels and those with most subscribers here.
    pub channels: Vec<(ChannelName, u64)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_announcement_of_another_version_is_read_as_far_as_it_is_known() {
        let newer = r#"{"row":{"id":"n","state":"ascended","redis":{"connected":true},"more":1},"channels":[["jobs",2]],"also":[]}"#;
        let read: Announcement = serde_json::from_str(newer).unwrap();
        assert_eq!((read.row.id.as_str(), read.row.state), ("n", State::Unknown));
        assert_eq!(read.channels[0].1, 2);
        let older: Announcement = serde_json::from_str(r#"{"row":{"id":"n"}}"#).unwrap();
        assert_eq!((older.row.state, older.row.redis.lag_ms), (State::Starting, None));
    }
}
