//! The log: one line for each thing, whatever it is about; it says which connection, node and trace; and it does not grow with
//! events.

use std::time::Duration;

use serde_json::{Value, json};

use crate::auth::forge::{hs256, now, token};
use crate::support::http::exchange;
use crate::support::wait::check;
use crate::support::{Node, RedisServer, Request, Swarm, eventually, secs};

/// What a line of one's own would need, for readers of text and of JSON, and what speaks to a terminal.
const HOSTILE: &str = "x\r\n2026-01-01T00:00:00.000000Z ERROR fanlight: forged\n{\"level\":\"ERROR\",\"message\":\"forged\"}\n\
                       \u{1b}[2J\0\u{7f}\u{9b}31m\u{202e}\u{2028}y";

/// As much of it as a header takes (RFC 9110, section 5.5): `obs-text`, here of UTF-8.
const HOSTILE_HEADER: &str = "forged\t\u{9b}31m\u{202e}\u{2028}y";

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

/// Every byte percent-encoded (RFC 3986, section 2.1).
fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

fn is_hidden(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
}

/// Requests with something hostile in every place that a client fills.
fn requests(hostile_token: &str) -> Vec<Vec<u8>> {
    let path = encoded(HOSTILE);
    let header = |name: &str| format!("{name}: {HOSTILE_HEADER}\r\n");
    let lines = [
        format!("GET /stream?channels={path}"),
        format!("GET /stream?session={path}"),
        format!("GET /stream?token={path}"),
        format!("GET /stream?lastEventId={path}"),
        format!("GET /stream?onLimit={path}&{path}={path}"),
        format!("GET /{path}"),
        format!("GET /api/jobs/{path}"),
        format!("GET /api/jobs/{path}/stream"),
        format!("GET /api/sse/connections?cursor={path}&ip={path}&channel={path}"),
        format!("DELETE /api/sse/connections?session={path}"),
        format!("DELETE /api/sse/connections/{path}"),
        "GET /stream".into(),
        "POST /api/events".into(),
    ];
    let names = [
        "User-Agent",
        "X-Session-Token",
        "Last-Event-ID",
        "Authorization",
        "Origin",
        "Cookie",
        "Forwarded",
        "X-Forwarded-For",
        "traceparent",
        "Accept",
        "X-API-Key",
        "Content-Type",
    ];
    let mut requests: Vec<String> =
        lines.iter().map(|line| format!("{line} HTTP/1.1\r\nHost: x\r\n\r\n")).collect();
    for name in names {
        for line in ["GET /stream", "POST /api/events", "DELETE /api/sse/connections?session=nobody"] {
            requests.push(format!("{line} HTTP/1.1\r\nHost: x\r\n{}\r\n", header(name)));
        }
    }
    requests
        .push(format!("GET /stream HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {hostile_token}\r\n\r\n"));
    requests.push(format!("GET /stream HTTP/1.1\r\nHost: {HOSTILE_HEADER}\r\nX-{HOSTILE_HEADER}: x\r\n\r\n"));
    requests.push(format!("{HOSTILE} / HTTP/1.1\r\n\r\n"));
    requests.into_iter().map(String::into_bytes).collect()
}

/// Events with something hostile in every member, over HTTP.
async fn publish_over_http(node: &Node, bearer: &str) {
    let good = json!({ "channel": "jobs", "event": "e", "data": {} });
    for member in ["channel", "event", "key", "idempotencyKey", "data", "traceparent", HOSTILE] {
        let mut body = good.clone();
        body[member] = HOSTILE.into();
        let request = Request::post("/api/events", &body).header("Authorization", bearer);
        assert!(node.send(&request).await.status() < 500);
    }
    let broken = Request::new("POST", "/api/events").header("Authorization", bearer).body(HOSTILE.as_bytes());
    assert_eq!(node.send(&broken).await.status(), 400);
}

/// The same past the node, straight into Redis.
async fn publish_into_redis(redis: &RedisServer) {
    let mut publisher = redis.publisher();
    let mut payloads = vec![HOSTILE.to_owned(), format!("{{\"event\":\"{HOSTILE}\",\"data\":1}}")];
    for member in ["event", "key", "id", "traceparent"] {
        let mut envelope = json!({ "event": "e", "data": 1 });
        envelope[member] = HOSTILE.into();
        payloads.push(envelope.to_string());
    }
    for payload in payloads {
        publisher.publish("jobs", payload.as_bytes()).await.unwrap();
    }
    for arguments in [["jobs", HOSTILE, "{}"], [HOSTILE, "e", "{}"], ["jobs", "e", HOSTILE]] {
        let arguments = arguments.map(|argument| argument.replace('\0', ""));
        let [channel, event, data] = &arguments;
        // Refused or not, it is Redis that says so.
        let _ = redis.try_cli(&["FCALL", "fanlight_publish", "1", channel, event, data]).await;
    }
}

