//! HTTP/1.0 and HTTP/1.1 to the byte, directly and through nginx and HAProxy: the first block at once, and the same bytes.

use std::net::SocketAddr;

use serde_json::json;

use crate::support::wait::secs;
use crate::support::web_proxy::{Kind, WebProxy};
use crate::support::{Node, RedisServer, SseClient, SseRequest, eventually};

/// Payloads of plain `PUBLISH`, and the blocks that they must become, to the byte.
const PLAIN: [(&str, &str); 7] = [
    (
        r#"{"event":"job_progress","data":{"id":"7","b" : 1.0e2,"a":[ ]}}"#,
        "event: job_progress\ndata: {\"id\":\"7\",\"b\" : 1.0e2,\"a\":[ ]}\n\n",
    ),
    (r#"{"data":"text"}"#, "data: \"text\"\n\n"),
    ("no JSON", "data: no JSON\n\n"),
    ("", "data: \n\n"),
    ("two\nlines", "data: two\ndata: lines\n\n"),
    ("a\r\nb\rc\n", "data: a\ndata: b\ndata: c\ndata: \n\n"),
    ("evil\n\nevent: bye\ndata: grüß", "data: evil\ndata: \ndata: event: bye\ndata: data: grüß\n\n"),
];

fn v10(path: &str) -> SseRequest {
    SseRequest::new(path).http10()
}

/// The first block as the contract has it, with what differs from connection to connection taken from `hello`.
fn first_block(client: &SseClient, hello: &crate::support::Block, event_line: &str) -> String {
    let (data, retry) = (hello.json(), hello.retry.expect("a retry"));
    let id = client.head.get("x-sse-connection-id").expect("the id in the head").to_owned();
    assert_eq!(data["connectionId"], id.as_str());
    assert!(uuid::Uuid::parse_str(&id).is_ok(), "{id}");
    let node = data["node"].as_str().unwrap();
    format!(
        "retry: {retry}\n{event_line}data: {{\"type\":\"hello\",\"connectionId\":\"{id}\",\"node\":\"{node}\",\
         \"channels\":[\"jobs\"]}}\nid: {}\n\n",
        hello.id.as_deref().expect("a position to begin at")
    )
}

/// Each of `blocks` as a chunk of its own (RFC 9112, section 7.1).
fn as_chunks(blocks: &[String]) -> String {
    blocks.iter().map(|block| format!("{:x}\r\n{block}\r\n", block.len())).collect()
}

/// Publishes everything, one by one, and returns the blocks that must come.
async fn publish(redis: &RedisServer, node: &Node, client: &mut SseClient) -> Vec<String> {
    let mut blocks = Vec::new();
    for (payload, block) in PLAIN {
        redis.publish("jobs", payload).await;
        client.next_event(secs(10)).await.unwrap_or_else(|e| panic!("{payload:?}: {e:?}"));
        blocks.push(block.to_owned());
    }
    let id = node.publish("jobs", "job_completed", &json!({ "id": "7" })).await;
    client.expect("job_completed").await;
    blocks.push(format!("id: {id}\nevent: job_completed\ndata: {{\"id\":\"7\"}}\n\n"));
    blocks
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_exact_to_the_byte_in_http_1_1() {
    let redis = RedisServer::start().await;
    let node = Node::start(&redis, &[]).await;
    for (path, event_line) in
        [("/api/sse/stream?channels=jobs", "event: connected\n"), ("/api/jobs/stream", "")]
    {
        let mut client = SseClient::open(node.addr(), path).await;
        let hello = client.next_event(secs(5)).await.unwrap();
        let mut blocks = vec![first_block(&client, &hello, event_line)];
        blocks.extend(publish(&redis, &node, &mut client).await);
        assert_eq!(String::from_utf8_lossy(client.wire()), as_chunks(&blocks));
        let head = &client.head;
        assert_eq!(head.version, "HTTP/1.1");
        assert_eq!(head.get("content-type"), Some("text/event-stream"));
        assert_eq!(head.get("cache-control"), Some("no-cache, no-transform"));
        assert_eq!(head.get("x-accel-buffering"), Some("no"));
        assert_eq!(head.get("content-length"), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_exact_to_the_byte_in_http_1_0() {
    let redis = RedisServer::start().await;
    let node = Node::start(&redis, &[]).await;
    let mut client = v10("/api/sse/stream?channels=jobs").open(node.addr()).await;
    let hello = client.next_event(secs(5)).await.unwrap();
    let mut blocks = vec![first_block(&client, &hello, "event: connected\n")];
    blocks.extend(publish(&redis, &node, &mut client).await);
    assert_eq!(String::from_utf8_lossy(client.wire()), blocks.concat());
    assert_eq!(client.head.get("transfer-encoding"), None, "HTTP/1.0 has no chunks");
    assert_eq!(client.head.get("content-length"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_bytes_come_through_nginx_and_haproxy_and_the_first_block_at_once() {
    let redis = RedisServer::start().await;
    let node = Node::start(&redis, &[]).await;
    for kind in [Kind::NginxDefault, Kind::Nginx11, Kind::HaProxy] {
        let proxy = WebProxy::start(kind, &[node.addr()]).await;
        for request in [SseRequest::new("/stream?channels=jobs"), v10("/stream?channels=jobs")] {
            through(kind, proxy.addr(), &request, &redis, &node).await;
        }
    }
}

async fn through(kind: Kind, proxy: SocketAddr, request: &SseRequest, redis: &RedisServer, node: &Node) {
    let mut client = request.open(proxy).await;
    // Nothing is published before it is here: a proxy that waited for more would wait for ever.
    let hello =
        client.next_event(secs(5)).await.unwrap_or_else(|e| panic!("{kind:?}: no first block: {e:?}"));
    let mut blocks = vec![first_block(&client, &hello, "event: connected\n")];
    blocks.extend(publish(redis, node, &mut client).await);
    assert_eq!(client.body_text(), blocks.concat(), "{kind:?}");
}

/// How many streams the node counts.
async fn active(node: &Node) -> u64 {
    node.get("/health").await.json()["stream"]["active_connections"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_a_proxy_leaves_the_node_too() {
    let redis = RedisServer::start().await;
    let node = Node::start(&redis, &[("FANLIGHT_HEARTBEAT", "500ms")]).await;
    for kind in [Kind::NginxDefault, Kind::Nginx11, Kind::HaProxy] {
        let proxy = WebProxy::start(kind, &[node.addr()]).await;
        let client = SseClient::open(proxy.addr(), "/stream").await;
        assert_eq!(active(&node).await, 1);
        drop(client);
        eventually("the stream is gone", secs(10), async || match active(&node).await {
            0 => Ok(()),
            count => Err(count),
        })
        .await;
    }
}
