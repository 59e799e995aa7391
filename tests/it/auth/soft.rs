//! Refusals of the moment, as status and as event.

use std::collections::BTreeSet;

use serde_json::json;

use super::forge::Keys;
use crate::support::{End, Node, Request, SseClient, eventually, secs};

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
