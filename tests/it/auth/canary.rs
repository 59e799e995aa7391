//! Whatever should stay secret appears nowhere: not in a log at its loudest, not in an answer, a list or an error.

use std::fmt::Write as _;

use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::State;
use serde_json::json;

use super::forge::{hs256, now, token};
use crate::support::http::exchange;
use crate::support::node::fanlight;
use crate::support::wait::check;
use crate::support::{Node, RedisServer, Request, SseClient, eventually, secs};

const CANARY: &str = "canary7e3f";

fn secret(n: u32) -> String {
    format!("{CANARY}-{n}-0123456789abcdef0123456789abcdef")
}

/// Everything that a client sees of these requests.
async fn told(node: &Node, requests: &[Vec<u8>]) -> String {
    let mut told = String::new();
    for request in requests {
        match exchange(node.addr(), request, request.starts_with(b"HEAD")).await {
            Ok(answer) => {
                told += &String::from_utf8_lossy(&answer.head.raw);
                told += &String::from_utf8_lossy(&answer.body);
            }
            Err(error) => writeln!(told, "{error}").unwrap(),
        }
    }
    told
}

fn request(line: &str, header: &str) -> Vec<u8> {
    format!("{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n{header}\r\n\r\n")
        .into_bytes()
}

/// One request for every place that a secret can stand in, with `credential` in it.
fn everywhere(credential: &str) -> Vec<Vec<u8>> {
    let bearer = format!("Authorization: Bearer {credential}");
    let mut requests = Vec::new();
    for line in [
        "GET /stream?channels=none",
        "POST /api/events",
        "GET /api/sse/connections?limit=x",
        "DELETE /api/sse/connections",
        "GET /nothing",
        "PATCH /stream",
        "HEAD /stream",
    ] {
        let with_query = format!("{line}{}token={credential}", if line.contains('?') { '&' } else { '?' });
        requests.push(request(line, &bearer));
        requests.push(request(line, &format!("X-API-Key: {credential}")));
        requests.push(request(line, &format!("Cookie: fanlight_token={credential}")));
        requests.push(request(line, &format!("Authorization: Basic {credential}")));
        requests.push(request(line, &format!("Proxy-Authorization: Bearer {credential}")));
        requests.push(request(&with_query, "Accept: application/json"));
        requests.push(request(&with_query, "Origin: https://evil.example"));
        requests.push(request(&format!("{with_query}&channels=%zz"), "X: y"));
        requests.push(request(&format!("{with_query}&token={credential}"), "X: y"));
    }
    requests.push(request(&format!("GET http://user:{credential}@x/stream?channels=none"), "X: y"));
    requests.push(request(&format!("GET /stream?token={credential}{}", "x".repeat(20_000)), "X: y"));
    requests.push(format!("GET /stream?token={credential}\r\n\r\n").into_bytes());
    requests.push(format!("nonsense {credential}\r\n\r\n").into_bytes());
    requests
}

#[tokio::test]
async fn no_secret_is_found_in_anything_that_a_node_says() {
    let (jwt_secret, api_key, wrong) = (secret(1), secret(2), secret(3));
    let node = Node::builder()
        .set("FANLIGHT_LOG", "trace")
        .set("FANLIGHT_JWT_SECRET", &jwt_secret)
        .set("FANLIGHT_API_KEYS", &api_key)
        .start()
        .await;
    // The marker stands in the claims, and the signature is one by itself.
    let claims = json!({ "exp": now() + 600, "sub": CANARY, "fanlight": {} }).to_string();
    let header = r#"{"alg":"HS256"}"#;
    let (good, forged) = (token(header, &claims, hs256(&jwt_secret)), token(header, &claims, hs256("x")));
    let mut told_so_far = String::new();
    for credential in [&api_key, &wrong, &good, &forged] {
        told_so_far += &told(&node, &everywhere(credential)).await;
    }
    let mut client = SseClient::open(node.addr(), &format!("/stream?token={good}&session=mine")).await;
    client.next_event(secs(10)).await.expect("a first block");
    told_so_far += &client.body_text();
    for path in ["/health", "/readyz", "/metrics", "/api/sse/stats", "/api/sse/connections"] {
        let answer = node.send(&Request::get(path).header("X-API-Key", &api_key)).await;
        told_so_far += &answer.text();
    }
    assert!(told_so_far.contains("\"session\":\"mine\""), "the list was looked at");
    let parts = [good.as_str(), &forged].into_iter().flat_map(|token| token.split('.').skip(1));
    let secrets: Vec<&str> = parts.chain([CANARY]).collect();
    let log = node.log();
    assert!(log.contains("a token is refused"), "the log was looked at");
    no_place_has(&secrets, &[("an answer", &told_so_far), ("the log", &log)]);
}

