//! From a text to a value. Each reader answers a text that it refuses with what is allowed.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use bytesize::ByteSize;
use rand::Rng;
use tracing_subscriber::EnvFilter;

use super::LogFormat;
use crate::admission::{ConnectRate, SessionPolicy, TrustedProxies, WithoutRedis};
use crate::protocol::channel::ChannelPattern;
use crate::protocol::secret::Secret;

/// A value, or what is allowed.
pub(super) type Read<T> = Result<T, String>;

pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const HOUR: Duration = Duration::from_secs(3600);
pub(super) const DAY: Duration = Duration::from_secs(24 * 3600);
pub(super) const KIB: usize = 1 << 10;
pub(super) const MIB: usize = 1 << 20;

const MAX_CHANNELS: usize = 1000;
const MAX_API_KEYS: usize = 100;
const MAX_API_KEY_LEN: usize = 256;
const MAX_NAME_LEN: usize = 64;

/// `500ms`, `25s`, `5m`, `12h`.
pub(super) fn duration(text: &str, range: RangeInclusive<Duration>) -> Read<Duration> {
    let read = humantime::parse_duration(text).ok().filter(|d| range.contains(d));
    read.ok_or_else(|| {
        let [from, to] = [range.start(), range.end()].map(|d| humantime::format_duration(*d));
        format!("a duration like 500ms, 25s, 5m or 12h, from {from} to {to}")
    })
}

/// Like [`duration`], and `0` for never.
pub(super) fn duration_or_never(text: &str, range: RangeInclusive<Duration>) -> Read<Option<Duration>> {
    if humantime::parse_duration(text).is_ok_and(|d| d.is_zero()) {
        return Ok(None);
    }
    duration(text, range).map(Some).map_err(|allowed| format!("{allowed}; 0 for never"))
}

/// `64KiB`, `1MiB`, or a number of bytes.
pub(super) fn size(text: &str, range: RangeInclusive<usize>) -> Read<usize> {
    let read = text.parse::<ByteSize>().ok().and_then(|size| usize::try_from(size.0).ok());
    read.filter(|bytes| range.contains(bytes)).ok_or_else(|| {
        let [from, to] = [range.start(), range.end()].map(|bytes| ByteSize(*bytes as u64));
        format!("a size like 64KiB or 1MiB, from {from} to {to}")
    })
}

/// A whole number.
pub(super) fn count(text: &str, range: RangeInclusive<usize>) -> Read<usize> {
    let read = text.parse().ok().filter(|n| range.contains(n));
    read.ok_or_else(|| format!("a whole number from {} to {}", range.start(), range.end()))
}

/// A limit of connections; 0 means none.
pub(super) fn limit(text: &str) -> Read<u32> {
    text.parse().ok().filter(|n| *n <= 10_000_000).ok_or_else(|| "a whole number of 0 to 10000000".into())
}

/// What happens past a session's limit.
pub(super) fn session_policy(text: &str) -> Read<SessionPolicy> {
    match text {
        "reject" => Ok(SessionPolicy::Reject),
        "replace" => Ok(SessionPolicy::Replace),
        _ => Err("reject or replace".into()),
    }
}

/// What happens to newcomers without Redis.
pub(super) fn without_redis(text: &str) -> Read<WithoutRedis> {
    match text {
        "local" => Ok(WithoutRedis::Local),
        "closed" => Ok(WithoutRedis::Closed),
        "open" => Ok(WithoutRedis::Open),
        _ => Err("local, closed or open".into()),
    }
}

/// Tries per time; 0 means no limit.
pub(super) fn connect_rate(text: &str) -> Read<Option<ConnectRate>> {
    if text == "0" {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| "a rate like 20/s, 100/m or 1000/h, or 0 for no limit".into())
}

/// `true` or `false`.
pub(super) fn switch(text: &str) -> Read<bool> {
    text.parse().map_err(|_| "true or false".to_owned())
}

/// `IP:PORT`; `localhost` for the IPv4 loopback address.
pub(super) fn address(text: &str) -> Read<SocketAddr> {
    let local = text.strip_prefix("localhost:").and_then(|port| port.parse::<u16>().ok());
    let read = local.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port))).or_else(|| text.parse().ok());
    read.ok_or_else(|| "an IP address and a port, like 127.0.0.1:8080, 0.0.0.0:8080 or [::1]:8080".to_owned())
}

/// Comma-separated channels and families.
pub(super) fn channels(text: &str) -> Read<Vec<ChannelPattern>> {
    let allowed = || {
        format!(
            "1 to {MAX_CHANNELS} channel names separated by commas, each 1 to 128 of A-Z a-z 0-9 . _ : / - and not `all`; \
             a trailing * means a family, like public:*"
        )
    };
    let mut channels = Vec::new();
    for entry in text.split(',') {
        let channel = ChannelPattern::parse(entry.trim()).map_err(|_| allowed())?;
        if !channels.contains(&channel) {
            channels.push(channel);
        }
    }
    if channels.len() > MAX_CHANNELS { Err(allowed()) } else { Ok(channels) }
}

/// Comma-separated networks and addresses.
pub(super) fn proxies(text: &str) -> Read<TrustedProxies> {
    text.parse().map_err(|_| {
        "networks and addresses separated by commas, like 10.0.0.0/8,192.0.2.7,fd00::/8".to_owned()
    })
}

