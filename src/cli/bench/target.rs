//! Where to connect: a URL, looked up once before anything is measured.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};

use anyhow::{Context, Result, bail};
use url::Url;

/// Connections per source address: well below the 28,232 ports that Linux gives out by default, because finding a free
/// one slows down when few are left.
const PER_SOURCE: usize = 10_000;

/// The most addresses that [`source`] tells apart.
pub(super) const MAX_SOURCES: usize = 254 * 256;

/// A server, and what to ask it for.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// Where it listens.
    pub(super) address: SocketAddr,
    /// Its name for the `Host` field.
    pub(super) host: String,
    /// Path and query.
    pub(super) path: String,
}

impl Target {
    /// Looks up an `http://` URL.
    ///
    /// # Errors
    /// When it is none, or the name has no address.
    pub(super) fn http(text: &str) -> Result<Self> {
        let url = Url::parse(text).with_context(|| format!("{text:?} is not a URL"))?;
        if url.scheme() != "http" {
            bail!("{text:?}: bench speaks plain http:// only; put it behind what ends TLS");
        }
        let name = url.host_str().context("the URL has no host")?.trim_matches(['[', ']']);
        let address = look_up(name, url.port().unwrap_or(80))?;
        let host = url[url::Position::BeforeHost..url::Position::AfterPort].to_owned();
        let path = url[url::Position::BeforePath..url::Position::AfterQuery].to_owned();
        Ok(Self { address, host, path })
    }

    /// A request to it, with these header lines and no body.
    pub(super) fn get(&self, headers: &[String]) -> Vec<u8> {
        let Self { host, path, .. } = self;
        let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
        format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nAccept: text/event-stream\r\n{headers}\r\n")
            .into_bytes()
    }

    /// A request to it that carries `body`.
    pub(super) fn post(&self, headers: &[String], body: &str) -> Vec<u8> {
        let Self { host, path, .. } = self;
        let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
        let length = body.len();
        let kind = "Content-Type: application/json";
        format!("POST {path} HTTP/1.1\r\nHost: {host}\r\n{kind}\r\nContent-Length: {length}\r\n{headers}\r\n{body}")
            .into_bytes()
    }
}

/// The first address of a host.
///
/// # Errors
/// When it has none.
pub(super) fn look_up(host: &str, port: u16) -> Result<SocketAddr> {
    let mut addresses = (host, port).to_socket_addrs().with_context(|| format!("cannot look up {host:?}"))?;
    addresses.next().with_context(|| format!("{host:?} has no address"))
}

/// How many source addresses `connections` to `target` need; beyond loopback there is only the machine's own.
pub(super) fn sources_needed(target: SocketAddr, connections: usize) -> usize {
    if is_ipv4_loopback(target) { connections.div_ceil(PER_SOURCE).max(1) } else { 1 }
}

/// Whether source addresses can be chosen: all of 127.0.0.0/8 is this machine.
pub(super) fn is_ipv4_loopback(target: SocketAddr) -> bool {
    matches!(target.ip(), IpAddr::V4(ip) if ip.is_loopback())
}

/// The `index`-th source address: 127.0.0.1, 127.0.0.2, …
pub(super) fn source(index: usize) -> SocketAddr {
    let (third, fourth) = ((index / 254) as u8, (index % 254 + 1) as u8);
    SocketAddr::from((Ipv4Addr::new(127, 0, third, fourth), 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart_for_a_request() {
        let target = Target::http("http://127.0.0.1:8080/a/b?c=d#e").unwrap();
        let request = String::from_utf8(target.get(&["X-A: b".into()])).unwrap();
        let expected =
            "GET /a/b?c=d HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nAccept: text/event-stream\r\nX-A: b\r\n\r\n";
        assert_eq!(request, expected);
        assert_eq!(Target::http("http://127.0.0.1").unwrap().address.port(), 80);
        assert_eq!(Target::http("http://[::1]:5/").unwrap().address.to_string(), "[::1]:5");
        for bad in ["https://localhost", "localhost:80", "http://", "ftp://localhost"] {
            assert!(Target::http(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn source_addresses_differ_and_are_enough() {
        let all: std::collections::HashSet<_> = (0..MAX_SOURCES).map(source).collect();
        assert_eq!(all.len(), MAX_SOURCES);
        assert!(all.iter().all(|address| address.ip().is_loopback()));
        let target = Target::http("http://127.0.0.1:1").unwrap().address;
        assert_eq!((sources_needed(target, 1), sources_needed(target, 20_001)), (1, 3));
    }
}
