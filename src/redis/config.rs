//! Where Redis is and how long to wait for it; the only place that knows the password.

use std::fmt;
use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt as _};
use redis::aio::MultiplexedConnection;
use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _, RedisError,
};

use super::keys::Keys;
use super::sentinel::Sentinels;
use super::timings::Timings;

/// Longer than a handshake over a slow link, short enough that a stopped Redis is tried again soon after it goes on.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// A command that takes longer has met a Redis that is stopped, or a script that blocks it.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long data may stay unacknowledged, and how long silence may last, before the kernel gives a connection up. The
/// probe is faster; this is for a node whose tasks do not run.
const SOCKET_TIMEOUT: Duration = Duration::from_secs(15);

const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);

/// A Redis and the names in it. Printing it shows no password.
#[derive(Clone)]
pub struct Config {
    place: Place,
    keys: Keys,
    /// How long connecting may take, TLS and authentication included.
    pub connect_timeout: Duration,
    /// How long an answer may take, waiting for a connection included.
    pub response_timeout: Duration,
    /// How many connections carry commands at most.
    pub pool_size: usize,
    /// Where the times of all commands are noted; shared with the clones of these settings.
    timings: Timings,
}

/// Who is connected to.
#[derive(Clone)]
enum Place {
    Server(ConnectionInfo),
    Master(Sentinels),
}

/// Why the settings are unusable; without secrets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub(super) String);

impl Config {
    /// Reads a `redis://`, `rediss://`, `redis+sentinel://` or `rediss+sentinel://` URL; `prefix` stands before every key
    /// and channel.
    ///
    /// # Errors
    /// When the URL cannot be used.
    pub fn new(url: &str, prefix: &str) -> Result<Self, ConfigError> {
        let place = Place::parse(url)?;
        if matches!(place.info().addr(), ConnectionAddr::TcpTls { .. }) {
            install_crypto();
        }
        Ok(Self {
            place,
            keys: Keys::new(prefix),
            connect_timeout: CONNECT_TIMEOUT,
            response_timeout: RESPONSE_TIMEOUT,
            pool_size: 8,
            timings: Timings::default(),
        })
    }

    /// The names of everything in this Redis.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// How long commands took, of everybody with these settings or a clone of them.
    pub const fn timings(&self) -> &Timings {
        &self.timings
    }

    /// Whether there is something that printing it hides.
    pub fn has_password(&self) -> bool {
        self.passwords().next().is_some()
    }

    /// The number of the database that connections begin with, which none of them leaves.
    pub(super) fn database(&self) -> i64 {
        self.place.info().redis_settings().db()
    }

    /// The one address there is; none under Sentinel.
    pub(super) const fn address(&self) -> Option<&ConnectionInfo> {
        match &self.place {
            Place::Server(info) => Some(info),
            Place::Master(_) => None,
        }
    }

    /// Where to connect to now, and with what: under Sentinel the master of this moment.
    ///
    /// # Errors
    /// When no sentinel leads to a master in time; [`explain`](Self::explain) it before it is shown.
    pub(super) fn locate(&self) -> BoxFuture<'_, Result<ConnectionInfo, RedisError>> {
        match &self.place {
            Place::Server(info) => ready(Ok(info.clone())).boxed(),
            Place::Master(sentinels) => sentinels.master().boxed(),
        }
    }

    /// A connection for commands. It does not reconnect.
    ///
    /// # Errors
    /// When there is nobody in time; [`explain`](Self::explain) it before it is shown.
    pub(super) fn connect(&self) -> BoxFuture<'_, Result<MultiplexedConnection, RedisError>> {
        let settings = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.connect_timeout))
            .set_response_timeout(Some(self.response_timeout));
        // Boxed: what awaits it would otherwise be too deep a type for the compiler.
        async move {
            let client = Client::open(self.locate().await?)?;
            client.get_multiplexed_async_connection_with_config(&settings).await
        }
        .boxed()
    }

    /// An error's text without the passwords. Redis repeats the arguments of a command that it does not know, and a
    /// server before version 6 does not know the `HELLO` that carries the password.
    pub fn explain(&self, error: &dyn fmt::Display) -> String {
        self.passwords().fold(error.to_string(), |text, password| text.replace(password, "****"))
    }

    fn passwords(&self) -> impl Iterator<Item = &str> {
        let own = match &self.place {
            Place::Server(_) => None,
            Place::Master(sentinels) => sentinels.password(),
        };
        let both = [self.place.info().redis_settings().password(), own];
        both.into_iter().flatten().filter(|password| !password.is_empty())
    }
}

impl Place {
    fn parse(url: &str) -> Result<Self, ConfigError> {
        if let Some(sentinels) = Sentinels::parse(url) {
            let mut sentinels = sentinels?;
            sentinels.set_redis(sentinels.redis().clone().set_tcp_settings(tcp_settings()));
            return Ok(Self::Master(sentinels));
        }
        let info = url.into_connection_info().map_err(|e| ConfigError(e.to_string()))?;
        Ok(Self::Server(info.set_tcp_settings(tcp_settings())))
    }

    /// What every connection is made with; under Sentinel the address in it is nobody's.
    fn info(&self) -> &ConnectionInfo {
        match self {
            Self::Server(info) => info,
            Self::Master(sentinels) => sentinels.redis(),
        }
    }
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let info = match &self.place {
            Place::Server(info) => info,
            Place::Master(sentinels) => return sentinels.fmt(f),
        };
        let redis = info.redis_settings();
        let tls = matches!(info.addr(), ConnectionAddr::TcpTls { .. });
        f.write_str(if tls { "rediss://" } else { "redis://" })?;
        if redis.password().is_some() {
            write!(f, "{}:****@", redis.username().unwrap_or_default())?;
        }
        write!(f, "{}/{}", info.addr(), redis.db())
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self} prefix {:?}", self.keys.prefix())
    }
}

fn tcp_settings() -> TcpSettings {
    let keepalive =
        TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL).with_retries(3);
    let settings = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive);
    #[cfg(target_os = "linux")]
    let settings = settings.set_user_timeout(SOCKET_TIMEOUT);
    settings
}

/// rustls has no crypto provider of its own. When somebody else was first, theirs serves as well.
fn install_crypto() {
    let _: Result<(), Arc<rustls::crypto::CryptoProvider>> =
        rustls::crypto::aws_lc_rs::default_provider().install_default();
}

impl From<RedisError> for ConfigError {
    fn from(error: RedisError) -> Self {
        Self(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_printed_nowhere() {
        let config = Config::new("rediss://shop:canary@redis.internal:6380/2", "p:").unwrap();
        assert_eq!(config.to_string(), "rediss://shop:****@redis.internal:6380/2");
        assert!(!format!("{config:?} {:?}", config.place.info()).contains("canary"));
        let told =
            "ERR unknown command `HELLO`, with args beginning with: `3`, `AUTH`, `default`, `canary`, ";
        assert!(!config.explain(&told).contains("canary"));
        let error = Config::new("redis://:canary@:x", "p:").unwrap_err();
        assert!(!error.to_string().contains("canary"), "{error}");
    }

    #[test]
    fn a_url_without_a_password_is_printed_as_it_is() {
        let config = Config::new("redis://127.0.0.1:6379", "p:").unwrap();
        assert_eq!(config.to_string(), "redis://127.0.0.1:6379/0");
        assert_eq!(config.explain(&"as it stands"), "as it stands");
    }
}
