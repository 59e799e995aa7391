//! Refusals of the moment, as status and as event.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::forge::Keys;
use crate::support::http::read_head;
use crate::support::{End, Node, RedisServer, Request, SseClient, eventually, secs};

#[tokio::test]
async fn a_refused_page_that_asked_softly_is_told_in_a_stream_and_gets_in_later() {
    let node = Node::builder().set("FANLIGHT_MAX_CONNECTIONS", "1").start().await;
    let only = node.subscribe("/stream").await;
    let hard = node.get("/stream").await;
    assert_eq!((hard.status(), hard.code().as_str(), &hard.json()["limit"]), (503, "capacity", &json!(1)));
    let retry_after: u64 = hard.head.get("retry-after").unwrap().parse().unwrap();
    assert!((5..=15).contains(&retry_after), "{retry_after}");

    let mut pauses = BTreeSet::new();
    for path in [
        "/stream?onLimit=soft",
        "/api/sse/stream?channels=jobs&onLimit=soft",
        "/api/jobs/stream?onLimit=soft",
    ] {
        for _ in 0..10 {
            let refused = SseClient::open(node.addr(), path).await;
            assert_eq!(refused.head.status, 200);
            assert_eq!(refused.head.get("content-type"), Some("text/event-stream"));
            assert_eq!(refused.head.get("x-accel-buffering"), Some("no"));
            assert_eq!(refused.head.get("retry-after"), None);
            let (blocks, end) = { refused }.rest(secs(10)).await;
            assert_eq!((blocks.len(), end), (1, End::Clean));
            let (name, told) = (blocks[0].name(), blocks[0].json());
            assert_eq!(
                (name, &told["code"], told["retryMs"].as_u64()),
                ("limit", &json!("capacity"), blocks[0].retry)
            );
            assert!((5_000..=15_000).contains(&blocks[0].retry.unwrap()), "{told}");
            pauses.insert(blocks[0].retry);
        }
    }
    assert!(pauses.len() > 10, "who was refused together does not come back together: {pauses:?}");

    drop(only);
    eventually("there is room again", secs(10), async || {
        let mut client = SseClient::open(node.addr(), "/stream?onLimit=soft").await;
        let first = client.next_event(secs(10)).await.unwrap();
        if first.name() == "connected" { Ok(()) } else { Err(first.text().to_owned()) }
    })
    .await;
}

#[tokio::test]
async fn what_would_be_refused_again_is_refused_by_status() {
    let keys = Keys::new();
    let node = Node::builder().set("FANLIGHT_JWT_SECRET", &keys.secret).start().await;
    for (path, status) in [
        ("/stream?onLimit=soft&token=x", 401),
        ("/stream?onLimit=soft&channels=private", 403),
        ("/stream?onLimit=soft&channels=a%20b", 400),
        ("/stream?onLimit=soft&session=", 400),
    ] {
        assert_eq!(node.get(path).await.status(), status, "{path}");
    }
    let foreign = Request::get("/stream?onLimit=soft").header("Origin", "https://evil.example");
    assert_eq!(node.send(&foreign).await.status(), 403);
    let picky = Request::get("/stream?onLimit=soft").header("Accept", "application/json");
    assert_eq!(node.send(&picky).await.status(), 406);
}

/// `path` is refused for the moment with this status and code: hard with `Retry-After`, soft in a stream that says when to
/// try again.
async fn refused_both_ways(node: &Node, path: &str, status: u16, code: &str) {
    let hard = node.get(path).await;
    assert_eq!((hard.status(), hard.code().as_str()), (status, code));
    let retry_after: u64 = hard.head.get("retry-after").expect(code).parse().unwrap();
    assert!(retry_after >= 1, "{code}: {retry_after}");
    let soft_path = format!("{path}{}onLimit=soft", if path.contains('?') { '&' } else { '?' });
    let mut soft = SseClient::open(node.addr(), &soft_path).await;
    assert_eq!(soft.head.get("retry-after"), None);
    let (blocks, end) = soft.rest(secs(10)).await;
    assert_eq!((blocks.len(), end), (1, End::Clean), "{code}: {blocks:?}");
    let told = blocks[0].json();
    assert_eq!((blocks[0].name(), &told["code"]), ("limit", &json!(code)));
    assert_eq!(told["retryMs"].as_u64(), blocks[0].retry, "{code}: {told}");
}

#[tokio::test]
async fn every_limit_is_told_both_ways() {
    let node = Node::builder().set("FANLIGHT_MAX_PER_IP", "1").start().await;
    let _held = node.subscribe("/stream").await;
    refused_both_ways(&node, "/stream", 429, "ip_limit").await;

    let node = Node::builder().set("FANLIGHT_MAX_PER_SESSION", "1").start().await;
    let _held = node.subscribe("/stream?session=s").await;
    refused_both_ways(&node, "/api/jobs/stream?session=s", 429, "session_limit").await;

    let node = Node::builder().set("FANLIGHT_CONNECT_RATE_PER_IP", "1/h").start().await;
    let _held = [node.subscribe("/stream").await, node.subscribe("/stream").await];
    refused_both_ways(&node, "/api/sse/stream?channels=jobs", 429, "rate_limit").await;

    let mut redis = RedisServer::start().await;
    let settings = [("FANLIGHT_MAX_PER_IP", "1"), ("FANLIGHT_LIMITS_WITHOUT_REDIS", "closed")];
    let node = Node::start(&redis, &settings).await;
    redis.kill();
    refused_both_ways(&node, "/stream", 503, "limits_unavailable").await;
}

/// What is answered to `path` on a connection that stands already.
async fn asked_on(mut connection: TcpStream, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    answer.to_ascii_lowercase()
}

async fn kept_alive(node: SocketAddr) -> TcpStream {
    let mut connection = TcpStream::connect(node).await.unwrap();
    connection.write_all(b"HEAD /livez HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let (head, _) = read_head(&mut connection).await.unwrap();
    assert_eq!(head.status, 200);
    connection
}

#[tokio::test]
async fn who_asks_a_node_that_is_going_is_told_both_ways() {
    let mut node = Node::builder().set("FANLIGHT_DRAIN", "30s").start().await;
    let connections =
        [kept_alive(node.addr()).await, kept_alive(node.addr()).await, kept_alive(node.addr()).await];
    let mut streams = Vec::new();
    for _ in 0..10 {
        streams.push(node.subscribe("/stream").await);
    }
    node.terminate();
    let [ready, hard, soft] = connections;
    eventually(
        "it goes",
        secs(10),
        async || {
            if node.log().contains("draining") { Ok(()) } else { Err("not yet") }
        },
    )
    .await;
    let ready = asked_on(ready, "/readyz").await;
    assert!(ready.starts_with("http/1.1 503"), "{ready}");
    let hard = asked_on(hard, "/stream").await;
    assert!(hard.starts_with("http/1.1 503") && hard.contains("retry-after: "), "{hard}");
    assert!(hard.contains(r#""code":"draining""#), "{hard}");
    let soft = asked_on(soft, "/stream?onLimit=soft").await;
    assert!(soft.starts_with("http/1.1 200") && !soft.contains("retry-after:"), "{soft}");
    assert!(soft.contains("event: limit\ndata: {\"code\":\"draining\""), "{soft}");
}
