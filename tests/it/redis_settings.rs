//! What docs/operations.md says of Redis: the least rights are enough, and settings that will hurt are warned of.

use serde_json::json;

use crate::support::{Node, Persistence, RedisServer, check, eventually, secs};

/// The block of docs/operations.md that begins with `marker`, its lines joined, with this test's prefix.
fn documented(marker: &str, prefix: &str) -> Vec<String> {
    let text = include_str!("../../docs/operations.md");
    let at = text.find(marker).unwrap_or_else(|| panic!("not in docs/operations.md: {marker}"));
    let block = text[at..].split("```").next().unwrap().replace("\\\n", " ");
    block.replace("fanlight:", prefix).split_whitespace().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_rights_are_enough_for_a_node_and_for_a_publisher() {
    let redis = RedisServer::start().await;
    for marker in ["ACL SETUSER fanlight ", "ACL SETUSER publisher "] {
        let words = documented(marker, redis.prefix());
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        assert_eq!(redis.cli(&words).await.trim(), "OK", "{words:?}");
    }
    let url = format!("redis://fanlight:CHANGE-ME@{}", redis.addr());
    let builder = || Node::builder().redis_at(&url, redis.prefix()).set("FANLIGHT_MAX_PER_IP", 5);
    let (first, second) = (builder().start().await, builder().start().await);
    let mut client = first.subscribe("/api/sse/stream?channels=jobs").await;
    second.publish("jobs", "job_progress", &json!({ "id": "1" })).await;
    client.expect("job_progress").await;

    let function = format!("{}publish", redis.prefix().replace([':', '-'], "_"));
    let login = ["--user", "publisher", "--pass", "CHANGE-ME", "--no-auth-warning"];
    let call = ["FCALL", &function, "1", "jobs", "job_completed", r#"{"id":"1"}"#];
    let answer = redis.cli(&[&login[..], &call[..]].concat()).await;
    client.expect("job_completed").await;
    assert!(!answer.contains("NOPERM"), "{answer}");

    // The pool's connections are used again: publishing makes no new ones.
    for n in 0..100 {
        first.publish("jobs", "job_progress", &json!({ "id": n.to_string() })).await;
    }
    let made: u32 = redis.info("total_connections_received").await.parse().unwrap();
    assert!(made < 100, "{made} connections");

    for node in [&first, &second] {
        node.healthy(secs(20)).await;
        // The one thing that these rights leave out, on purpose.
        let log = node.log();
        let refused =
            |line: &&str| line.contains("no permissions") && !line.contains("client-output-buffer-limit");
        assert_eq!(log.lines().find(refused), None);
    }
    assert_eq!(first.get("/api/sse/stats").await.json()["nodes"].as_array().map(Vec::len), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_lacks_a_right_is_warned_of_at_the_start() {
    let redis = RedisServer::start().await;
    let words = documented("ACL SETUSER fanlight ", redis.prefix());
    let words: Vec<&str> = words.iter().map(String::as_str).chain(["-xrange", "-zadd"]).collect();
    assert_eq!(redis.cli(&words).await.trim(), "OK");
    let url = format!("redis://fanlight:CHANGE-ME@{}", redis.addr());
    let node = Node::builder().redis_at(&url, redis.prefix()).start_unready().await;
    eventually("the node warns", secs(10), async || {
        let warned =
            node.log().lines().any(|line| line.contains("WARN") && line.contains(r#""XRANGE ZADD""#));
        check(warned, node.log())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_will_hurt_are_warned_of_at_the_start_and_good_ones_are_not() {
    let spoiled = [
        "--maxmemory",
        "50mb",
        "--maxmemory-policy",
        "allkeys-lru",
        "--client-output-buffer-limit",
        "pubsub 1mb 1mb 10",
    ];
    let (bad, good) =
        (RedisServer::start_with(Persistence::None, &spoiled).await, RedisServer::start().await);
    let (warned, content) = (Node::start(&bad, &[]).await, Node::start(&good, &[]).await);
    for sign in ["allkeys-lru", "client-output-buffer-limit pubsub"] {
        eventually("the node warns", secs(10), async || check(warned.log().contains(sign), warned.log()))
            .await;
        assert!(!content.log().contains(sign));
    }
}
