//! Reads `Forwarded` (RFC 7239) and `X-Forwarded-For` from the right, one hop at a time.
//!
//! From the right, because only what the nearest proxies appended can be believed: whatever stands further left, an
//! open quote included, must not change how the right end is read. Nothing here decides whom to believe.

use std::net::{IpAddr, Ipv6Addr};

/// What one hop says of the one before it: its address, or `None` when it names none (`unknown`, an obfuscated
/// identifier, RFC 7239 section 6, or nonsense).
pub(super) type Hop = Option<IpAddr>;

/// The hops of one `X-Forwarded-For` line, the last one first. Empty list elements are no hops (RFC 9110 section
/// 5.6.1.2).
pub(super) fn x_forwarded_for(line: &[u8]) -> impl Iterator<Item = Hop> {
    line.rsplit(|b| *b == b',').map(<[u8]>::trim_ascii).filter(|hop| !hop.is_empty()).map(address)
}

/// The hops of one `Forwarded` line, the last one first.
pub(super) fn forwarded(line: &[u8]) -> impl Iterator<Item = Hop> {
    FromRight { rest: Some(line), separator: b',' }.filter(|hop| !hop.is_empty()).map(forwarded_for)
}

/// The address in the `for` parameter of a forwarded-element; `None` when there is not exactly one.
fn forwarded_for(element: &[u8]) -> Hop {
    let mut values = FromRight { rest: Some(element), separator: b';' }.filter_map(|pair| {
        let (name, value) = split_at_byte(pair, b'=')?;
        name.eq_ignore_ascii_case(b"for").then_some(value)
    });
    let value = values.next()?;
    if values.next().is_some() {
        return None;
    }
    match value {
        [b'"', quoted @ .., b'"'] => address(&unescape(quoted)),
        token => address(token),
    }
}

/// The pieces between separators that stand outside quoted strings, trimmed, the last one first.
struct FromRight<'a> {
    rest: Option<&'a [u8]>,
    separator: u8,
}

impl<'a> Iterator for FromRight<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.rest?;
        let mut quoted = false;
        for (at, byte) in rest.iter().enumerate().rev() {
            match *byte {
                b'"' if !(quoted && is_escaped(rest, at)) => quoted = !quoted,
                byte if byte == self.separator && !quoted => {
                    self.rest = rest.get(..at);
                    return rest.get(at + 1..).map(<[u8]>::trim_ascii);
                }
                _ => {}
            }
        }
        self.rest = None;
        Some(rest.trim_ascii())
    }
}

/// Whether an odd number of backslashes stands before `at`.
fn is_escaped(text: &[u8], at: usize) -> bool {
    text.iter().take(at).rev().take_while(|b| **b == b'\\').count() % 2 == 1
}

/// The inside of a quoted string without its backslashes (RFC 9110 section 5.6.4).
fn unescape(quoted: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(quoted.len());
    let mut bytes = quoted.iter().copied();
    while let Some(byte) = bytes.next() {
        text.push(if byte == b'\\' { bytes.next().unwrap_or(byte) } else { byte });
    }
    text
}

/// A node name: an IPv4 address, an IPv6 address in brackets or bare, each with or without a port.
fn address(node: &[u8]) -> Hop {
    if let Some(rest) = node.strip_prefix(b"[") {
        let (v6, port) = split_at_byte(rest, b']')?;
        let closed = port.is_empty() || port.strip_prefix(b":").is_some_and(is_port);
        return closed.then(|| parse::<Ipv6Addr>(v6)).flatten().map(IpAddr::V6);
    }
    match split_at_byte(node, b':') {
        Some((v4, port)) if !port.contains(&b':') => is_port(port).then(|| parse(v4)).flatten(),
        _ => parse(node),
    }
    .map(|address: IpAddr| address.to_canonical())
}

/// A port: digits, or an underscore and an obfuscated name (RFC 7239 section 6).
fn is_port(text: &[u8]) -> bool {
    let obfuscated = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    match text {
        [b'_', name @ ..] => !name.is_empty() && name.iter().all(obfuscated),
        digits => (1..=5).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit),
    }
}

