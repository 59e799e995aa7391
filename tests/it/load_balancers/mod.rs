//! The settings of docs/load-balancers/, as they stand there but for addresses and shorter time-outs: what they promise,
//! and what `fanlight doctor` finds when they are spoiled.

mod doctor;

use std::net::SocketAddr;

use futures_util::future::join_all;

use crate::support::web_proxy::{Kind, WebProxy, nginx_around};
use crate::support::{Node, RedisServer, SseClient, SseRequest, eventually, secs};

const KINDS: [Kind; 3] = [Kind::Nginx11, Kind::HaProxy, Kind::Caddy];

/// The time-out of the committed files, and what it is here: three heartbeats of the tests' nodes.
const IDLE: (&str, &str) = ("60s", "3s");

/// More heartbeats than fit into the proxies' idle time-out.
const OUTLIVED: usize = 8;

/// A text and what it is replaced by; the text must be there.
type Change = (&'static str, &'static str);

fn changed(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "not in the committed file: {from}");
    text.replace(from, to)
}

/// The committed file of `kind` for these addresses, with `changes`.
fn config(kind: Kind, addr: SocketAddr, nodes: [SocketAddr; 2], changes: &[Change]) -> String {
    let (file, listen) = match kind {
        Kind::HaProxy => (include_str!("../../../docs/load-balancers/haproxy.cfg"), "bind :80"),
        Kind::Caddy => (include_str!("../../../docs/load-balancers/Caddyfile"), "\n:80 {"),
        _ => (include_str!("../../../docs/load-balancers/nginx.conf"), "listen 80;"),
    };
    let there = match kind {
        Kind::HaProxy => format!("bind {addr}"),
        Kind::Caddy => format!("\nhttp://:{} {{\n\tbind {}", addr.port(), addr.ip()),
        _ => format!("listen {addr};"),
    };
    let text = changed(file, listen, &there);
    let text = changed(&text, "node1:8080", &nodes[0].to_string());
    let text = changed(&text, "node2:8080", &nodes[1].to_string());
    let text = changed(&text, IDLE.0, IDLE.1);
    let text = changes.iter().fold(text, |text, (from, to)| changed(&text, from, to));
    match kind {
        // As many as the limit on open files of whoever runs the tests allows.
        Kind::HaProxy => changed(&text, "maxconn 100000", "maxconn 1000"),
        Kind::Caddy => format!("{{\n\tadmin off\n\tauto_https off\n}}\n{text}"),
        _ => nginx_around(&text),
    }
}

async fn proxy(kind: Kind, nodes: [SocketAddr; 2], changes: &[Change]) -> WebProxy {
    WebProxy::start_with(kind, |addr| config(kind, addr, nodes, changes)).await
}

/// A stream from an address of its own that claims another, once the proxy has found a node that is well.
async fn open(proxy: &WebProxy) -> SseClient {
    let request = SseRequest::new("/api/sse/stream")
        .from([127, 0, 0, 9])
        .header("X-Forwarded-For", "6.6.6.6")
        .header("Forwarded", "for=9.9.9.9");
    eventually("the proxy has a node", secs(10), async || {
        let client = request.try_open(proxy.addr()).await?;
        if client.head.status == 200 { Ok(client) } else { Err(format!("{:?}", client.head)) }
    })
    .await
}

async fn keeps_the_promises(kind: Kind) {
    let redis = RedisServer::start().await;
    let settings = [
        ("FANLIGHT_HEARTBEAT", "1s"),
        ("FANLIGHT_DRAIN", "1s"),
        ("FANLIGHT_TRUSTED_PROXIES", "127.0.0.1/32"),
        // Every stream that comes through the proxy counts against whoever is behind it.
        ("FANLIGHT_MAX_PER_IP", "1"),
    ];
    let mut nodes = Node::cluster(&redis, 2, &settings).await;
    let proxy = proxy(kind, [nodes[0].addr(), nodes[1].addr()], &[]).await;

    let mut client = open(&proxy).await;
    let hello =
        client.next_event(secs(5)).await.unwrap_or_else(|e| panic!("{kind:?}: no first block: {e:?}"));
    assert_eq!(hello.json()["type"], "hello", "{kind:?}");

    let listed = nodes[0].get("/api/sse/connections").await.json();
    assert_eq!(listed["connections"][0]["ip"], "127.0.0.9", "{kind:?}: {listed}");

    for beat in 0..OUTLIVED {
        let block = client.next_block(secs(5)).await;
        block.unwrap_or_else(|end| panic!("{kind:?}: cut after {beat} heartbeats: {end:?}"));
    }

    let id = hello.json()["node"].as_str().unwrap().to_owned();
    let leaving = nodes.iter().position(|node| node.log().contains(&id)).unwrap();
    nodes[leaving].terminate();
    let bye = client.next_event(secs(10)).await.unwrap_or_else(|e| panic!("{kind:?}: no bye: {e:?}"));
    assert_eq!(bye.json()["reason"], "server_shutdown", "{kind:?}");
    let mut again = open(&proxy).await;
    let hello = again.next_event(secs(5)).await.unwrap_or_else(|e| panic!("{kind:?}: no first block: {e:?}"));
    assert_ne!(hello.json()["node"], id.as_str(), "{kind:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_settings_pass_streams_on_keep_them_open_tell_addresses_and_move_clients() {
    join_all(KINDS.map(keeps_the_promises)).await;
}
