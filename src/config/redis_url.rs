//! The URL of a Redis, checked, with its password masked wherever it is printed.

use std::fmt;
use std::net::Ipv6Addr;

use ::redis::IntoConnectionInfo;
use url::Url;

use crate::protocol::secret::MASK;
use crate::redis;

/// What is allowed.
const ALLOWED: &str = "redis://[USER:PASSWORD@]HOST[:PORT][/DB], or rediss:// for TLS, or \
    redis+sentinel://[USER:PASSWORD@]HOST[:PORT][,HOST[:PORT]…]/SERVICE[/DB]";

/// A URL that the Redis client accepts. Printing it masks the passwords; [`expose`](Self::expose) does not.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl {
    text: String,
    /// How it is printed; none when it has no password.
    masked: Option<String>,
}

impl RedisUrl {
    /// Checks `text`: it must be a `redis://` or `rediss://` URL with a host, or a `redis+sentinel://` or
    /// `rediss+sentinel://` one with at least one host and a service.
    ///
    /// # Errors
    /// What is allowed, and for Sentinel what of it does not hold; never a part of the URL.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.starts_with("redis+sentinel:") || text.starts_with("rediss+sentinel:") {
            let redis = redis::Config::new(text, "").map_err(|why| format!("{ALLOWED} ({why})"))?;
            let masked = redis.has_password().then(|| redis.to_string());
            return Ok(Self { text: text.to_owned(), masked });
        }
        Self::parse_server(text).ok_or_else(|| ALLOWED.to_owned())
    }

    fn parse_server(text: &str) -> Option<Self> {
        let url = Url::parse(text).ok()?;
        let known = matches!(url.scheme(), "redis" | "rediss");
        // What would be passed over in silence is refused, like another product's way to write a Sentinel URL.
        let understood = url.query_pairs().all(|(name, _)| name == "protocol");
        let usable = known && understood && url.clone().into_connection_info().is_ok();
        usable.then(|| Self { text: url.as_str().to_owned(), masked: url.password().map(|_| masked(&url)) })
    }

    /// The URL with its passwords, for the client that connects.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// Whether something is hidden when it is printed.
    pub fn has_password(&self) -> bool {
        self.masked.is_some()
    }
}

/// A URL that is refused, as far as it can be shown: who cannot see what is wrong cannot mend it. The user, the password and
/// whatever follows `?` or `#` are masked; where it is not certain what these are, all but the scheme is.
pub(super) fn mask_wrong(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://").filter(|(scheme, _)| is_scheme(scheme)) else {
        return MASK.to_owned();
    };
    let (login, place) = rest.rsplit_once('@').map_or((None, rest), |(login, place)| (Some(login), place));
    let (path, more) = place.find(['?', '#']).map_or((place, ""), |at| place.split_at(at));
    // An unencoded / ? or # in a password makes a piece of it look like a host.
    let certain = login.is_none_or(|login| !login.contains(['/', '?', '#'])) && is_place(path);
    if !certain {
        return format!("{scheme}://{MASK}");
    }
    let login = login.map(|_| format!("{MASK}@")).unwrap_or_default();
    let mark = more.get(..1).unwrap_or_default();
    let more = if more.is_empty() { "" } else { MASK };
    format!("{scheme}://{login}{path}{mark}{more}")
}

fn is_scheme(text: &str) -> bool {
    (1..=20).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
}

/// `HOST[:PORT][,HOST[:PORT]…][/PATH]`. What stands behind the colon of a host and is no port may be a password whose `@` was
/// forgotten.
fn is_place(text: &str) -> bool {
    let (hosts, path) = text.split_once('/').unwrap_or((text, ""));
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    let is_host = |host: &str| match host.strip_prefix('[') {
        Some(v6) => v6.strip_suffix(']').is_some_and(|v6| v6.parse::<Ipv6Addr>().is_ok()),
        None => host.bytes().all(plain),
    };
    let is_server = |server: &str| match server.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => is_host(host) && port.parse::<u16>().is_ok(),
        _ => is_host(server),
    };
    hosts.split(',').all(is_server) && path.bytes().all(|b| plain(b) || b == b'/')
}

fn masked(url: &Url) -> String {
    let mut masked = url.clone();
    // A URL with a host always takes a password; should it not, the whole URL stays hidden.
    masked.set_password(Some(MASK)).map_or_else(|()| MASK.to_owned(), |()| masked.into())
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.masked.as_deref().unwrap_or(&self.text))
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
    fn behind_sentinels_both_passwords_are_masked_and_mistakes_are_told_apart() {
        let text = "redis+sentinel://shop:canary@a:1,b:2/mymaster/3?sentinel_password=canary";
        let url = RedisUrl::parse(text).unwrap();
        assert_eq!(url.to_string(), "redis+sentinel://shop:****@a:1,b:2/mymaster/3?sentinel_password=****");
        assert_eq!((url.expose(), url.has_password()), (text, true));
        let plain = RedisUrl::parse("redis+sentinel://a,b/mymaster").unwrap();
        assert_eq!((plain.to_string().as_str(), plain.has_password()), (plain.expose(), false));
        let why = RedisUrl::parse("redis+sentinel://:canary@a:1,b:2").unwrap_err();
        assert!(why.contains("service is missing") && !why.contains("canary"), "{why}");
    }

    #[test]
    fn a_wrong_url_is_shown_without_what_may_be_secret_in_it() {
        for (wrong, shown) in [
            ("http://localhost:6379/0", "http://localhost:6379/0"),
            ("http://u:canary@localhost", "http://****@localhost"),
            ("redis://canary@h/x", "redis://****@h/x"),
            ("redis://:can@ry:canary@[::1]:6379/x", "redis://****@[::1]:6379/x"),
            ("redis://h:26379?sentinel_master_name=canary", "redis://h:26379?****"),
            ("redis-sentinel://:canary@a:1,b#canary", "redis-sentinel://****@a:1,b#****"),
            ("redis+sentinel://:canary@a:1,b:2", "redis+sentinel://****@a:1,b:2"),
            ("redis:///0", "redis:///0"),
            // Nobody can tell what is what.
            ("redis://u:canary", "redis://****"),
            ("redis://u:123456", "redis://****"),
            ("redis://u:can/canary@h", "redis://****"),
            ("redis://u:1/can#canary@h/0", "redis://****"),
            ("redis://h?sentinel_password=can@canary", "redis://****"),
            ("redis://h:99x/canary", "redis://****"),
            ("redis://h/can ary", "redis://****"),
            ("canary", "****"),
            ("u:canary@h:6379", "****"),
            ("can ary://h", "****"),
            ("", "****"),
        ] {
            assert_eq!(mask_wrong(wrong), shown, "{wrong}");
        }
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
            "redis://h:26379?sentinel_master_name=shop",
            "redis-sentinel://h:26379#shop",
        ] {
            assert!(RedisUrl::parse(bad).is_err(), "{bad}");
        }
    }
}
