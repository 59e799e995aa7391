//! Who is asking: the client's address, also from behind proxies.
//!
//! Only an address that the operator listed as a proxy may speak for somebody else, and only for the hop directly
//! before it. It does not decide what the address may do, and it never fails: when nothing better can be believed, the
//! answer is the last address that could.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};

use super::forwarded::{Hop, forwarded, x_forwarded_for};

/// The networks whose hosts may speak for a client's address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<IpNet>);

/// A text that is neither an address nor a network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is neither an IP address nor a network such as 10.0.0.0/8")]
pub struct BadNetwork(String);

impl TrustedProxies {
    /// Trusts the hosts of `networks`.
    pub fn new(networks: impl IntoIterator<Item = IpNet>) -> Self {
        Self(networks.into_iter().map(|network| unmapped(network.trunc())).collect())
    }

    /// Whether `address` is one of them.
    pub fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// The client's address, given the socket's `peer` and every line of both headers in the order received.
    ///
    /// From the right: as long as a hop is trusted, what it says of the hop before it is believed. A trusted hop that
    /// names nobody ends the walk, and its own address is the answer.
    ///
    /// A proxy that writes one of the headers usually passes the other one on as its client sent it, and nothing tells
    /// which one is written. So when both are there they must agree; when they do not, the answer is `peer`: the client
    /// can lump itself together with others who lie like that, but can never be somebody else.
    pub fn client<'a>(
        &self,
        peer: IpAddr,
        forwarded_lines: impl DoubleEndedIterator<Item = &'a [u8]>,
        x_forwarded_for_lines: impl DoubleEndedIterator<Item = &'a [u8]>,
    ) -> IpAddr {
        let peer = peer.to_canonical();
        if !self.trusts(peer) {
            return peer;
        }
        let standard = self.walk(peer, forwarded_lines.rev().flat_map(forwarded));
        let customary = self.walk(peer, x_forwarded_for_lines.rev().flat_map(x_forwarded_for));
        match (standard, customary) {
            (Some(a), Some(b)) if a == b => a,
            (Some(a), None) | (None, Some(a)) => a,
            _ => peer,
        }
    }

    /// Goes from `peer` through `hops`, the nearest first, to the first address that is not trusted; `None` without hops.
    fn walk(&self, peer: IpAddr, hops: impl Iterator<Item = Hop>) -> Option<IpAddr> {
        let mut hops = hops.peekable();
        hops.peek()?;
        let mut client = peer;
        for hop in hops {
            match hop {
                Some(address) if self.trusts(client) => client = address.to_canonical(),
                _ => break,
            }
        }
        Some(client)
    }
}

/// A network of IPv4-mapped addresses as the IPv4 network that it means, because addresses are compared unmapped.
fn unmapped(network: IpNet) -> IpNet {
    let IpNet::V6(v6) = network else { return network };
    let v4 = v6.addr().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(96));
    v4.and_then(|(address, length)| Ipv4Net::new(address, length).ok()).map_or(network, IpNet::V4)
}

impl FromStr for TrustedProxies {
    type Err = BadNetwork;

    /// Networks and single addresses, separated by commas.
    fn from_str(list: &str) -> Result<Self, BadNetwork> {
        let words = list.split(',').map(str::trim).filter(|word| !word.is_empty());
        let networks: Result<Vec<IpNet>, BadNetwork> = words.map(network).collect();
        networks.map(Self::new)
    }
}

fn network(word: &str) -> Result<IpNet, BadNetwork> {
    let single = || word.parse::<IpAddr>().map(IpNet::from);
    word.parse().or_else(|_| single()).map_err(|_| BadNetwork(word.to_owned()))
}

