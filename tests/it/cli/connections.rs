//! `fanlight connections` and `fanlight kick` against a cluster of two nodes.

use serde_json::{Value, json};

use super::run;
use crate::support::{Node, RedisServer, SseRequest, Swarm};

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_connected_anywhere_is_listed_and_closed_from_any_node() {
    let redis = RedisServer::start().await;
    let nodes = Node::cluster(&redis, 2, &[("FANLIGHT_API_KEYS", "0123456789abcdef")]).await;
    let mut first = SseRequest::new("/api/sse/stream?channels=jobs&session=one").open(nodes[0].addr()).await;
    let mut second =
        SseRequest::new("/api/sse/stream?channels=pending-changes&session=two").open(nodes[1].addr()).await;
    let id = first.expect("connected").await.json()["connectionId"].as_str().unwrap().to_owned();
    second.expect("connected").await;
    let url = nodes[1].url();
    let variables = [("FANLIGHT_URL", url.as_str()), ("FANLIGHT_API_KEY", "0123456789abcdef")];
    let ran = run(&["connections"], &variables);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stdout.contains(&id) && ran.stdout.ends_with("\n2 connections\n"), "{}", ran.stdout);
    let ran = run(&["connections", "--json", "--session", "two"], &variables);
    let told: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(told["connections"].as_array().unwrap().len(), 1);
    assert_eq!(told["connections"][0]["channels"], json!(["pending-changes"]));

    let ran = run(&["kick", &id], &variables);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "1 connection closed\n"), "{}", ran.stderr);
    assert_eq!(first.expect("bye").await.json()["reason"], "kicked");
    let again = run(&["kick", &id], &variables);
    assert_eq!((again.code, again.stdout.as_str()), (1, "0 connections closed\n"));
    let ran = run(&["kick", "--channel", "pending-changes", "--json"], &variables);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "{\"kicked\":1,\"partial\":false}\n"));
    assert_eq!(second.expect("bye").await.json()["reason"], "kicked");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_pages_of_a_long_list_are_fetched() {
    let node = Node::builder().start().await;
    let _streams = Swarm::open(&[node.addr()], 1100, "/stream").await;
    let ran = run(&["connections", "--json", "--url", &node.url()], &[]);
    let told: Value = serde_json::from_str(&ran.stdout).unwrap();
    let ids: std::collections::BTreeSet<&str> =
        told["connections"].as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 1100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mistake_is_explained_and_closes_nobody() {
    let node = Node::builder().set("FANLIGHT_API_KEYS", "0123456789abcdef").start().await;
    let mut stream = node.subscribe("/stream").await;
    let url = node.url();
    for (arguments, code, says) in [
        (vec!["kick", "--url", &url], 2, "--session"),
        (vec!["kick", "7", "--url", &url], 2, "fanlight connections"),
        (vec!["kick", "--session", "x", "--url", &url], 1, "FANLIGHT_API_KEY"),
        (vec!["connections", "--url", &url], 1, "FANLIGHT_API_KEY"),
        (vec!["connections", "--ip", "nowhere", "--url", &url, "--api-key", "0123456789abcdef"], 1, "ip="),
        (vec!["kick", "--ip", "::1", "--url", "http://127.0.0.1:1"], 1, "is a node running"),
    ] {
        let ran = run(&arguments, &[]);
        assert_eq!(ran.code, code, "{arguments:?} {}", ran.stderr);
        assert!(ran.stderr.contains(says), "{arguments:?} {}", ran.stderr);
    }
    let publish =
        ["publish", "jobs", "--event", "still_here", "1", "--url", &url, "--api-key", "0123456789abcdef"];
    assert_eq!(run(&publish, &[]).code, 0);
    stream.expect("still_here").await;
}
