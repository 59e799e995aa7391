//! Every setting of a node, from flags, environment and file.
//!
//! [`table`] is the single source: flags, environment names, file keys, defaults, allowed values and help all come from
//! its rows. [`load()`] reads the sources (flag over environment over file over default) and reports every mistake at once.
//! This room opens nothing but that file and the files of keys that settings name: it does not connect, bind or raise
//! limits.

mod fallback;
mod keys;
mod load;
mod mistake;
mod origin;
mod redis_url;
mod show;
mod table;
mod values;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::admission::{self, SessionPolicy, TrustedProxies};
use crate::auth;
use crate::protocol::channel::ChannelPattern;
use crate::protocol::secret::Secret;

pub use load::{CONFIG_FLAG, Environment, Loaded, arguments, arguments_of, load, process_environment};
pub use mistake::{Mistake, Mistakes};
pub use origin::Origins;
pub use redis_url::RedisUrl;
pub use show::{to_json, to_toml};

/// The effective settings of one node. [`Config::default`] has the documented defaults.
#[derive(Clone, Debug)]
pub struct Config {
    /// Public address.
    pub listen: SocketAddr,
    /// Where publishing, administration and probes are served instead; none means on the public address.
    pub admin_listen: Option<SocketAddr>,
    /// The Redis that the cluster shares.
    pub redis: Redis,
    /// Shown in the statistics; unique in the cluster.
    pub node_id: String,
    /// Channels that anyone may read; at least one.
    pub channels: Vec<ChannelPattern>,
    /// Bounds and times of each open stream.
    pub streams: Streams,
    /// Who comes in.
    pub limits: Limits,
    /// The largest event data that is accepted, in bytes.
    pub max_event_bytes: usize,
    /// How much is kept for those who come back.
    pub history: History,
    /// The memory that the node may use, in bytes; none for the limit of its container, if it is in one.
    pub memory_limit: Option<u64>,
    /// Over how long a stop spreads the closings; zero closes all at once.
    pub drain: Duration,
    /// Who may speak for a client's address.
    pub trusted_proxies: TrustedProxies,
    /// Which web pages may open streams.
    pub allowed_origins: Origins,
    /// Publishing and administration without a key is wanted even beyond loopback.
    pub insecure: bool,
    /// Keys for publishing and administration; none means open.
    pub api_keys: Vec<Secret>,
    /// Keys that tokens of subscribers, publishers and administrators are checked against.
    pub tokens: auth::Config,
    /// Nobody subscribes without a token.
    pub require_token: bool,
    /// What is logged, and how.
    pub log: Log,
    /// An event's span on a node points at the publisher's and is not its child.
    pub trace_links: bool,
}

/// Where the cluster's Redis is.
#[derive(Clone, Debug)]
pub struct Redis {
    /// None: an embedded in-memory broker and one node.
    pub url: Option<RedisUrl>,
    /// Before every Redis channel and key.
    pub prefix: String,
}

/// Bounds and times of each open stream.
#[derive(Clone, Debug)]
pub struct Streams {
    /// The greatest number on this node; none means as many as open files allow, at most 100,000.
    pub max_connections: Option<usize>,
    /// Between two `: ping` comments.
    pub heartbeat: Duration,
    /// A stream that gets no event for so long is closed; none means never.
    pub idle_timeout: Option<Duration>,
    /// Streams are closed at about this age, so that load spreads; none means never.
    pub max_age: Option<Duration>,
    /// Events that may wait for a slow client; at least 1.
    pub buffer_events: usize,
    /// Bytes that may wait for a slow client.
    pub buffer_bytes: usize,
    /// A socket that takes nothing for so long is closed.
    pub send_timeout: Duration,
}

/// Who comes in, beside the number of streams of a node.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Over the whole cluster.
    pub cluster: admission::Limits,
    /// Tries per address on this node; none means no limit.
    pub connect_rate: Option<admission::ConnectRate>,
    /// After a node dies its slots are free within this and two seconds.
    pub lease_ttl: Duration,
    /// What happens to newcomers while Redis does not answer.
    pub without_redis: admission::WithoutRedis,
}

