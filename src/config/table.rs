//! The table of settings: one row is a flag, an environment variable, a key in the file, a default and a help text.

use std::time::Duration;

use super::fallback::Fallback;
use super::values::{self, DAY, HOUR, KIB, MIB, Read, SECOND};
use super::{Config, Origins, RedisUrl, keys};
use crate::admission::MIN_LEASE_TTL;

/// One setting.
#[derive(Debug)]
pub(super) struct Setting {
    /// The flag and the key in the file; the environment name is `FANLIGHT_` and this in capitals.
    pub(super) name: &'static str,
    /// Other environment names, read when ours is not set.
    pub(super) fallbacks: &'static [Fallback],
    /// What stands for the value in the help.
    pub(super) placeholder: &'static str,
    /// What holds when nothing is given.
    pub(super) default: Preset,
    /// What it does.
    pub(super) help: &'static str,
    /// Whether and what must be hidden when it is printed.
    pub(super) secrecy: Secrecy,
    /// Reads a text into the configuration, or says what is allowed.
    pub(super) set: fn(&mut Config, &str) -> Read<()>,
}

/// What holds when nothing is given.
#[derive(Debug)]
pub(super) enum Preset {
    /// This text, as if the user had given it.
    Text(&'static str),
    /// Nothing is set; the words say what that means.
    Unset(&'static str),
}

impl Preset {
    /// The text to be read, if there is one.
    pub(super) fn text(&self) -> Option<&'static str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Unset(_) => None,
        }
    }
}

/// What must be hidden when a setting is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Secrecy {
    /// Nothing.
    Open,
    /// Everything.
    Secret,
    /// The password within a URL; all of it when it cannot be read as one.
    Url,
    /// Everything that is not a path: the text of a key, which may be the wrong one of a pair.
    Pem,
}

impl Setting {
    /// The environment name.
    pub(super) fn variable(&self) -> String {
        format!("FANLIGHT_{}", self.name.replace('-', "_").to_ascii_uppercase())
    }

    /// What is allowed, in the words of the reader: it is asked with a text that no setting takes.
    pub(super) fn allowed(&self) -> String {
        (self.set)(&mut Config::blank(), "\0").err().unwrap_or_default()
    }
}

/// A row with the fields that most rows leave as they are.
const ROW: Setting = Setting {
    name: "",
    fallbacks: &[],
    placeholder: "VALUE",
    default: Preset::Unset("none"),
    help: "",
    secrecy: Secrecy::Open,
    set: |_, _| Ok(()),
};

/// The placeholder of comma-separated lists.
pub(super) const LIST: &str = "LIST";

/// The placeholder of settings that are on or off; the flag alone means on.
pub(super) const SWITCH: &str = "BOOL";

/// Writes what was read into its field.
fn put<T>(field: &mut T, read: Read<T>) -> Read<()> {
    read.map(|value| *field = value)
}

