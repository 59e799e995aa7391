//! How counts, sizes and times are worded for people.

use std::time::Duration;

use bytesize::ByteSize;

/// `1 stream`, `2 streams`, `2 addresses`.
pub(super) fn plural(count: u64, noun: &str) -> String {
    let ending = match (count, noun.ends_with('s')) {
        (1, _) => "",
        (_, true) => "es",
        (_, false) => "s",
    };
    format!("{count} {noun}{ending}")
}

/// `28.0M`, in powers of 1024.
pub(super) fn bytes(count: u64) -> String {
    ByteSize(count).display().iec_short().to_string()
}

/// The two largest units: `3h 2m`, `12s`, `140ms`.
pub(super) fn duration(ms: u64) -> String {
    let whole = Duration::from_millis(if ms < 1000 { ms } else { ms - ms % 1000 });
    humantime::format_duration(whole).to_string().split(' ').take(2).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_two_largest_units_are_shown() {
        for (ms, shown) in [(0, "0s"), (140, "140ms"), (61_999, "1m 1s"), (90_061_000, "1day 1h")] {
            assert_eq!(duration(ms), shown);
        }
    }

    #[test]
    fn one_is_no_plural() {
        assert_eq!((plural(1, "address"), plural(2, "address")), ("1 address".into(), "2 addresses".into()));
        assert_eq!((plural(0, "stream"), bytes(28 << 20)), ("0 streams".into(), "28.0M".into()));
    }
}
