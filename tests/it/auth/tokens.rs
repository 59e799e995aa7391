//! What keys and tokens open, and what they do not.

use serde_json::{Value, json};

use super::forge::{Keys, now, token};
use crate::support::{End, Node, NodeBuilder, Request, SseClient, SseRequest, eventually, secs};

const KEY: &str = "key-0123456789abcdef";

fn node(keys: &Keys) -> NodeBuilder {
    Node::builder().set("FANLIGHT_JWT_SECRET", &keys.secret).set("FANLIGHT_CHANNELS", "jobs,public:*")
}

fn bearer(request: Request, credential: &str) -> Request {
    request.header("Authorization", &format!("Bearer {credential}"))
}

fn publish(channels: &[&str]) -> Request {
    let events: Vec<Value> =
        channels.iter().map(|c| json!({ "channel": c, "event": "e", "data": 1 })).collect();
    Request::post("/api/events", &Value::Array(events))
}

async fn answer(node: &Node, request: Request) -> (u16, String) {
    let answer = node.send(&request).await;
    let code = if answer.status() < 400 { String::new() } else { answer.code() };
    (answer.status(), code)
}

#[tokio::test]
async fn a_token_opens_channels_that_the_anonymous_may_not_read() {
    let keys = Keys::new();
    let node = node(&keys).start().await;
    let token = keys.grant(json!({ "read": ["private:a", "team:*"] }));
    let head = |channels: &str| Request::new("HEAD", &format!("/stream?channels={channels}"));
    for channels in ["private:a", "team:1", "jobs,private:a", "none"] {
        let get = Request::get(&format!("/stream?channels={channels}"));
        assert_eq!(answer(&node, get).await, (403, "forbidden".to_owned()), "{channels}");
    }
    for channels in ["private:a", "team:1,team:2", "jobs,public:x,private:a"] {
        let client =
            SseClient::open(node.addr(), &format!("/stream?channels={channels}&token={token}")).await;
        assert_eq!(client.head.status, 200, "{channels}");
    }
    for channels in ["private:b", "private:", "teams", "private:a,private:b"] {
        let get = bearer(Request::get(&format!("/stream?channels={channels}")), &token);
        assert_eq!(answer(&node, get).await, (403, "forbidden".to_owned()), "{channels}");
    }
    assert_eq!(node.send(&head("jobs")).await.status(), 200, "and the anonymous read what anyone may");
}

#[tokio::test]
async fn all_is_every_plain_name_of_the_settings_and_of_the_token() {
    let keys = Keys::new();
    let node = node(&keys).start().await;
    let granted = keys.grant(json!({ "read": ["b", "team:*", "a", "jobs"] }));
    for (query, expected) in [
        (String::new(), json!(["jobs"])),
        (format!("?token={granted}"), json!(["jobs", "b", "a"])),
        (format!("?channels=all&token={granted}"), json!(["jobs", "b", "a"])),
    ] {
        let mut client = SseClient::open(node.addr(), &format!("/stream{query}")).await;
        assert_eq!(client.next_event(secs(10)).await.unwrap().json()["channels"], expected, "{query}");
    }
}