impl fmt::Display for TrustedProxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, network) in self.0.iter().enumerate() {
            write!(f, "{}{network}", if at == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROXY: &str = "10.0.0.1";

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// The client behind `peer` when 10/8 and 2001:db8:ffff::/48 are trusted.
    fn client(peer: &str, forwarded: &[&str], xff: &[&str]) -> String {
        let trusted: TrustedProxies = "10.0.0.0/8, 2001:db8:ffff::/48".parse().unwrap();
        let lines = |list: &[&str]| list.iter().map(|l| l.as_bytes().to_vec()).collect::<Vec<_>>();
        let (forwarded, xff) = (lines(forwarded), lines(xff));
        let client =
            trusted.client(ip(peer), forwarded.iter().map(Vec::as_slice), xff.iter().map(Vec::as_slice));
        client.to_string()
    }

    #[test]
    fn an_untrusted_peer_speaks_for_nobody() {
        assert_eq!(client("192.0.2.1", &["for=6.6.6.6"], &["6.6.6.6"]), "192.0.2.1");
        assert_eq!(TrustedProxies::default().client(ip(PROXY), [].into_iter(), [].into_iter()), ip(PROXY));
    }

    #[test]
    fn the_nearest_untrusted_hop_is_the_client() {
        assert_eq!(client(PROXY, &[], &["6.6.6.6, 192.0.2.1"]), "192.0.2.1");
        assert_eq!(client(PROXY, &[], &["6.6.6.6, 192.0.2.1, 10.2.2.2"]), "192.0.2.1");
        assert_eq!(client(PROXY, &["for=6.6.6.6, for=192.0.2.1;proto=https"], &[]), "192.0.2.1");
    }

    #[test]
    fn header_lines_are_one_list() {
        assert_eq!(client(PROXY, &[], &["6.6.6.6", "192.0.2.1", "10.2.2.2"]), "192.0.2.1");
        assert_eq!(client(PROXY, &["for=\"6.6.6.6", "for=192.0.2.1"], &[]), "192.0.2.1");
    }

    #[test]
    fn a_trusted_hop_that_names_nobody_is_the_answer() {
        for hidden in ["unknown", "_secret", "nonsense", "for=1.2.3.4"] {
            assert_eq!(client(PROXY, &[], &[&format!("6.6.6.6, {hidden}")]), PROXY);
            assert_eq!(client(PROXY, &[], &[&format!("6.6.6.6, {hidden}, 10.2.2.2")]), "10.2.2.2");
        }
    }

    #[test]
    fn a_client_inside_the_trusted_networks_is_itself() {
        assert_eq!(client(PROXY, &[], &["10.9.9.9"]), "10.9.9.9");
        assert_eq!(client(PROXY, &[], &[]), PROXY);
        assert_eq!(client(PROXY, &[], &["", " , "]), PROXY);
    }

    #[test]
    fn two_headers_that_disagree_are_not_believed() {
        assert_eq!(client(PROXY, &["for=192.0.2.1"], &["6.6.6.6, 192.0.2.1"]), "192.0.2.1");
        assert_eq!(client(PROXY, &["for=6.6.6.6"], &["192.0.2.1"]), PROXY);
    }

    #[test]
    fn mapped_addresses_are_ipv4_for_trust_and_for_the_answer() {
        assert_eq!(client("::ffff:10.0.0.1", &[], &["::ffff:192.0.2.1"]), "192.0.2.1");
        let mapped: TrustedProxies = "::ffff:10.0.0.0/104".parse().unwrap();
        assert!(mapped.trusts(ip(PROXY)) && !mapped.trusts(ip("11.0.0.1")));
    }

    #[test]
    fn a_list_of_networks_is_read_or_named_as_wrong() {
        let trusted: TrustedProxies = "10.1.2.3/8,192.0.2.7,,::1".parse().unwrap();
        assert_eq!(trusted.to_string(), "10.0.0.0/8,192.0.2.7/32,::1/128");
        let wrong = "10.0.0.0/8,proxy.example".parse::<TrustedProxies>().unwrap_err();
        assert!(wrong.to_string().contains("`proxy.example`"), "{wrong}");
    }
}