/// How much of each channel is kept.
#[derive(Clone, Debug)]
pub struct History {
    /// Events per channel; at least 1.
    pub size: usize,
    /// For how long.
    pub ttl: Duration,
}

/// What is logged, and how.
#[derive(Clone, Debug)]
pub struct Log {
    /// Directives as of `tracing_subscriber::EnvFilter`; checked.
    pub filter: String,
    /// The form of a line.
    pub format: LogFormat,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Default for Config {
    /// The defaults of the table, with a fresh node id.
    fn default() -> Self {
        let mut config = Self::blank();
        for setting in table::SETTINGS {
            let refused =
                setting.default.text().is_some_and(|text| (setting.set)(&mut config, text).is_err());
            debug_assert!(!refused, "the default of {} is not allowed", setting.name);
        }
        config
    }
}

impl Config {
    /// What the rows of the table are written into; every value that has a default there is overwritten.
    fn blank() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            admin_listen: None,
            redis: Redis { url: None, prefix: String::new() },
            node_id: values::fresh_node_id(),
            channels: Vec::new(),
            streams: Streams {
                max_connections: None,
                heartbeat: Duration::ZERO,
                idle_timeout: None,
                max_age: None,
                buffer_events: 0,
                buffer_bytes: 0,
                send_timeout: Duration::ZERO,
            },
            limits: Limits {
                cluster: admission::Limits { per_ip: 0, per_session: 0, policy: SessionPolicy::Reject },
                connect_rate: None,
                lease_ttl: Duration::ZERO,
                without_redis: admission::WithoutRedis::default(),
            },
            max_event_bytes: 0,
            history: History { size: 0, ttl: Duration::ZERO },
            memory_limit: None,
            drain: Duration::ZERO,
            trusted_proxies: TrustedProxies::default(),
            allowed_origins: Origins::Same,
            insecure: false,
            api_keys: Vec::new(),
            tokens: auth::Config::default(),
            require_token: false,
            log: Log { filter: String::new(), format: LogFormat::Auto },
            trace_links: false,
        }
    }

    /// The address that serves publishing and administration.
    pub fn administered_at(&self) -> SocketAddr {
        self.admin_listen.unwrap_or(self.listen)
    }

    /// Whether anybody who reaches that address may publish and administer.
    pub fn is_open(&self) -> bool {
        self.api_keys.is_empty() && self.tokens.is_empty()
    }

    /// Whether other machines can reach the address that serves publishing and administration.
    pub fn is_reachable_from_outside(&self) -> bool {
        !self.administered_at().ip().to_canonical().is_loopback()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_those_of_the_contract() {
        let config = Config::default();
        assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
        assert!(config.redis.url.is_none());
        assert_eq!(config.redis.prefix, "fanlight:");
        let channels: Vec<_> = config.channels.iter().map(|c| format!("{c:?}")).collect();
        assert_eq!(channels, [r#"Plain("jobs")"#, r#"Plain("pending-changes")"#]);
        assert_eq!(config.streams.heartbeat, Duration::from_secs(25));
        assert_eq!(config.streams.idle_timeout, Some(Duration::from_secs(300)));
        assert_eq!(config.streams.max_age, Some(Duration::from_secs(12 * 3600)));
        assert_eq!((config.streams.buffer_events, config.streams.buffer_bytes), (50, 256 << 10));
        assert_eq!(config.streams.send_timeout, Duration::from_secs(5));
        assert_eq!(config.max_event_bytes, 256 << 10);
        assert_eq!((config.history.size, config.history.ttl), (1000, Duration::from_secs(3600)));
        assert_eq!(config.drain, Duration::from_secs(25));
        assert!(config.is_open() && !config.is_reachable_from_outside() && !config.insecure);
        assert_eq!((config.log.filter.as_str(), config.log.format), ("info", LogFormat::Auto));
    }

    #[test]
    fn two_nodes_on_one_machine_get_different_ids() {
        assert_ne!(Config::default().node_id, Config::default().node_id);
    }
}
