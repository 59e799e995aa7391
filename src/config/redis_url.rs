//! The URL of a Redis, checked, with its password masked wherever it is printed.

use std::fmt;

use redis::IntoConnectionInfo;
use url::Url;

use crate::protocol::secret::MASK;

/// A URL that the Redis client accepts. Printing it masks the password; [`expose`](Self::expose) does not.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl(Url);

impl RedisUrl {
    /// Checks `text`; `None` when it is not a `redis://` or `rediss://` URL with a host.
    pub fn parse(text: &str) -> Option<Self> {
        let url = Url::parse(text).ok()?;
        let known = matches!(url.scheme(), "redis" | "rediss");
        let usable = known && url.clone().into_connection_info().is_ok();
        usable.then_some(Self(url))
    }

    /// The URL with its password, for the client that connects.
    pub fn expose(&self) -> &str {
        self.0.as_str()
    }

    /// Whether something is hidden when it is printed.
    pub fn has_password(&self) -> bool {
        self.0.password().is_some()
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut masked = self.0.clone();
        // A URL with a host always takes a password; should it not, the whole URL stays hidden.
        if self.has_password() && masked.set_password(Some(MASK)).is_err() {
            return f.write_str(MASK);
        }
        f.write_str(masked.as_str())
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_masked_and_nothing_else() {
        let url = RedisUrl::parse("rediss://shop:canary@redis.internal:6380/2").unwrap();
        assert_eq!(url.to_string(), "rediss://shop:****@redis.internal:6380/2");
        assert_eq!(format!("{url:?}"), url.to_string());
        assert_eq!(url.expose(), "rediss://shop:canary@redis.internal:6380/2");
    }

    #[test]
    fn what_the_client_could_not_use_is_refused() {
        for bad in [
            "",
            "localhost:6379",
            "http://localhost",
            "redis://",
            "redis:///0",
            "redis://h/x",
            "unix:///tmp/s",
        ] {
            assert!(RedisUrl::parse(bad).is_none(), "{bad}");
        }
    }
}
