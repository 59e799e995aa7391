//! The dashboard's files and its tap, as a browser gets them. What a person sees is tested in `dashboard/test/`.

use serde_json::json;

use crate::support::{Node, Request, SseRequest, secs};

#[tokio::test]
async fn the_page_and_what_it_loads_come_with_a_policy_that_lets_nothing_else_in() {
    let node = Node::builder().start().await;
    let page = Request::get("/").send(node.addr()).await.unwrap();
    assert_eq!((page.status(), page.head.get("content-type")), (200, Some("text/html; charset=utf-8")));
    for path in ["/", "/dashboard/app.js", "/dashboard/style.css", "/dashboard/icon.svg"] {
        let file = Request::get(path).send(node.addr()).await.unwrap();
        assert_eq!(file.status(), 200, "{path}");
        assert!(path == "/" || page.text().contains(&path[1..]), "{path}");
        let policy = file.head.get("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'; ") && policy.contains("frame-ancestors 'none'"));
        assert!(!policy.contains("unsafe") && !policy.contains("http"), "{policy}");
        assert_eq!(file.head.get("x-content-type-options"), Some("nosniff"));
        assert_eq!(file.head.get("referrer-policy"), Some("no-referrer"));
        let known = Request::get(path).header("If-None-Match", file.head.get("etag").unwrap());
        let again = known.send(node.addr()).await.unwrap();
        assert_eq!((again.status(), again.text().as_str()), (304, ""), "{path}");
    }
}

#[tokio::test]
async fn with_an_admin_address_the_dashboard_is_there_and_only_there() {
    let node = Node::builder().admin().start().await;
    for path in ["/", "/dashboard/app.js", "/api/sse/tap"] {
        let head = Request::new("HEAD", path);
        assert_eq!(head.send(node.admin()).await.unwrap().status(), 200, "{path}");
        assert_eq!(head.send(node.addr()).await.unwrap().status(), 404, "{path}");
    }
}

#[tokio::test]
async fn the_tap_hears_every_channel_but_only_for_administrators() {
    let node = Node::builder().admin().set("FANLIGHT_API_KEYS", "secret-key-of-the-test").start().await;
    let path = "/api/sse/tap?channels=private:books";
    let open = Request::get(path).send(node.admin()).await.unwrap();
    assert_eq!((open.status(), open.code().as_str()), (401, "unauthorized"));
    let key = "Bearer secret-key-of-the-test";
    let mut tap = SseRequest::new(path).header("Authorization", key).open(node.admin()).await;
    assert_eq!(tap.next_event(secs(10)).await.unwrap().name(), "connected");
    let event = json!({ "channel": "private:books", "event": "sold", "data": 1 });
    let sent = Request::post("/api/events", &event).header("Authorization", key).send(node.admin()).await;
    assert_eq!(sent.unwrap().status(), 202);
    assert_eq!(tap.next_event(secs(10)).await.unwrap().name(), "sold");
}