#[tokio::test]
async fn a_required_token_is_the_only_way_in() {
    let keys = Keys::new();
    let node = node(&keys).set("FANLIGHT_REQUIRE_TOKEN", "true").set("FANLIGHT_API_KEYS", KEY).start().await;
    for path in ["/stream", "/api/sse/stream?channels=jobs", "/api/jobs/stream", "/stream?token="] {
        let refused = node.get(path).await;
        assert_eq!((refused.status(), refused.code().as_str()), (401, "unauthorized"), "{path}");
        assert_eq!(refused.head.get("www-authenticate"), Some("Bearer"), "{path}");
        assert_eq!(
            answer(&node, bearer(Request::get(path), KEY)).await.0,
            401,
            "a key is for other things: {path}"
        );
        let with_token = bearer(Request::new("HEAD", path), &keys.grant(json!({})));
        assert_eq!(node.send(&with_token).await.status(), 200, "{path}");
    }
    let wrong = node.send(&bearer(Request::get("/stream"), "a.b.c")).await;
    assert_eq!(wrong.head.get("www-authenticate"), Some(r#"Bearer error="invalid_token""#));
    assert_eq!(node.get("/livez").await.status(), 200, "probes ask nobody");
}

#[tokio::test]
async fn the_header_wins_over_the_query_and_the_query_over_the_cookie() {
    let keys = Keys::new();
    let node = node(&keys).set("FANLIGHT_REQUIRE_TOKEN", "true").start().await;
    let (good, bad) = (keys.grant(json!({})), "bad".to_owned());
    for (header, query, cookie, status) in [
        (Some(&good), Some(&bad), Some(&bad), 200),
        (None, Some(&good), Some(&bad), 200),
        (None, None, Some(&good), 200),
        (Some(&bad), Some(&good), Some(&good), 401),
        (None, Some(&bad), Some(&good), 401),
        (None, None, Some(&bad), 401),
    ] {
        let query = query.map(|token| format!("?token={token}")).unwrap_or_default();
        let mut request = Request::new("HEAD", &format!("/stream{query}"));
        if let Some(token) = header {
            request = bearer(request, token);
        }
        if let Some(token) = cookie {
            request = request.header("Cookie", &format!("a=1; fanlight_token={token}; b=2"));
        }
        assert_eq!(node.send(&request).await.status(), status, "{request:?}");
    }
}

#[tokio::test]
async fn who_may_publish_is_said_by_a_key_or_channel_by_channel_by_a_token() {
    let keys = Keys::new();
    let node = node(&keys).set("FANLIGHT_API_KEYS", format!("other,{KEY}")).start().await;
    let mut client = node.subscribe("/stream?channels=jobs,public:a").await;
    let token = keys.grant(json!({ "publish": ["public:*"], "read": ["*"] }));
    let ok = (202, String::new());
    let unauthorized = (401, "unauthorized".to_owned());
    let forbidden = (403, "forbidden".to_owned());
    for (request, expected) in [
        (publish(&["jobs"]), &unauthorized),
        (publish(&["jobs"]).header("X-API-Key", "wrong"), &unauthorized),
        (bearer(publish(&["public:a"]), &token).header("X-API-Key", "wrong"), &unauthorized),
        (bearer(publish(&["jobs"]), "wrong"), &unauthorized),
        (bearer(publish(&["jobs"]), &keys.sign(&json!({ "exp": now() - 1 }))), &unauthorized),
        (bearer(publish(&["jobs"]), &keys.grant(json!({ "read": ["*"], "admin": true }))), &forbidden),
        (bearer(publish(&["public:a", "jobs"]), &token), &forbidden),
        (bearer(publish(&["public:a", "public:a"]), &token), &ok),
        (bearer(publish(&["jobs", "public:a"]), KEY), &ok),
        (publish(&["jobs"]).header("X-API-Key", KEY), &ok),
    ] {
        assert_eq!(&answer(&node, request.clone()).await, expected, "{request:?}");
    }
    for n in 0..5 {
        client.next_event(secs(10)).await.unwrap_or_else(|end| panic!("{n}: {end:?}"));
    }
    assert_eq!(
        client.next_event(secs(1)).await,
        Err(End::TimedOut),
        "nothing of what was refused was published"
    );
}

#[tokio::test]
async fn who_may_administer_is_said_by_a_key_or_a_token_for_that() {
    let keys = Keys::new();
    let node = node(&keys).set("FANLIGHT_API_KEYS", KEY).start().await;
    let list = || Request::get("/api/sse/connections");
    let kick = || Request::new("DELETE", "/api/sse/connections?session=x");
    for request in [list, kick] {
        assert_eq!(answer(&node, request()).await.0, 401);
        assert_eq!(answer(&node, bearer(request(), "wrong")).await.0, 401);
        assert_eq!(
            answer(&node, bearer(request(), &keys.grant(json!({ "read": ["*"], "publish": ["*"] })))).await.0,
            403
        );
        assert_eq!(answer(&node, bearer(request(), &keys.grant(json!({ "admin": false })))).await.0, 403);
        assert_eq!(answer(&node, bearer(request(), &keys.grant(json!({ "admin": true })))).await.0, 200);
        assert_eq!(answer(&node, bearer(request(), KEY)).await.0, 200);
        assert_eq!(answer(&node, request().header("X-API-Key", KEY)).await.0, 200);
    }
}

#[tokio::test]
async fn a_node_that_knows_no_tokens_does_not_look_at_them() {
    let node = Node::builder().start().await;
    assert_eq!(node.send(&bearer(Request::new("HEAD", "/stream?token=x"), "y")).await.status(), 200);
    assert_eq!(answer(&node, bearer(publish(&["jobs"]), "y")).await.0, 202);
    let keyed = Node::builder().set("FANLIGHT_API_KEYS", KEY).start().await;
    assert_eq!(keyed.send(&Request::new("HEAD", "/stream?token=x")).await.status(), 200);
    assert_eq!(answer(&keyed, bearer(publish(&["jobs"]), "y")).await.0, 401);
}

#[tokio::test]
async fn a_stream_ends_when_its_token_expires_and_not_before() {
    let keys = Keys::new();
    let node = node(&keys).start().await;
    let position = node_position(&node, &keys).await;
    let exp = now() + 2;
    let short = keys.sign(&json!({ "exp": exp, "fanlight": { "read": ["private"] } }));
    let path = format!("/stream?channels=private&token={short}");
    let fresh = SseRequest::new(&path).open(node.addr()).await;
    let resumed = SseRequest::new(&path).last_event_id(&position).open(node.addr()).await;
    let mut anonymous = node.subscribe("/stream").await;
    let long = keys.sign(&json!({ "exp": u64::from(u32::MAX), "fanlight": { "read": ["private"] } }));
    let mut lasting = node.subscribe(&format!("/stream?channels=private&token={long}")).await;
    for client in [fresh, resumed] {
        let (blocks, end) = { client }.rest(secs(20)).await;
        assert!(now() >= exp, "not before");
        let bye = blocks.last().expect("a bye");
        assert_eq!((bye.name(), end), ("bye", End::Clean));
        assert_eq!(
            (&bye.json()["reason"], &bye.json()["reconnect"]),
            (&json!("token_expired"), &json!(false))
        );
        assert_eq!(bye.json()["retryMs"].as_u64(), bye.retry);
    }
    assert_eq!(node.get(&path).await.status(), 401, "and it opens nothing any more");
    let event = bearer(publish(&["jobs", "private"]), &keys.grant(json!({ "publish": ["*"] })));
    assert_eq!(answer(&node, event).await.0, 202);
    for other in [&mut anonymous, &mut lasting] {
        assert_eq!(other.next_event(secs(10)).await.unwrap().name(), "e", "others stay");
    }
}

/// The position of an event on `private`.
async fn node_position(node: &Node, keys: &Keys) -> String {
    let event = bearer(publish(&["private"]), &keys.grant(json!({ "publish": ["private"] })));
    node.send(&event).await.json()["ids"][0].as_str().expect("an id").to_owned()
}

#[tokio::test]
async fn a_key_set_that_changes_takes_effect_and_a_broken_one_does_not() {
    let (keys, next) = (Keys::new(), Keys::new());
    let (node, jwks) = keys.configure(Node::builder().set("FANLIGHT_REQUIRE_TOKEN", "true"));
    let node = node.start().await;
    let allowed = async |keys: &Keys| {
        let claims = json!({ "exp": now() + 60 }).to_string();
        let token = token(r#"{"alg":"ES256","kid":"ec-1"}"#, claims, |m| keys.es256(m));
        node.send(&Request::new("HEAD", &format!("/stream?token={token}"))).await.status() == 200
    };
    let logged = async |what: &str| {
        eventually(what, secs(10), async || node.log().contains(what).then_some(()).ok_or("not yet")).await;
    };
    assert!(allowed(&keys).await && !allowed(&next).await);
    std::fs::write(jwks.path(), "{").unwrap();
    logged("changed for the worse").await;
    assert!(allowed(&keys).await, "the old keys are kept");
    std::fs::write(jwks.path(), next.jwks()).unwrap();
    eventually("the new keys are taken", secs(10), async || {
        allowed(&next).await.then_some(()).ok_or("not yet")
    })
    .await;
    assert!(!allowed(&keys).await, "the old keys are gone");
    std::fs::remove_file(jwks.path()).unwrap();
    logged("is lost").await;
    assert!(allowed(&next).await, "the last keys are kept");
}
