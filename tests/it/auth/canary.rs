//! Whatever should stay secret appears nowhere: not in a log at its loudest, not in an answer, a list or an error.

use std::fmt::Write as _;

use serde_json::json;

use super::forge::{hs256, now, token};
use crate::support::http::exchange;
use crate::support::{Node, Request, SseClient, eventually, secs};

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
    for (place, text) in [("an answer", &told_so_far), ("the log", &log)] {
        for secret in &secrets {
            assert!(!text.contains(secret), "{secret} in {place}: {}", around(text, secret));
        }
    }
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

/// Where it was found.
fn around(text: &str, needle: &str) -> String {
    let at = text.find(needle).unwrap_or_default();
    let start = text[..at].char_indices().rev().nth(120).map_or(0, |(i, _)| i);
    text[start..].chars().take(400).collect()
}
