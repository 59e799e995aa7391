//! A node that is short of memory or files says so, refuses newcomers, closes streams that are idle, and recovers.

use serde_json::json;
use tokio::net::TcpStream;

use crate::support::wait::check;
use crate::support::{End, Node, RedisServer, Request, Swarm, eventually, secs};

async fn health(node: &Node) -> serde_json::Value {
    node.get("/health").await.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_beyond_its_memory_refuses_newcomers_and_says_why_everywhere() {
    let redis = RedisServer::start().await;
    let node = Node::start(&redis, &[("FANLIGHT_MEMORY_LIMIT", "1MiB")]).await;
    eventually("newcomers are refused", secs(10), async || {
        let answer = node.get("/stream").await;
        check(answer.status() == 503 && answer.code() == "capacity", answer.text())
    })
    .await;
    let told = health(&node).await;
    assert_eq!(told["status"], "degraded", "{told:#}");
    assert!(told["reasons"][0].as_str().unwrap().starts_with("memory is used to "), "{told:#}");
    assert_eq!(node.get("/readyz").await.status(), 200, "it is degraded, not unready");
    eventually("its row says so", secs(10), async || {
        let row = node.get("/api/sse/stats").await.json()["nodes"][0].clone();
        check(
            row["state"] == "degraded" && row["reasons"] == told["reasons"] || row["reasons"][0].is_string(),
            row,
        )
    })
    .await;
    let warnings =
        node.log().lines().filter(|line| line.contains("degraded") && line.contains("memory")).count();
    assert_eq!(warnings, 1, "once per change:\n{}", node.log());
    node.publish("jobs", "job_progress", &json!({ "id": "1" })).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_publications_fail_says_so_though_redis_is_well() {
    let redis = RedisServer::start().await;
    let nodes = Node::cluster(&redis, 2, &[]).await;
    // Where the history of the channel belongs. Redis answers WRONGTYPE.
    redis.cli(&["SET", &redis.key("@h:jobs"), "poison"]).await;
    let body = json!({ "channel": "jobs", "event": "job_progress", "data": { "id": "1" } });
    eventually("its row says so on every node", secs(30), async || {
        let answer = nodes[0].send(&Request::post("/api/events", &body)).await;
        assert_ne!(answer.status(), 202, "{}", answer.text());
        let stats = nodes[1].get("/api/sse/stats").await.json();
        let rows = stats["nodes"].as_array().unwrap();
        let told = |row: &&serde_json::Value| row["reasons"].to_string().contains("publications that failed");
        let degraded: Vec<_> = rows.iter().filter(told).collect();
        check(degraded.len() == 1 && degraded[0]["state"] == "degraded", stats)
    })
    .await;
    let told = health(&nodes[0]).await;
    assert_eq!(told["status"], "degraded", "{told:#}");
    assert_eq!(health(&nodes[1]).await["status"], "healthy", "it has published nothing");
    redis.cli(&["DEL", &redis.key("@h:jobs")]).await;
    eventually("it is well again when they are taken", secs(30), async || {
        nodes[0].publish("jobs", "job_progress", &json!({ "id": "1" })).await;
        check(health(&nodes[0]).await["status"] == "healthy", "not yet")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_short_of_files_closes_idle_streams_and_recovers() {
    let redis = RedisServer::start().await;
    let node = Node::builder().redis(&redis).open_files(1024, 1024).start().await;
    let streams = Swarm::open(&[node.addr()], 300, "/stream").await;
    // Connections that never ask for anything live until the header time-out.
    let mut silent = Vec::new();
    eventually("the node sheds", secs(20), async || {
        while silent.len() < 640 {
            silent.push(TcpStream::connect(node.addr()).await.map_err(|error| error.to_string())?);
        }
        let closed =
            streams.tally(|log| log.named("bye").next().map_or("none".into(), |bye| bye.text().to_owned()));
        check(closed.keys().any(|bye| bye.contains("overloaded")), format!("{closed:?}"))
    })
    .await;
    let answer = node.get("/stream").await;
    assert_eq!((answer.status(), answer.code().as_str()), (503, "capacity"), "newcomers first");
    assert!(health(&node).await["reasons"].to_string().contains("open files"));
    drop(silent);
    node.healthy(secs(30)).await;
    let left = streams.open_count();
    assert!(left > 0, "it closed no more than it had to");
    node.subscribe("/stream").await;
    let ends = streams.tally(|log| format!("{:?}", log.ended.as_ref().map(|(end, _)| end)));
    assert!(ends.keys().all(|end| end == "None" || end == &format!("{:?}", Some(End::Clean))), "{ends:?}");
}
