//! The limits of the whole cluster, as nodes answer over HTTP.

use futures_util::future::join_all;
use serde_json::json;

use crate::support::{Node, RedisServer, Request, SseRequest, eventually, secs};

#[tokio::test(flavor = "multi_thread")]
async fn of_all_who_come_at_once_to_three_nodes_exactly_the_limit_gets_in() {
    let redis = RedisServer::start().await;
    let nodes = Node::cluster(&redis, 3, &[("FANLIGHT_MAX_PER_IP", "30")]).await;
    for _ in 0..3 {
        let tries = (0..150).map(|i| {
            let node = nodes[i % 3].addr();
            async move { SseRequest::new("/stream").unrecorded().try_open(node).await }
        });
        let streams: Vec<_> = join_all(tries).await.into_iter().filter_map(Result::ok).collect();
        assert_eq!(streams.iter().filter(|stream| stream.head.status == 200).count(), 30);
        let refused = nodes[0].get("/stream").await;
        assert_eq!((refused.status(), &refused.json()["code"]), (429, &json!("ip_limit")));
        assert!(refused.head.get("retry-after").is_some());
        drop(streams);
        eventually("all slots are free again", secs(10), async || match listed(&nodes[0]).await {
            0 => Ok(()),
            left => Err(format!("{left} connections")),
        })
        .await;
    }
}

async fn listed(node: &Node) -> usize {
    node.get("/api/sse/connections").await.json()["connections"].as_array().map_or(0, Vec::len)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_has_one_stream_and_with_replace_the_newcomer_gets_it_on_another_node() {
    let redis = RedisServer::start().await;
    let reject = Node::cluster(&redis, 2, &[("FANLIGHT_MAX_PER_SESSION", "1")]).await;
    let first = reject[0].subscribe("/stream?session=s").await;
    let refused = reject[1].get("/stream?session=s").await;
    assert_eq!((refused.status(), &refused.json()["code"]), (429, &json!("session_limit")));
    let soft = reject[1].get("/stream?session=s&onLimit=soft").await;
    assert_eq!(soft.status(), 200);
    assert!(soft.text().contains("event: limit\ndata: {\"code\":\"session_limit\""), "{}", soft.text());
    drop((first, reject));

    let settings = [("FANLIGHT_MAX_PER_SESSION", "1"), ("FANLIGHT_SESSION_POLICY", "replace")];
    let replace = Node::cluster(&redis, 2, &settings).await;
    let mut old = replace[0].subscribe("/stream?session=r").await;
    let mut new = replace[1].subscribe("/stream?session=r").await;
    let bye = old.expect("bye").await.json();
    assert_eq!((&bye["reason"], &bye["reconnect"]), (&json!("replaced"), &json!(false)));
    replace[0].publish("jobs", "n", &json!({})).await;
    new.expect("n").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_slots_of_a_killed_node_are_free_after_its_lease() {
    let redis = RedisServer::start().await;
    let settings = [("FANLIGHT_MAX_PER_IP", "5"), ("FANLIGHT_LEASE_TTL", "2s")];
    let mut nodes = Node::cluster(&redis, 2, &settings).await;
    let held = join_all((0..5).map(|_| nodes[0].subscribe("/stream"))).await;
    assert_eq!(nodes[1].get("/stream").await.status(), 429);
    nodes[0].kill();
    drop(held);
    let other = nodes[1].addr();
    eventually("a slot of the dead node is free", secs(15), async || {
        let stream = SseRequest::new("/stream").unrecorded().try_open(other).await?;
        if stream.head.status == 200 { Ok(()) } else { Err(format!("{}", stream.head.status)) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_listed_and_kicked_on_whatever_node_they_are() {
    let redis = RedisServer::start().await;
    let nodes = Node::cluster(&redis, 3, &[]).await;
    let mut streams = Vec::new();
    for (i, node) in nodes.iter().enumerate() {
        streams.push(node.subscribe(&format!("/stream?channels=jobs&session=s{i}")).await);
    }
    let page = nodes[0].get("/api/sse/connections?limit=2").await.json();
    let cursor = page["nextCursor"].as_str().unwrap().to_owned();
    let rest = nodes[1].get(&format!("/api/sse/connections?limit=2&cursor={cursor}")).await.json();
    let ids = |page: &serde_json::Value| -> Vec<String> {
        page["connections"].as_array().unwrap().iter().map(|row| row["id"].to_string()).collect()
    };
    let (mut all, last) = (ids(&page), ids(&rest));
    assert_eq!((all.len(), last.len(), &rest["nextCursor"]), (2, 1, &serde_json::Value::Null));
    all.extend(last);
    all.dedup();
    assert_eq!(all.len(), 3);
    let found = nodes[2].get("/api/sse/connections?session=s1").await.json();
    assert_eq!(found["connections"][0]["session"], "s1");
    let kick = Request::new("DELETE", "/api/sse/connections?session=s1");
    assert_eq!(nodes[2].send(&kick).await.json()["kicked"], 1);
    let bye = streams[1].expect("bye").await.json();
    assert_eq!((&bye["reason"], &bye["reconnect"]), (&json!("kicked"), &json!(false)));
    assert_eq!(nodes[0].send(&Request::new("DELETE", "/api/sse/connections")).await.status(), 400);
    nodes[0].publish("jobs", "n", &json!({})).await;
    streams[0].expect("n").await;
    streams[2].expect("n").await;
}