#[tokio::test]
async fn the_password_of_a_redis_that_cannot_be_reached_is_not_told() {
    let url = format!("redis://user:{CANARY}@127.0.0.1:1/0");
    let node =
        Node::builder().set("FANLIGHT_LOG", "trace").set("FANLIGHT_REDIS_URL", url).start_unready().await;
    eventually("it has tried", secs(10), async || {
        let health = node.get("/health").await.text();
        if health.contains("refused") { Ok(()) } else { Err(health) }
    })
    .await;
    let said =
        format!("{}{}{}", node.log(), node.get("/health").await.text(), node.get("/readyz").await.text());
    assert!(!said.contains(CANARY), "{}", around(&said, CANARY));
}

/// A collector of OpenTelemetry (OTLP over HTTP) that keeps every byte.
async fn collector() -> (String, Arc<Mutex<Vec<u8>>>) {
    let seen: Arc<Mutex<Vec<u8>>> = Arc::default();
    let keep = async |State(seen): State<Arc<Mutex<Vec<u8>>>>, body: Bytes| {
        seen.lock().unwrap().extend_from_slice(&body);
    };
    let app = axum::Router::new().fallback(keep).with_state(Arc::clone(&seen));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    (url, seen)
}

/// What `fanlight` prints with these arguments and variables, on both streams.
async fn printed(arguments: &[&str], variables: &[(&str, &str)]) -> String {
    let mut command = fanlight();
    command.args(arguments).envs(variables.iter().copied());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

/// What all commands that are given secrets print: settings from `file`, a key that is `wrong`, ways to Redis that are broken.
async fn printed_by_commands(node: &Node, wrong: &str, file: &str, redis_url: &str) -> String {
    let node_url = node.url();
    let key = ("FANLIGHT_API_KEY", wrong);
    let mut said = String::new();
    // With a port that there is not: what cannot be read must not be printed either.
    let broken_url = format!("{redis_url}99999");
    for (arguments, variables) in [
        (&["config", "show", "--config", file][..], &[][..]),
        (&["config", "show", "--json", "--config", file], &[]),
        (&["config", "check", "--config", file], &[]),
        (&["config", "check", "--config", file], &[("FANLIGHT_REDIS_URL", broken_url.as_str())]),
        (&["config", "show"], &[("REDIS_URL", redis_url), ("FANLIGHT_API_KEYS", wrong)]),
        (&["config", "check", "--api-keys", "", "--drain", "soon"], &[("FANLIGHT_JWT_SECRET", wrong)]),
        (&["publish", "jobs", "x", "--url", &node_url], &[key]),
        (&["stats", "--url", &node_url], &[key]),
        (&["connections", "--url", &node_url], &[key]),
        (&["publish", "jobs", "x", "--redis-url", redis_url], &[]),
        (&["publish", "jobs", "x", "--redis-url", &broken_url], &[]),
    ] {
        said += &printed(arguments, variables).await;
    }
    said
}

/// Every way to look at a node.
const LOOKS: [&str; 10] = [
    "/health",
    "/readyz",
    "/livez",
    "/metrics",
    "/api/sse/stats",
    "/api/sse/stats?scope=node",
    "/api/jobs/stream/stats",
    "/api/sse/connections",
    "/api/sse/connections?limit=wrong",
    "/api/jobs/unknown",
];

async fn looked_at(node: &Node, api_key: &str) -> String {
    let mut said = String::new();
    for path in LOOKS {
        said += &node.send(&Request::get(path).header("X-API-Key", api_key)).await.text();
    }
    said
}

/// A Redis with a user of this password, with all rights.
async fn guarded_redis(password: &str) -> (RedisServer, String) {
    let redis = RedisServer::start().await;
    redis.cli(&["ACL", "SETUSER", "node", "on", &format!(">{password}"), "~*", "&*", "+@all"]).await;
    let url = format!("redis://node:{password}@{}", redis.addr());
    (redis, url)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_of_a_node_with_redis_a_file_and_a_collector_is_found_anywhere() {
    let (password, api_key, jwt_secret, wrong) = (secret(4), secret(5), secret(6), secret(7));
    let (mut redis, url) = guarded_redis(&password).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let settings = format!("redis-url = '{url}'\napi-keys = ['{api_key}']\njwt-secret = '{jwt_secret}'\n");
    std::fs::write(file.path(), settings).unwrap();
    let path = file.path().to_str().unwrap();
    let (otlp, spans) = collector().await;
    let node = Node::builder()
        .arg("--config")
        .arg(path)
        .set("FANLIGHT_REDIS_PREFIX", redis.prefix())
        .set("FANLIGHT_LOG", "trace")
        .set("FANLIGHT_MAX_PER_SESSION", 1)
        .set("OTEL_EXPORTER_OTLP_ENDPOINT", &otlp)
        .set("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        .set("OTEL_BSP_SCHEDULE_DELAY", "200")
        .start()
        .await;
    let claims = json!({ "exp": now() + 600, "sub": CANARY, "fanlight": { "publish": ["*"] } }).to_string();
    let good = token(r#"{"alg":"HS256"}"#, &claims, hs256(&jwt_secret));
    let mut said = String::new();
    for credential in [&api_key, &wrong, &good] {
        said += &told(&node, &everywhere(credential)).await;
    }
    let mut client = SseClient::open(node.addr(), &format!("/stream?token={good}&session=mine")).await;
    client.next_event(secs(10)).await.expect("a first block");
    let twice = node.get(&format!("/stream?token={good}&session=mine")).await;
    assert_eq!(twice.code(), "session_limit");
    let event = json!({ "channel": "jobs", "event": "e", "data": {} });
    for credential in [&api_key, &good] {
        let bearer = format!("Bearer {credential}");
        let answer = node.send(&Request::post("/api/events", &event).header("Authorization", &bearer)).await;
        assert_eq!(answer.status(), 202, "{}", answer.text());
    }
    said += &looked_at(&node, &api_key).await;
    assert!(said.contains("\"session\":\"mine\""), "the list was looked at");
    eventually("spans arrive", secs(10), async || check(!spans.lock().unwrap().is_empty(), "none")).await;
    // Redis goes away, and what is said of that must not name the way there.
    redis.kill();
    eventually("it has noticed", secs(20), async || {
        let health = node.get("/health").await.text();
        if health.contains("\"healthy\"") { Err(health) } else { Ok(()) }
    })
    .await;
    said += &looked_at(&node, &api_key).await;
    said += &client.body_text();

    said += &printed_by_commands(&node, &wrong, path, &url).await;
    assert!(said.contains("redis://node:****@"), "the settings were looked at");
    let log = node.log();
    let spans = String::from_utf8_lossy(&spans.lock().unwrap()).into_owned();
    println!("looked at {} bytes said, {} of log, {} of spans", said.len(), log.len(), spans.len());
    let parts = good.split('.').skip(1).chain([CANARY]);
    no_place_has(
        &parts.collect::<Vec<_>>(),
        &[("what is said", &said), ("the log", &log), ("the spans", &spans)],
    );
}

fn no_place_has(secrets: &[&str], places: &[(&str, &String)]) {
    for (place, text) in places {
        for secret in secrets {
            assert!(!text.contains(secret), "{secret} in {place}: {}", around(text, secret));
        }
    }
}

/// Where it was found.
fn around(text: &str, needle: &str) -> String {
    let at = text.find(needle).unwrap_or_default();
    let start = text[..at].char_indices().rev().nth(120).map_or(0, |(i, _)| i);
    text[start..].chars().take(400).collect()
}
