//! Where Redis is and how long to wait for it; the only place that knows the password.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _, RedisError};

use super::keys::Keys;

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
    info: ConnectionInfo,
    keys: Keys,
    /// How long connecting may take, TLS and authentication included.
    pub connect_timeout: Duration,
    /// How long an answer may take, waiting for a connection included.
    pub response_timeout: Duration,
    /// How many connections carry commands at most.
    pub pool_size: usize,
}

/// Why the settings are unusable; without secrets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub(super) String);

impl Config {
    /// Reads a `redis://` or `rediss://` URL; `prefix` stands before every key and channel.
    ///
    /// # Errors
    /// When the URL cannot be used.
    pub fn new(url: &str, prefix: &str) -> Result<Self, ConfigError> {
        let info = url.into_connection_info().map_err(|e| ConfigError(e.to_string()))?;
        if matches!(info.addr(), ConnectionAddr::TcpTls { .. }) {
            install_crypto();
        }
        Ok(Self {
            info: info.set_tcp_settings(tcp_settings()),
            keys: Keys::new(prefix),
            connect_timeout: CONNECT_TIMEOUT,
            response_timeout: RESPONSE_TIMEOUT,
            pool_size: 8,
        })
    }

    /// The names of everything in this Redis.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// What to connect with.
    pub(super) fn info(&self) -> &ConnectionInfo {
        &self.info
    }

    /// An error's text without the password. Redis repeats the arguments of a command that it does not know, and a
    /// server before version 6 does not know the `HELLO` that carries the password.
    pub fn explain(&self, error: &dyn fmt::Display) -> String {
        let text = error.to_string();
        match self.info.redis_settings().password() {
            Some(password) if !password.is_empty() => text.replace(password, "****"),
            _ => text,
        }
    }
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let redis = self.info.redis_settings();
        let tls = matches!(self.info.addr(), ConnectionAddr::TcpTls { .. });
        f.write_str(if tls { "rediss://" } else { "redis://" })?;
        if redis.password().is_some() {
            write!(f, "{}:****@", redis.username().unwrap_or_default())?;
        }
        write!(f, "{}/{}", self.info.addr(), redis.db())
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
        assert!(!format!("{config:?} {:?}", config.info()).contains("canary"));
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
