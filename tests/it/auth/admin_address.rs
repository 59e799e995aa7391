//! An address of its own for those who run the node.

use serde_json::json;

use crate::support::{Node, Request, SseClient, eventually, secs};

#[tokio::test]
async fn each_address_serves_its_own_routes_and_none_of_the_others() {
    let node = Node::builder().admin().start().await;
    let event = json!({ "channel": "jobs", "event": "e", "data": 1 });
    let connection = "/api/sse/connections/00000000-0000-4000-8000-000000000000";
    let administration = [
        (Request::post("/api/events", &event), 202),
        (Request::get("/livez"), 200),
        (Request::get("/readyz"), 200),
        (Request::get("/health"), 200),
        (Request::get("/api/sse/connections"), 200),
        (Request::new("DELETE", "/api/sse/connections?session=nobody"), 200),
        (Request::new("DELETE", connection), 404),
    ];
    for (request, status) in administration {
        assert_eq!(request.send(node.admin()).await.unwrap().status(), status, "{request:?}");
        let elsewhere = request.send(node.addr()).await.unwrap();
        assert_eq!((elsewhere.status(), elsewhere.code().as_str()), (404, "not_found"), "{request:?}");
    }
    for path in ["/api/sse/stream", "/stream", "/api/jobs/stream"] {
        let head = Request::new("HEAD", path);
        assert_eq!(head.send(node.addr()).await.unwrap().status(), 200, "{path}");
        assert_eq!(head.send(node.admin()).await.unwrap().status(), 404, "{path}");
    }
}

#[tokio::test]
async fn what_is_published_on_one_address_is_streamed_on_the_other() {
    let node = Node::builder().admin().start().await;
    let mut client = node.subscribe("/api/jobs/stream").await;
    let id = node.publish("jobs", "job_started", &json!({ "id": "1" })).await;
    assert_eq!(client.next_event(secs(10)).await.unwrap().id, Some(id));
}

#[tokio::test]
async fn the_admin_address_is_open_until_the_drain_is_over() {
    let mut node = Node::builder().admin().set("FANLIGHT_DRAIN", "3s").start().await;
    let clients: Vec<SseClient> =
        futures_util::future::join_all((0..20).map(|_| node.subscribe("/stream"))).await;
    node.terminate();
    let admin = node.admin();
    eventually("it is unready", secs(5), async || {
        let ready = Request::get("/readyz").send(admin).await?;
        if ready.status() == 503 && ready.text().contains("draining") { Ok(()) } else { Err(ready.text()) }
    })
    .await;
    assert!(Request::get("/stream").send(node.addr()).await.is_err(), "the public address is closed");
    assert_eq!(Request::get("/livez").send(admin).await.unwrap().status(), 200);
    drop(clients);
    assert!(node.exit(secs(15)).await.success());
    assert!(Request::get("/livez").send(admin).await.is_err());
}