/// Comma-separated keys that fit into an HTTP header.
pub(super) fn api_keys(text: &str) -> Read<Vec<Secret>> {
    let allowed = || {
        format!(
            "up to {MAX_API_KEYS} keys separated by commas, each 1 to {MAX_API_KEY_LEN} visible ASCII characters without commas"
        )
    };
    let good =
        |key: &str| (1..=MAX_API_KEY_LEN).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic());
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let keys: Vec<&str> = text.split(',').map(str::trim).collect();
    if keys.len() > MAX_API_KEYS || !keys.iter().all(|key| good(key)) {
        return Err(allowed());
    }
    Ok(keys.into_iter().map(Secret::new).collect())
}

/// A prefix for Redis keys. The characters are those of channel names, so that no key needs quoting and no prefix can
/// turn into a pattern or a hash tag.
pub(super) fn prefix(text: &str) -> Read<String> {
    name(text, |b| b.is_ascii_alphanumeric() || b"._:/-".contains(&b), "A-Z a-z 0-9 . _ : / -")
}

/// A node's id.
pub(super) fn node_id(text: &str) -> Read<String> {
    name(text, |b| b.is_ascii_alphanumeric() || b"._-".contains(&b), "A-Z a-z 0-9 . _ -")
}

fn name(text: &str, allowed: impl Fn(u8) -> bool, characters: &str) -> Read<String> {
    let good = (1..=MAX_NAME_LEN).contains(&text.len()) && text.bytes().all(allowed);
    if good { Ok(text.to_owned()) } else { Err(format!("1 to {MAX_NAME_LEN} of {characters}")) }
}

/// The host's name and something random: unique even when containers share a name or a node is restarted at once.
pub(super) fn fresh_node_id() -> String {
    let host: String = gethostname::gethostname()
        .to_string_lossy()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '.' || c == '_' { c } else { '-' })
        .take(MAX_NAME_LEN - 9)
        .collect();
    format!("{host}-{:08x}", rand::rng().random::<u32>())
}

/// Log directives.
pub(super) fn log_filter(text: &str) -> Read<String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    // `EnvFilter` takes any lone word for a module and would log everything of nothing: a mistyped level is refused here.
    let is_level = |word: &str| LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word));
    let clear = text.split(',').all(|part| part.contains(['=', '[', '}']) || is_level(part.trim()));
    if clear && EnvFilter::try_new(text).is_ok() {
        return Ok(text.to_owned());
    }
    Err("off, error, warn, info, debug or trace, or a list with modules like info,fanlight::broker=debug"
        .to_owned())
}

/// Whether spans of events are linked to the publisher's.
pub(super) fn trace_relation(text: &str) -> Read<bool> {
    match text {
        "parent" => Ok(false),
        "link" => Ok(true),
        _ => Err("parent or link".to_owned()),
    }
}

/// The form of log lines.
pub(super) fn log_format(text: &str) -> Read<LogFormat> {
    match text {
        "auto" => Ok(LogFormat::Auto),
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("auto, text or json".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_with_their_unit_and_within_bounds() {
        let read = |text| duration(text, SECOND..=DAY).ok().map(|d| d.as_millis());
        assert_eq!(read("1500ms"), Some(1500));
        assert_eq!(read("25s"), Some(25_000));
        assert_eq!(read("5m"), Some(300_000));
        assert_eq!(read("12h"), Some(43_200_000));
        for bad in
            ["", "25", "0", "999ms", "25h", "-5s", "s", "5 parsecs", "99999999999999999999s", "1e3s", "٣s"]
        {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn zero_is_never_where_it_may_be() {
        for zero in ["0", "0s", "0ms"] {
            assert_eq!(duration_or_never(zero, SECOND..=DAY), Ok(None), "{zero}");
        }
        assert_eq!(duration_or_never("2s", SECOND..=DAY), Ok(Some(2 * SECOND)));
        assert!(duration_or_never("1ms", SECOND..=DAY).is_err());
    }

    #[test]
    fn sizes_are_binary_or_decimal_and_within_bounds() {
        let read = |text| size(text, KIB..=MIB).ok();
        assert_eq!(read("64KiB"), Some(65_536));
        assert_eq!(read("1MiB"), Some(1_048_576));
        assert_eq!(read("64kB"), Some(64_000));
        assert_eq!(read("2048"), Some(2048));
        for bad in ["", "1", "2MiB", "-64KiB", "many", "99999999999999999999999EiB", "NaN"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_mistyped_level_is_not_taken_for_a_module() {
        for good in ["info", "WARN", "info,fanlight::hub=trace", "fanlight[stream{id=1}]=debug,warn"] {
            assert!(log_filter(good).is_ok(), "{good}");
        }
        for bad in ["inof", "", "info,debgu", "a=b=c"] {
            assert!(log_filter(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn channels_are_kept_once_and_bad_ones_refused() {
        assert_eq!(channels("jobs, jobs,public:*").unwrap().len(), 2);
        for bad in ["", "a,,b", "all", "a b", "a*b", "ü"] {
            assert!(channels(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn keys_that_no_header_could_carry_are_refused() {
        assert_eq!(api_keys("one, two").unwrap().len(), 2);
        assert_eq!(api_keys("").unwrap().len(), 0);
        for bad in ["a,", "with space", "ü", "a\nb"] {
            assert!(api_keys(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_fresh_node_id_is_an_allowed_one() {
        assert!(node_id(&fresh_node_id()).is_ok());
    }
}
