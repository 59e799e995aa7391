//! A batch is published whole or not at all.

use serde_json::{Value, json};

use crate::support::{Node, RedisServer, Request, secs};

/// The greatest number that a position may have: no clock gets there.
const LAST: u64 = (1 << 53) - 1;

fn event(channel: &str, name: &str) -> Value {
    json!({ "channel": channel, "event": name, "data": {}, "idempotencyKey": name })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_one_of_its_channels_cannot_take_is_published_on_none() {
    let redis = RedisServer::start().await;
    let settings = [("FANLIGHT_CHANNELS", "public:*"), ("FANLIGHT_MAX_PER_IP", "0")];
    let node = Node::start(&redis, &settings).await;
    let (index, history) = (redis.key("@index"), redis.key("@h:public:bad"));
    let record = redis.key(&format!("@once:public:bad:{:x}", b'b'));
    let epoch: u64 = redis.cli(&["HGET", &redis.key("@clock"), "epoch"]).await.parse().unwrap();
    let ahead = format!("{LAST}-0");
    let frame = format!("\u{1e}1 {epoch:x} {LAST} 0 0 0 0\n");
    let spoiled: [(&str, &[&[&str]]); 5] = [
        ("its history is a text", &[&["SET", &history, "x"]]),
        (
            "its history ends after the clock",
            &[&["XADD", &history, &ahead, "f", &frame], &["ZADD", &index, "1", "public:bad"]],
        ),
        ("the same, and it is not in the index", &[&["XADD", &history, &ahead, "f", &frame]]),
        ("its idempotency record is a hash", &[&["HSET", &record, "f", "v"]]),
        ("its idempotency record is no position", &[&["SET", &record, "x"]]),
    ];
    for (n, (what, commands)) in spoiled.iter().enumerate() {
        let good = format!("public:good:{n}");
        let mut client = node.subscribe(&format!("/api/sse/stream?channels={good}")).await;
        for command in *commands {
            redis.cli(command).await;
        }
        let batch = json!([event(&good, "early"), event("public:bad", "b"), event(&good, "late")]);
        let answer = node.send(&Request::post("/api/events", &batch)).await;
        assert_eq!(answer.status(), 503, "{what}: {}", answer.text());
        assert!(answer.text().contains("public:bad"), "{what}: {}", answer.text());
        assert_eq!(redis.cli(&["XLEN", &redis.key(&format!("@h:{good}"))]).await, "0", "{what}");
        let id = node.publish(&good, "next", &json!({})).await;
        let next = client.next_event(secs(10)).await.unwrap();
        assert_eq!((next.name(), next.id.as_ref()), ("next", Some(&id)), "{what}");
        redis.cli(&["DEL", &history, &record]).await;
        redis.cli(&["ZREM", &index, "public:bad"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_of_an_earlier_epoch_makes_room_for_a_batch_wherever_it_ends() {
    let redis = RedisServer::start().await;
    let node = Node::start(&redis, &[]).await;
    let history = redis.key("@h:pending-changes");
    redis.cli(&["XADD", &history, &format!("{LAST}-0"), "f", &format!("\u{1e}1 1 {LAST} 0 0 0 0\n")]).await;
    let batch = json!([event("jobs", "a"), event("pending-changes", "b")]);
    let answer = node.send(&Request::post("/api/events", &batch)).await;
    assert_eq!(answer.status(), 202, "{}", answer.text());
    assert_eq!(redis.cli(&["XLEN", &history]).await, "1");
}
