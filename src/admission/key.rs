//! What connections are counted by: the client's address and its session.

use std::fmt;
use std::net::IpAddr;

use aws_lc_rs::digest::{SHA256, digest};

/// An address as the limits see it: an IPv4 address, or the /64 of an IPv6 address, because a /64 is what one
/// subscriber is given (RFC 6177 section 2) and its owner may use any address within.
///
/// IPv4-mapped addresses (`::ffff:a.b.c.d`, RFC 4291 section 2.5.5.2) are the IPv4 address that they carry.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IpKey {
    /// One IPv4 address.
    V4([u8; 4]),
    /// The first 64 bits of an IPv6 address.
    V6([u16; 4]),
}

impl From<IpAddr> for IpKey {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self::V4(v4.octets()),
            IpAddr::V6(v6) => {
                let [a, b, c, d, ..] = v6.segments();
                Self::V6([a, b, c, d])
            }
        }
    }
}

impl fmt::Display for IpKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::V4([a, b, c, d]) => write!(f, "{a}.{b}.{c}.{d}"),
            Self::V6([a, b, c, d]) => write!(f, "{a:x}:{b:x}:{c:x}:{d:x}::/64"),
        }
    }
}

impl fmt::Debug for IpKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A session as the limits see it: 128 bits of the SHA-256 of the client's token.
///
/// Fixed length whatever the client sends, the same on every node, and the token itself never reaches Redis.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionKey([u8; 16]);

impl SessionKey {
    /// The key of `token`.
    pub fn of(token: &str) -> Self {
        let digest = digest(&SHA256, token.as_bytes());
        let mut key = [0; 16];
        key.iter_mut().zip(digest.as_ref()).for_each(|(to, from)| *to = *from);
        Self(key)
    }

    /// Reads what [`Key`] wrote after its `s`.
    fn parse(hex: &str) -> Option<Self> {
        (hex.len() == 32).then(|| u128::from_str_radix(hex, 16).ok()).flatten().map(|n| Self(n.to_be_bytes()))
    }
}

impl fmt::Display for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// One thing that is counted. Its text is the field's name in a lease: `i203.0.113.9`, `i2001:db8:0:1::/64`,
/// `s` and 32 hexadecimal digits; no client chooses any character of it freely.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// An address.
    Ip(IpKey),
    /// A session.
    Session(SessionKey),
}

impl Key {
    /// Reads a session's field name; `None` for everything else.
    pub(super) fn parse_session(field: &str) -> Option<SessionKey> {
        field.strip_prefix('s').and_then(SessionKey::parse)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => write!(f, "i{ip}"),
            Self::Session(session) => write!(f, "s{session}"),
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(address: &str) -> IpKey {
        IpKey::from(address.parse::<IpAddr>().unwrap())
    }

    #[test]
    fn a_mapped_address_is_the_ipv4_address_that_it_carries() {
        assert_eq!(key("::ffff:203.0.113.9"), key("203.0.113.9"));
        assert_ne!(key("203.0.113.9"), key("203.0.113.10"));
    }

    #[test]
    fn an_ipv6_address_counts_by_its_first_64_bits() {
        assert_eq!(key("2001:db8:0:1::1"), key("2001:db8:0:1:ffff::2"));
        assert_ne!(key("2001:db8:0:1::1"), key("2001:db8:0:2::1"));
        assert_eq!(key("2001:db8:0:1::1").to_string(), "2001:db8:0:1::/64");
    }

    #[test]
    fn a_session_is_the_same_key_on_every_node_and_hides_its_token() {
        let session = SessionKey::of("tab-1");
        assert_eq!(session, SessionKey::of("tab-1"));
        assert_ne!(session, SessionKey::of("tab-2"));
        // SHA-256 as everybody computes it: printf tab-1 | sha256sum
        assert_eq!(session.to_string(), "2cc6c3ae66b2bf5c9bd0dd2b453b7628");
    }

    #[test]
    fn a_session_can_be_read_back_from_its_field() {
        let session = SessionKey::of("x");
        assert_eq!(Key::parse_session(&Key::Session(session).to_string()), Some(session));
        assert_eq!(Key::parse_session("i203.0.113.9"), None);
        assert_eq!(Key::parse_session("s12"), None);
    }
}
