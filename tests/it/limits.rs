//! The limits of the whole cluster, as nodes answer over HTTP.

mod cost;
mod crowd;
mod deaths;
mod exact;
mod faults;
mod outage;
mod storm;

use serde_json::json;

use crate::support::{Node, RedisServer, Request};

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
