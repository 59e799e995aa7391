//! The client's address, as the list of connections shows it.

use std::net::Ipv4Addr;

use crate::support::process::unique;
use crate::support::{Node, SseRequest, secs};

/// The address of the one connection that `request` opens.
async fn address(node: &Node, request: SseRequest) -> String {
    let session = unique("asked-");
    let mut client = request.header("X-Session-Token", &session).open(node.addr()).await;
    client.next_event(secs(10)).await.expect("a first block");
    let rows =
        node.get(&format!("/api/sse/connections?session={session}")).await.json()["connections"].clone();
    rows[0]["ip"].as_str().expect("an address").to_owned()
}

#[tokio::test]
async fn only_a_trusted_proxy_speaks_for_its_clients() {
    let node = Node::builder().set("FANLIGHT_TRUSTED_PROXIES", "127.0.0.1,10.0.0.0/8").start().await;
    let from = |last: u8| SseRequest::new("/stream").from(Ipv4Addr::new(127, 0, 0, last));
    for (request, expected) in [
        (from(1), "127.0.0.1"),
        (from(1).header("X-Forwarded-For", "192.0.2.1"), "192.0.2.1"),
        (from(1).header("X-Forwarded-For", "6.6.6.6, 192.0.2.2, 10.1.1.1"), "192.0.2.2"),
        (from(1).header("X-Forwarded-For", "6.6.6.6").header("X-Forwarded-For", "192.0.2.3"), "192.0.2.3"),
        (from(1).header("Forwarded", "for=\"[2001:db8::1]:443\";proto=https"), "2001:db8::1"),
        (from(1).header("Forwarded", "for=6.6.6.6").header("X-Forwarded-For", "192.0.2.4"), "127.0.0.1"),
        (from(1).header("X-Real-IP", "6.6.6.6"), "127.0.0.1"),
        (from(2).header("X-Forwarded-For", "6.6.6.6"), "127.0.0.2"),
        (from(2).header("Forwarded", "for=6.6.6.6"), "127.0.0.2"),
    ] {
        assert_eq!(address(&node, request.clone()).await, expected, "{request:?}");
    }
}

#[tokio::test]
async fn without_proxies_nobody_speaks_for_anybody() {
    let node = Node::builder().start().await;
    let request =
        SseRequest::new("/stream").header("X-Forwarded-For", "6.6.6.6").header("Forwarded", "for=6.6.6.6");
    assert_eq!(address(&node, request).await, "127.0.0.1");
}
