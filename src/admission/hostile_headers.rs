//! One million generated headers: whatever a client writes, it never picks another's address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};

use super::address::TrustedProxies;

/// Pieces that hostile clients put into headers, on top of addresses and random bytes.
const PIECES: [&[u8]; 34] = [
    b",",
    b", ",
    b";",
    b"=",
    b"\"",
    b"\\",
    b"\\\"",
    b"for=",
    b"For=\"",
    b"by=",
    b"proto=https",
    b"host=\"",
    b"[",
    b"]",
    b":",
    b"::",
    b":80",
    b":_port",
    b"unknown",
    b"_hidden",
    b"for=unknown",
    b"%eth0",
    b"/8",
    b" ",
    b"\t",
    b"::ffff:",
    b"10.0.0.1",
    b"10.0.0.2",
    b"[2001:db8:ffff::1]",
    b"0x7f.1",
    b"\0",
    b"\xff",
    b"for=10.0.0.1,",
    b"",
];

/// Which headers the proxies of a site write. What they do not write, they pass on as it came.
#[derive(Clone, Copy, PartialEq)]
enum Writes {
    XForwardedFor,
    Forwarded,
    Both,
}

#[derive(Default)]
struct Headers {
    forwarded: Vec<Vec<u8>>,
    x_forwarded_for: Vec<Vec<u8>>,
}

fn trusted_address(rng: &mut SmallRng) -> IpAddr {
    match rng.random_range(0..3) {
        0 => Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, rng.random()).into(),
        1 => Ipv4Addr::new(10, 0, 0, rng.random()).to_ipv6_mapped().into(),
        _ => Ipv4Addr::new(10, rng.random(), 0, 1).into(),
    }
}

fn untrusted_address(rng: &mut SmallRng) -> IpAddr {
    match rng.random_range(0..3) {
        0 => Ipv6Addr::new(0x2001, 0xdb8, 1, rng.random(), 0, 0, 0, 1).into(),
        1 => Ipv4Addr::new(203, 0, 113, rng.random()).to_ipv6_mapped().into(),
        _ => Ipv4Addr::new(192, 0, 2, rng.random()).into(),
    }
}

/// A line as a client that wants to be somebody else would write it.
fn hostile_line(rng: &mut SmallRng) -> Vec<u8> {
    let mut line = Vec::new();
    for _ in 0..rng.random_range(0..8) {
        match rng.random_range(0..6) {
            0 => line.extend(untrusted_address(rng).to_string().bytes()),
            1 => line.extend(node(trusted_address(rng), rng).bytes()),
            2 => line.push(rng.random()),
            _ => line.extend_from_slice(PIECES.choose(rng).unwrap()),
        }
    }
    line
}

/// `address` in one of the ways in which a proxy may write it.
fn node(address: IpAddr, rng: &mut SmallRng) -> String {
    let port = if rng.random() { ":4711" } else { "" };
    match address {
        IpAddr::V4(v4) => format!("{v4}{port}"),
        IpAddr::V6(v6) if port.is_empty() && rng.random() => v6.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]{port}"),
    }
}

/// What an honest proxy adds for the hop before it.
fn append(lines: &mut Vec<Vec<u8>>, element: String, rng: &mut SmallRng) {
    match lines.last_mut() {
        Some(line) if rng.random() => {
            line.extend_from_slice(if rng.random() { b", " } else { b"," });
            line.extend(element.bytes());
        }
        _ => lines.push(element.into_bytes()),
    }
}

fn pass_through_proxy(headers: &mut Headers, before: IpAddr, writes: Writes, rng: &mut SmallRng) {
    if writes != Writes::Forwarded {
        let element = node(before, rng);
        append(&mut headers.x_forwarded_for, element, rng);
    }
    if writes != Writes::XForwardedFor {
        let suffix = ["", ";proto=https", ";host=\"a,b\\\";c\"", ";by=_me"].choose(rng).unwrap();
        append(&mut headers.forwarded, format!("for=\"{}\"{suffix}", node(before, rng)), rng);
    }
}

#[test]
fn an_untrusted_hop_never_picks_the_key_in_a_million_headers() {
    let trusted: TrustedProxies = "10.0.0.0/8,2001:db8:ffff::/48".parse().unwrap();
    let mut rng = SmallRng::seed_from_u64(0xFA11_1167);
    for trial in 0..1_000_000 {
        let writes = *[Writes::XForwardedFor, Writes::Forwarded, Writes::Both].choose(&mut rng).unwrap();
        let client = untrusted_address(&mut rng);
        let mut headers = Headers::default();
        for _ in 0..rng.random_range(0..3) {
            headers.forwarded.push(hostile_line(&mut rng));
            headers.x_forwarded_for.push(hostile_line(&mut rng));
        }
        let foreign = match writes {
            Writes::XForwardedFor => &mut headers.forwarded,
            Writes::Forwarded => &mut headers.x_forwarded_for,
            Writes::Both => &mut Vec::new(),
        };
        if rng.random() {
            foreign.clear();
        }
        let lied = writes != Writes::Both && !foreign.is_empty();
        let mut peer = client;
        for _ in 0..rng.random_range(0..4) {
            pass_through_proxy(&mut headers, peer, writes, &mut rng);
            peer = trusted_address(&mut rng);
        }
        let found = trusted.client(
            peer,
            headers.forwarded.iter().map(Vec::as_slice),
            headers.x_forwarded_for.iter().map(Vec::as_slice),
        );
        let (client, peer) = (client.to_canonical(), peer.to_canonical());
        assert!(
            found == client || (lied && found == peer),
            "trial {trial}: {found} for {client} behind {peer}: {:?} {:?}",
            headers.forwarded.iter().map(|l| l.escape_ascii().to_string()).collect::<Vec<_>>(),
            headers.x_forwarded_for.iter().map(|l| l.escape_ascii().to_string()).collect::<Vec<_>>(),
        );
    }
}
