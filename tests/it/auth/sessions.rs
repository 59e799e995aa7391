//! The token by which a client is recognised.

use crate::support::{Node, Request, SseRequest, secs};

#[tokio::test]
async fn the_session_of_header_or_query_is_the_connections_session() {
    let node = Node::builder().start().await;
    let mut open = Vec::new();
    for (path, header) in [
        ("/stream?session=from-query", None),
        ("/stream", Some("from-header")),
        ("/stream?session=loses", Some("wins")),
    ] {
        let request = SseRequest::new(path);
        let request = header.map_or(request.clone(), |token| request.header("X-Session-Token", token));
        let mut client = request.open(node.addr()).await;
        client.next_event(secs(10)).await.expect("a first block");
        open.push(client);
    }
    let rows = node.get("/api/sse/connections").await.json()["connections"].clone();
    let mut sessions: Vec<&str> =
        rows.as_array().unwrap().iter().filter_map(|row| row["session"].as_str()).collect();
    sessions.sort_unstable();
    assert_eq!(sessions, ["from-header", "from-query", "wins"]);
}

#[tokio::test]
async fn what_is_no_session_token_is_refused() {
    let node = Node::builder().start().await;
    let long = format!("/stream?session={}", "x".repeat(129));
    for path in [
        "/stream?session=",
        "/stream?session=a%20b",
        "/stream?session=a%00",
        "/stream?session=a&session=b",
        &long,
    ] {
        let refused = node.get(path).await;
        assert_eq!((refused.status(), refused.code().as_str()), (400, "bad_request"), "{path}");
    }
    for value in ["a b", "\"a\"", "é", "a,b"] {
        let refused = node.send(&Request::get("/stream").header("X-Session-Token", value)).await;
        assert_eq!((refused.status(), refused.code().as_str()), (400, "bad_request"), "{value}");
    }
}
