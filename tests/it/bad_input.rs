//! Whatever is sent, the answer is the contract's error, and nobody else is disturbed: in every test a bystander's stream
//! must go on as if nothing had been.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::http::exchange;
use crate::support::wait::{check, secs};
use crate::support::{Node, RedisServer, Request, Response, SseClient, SseRequest, eventually};

struct Scene {
    redis: RedisServer,
    node: Node,
    bystander: SseClient,
}

impl Scene {
    async fn new() -> Self {
        let redis = RedisServer::start().await;
        let node = Node::start(&redis, &[("FANLIGHT_CHANNELS", "jobs,pending-changes,public:*")]).await;
        let bystander = node.subscribe("/api/sse/stream?channels=jobs,public:b").await;
        Self { redis, node, bystander }
    }

    /// The bystander's stream goes on, and nothing has come between.
    async fn nobody_was_disturbed(mut self) {
        let id = self.node.publish("jobs", "still_here", &json!({})).await;
        assert_eq!(self.bystander.expect("still_here").await.id, Some(id));
        self.redis.publish("jobs", r#"{"event":"plain_too","data":{}}"#).await;
        self.bystander.expect("plain_too").await;
        assert_eq!(self.node.get("/livez").await.status(), 200);
        assert!(!self.node.log().contains("panicked"), "{}", self.node.log());
    }
}

fn assert_refused(what: &str, answer: &Response, status: u16, code: &str) {
    let seen = (answer.status(), answer.head.get("content-type").unwrap_or_default().to_owned());
    assert_eq!(seen, (status, "application/json".to_owned()), "{what}: {}", answer.text());
    assert_eq!(answer.code(), code, "{what}: {}", answer.text());
    assert!(
        answer.json()["error"].as_str().is_some_and(|text| !text.is_empty()),
        "{what}: {}",
        answer.text()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_cannot_be_published_are_refused_by_name() {
    let scene = Scene::new().await;
    let long = "x".repeat(256 * 1024);
    let huge = "x".repeat(9 * 1024 * 1024);
    let bodies: Vec<(&str, Vec<u8>, u16, &str)> = vec![
        ("an empty body", b"".to_vec(), 400, "bad_request"),
        ("broken JSON", br#"{"channel":"jobs","data":"#.to_vec(), 400, "bad_request"),
        ("no object", b"17".to_vec(), 400, "bad_request"),
        ("invalid UTF-8", b"{\"channel\":\"jobs\",\"data\":\"\xff\xfe\"}".to_vec(), 400, "bad_request"),
        ("a raw NUL", b"{\"channel\":\"jobs\",\"data\":\"\0\"}".to_vec(), 400, "bad_request"),
        ("no channel", br#"{"data":1}"#.to_vec(), 400, "bad_request"),
        ("no data", br#"{"channel":"jobs"}"#.to_vec(), 400, "bad_request"),
        (
            "an unknown field",
            br#"{"channel":"jobs","data":1,"idempotencykey":"a"}"#.to_vec(),
            400,
            "bad_request",
        ),
        ("a bad channel", br#"{"channel":"jo bs","data":1}"#.to_vec(), 400, "bad_channel"),
        ("the channel all", br#"{"channel":"all","data":1}"#.to_vec(), 400, "bad_channel"),
        (
            "a type with a line end",
            br#"{"channel":"jobs","data":1,"event":"a\nb"}"#.to_vec(),
            400,
            "bad_request",
        ),
        (
            "a type with NUL",
            br#"{"channel":"jobs","data":1,"event":"a\u0000b"}"#.to_vec(),
            400,
            "bad_request",
        ),
        (
            "one byte too much",
            json!({ "channel": "jobs", "data": &long[1..] }).to_string().into(),
            413,
            "too_large",
        ),
        ("nine megabytes", json!({ "channel": "jobs", "data": huge }).to_string().into(), 413, "too_large"),
        (
            "a thousand and one",
            Value::Array(vec![json!({ "channel": "jobs", "data": 1 }); 1001]).to_string().into(),
            413,
            "too_large",
        ),
        (
            "one bad among good",
            br#"[{"channel":"jobs","data":1},{"channel":"jobs"}]"#.to_vec(),
            400,
            "bad_request",
        ),
        ("brackets without end", vec![b'['; 200_000], 400, "bad_request"),
    ];
    for (what, body, status, code) in bodies {
        let answer = scene
            .node
            .send(&Request::new("POST", "/api/events").header("Content-Type", "application/json").body(body))
            .await;
        assert_refused(what, &answer, status, code);
    }
    scene.nobody_was_disturbed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_at_the_edges_are_delivered() {
    let mut scene = Scene::new().await;
    // With its quotes the data has exactly 256 KiB.
    let largest = json!("x".repeat(256 * 1024 - 2));
    for data in
        [json!(""), json!(null), json!({}), json!("\0\u{1}\u{feff}\u{2028}"), json!("\r\n\n\r"), largest]
    {
        scene.node.publish("jobs", "edge", &data).await;
        assert_eq!(scene.bystander.expect("edge").await.json(), data);
    }
    scene.nobody_was_disturbed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_cannot_be_answered_are_refused_by_name() {
    let scene = Scene::new().await;
    let channels = |count: usize| (0..count).map(|n| format!("public:{n}")).collect::<Vec<_>>().join(",");
    let refusals = [
        (Request::get("/api/sse/stream?channels=jo%20bs"), 400, "bad_channel"),
        (Request::get("/api/sse/stream?channels=jobs%0d%0aX-Evil:1"), 400, "bad_channel"),
        (Request::get("/api/sse/stream?channels=%ff"), 400, "bad_channel"),
        (Request::get("/api/sse/stream?channels=jobs*"), 400, "bad_channel"),
        (Request::get("/api/sse/stream?channels=secret"), 403, "forbidden"),
        (Request::get("/api/sse/stream?channels=jobs,does-not-exist"), 403, "forbidden"),
        (Request::get(&format!("/api/sse/stream?channels={}", channels(129))), 400, "bad_channel"),
        (Request::get("/nowhere"), 404, "not_found"),
        (Request::get("/api/events/../../etc/passwd"), 404, "not_found"),
        (Request::new("DELETE", "/api/sse/stream"), 405, "method_not_allowed"),
        (Request::new("PUT", "/api/events"), 405, "method_not_allowed"),
        (Request::get("/api/events"), 405, "method_not_allowed"),
        (Request::get("/api/sse/stream").header("Accept", "application/json"), 406, "not_acceptable"),
    ];
    for (request, status, code) in refusals {
        assert_refused(&format!("{request:?}"), &scene.node.send(&request).await, status, code);
    }
    let methods = scene.node.send(&Request::new("PUT", "/api/events")).await;
    assert!(methods.head.get("allow").is_some_and(|allow| allow.contains("POST")), "{:?}", methods.head);
    let most =
        SseRequest::new(&format!("/api/sse/stream?channels={}", channels(128))).open(scene.node.addr()).await;
    assert_eq!(most.head.status, 200, "128 channels are allowed");
    scene.nobody_was_disturbed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_channels_in_one_request_are_refused() {
    let scene = Scene::new().await;
    let channels = (0..10_000).map(|n| format!("public:{n}")).collect::<Vec<_>>().join(",");
    let answer = scene.node.send(&Request::get(&format!("/api/sse/stream?channels={channels}"))).await;
    assert!([400, 414, 431].contains(&answer.status()), "{}", answer.status());
    scene.nobody_was_disturbed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_megabytes_of_headers_are_cut_short() {
    let mut scene = Scene::new().await;
    let before = scene.node.process().pss_kib();
    let mut request = b"GET /api/sse/stream HTTP/1.1\r\nHost: a\r\nX-Long: ".to_vec();
    request.resize(10 * 1024 * 1024, b'x');
    for _ in 0..5 {
        // The server may close before it has read all of it; then the answer may be lost with the connection.
        if let Ok(answer) = exchange(scene.node.addr(), &request, false).await {
            assert_eq!(answer.status(), 431);
        }
    }
    let many: String = (0..5000).map(|n| format!("X-{n}: 1\r\n")).collect();
    let request = format!("GET /livez HTTP/1.1\r\nHost: a\r\n{many}\r\n");
    if let Ok(answer) = exchange(scene.node.addr(), request.as_bytes(), false).await {
        assert_eq!(answer.status(), 431);
    }
    let grown = scene.node.process().pss_kib().saturating_sub(before);
    assert!(grown < 4096, "{grown} KiB for headers that were refused");
    scene.nobody_was_disturbed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_within_16_kib_are_taken() {
    let scene = Scene::new().await;
    let client =
        SseRequest::new("/stream").header("Cookie", &"c".repeat(15 * 1024)).open(scene.node.addr()).await;
    assert_eq!(client.head.status, 200);
    scene.nobody_was_disturbed().await;
}

/// Sends `bytes`, then nothing, and waits until the server has closed: a head may take 10 s, a body 30 s.
async fn closes_after(to: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(to).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let closed = timeout(secs(45), stream.read_to_end(&mut answer)).await;
    assert!(closed.is_ok(), "still open after {:?}", String::from_utf8_lossy(bytes));
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn half_requests_are_closed_and_leave_nothing() {
    let scene = Scene::new().await;
    scene.node.get("/livez").await;
    let before = scene.node.open_files(&scene.redis).await;
    let to = scene.node.addr();
    let halves: [&[u8]; 7] = [
        b"",
        b"G",
        b"GET /api/sse/stream HTTP/1.1\r\nHost: a\r\n",
        b"POST /api/events HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{\"channel\"",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\0\0\0\0\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
    ];
    let answers = futures_util::future::join_all(halves.map(|half| closes_after(to, half))).await;
    assert!(answers.iter().all(|answer| !answer.starts_with("HTTP/1.1 2")), "{answers:?}");
    eventually("every file is closed", secs(5), async || {
        let now = scene.node.open_files(&scene.redis).await;
        check(now == before, now)
    })
    .await;
    scene.nobody_was_disturbed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_on_the_redis_channel_is_dropped_and_what_can_be_delivered_is_delivered_whole() {
    let mut scene = Scene::new().await;
    let mut publisher = scene.redis.publisher();
    let too_long = vec![b'x'; 256 * 1024 + 1];
    let undeliverable: [&[u8]; 8] = [
        b"\xff\xfe\xfd",
        b"{\"event\":\"\xc3\x28\",\"data\":1}",
        b"{\"data\":\"\xed\xa0\x80\"}",
        &too_long,
        br#"{"event":"a\nb","data":1}"#,
        br#"{"event":"a\u0000","data":1}"#,
        br#"{"event":17,"data":1}"#,
        br#"{"event":"a","data":1,"key":{}}"#,
    ];
    for payload in undeliverable {
        publisher.publish("jobs", payload).await.unwrap();
    }
    let brackets = "[".repeat(100_000);
    let whole =
        ["\0", "{", "[]", r#"{"other":1}"#, "id: 7\n\nretry: 0\n: x", ": ping", &brackets, r#"{"data"#];
    for payload in whole {
        publisher.publish("jobs", payload.as_bytes()).await.unwrap();
        let event = scene.bystander.next_event(secs(10)).await.unwrap();
        assert_eq!((event.name(), event.text(), event.id.as_deref()), ("message", payload, None));
    }
    // The node's own names, and what only looks like a durable event.
    for name in ["", "jobs:x", "../jobs", "jobs\n", "all"] {
        publisher.publish(name, b"{\"event\":\"bye\",\"data\":1}").await.unwrap();
    }
    scene.nobody_was_disturbed().await;
}

/// An answer that nobody reads holds a socket, and sockets are what a node has a limited number of.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_nothing_of_its_answers_is_closed() {
    let scene = Scene::new().await;
    let mut deaf = TcpStream::connect(scene.node.addr()).await.unwrap();
    let request = b"GET /dashboard/app.js HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let closed = async {
        // The requests that find no room wait in the client; the node's end shows as an error of writing.
        while deaf.write_all(request).await.is_ok() {}
    };
    timeout(secs(120), closed).await.expect("the node keeps the connection");
    scene.nobody_was_disturbed().await;
}