fn parse<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn split_at_byte(text: &[u8], byte: u8) -> Option<(&[u8], &[u8])> {
    let at = memchr::memchr(byte, text)?;
    Some((text.get(..at)?, text.get(at + 1..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> Hop {
        Some(text.parse().unwrap())
    }

    fn hops_of_forwarded(line: &str) -> Vec<Hop> {
        forwarded(line.as_bytes()).collect()
    }

    fn hops_of_xff(line: &str) -> Vec<Hop> {
        x_forwarded_for(line.as_bytes()).collect()
    }

    #[test]
    fn the_examples_of_rfc_7239_are_read() {
        assert_eq!(hops_of_forwarded("for=\"_gazonk\""), [None]);
        assert_eq!(hops_of_forwarded("For=\"[2001:db8:cafe::17]:4711\""), [ip("2001:db8:cafe::17")]);
        assert_eq!(hops_of_forwarded("for=192.0.2.60;proto=http;by=203.0.113.43"), [ip("192.0.2.60")]);
        assert_eq!(
            hops_of_forwarded("for=192.0.2.43, for=198.51.100.17"),
            [ip("198.51.100.17"), ip("192.0.2.43")]
        );
        assert_eq!(hops_of_forwarded("for=\"192.0.2.43:47011\""), [ip("192.0.2.43")]);
        assert_eq!(hops_of_forwarded("for=unknown"), [None]);
        assert_eq!(hops_of_forwarded("for=_hidden, for=_SEVKISEK"), [None, None]);
    }

    #[test]
    fn an_open_quote_on_the_left_does_not_hide_the_hop_on_the_right() {
        assert_eq!(hops_of_forwarded("for=\"1.1.1.1, for=192.0.2.1").first(), Some(&ip("192.0.2.1")));
        assert_eq!(hops_of_forwarded("x\\\", for=\"[2001:db8::1]\"").first(), Some(&ip("2001:db8::1")));
    }

    #[test]
    fn separators_inside_a_quoted_string_are_text() {
        let line = r#"for=192.0.2.1;host="a\",for=6.6.6.6;x=\"""#;
        assert_eq!(hops_of_forwarded(line), [ip("192.0.2.1")]);
    }

    #[test]
    fn an_element_that_speaks_of_two_clients_speaks_of_none() {
        assert_eq!(hops_of_forwarded("for=192.0.2.1;for=192.0.2.2"), [None]);
        assert_eq!(hops_of_forwarded("proto=https;by=203.0.113.43"), [None]);
    }

    #[test]
    fn escaped_characters_in_a_quoted_address_are_unescaped() {
        assert_eq!(hops_of_forwarded(r#"for="192.0.2\.1""#), [ip("192.0.2.1")]);
    }

    #[test]
    fn x_forwarded_for_is_read_in_all_its_dialects() {
        assert_eq!(
            hops_of_xff("2001:db8::1, [2001:db8::2]:443 ,192.0.2.1:80,, [2001:db8::3], ::ffff:192.0.2.9"),
            [ip("192.0.2.9"), ip("2001:db8::3"), ip("192.0.2.1"), ip("2001:db8::2"), ip("2001:db8::1")]
        );
    }

    #[test]
    fn nonsense_is_no_address() {
        for bad in [
            "unknown",
            "_x",
            "1.2.3",
            "1.2.3.4.5",
            "1.2.3.4:",
            "1.2.3.4:x",
            "1.2.3.4:123456",
            "[::1",
            "[::1]x",
            "[::1]:",
            "::1]",
            "[1.2.3.4]",
            "fe80::1%eth0",
            "01.2.3.4",
            "1.2.3.4 5",
            "\"192.0.2.1\"",
            "1.2.3.4;",
        ] {
            assert_eq!(hops_of_xff(bad), [None], "{bad}");
        }
        assert_eq!(x_forwarded_for(b"\xff\xfe, 192.0.2.1").next(), Some(ip("192.0.2.1")));
        assert!(hops_of_xff(" , ,").is_empty());
        assert!(hops_of_forwarded("").is_empty());
    }
}