/// Every setting, in the order of the help.
pub(super) const SETTINGS: &[Setting] = &[
    Setting {
        name: "listen",
        fallbacks: &[Fallback::port("PORT")],
        placeholder: "IP:PORT",
        default: Preset::Text("127.0.0.1:8080"),
        help: "Public address. Beyond loopback, --api-keys, a key for tokens, or --insecure is required",
        set: |c, v| put(&mut c.listen, values::address(v)),
        ..ROW
    },
    Setting {
        name: "admin-listen",
        placeholder: "IP:PORT",
        default: Preset::Unset("none: on the public address"),
        help: "Address that serves publishing, statistics, connections, metrics and probes, and is then the only one",
        set: |c, v| put(&mut c.admin_listen, values::address(v).map(Some)),
        ..ROW
    },
    Setting {
        name: "redis-url",
        fallbacks: &[Fallback::same("REDIS_URL")],
        placeholder: "URL",
        default: Preset::Unset("none: an embedded in-memory broker, one node"),
        help: "The Redis that all nodes share: redis://HOST[:PORT][/DB], rediss:// for TLS, or redis+sentinel://HOST,HOST/SERVICE[/DB]",
        secrecy: Secrecy::Url,
        set: |c, v| put(&mut c.redis.url, RedisUrl::parse(v).map(Some)),
    },
    Setting {
        name: "redis-prefix",
        placeholder: "PREFIX",
        default: Preset::Text("fanlight:"),
        help: "Before every Redis channel and key",
        set: |c, v| put(&mut c.redis.prefix, values::prefix(v)),
        ..ROW
    },
    Setting {
        name: "node-id",
        placeholder: "ID",
        default: Preset::Unset("host name and something random"),
        help: "Name of this node; must be unique in the cluster",
        set: |c, v| put(&mut c.node_id, values::node_id(v)),
        ..ROW
    },
    Setting {
        name: "channels",
        placeholder: LIST,
        default: Preset::Text("jobs,pending-changes"),
        help: "Channels that anyone may read; a trailing * allows a family",
        set: |c, v| put(&mut c.channels, values::channels(v)),
        ..ROW
    },
    Setting {
        name: "max-connections",
        placeholder: "N",
        default: Preset::Unset("as many as open files allow, at most 100000"),
        help: "Streams on this node; past it 503",
        set: |c, v| put(&mut c.streams.max_connections, values::count(v, 1..=10_000_000).map(Some)),
        ..ROW
    },
    Setting {
        name: "max-per-ip",
        fallbacks: &[Fallback::same("SSE_MAX_CONN_PER_IP")],
        placeholder: "N",
        // A page and its reload.
        default: Preset::Text("2"),
        help: "Streams per client address in the whole cluster (IPv6 by /64); 0 = no limit",
        set: |c, v| put(&mut c.limits.cluster.per_ip, values::limit(v)),
        ..ROW
    },
    Setting {
        name: "max-per-session",
        placeholder: "N",
        default: Preset::Text("1"),
        help: "Streams per session in the whole cluster; 0 = no limit",
        set: |c, v| put(&mut c.limits.cluster.per_session, values::limit(v)),
        ..ROW
    },
    Setting {
        name: "session-policy",
        placeholder: "POLICY",
        // Replacing the oldest makes two tabs of one session throw each other out for ever.
        default: Preset::Text("reject"),
        help: "Past the session's limit: reject the newcomer, or replace the oldest",
        set: |c, v| put(&mut c.limits.cluster.policy, values::session_policy(v)),
        ..ROW
    },
    Setting {
        name: "connect-rate-per-ip",
        placeholder: "RATE",
        // A browser that restores its tabs, or a few people behind one address; not a script.
        default: Preset::Text("20/s"),
        help: "Tries to open a stream per address on this node, before any other work; burst twice that; 0 = no limit",
        set: |c, v| put(&mut c.limits.connect_rate, values::connect_rate(v)),
        ..ROW
    },
    Setting {
        name: "lease-ttl",
        placeholder: "DURATION",
        default: Preset::Text("15s"),
        help: "After a node dies its slots are free within this and 2 s",
        set: |c, v| put(&mut c.limits.lease_ttl, values::duration(v, MIN_LEASE_TTL..=HOUR)),
        ..ROW
    },
    Setting {
        name: "limits-without-redis",
        placeholder: "POLICY",
        default: Preset::Text("local"),
        help: "While Redis does not answer: local (count on this node alone), closed (503), open",
        set: |c, v| put(&mut c.limits.without_redis, values::without_redis(v)),
        ..ROW
    },
    Setting {
        name: "heartbeat",
        placeholder: "DURATION",
        // Below the 30 s to 60 s after which the usual proxies cut a silent connection.
        default: Preset::Text("25s"),
        help: "Between two `: ping` comments on a stream",
        set: |c, v| put(&mut c.streams.heartbeat, values::duration(v, SECOND / 10..=DAY)),
        ..ROW
    },
    Setting {
        name: "idle-timeout",
        fallbacks: &[Fallback::millis("SSE_IDLE_TIMEOUT_MS")],
        placeholder: "DURATION",
        default: Preset::Text("5m"),
        help: "A stream that gets no event for so long is closed (heartbeats don't count); 0 = never",
        set: |c, v| put(&mut c.streams.idle_timeout, values::duration_or_never(v, SECOND / 10..=365 * DAY)),
        ..ROW
    },
    Setting {
        name: "max-age",
        placeholder: "DURATION",
        default: Preset::Text("12h"),
        help: "Streams are closed at about this age, so that load spreads again; 0 = never",
        set: |c, v| put(&mut c.streams.max_age, values::duration_or_never(v, SECOND / 10..=365 * DAY)),
        ..ROW
    },
    Setting {
        name: "buffer-events",
        placeholder: "N",
        default: Preset::Text("50"),
        help: "Events that may wait for a slow client",
        set: |c, v| put(&mut c.streams.buffer_events, values::count(v, 1..=1_000_000)),
        ..ROW
    },
    Setting {
        name: "buffer-bytes",
        placeholder: "SIZE",
        default: Preset::Text("256KiB"),
        help: "Bytes that may wait for a slow client",
        set: |c, v| put(&mut c.streams.buffer_bytes, values::size(v, KIB..=1024 * MIB)),
        ..ROW
    },
    Setting {
        name: "send-timeout",
        placeholder: "DURATION",
        default: Preset::Text("5s"),
        help: "A client that takes nothing for so long is closed",
        set: |c, v| put(&mut c.streams.send_timeout, values::duration(v, SECOND / 100..=HOUR)),
        ..ROW
    },
    Setting {
        name: "max-event-bytes",
        placeholder: "SIZE",
        default: Preset::Text("256KiB"),
        help: "Larger events are refused, or dropped and counted when they come from Redis",
        set: |c, v| put(&mut c.max_event_bytes, values::size(v, 1..=64 * MIB)),
        ..ROW
    },
    Setting {
        name: "history-size",
        placeholder: "N",
        default: Preset::Text("1000"),
        help: "Events kept per channel",
        set: |c, v| put(&mut c.history.size, values::count(v, 1..=10_000_000)),
        ..ROW
    },
    Setting {
        name: "history-ttl",
        placeholder: "DURATION",
        default: Preset::Text("1h"),
        help: "How long events are kept",
        set: |c, v| put(&mut c.history.ttl, values::duration(v, SECOND..=365 * DAY)),
        ..ROW
    },
    Setting {
        name: "memory-limit",
        placeholder: "SIZE",
        default: Preset::Unset("the container's limit"),
        help: "From 85 % of it on newcomers are refused, from 92 % on idle streams are closed",
        set: |c, v| {
            let size = values::size(v, MIB..=1024 * 1024 * 1024 * MIB).map(|size| size as u64);
            put(&mut c.memory_limit, size.map(Some))
        },
        ..ROW
    },
    Setting {
        name: "drain",
        placeholder: "DURATION",
        // Fits into the 30 s that Kubernetes grants between SIGTERM and SIGKILL.
        default: Preset::Text("25s"),
        help: "Over how long SIGTERM spreads the closings; 0 = all at once",
        set: |c, v| put(&mut c.drain, values::duration(v, Duration::ZERO..=DAY)),
        ..ROW
    },
    Setting {
        name: "trusted-proxies",
        placeholder: LIST,
        help: "Networks of proxies, which alone may speak for a client's address (Forwarded, X-Forwarded-For)",
        set: |c, v| put(&mut c.trusted_proxies, values::proxies(v)),
        ..ROW
    },
    Setting {
        name: "allowed-origins",
        placeholder: LIST,
        default: Preset::Unset("the same origin"),
        help: "Web pages that may open streams: an exact list, or * for all",
        set: |c, v| put(&mut c.allowed_origins, Origins::parse(v)),
        ..ROW
    },
    Setting {
        name: "insecure",
        placeholder: SWITCH,
        default: Preset::Text("false"),
        help: "Allow open publishing and administration beyond loopback",
        set: |c, v| put(&mut c.insecure, values::switch(v)),
        ..ROW
    },
    Setting {
        name: "api-keys",
        placeholder: LIST,
        default: Preset::Unset("none: open"),
        help: "Keys for publishing and administration, as bearer token or X-API-Key. Other users of the machine can read flags: prefer the variable",
        secrecy: Secrecy::Secret,
        set: |c, v| put(&mut c.api_keys, values::api_keys(v)),
        ..ROW
    },
    Setting {
        name: "jwt-secret",
        placeholder: "SECRET",
        help: "Secret that tokens are signed with by HS256, as it stands. Other users of the machine can read flags: prefer the variable",
        secrecy: Secrecy::Secret,
        set: |c, v| put(&mut c.tokens.secret, keys::jwt_secret(v)),
        ..ROW
    },
    Setting {
        name: "jwt-public-key",
        placeholder: "PEM|FILE",
        help: "Public key of whoever signs tokens: RSA by RS256, P-256 by ES256, Ed25519 by EdDSA",
        secrecy: Secrecy::Pem,
        set: |c, v| put(&mut c.tokens.public_key, keys::public_key(v)),
        ..ROW
    },
    Setting {
        name: "jwks-file",
        // The other keys of tokens are called so.
        fallbacks: &[Fallback::same("FANLIGHT_JWT_JWKS_FILE")],
        placeholder: "FILE",
        help: "Public keys of whoever signs tokens, as JSON Web Key Set; read again when it changes",
        set: |c, v| put(&mut c.tokens.jwks, keys::jwks_file(v)),
        ..ROW
    },
    Setting {
        name: "require-token",
        placeholder: SWITCH,
        default: Preset::Text("false"),
        help: "Nobody subscribes without a token",
        set: |c, v| put(&mut c.require_token, values::switch(v)),
        ..ROW
    },
    Setting {
        name: "log",
        placeholder: "FILTER",
        default: Preset::Text("info"),
        help: "What is logged: a level, or a list with modules like info,fanlight::broker=debug",
        set: |c, v| put(&mut c.log.filter, values::log_filter(v)),
        ..ROW
    },
    Setting {
        name: "log-format",
        placeholder: "FORMAT",
        default: Preset::Text("auto"),
        help: "text, json, or auto: text on a terminal",
        set: |c, v| put(&mut c.log.format, values::log_format(v)),
        ..ROW
    },
    Setting {
        name: "trace-relation",
        placeholder: "RELATION",
        default: Preset::Text("parent"),
        help: "parent: an event's spans on the nodes are children of the publisher's; link: they point at it",
        set: |c, v| put(&mut c.trace_links, values::trace_relation(v)),
        ..ROW
    },
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_default_is_allowed_and_every_row_says_what_is() {
        for setting in SETTINGS {
            assert!(!setting.allowed().is_empty(), "{} takes anything", setting.name);
            if let Some(text) = setting.default.text() {
                assert_eq!((setting.set)(&mut Config::blank(), text), Ok(()), "{}", setting.name);
            }
        }
    }

    #[test]
    fn no_name_is_used_twice() {
        let mut seen = HashSet::new();
        for setting in SETTINGS {
            assert!(seen.insert(setting.variable()), "{}", setting.name);
            assert!(setting.fallbacks.iter().all(|f| seen.insert(f.name.to_owned())), "{}", setting.name);
        }
    }
}