/// The lines after the greeting for people, which is not of the log.
fn lines(log: &str) -> Vec<&str> {
    let greeting = |line: &&str| {
        line.is_empty()
            || ["  Fanlight is", "  Dashboard:", "  Open a", "  Publish an"]
                .iter()
                .any(|s| line.starts_with(s))
    };
    log.strip_suffix('\n').unwrap().split('\n').filter(|line| !greeting(line)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_writes_lines_of_his_own_or_speaks_to_the_terminal() {
    let secret = "0123456789abcdef0123456789abcdef";
    let claims = json!({ "exp": now() + 600, "sub": HOSTILE, "iss": HOSTILE, "fanlight": { "read": [HOSTILE], "publish": ["*"] } });
    let token = |claims: &Value, header: Value| token(&header.to_string(), claims.to_string(), hs256(secret));
    let hostile = token(&claims, json!({ "alg": "HS256", "kid": HOSTILE }));
    let unknown = token(&claims, json!({ "alg": HOSTILE }));
    let good = json!({ "exp": now() + 600, "fanlight": { "publish": ["*"], "admin": true } });
    let bearer = format!("Bearer {}", token(&good, json!({ "alg": "HS256" })));
    for format in ["json", "text"] {
        let redis = RedisServer::start().await;
        let settings =
            [("FANLIGHT_LOG", "trace"), ("FANLIGHT_LOG_FORMAT", format), ("FANLIGHT_JWT_SECRET", secret)];
        let node = Node::start(&redis, &settings).await;
        let mut client = node.subscribe("/stream").await;
        let requests = [requests(&hostile), requests(&unknown)].concat();
        for request in &requests {
            // A stream that opens is left at once, and what is no HTTP is answered with nothing.
            let answer = exchange(node.addr(), request, false);
            drop(tokio::time::timeout(Duration::from_millis(40), answer).await);
        }
        publish_over_http(&node, &bearer).await;
        publish_into_redis(&redis).await;
        redis.publish("jobs", r#"{"event":"last","data":1}"#).await;
        while client.next_event(secs(10)).await.unwrap().name() != "last" {}
        drop(client);
        let log = node.log();
        let lines = lines(&log);
        for line in &lines {
            assert!(!line.contains(is_hidden), "{line:?}");
            if format == "json" {
                let read: Value =
                    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
                assert!(
                    read["level"].is_string() && read["timestamp"].is_string() && read["message"] != "forged",
                    "{line}"
                );
            } else {
                let mut words = line.split_ascii_whitespace();
                assert!(words.next().is_some_and(|time| time.ends_with('Z') && time.len() == 27), "{line}");
                assert!(
                    words
                        .next()
                        .is_some_and(|level| ["ERROR", "WARN", "INFO", "DEBUG", "TRACE"].contains(&level))
                );
                assert!(
                    words.next().is_some_and(|target| target.ends_with(':') && target != "fanlight:"),
                    "{line}"
                );
            }
        }
        let forged = lines.iter().filter(|line| line.contains("forged")).count();
        assert!(forged > 0, "something hostile was logged");
        println!("{format}: {} lines, {forged} with something hostile", lines.len());
    }
}

/// The lines of a log of JSON that say this.
fn saying(node: &Node, message: &str) -> Vec<Value> {
    let log = node.log();
    let read = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    read.filter(|line| line["message"] == message).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_s_lines_name_its_connection_the_node_and_the_trace() {
    // Nobody is there; a trace has an id all the same.
    let node = Node::builder()
        .set("FANLIGHT_LOG_FORMAT", "json")
        .set("FANLIGHT_NODE_ID", "node-7")
        .set("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
        .start()
        .await;
    let parent = format!("00-{TRACE}-b7ad6b7169203331-01");
    let open = crate::support::SseRequest::new("/stream")
        .header("traceparent", &parent)
        .header("User-Agent", "test/1");
    let mut client = open.open(node.addr()).await;
    let hello = client.next_event(secs(10)).await.unwrap().json();
    let id = hello["connectionId"].as_str().unwrap();
    let refused = Request::get("/stream?channels=unknown").header("traceparent", &parent);
    assert_eq!(node.send(&refused).await.status(), 403);
    let kick = Request::new("DELETE", &format!("/api/sse/connections/{id}")).header("traceparent", &parent);
    assert_eq!(node.send(&kick).await.status(), 200);
    client.rest(secs(10)).await;
    let lines = eventually("it has ended", secs(10), async || {
        let all = ["stream admitted", "request refused", "streams kicked", "connection ended"]
            .map(|said| saying(&node, said));
        let one_each = all.iter().all(|lines| lines.len() == 1);
        check(one_each, format!("{all:?}"))?;
        Ok::<_, String>(all.map(|lines| lines[0].clone()))
    })
    .await;
    assert!(lines.iter().all(|line| line["node"] == "node-7"), "{lines:?}");
    let [admitted, refused, kicked, ended] = lines;
    for line in [&admitted, &refused, &kicked] {
        assert!(
            line["trace_id"] == TRACE && line["span_id"].as_str().is_some_and(|id| id.len() == 16),
            "{line}"
        );
    }
    for line in [&admitted, &kicked, &ended] {
        assert_eq!(line["connection"], id, "{line}");
    }
    assert_eq!((&admitted["agent"], &admitted["level"]), (&json!("test/1"), &json!("DEBUG")));
    assert_eq!((&refused["code"], &refused["route"]), (&json!("forbidden"), &json!("/stream")));
    assert_eq!((&kicked["by"], &kicked["level"]), (&json!("id"), &json!("INFO")));
    assert_eq!((&ended["cause"], &ended["events"]), (&json!("kicked"), &json!(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn at_info_the_log_does_not_grow_with_streams_events_heartbeats_or_failures() {
    let mut redis = RedisServer::start().await;
    let node = Node::start(&redis, &[("FANLIGHT_LOG", "info"), ("FANLIGHT_HEARTBEAT", "1s")]).await;
    let count = || node.log().lines().count();
    let before = count();
    let swarm = Swarm::open(&[node.addr()], 50, "/api/jobs/stream").await;
    let mut beaten = node.subscribe("/stream?channels=pending-changes").await;
    for n in 0..100 {
        node.publish("jobs", "durable", &json!({ "id": "x", "n": n })).await;
        redis.publish("jobs", r#"{"event":"plain","data":{"id":"x"}}"#).await;
        redis.publish("jobs", r#"{"event":7}"#).await;
        assert_eq!(node.get("/stream?channels=unknown").await.status(), 403);
    }
    swarm.each_has(100, "durable", secs(20)).await;
    swarm.each_has(100, "plain", secs(20)).await;
    for _ in 0..2 {
        let beat = beaten.next_block(secs(10)).await.unwrap();
        assert!(!beat.is_event(), "{beat:?}");
    }
    drop((swarm, beaten));
    let grown = count() - before;
    assert!(grown < 20, "{grown} lines more:\n{}", node.log());
    redis.kill();
    for _ in 0..50 {
        let body = json!({ "channel": "jobs", "event": "e", "data": {} });
        assert_eq!(node.send(&Request::post("/api/events", &body)).await.status(), 503);
    }
    assert_eq!(node.log().matches("publishing fails").count(), 1, "{}", node.log());
    let grown = count() - before;
    assert!(grown < 40, "{grown} lines more:\n{}", node.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_do_not_arrive_are_told_when_that_begins_and_when_it_is_over() {
    let redis = RedisServer::start().await;
    let node = Node::start(&redis, &[("FANLIGHT_LOG_FORMAT", "json")]).await;
    let mut client = node.subscribe("/stream?channels=jobs").await;
    node.publish("jobs", "e", &json!(0)).await;
    client.expect("e").await;
    for n in 1..=10 {
        redis.append_in_silence("jobs", &n.to_string()).await;
        node.publish("jobs", "e", &json!(n)).await;
        client.expect("lost").await;
        client.expect("e").await;
    }
    let over = eventually("it is over", secs(20), async || {
        let over = saying(&node, "all events arrive again");
        let filled: u64 = over.iter().filter_map(|line| line["filled"].as_u64()).sum();
        check(filled == 10, node.log())?;
        Ok::<_, String>(over)
    })
    .await;
    let begun = saying(&node, BEGUN);
    assert_eq!(begun.len(), over.len(), "{begun:?} {over:?}");
    assert!(begun.iter().all(|line| line["level"] == "WARN" && line["channel"] == "jobs"), "{begun:?}");
    let each = saying(&node, "an event did not arrive; filling from history");
    assert_eq!(each.len() + begun.len(), 10, "{each:?}");
    assert!(each.iter().all(|line| line["level"] == "DEBUG"), "{each:?}");
}

/// What the log says when events do not arrive.
const BEGUN: &str = "an event did not arrive; filling from history, and told once until all arrive again";
