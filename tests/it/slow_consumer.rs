//! A reader that stops reading, among a hundred that do not: it is closed with its reason, the others lose nothing.

use serde_json::json;

use crate::support::wait::{check, secs};
use crate::support::{End, Node, RedisServer, SseRequest, Swarm, eventually};

/// Events of 16 KiB: a few of them fill every buffer of a socket that nobody reads.
const PADDING: usize = 16 * 1024;

/// Publishes so many events, no faster than the `readers` read: on a busy machine they would be slow, too.
async fn flood(node: &Node, events: std::ops::Range<usize>, readers: &Swarm) {
    let padding = "x".repeat(PADDING);
    for n in events {
        node.publish("jobs", "numbered", &json!({ "n": n, "padding": padding })).await;
        if n % 10 == 9 {
            readers.each_has(n + 1, "numbered", secs(30)).await;
        }
    }
}

/// Opens a stream that takes little while nobody reads.
fn lazy() -> SseRequest {
    SseRequest::new("/api/jobs/stream").receive_buffer(4096).unrecorded()
}

async fn all_of(swarm: &Swarm, events: usize) {
    swarm.each_has(events, "numbered", secs(30)).await;
    for log in swarm.logs() {
        let numbers = log.named("numbered").map(|event| event.json()["n"].as_u64().unwrap());
        assert!(numbers.eq(0..events as u64), "all, once, in order");
        assert_eq!(log.ended, None);
        assert_eq!(log.events.len(), events, "and nothing else");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_stops_is_told_and_closed_and_a_hundred_others_lose_nothing() {
    let redis = RedisServer::start().await;
    // Its buffer runs over long before this; the time-out must not come first on a busy machine.
    let node = Node::start(&redis, &[("FANLIGHT_SEND_TIMEOUT", "60s")]).await;
    let others = Swarm::open(&[node.addr()], 100, "/api/jobs/stream").await;
    let mut slow = lazy().open(node.addr()).await;
    // It is subscribed with its first block, not with the head of the answer.
    slow.next_event(secs(10)).await.expect("a first block");
    let events = 200;
    flood(&node, 0..events, &others).await;

    let (blocks, end) = slow.rest(secs(30)).await;
    let numbers: Vec<u64> =
        blocks.iter().filter(|b| b.name() == "numbered").map(|b| b.json()["n"].as_u64().unwrap()).collect();
    assert!(numbers.len() < events, "it was not slow at all");
    assert!(numbers.iter().copied().eq(0..numbers.len() as u64), "what it got has no hole: {numbers:?}");
    let bye = blocks.last().unwrap();
    assert_eq!((bye.name(), end), ("bye", End::Clean), "its last words, and a clean end: {bye:?}");
    assert_eq!(bye.json()["reason"], "slow_consumer");
    assert_eq!(bye.json()["reconnect"], true);
    assert_eq!(bye.retry, bye.json()["retryMs"].as_u64());
    all_of(&others, events).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_never_comes_back_is_closed_after_the_send_timeout() {
    let redis = RedisServer::start().await;
    let node = Node::start(&redis, &[("FANLIGHT_SEND_TIMEOUT", "500ms")]).await;
    let others = Swarm::open(&[node.addr()], 10, "/api/jobs/stream").await;
    flood(&node, 0..1, &others).await;
    let before = node.open_files(&redis).await;
    let gone: Vec<_> =
        futures_util::future::join_all((0..5).map(|_| async { lazy().open(node.addr()).await })).await;
    flood(&node, 1..200, &others).await;
    all_of(&others, 200).await;
    eventually("their sockets are closed though they read nothing", secs(20), async || {
        let now = node.open_files(&redis).await;
        check(now == before, now)
    })
    .await;
    drop(gone);
}
