//! Which web pages may talk to a node, and in whose name.

use serde_json::json;

use super::forge::Keys;
use crate::support::{Node, Request, Response, SseRequest};

const OWN: &str = "http://app.example";
const LISTED: &str = "https://listed.example";
const FOREIGN: &str = "https://evil.example";

/// What a browser sends for a page, besides the page's own request: `Host` is that of [`OWN`].
fn browser(path: &str, origin: Option<&str>, site: &str, cookie: Option<&str>) -> SseRequest {
    let request = SseRequest::new(path).header("Host", "app.example").header("Sec-Fetch-Site", site);
    let request = origin.map_or(request.clone(), |origin| request.header("Origin", origin));
    cookie.map_or(request.clone(), |token| request.header("Cookie", &format!("fanlight_token={token}")))
}

#[tokio::test]
async fn a_foreign_page_takes_no_slot_in_its_visitors_name() {
    let keys = Keys::new();
    let node = Node::builder()
        .set("FANLIGHT_JWT_SECRET", &keys.secret)
        .set("FANLIGHT_ALLOWED_ORIGINS", LISTED)
        .set("FANLIGHT_MAX_CONNECTIONS", "1");
    let node = node.start().await;
    let token = keys.grant(json!({ "read": ["*"], "admin": true }));
    // An EventSource with credentials, one in a sandboxed frame, an image or frame of another site and of a sibling.
    let ways = [
        (Some(FOREIGN), "cross-site"),
        (Some("null"), "cross-site"),
        (None, "cross-site"),
        (None, "same-site"),
    ];
    for i in 0..100 {
        let (origin, site) = ways[i % ways.len()];
        let path = ["/stream", "/api/jobs/stream?onLimit=soft", "/api/sse/stream?channels=private"][i % 3];
        let refused = browser(path, origin, site, Some(&token)).try_open(node.addr()).await.unwrap();
        assert_eq!(refused.head.status, 403, "{path} {origin:?} {site}");
        assert_eq!(refused.head.get("access-control-allow-origin"), None);
    }
    assert_eq!(node.get("/health").await.json()["stream"]["active_connections"], 0);
    let own = browser("/stream?channels=private", None, "same-origin", Some(&token)).open(node.addr()).await;
    assert_eq!(own.head.status, 200, "the one slot was there all the time");
}

#[tokio::test]
async fn the_visitors_name_is_for_own_and_listed_pages() {
    let keys = Keys::new();
    let token = keys.grant(json!({}));
    for (setting, allowed) in [("", &[OWN][..]), (LISTED, &[OWN, LISTED]), ("*", &[OWN])] {
        let node = Node::builder()
            .set("FANLIGHT_JWT_SECRET", &keys.secret)
            .set("FANLIGHT_REQUIRE_TOKEN", "true")
            .set("FANLIGHT_ALLOWED_ORIGINS", setting)
            .start()
            .await;
        for origin in [OWN, LISTED, FOREIGN] {
            let site = if origin == OWN { "same-origin" } else { "cross-site" };
            let by_cookie =
                browser("/stream", Some(origin), site, Some(&token)).try_open(node.addr()).await.unwrap();
            let expected = match (allowed.contains(&origin), setting) {
                (true, _) => 200,
                (false, "*") => 401, // it may come in, but as nobody
                (false, _) => 403,
            };
            assert_eq!(by_cookie.head.status, expected, "{setting:?} {origin}");
            let path = format!("/stream?token={token}");
            let by_query = browser(&path, Some(origin), site, None).try_open(node.addr()).await.unwrap();
            let expected = if allowed.contains(&origin) || setting == "*" { 200 } else { 403 };
            assert_eq!(by_query.head.status, expected, "{setting:?} {origin}");
        }
        // An image of another site, whatever is allowed: at most it comes in as nobody.
        let image = browser("/stream", None, "cross-site", Some(&token)).try_open(node.addr()).await.unwrap();
        assert_eq!(image.head.status, if setting == "*" { 401 } else { 403 }, "{setting:?}");
        let typed = browser("/stream", None, "none", Some(&token)).try_open(node.addr()).await.unwrap();
        assert_eq!(typed.head.status, 200, "an address that the visitor typed: {setting:?}");
    }
}

/// Status, `Access-Control-Allow-Origin` and whether credentials are allowed; and on the way what holds for every answer.
fn cors(answer: &Response) -> (u16, Option<String>, bool) {
    let origin = answer.head.get("access-control-allow-origin").map(str::to_owned);
    let credentials = answer.head.get("access-control-allow-credentials").map(str::to_owned);
    assert!(credentials.as_deref().is_none_or(|value| value == "true"), "{:?}", answer.head);
    assert!(!(origin.as_deref() == Some("*") && credentials.is_some()), "{:?}", answer.head);
    let vary = answer.head.get("vary").unwrap_or_default().to_ascii_lowercase();
    let same_for_all = origin.as_deref() == Some("*");
    assert!(
        same_for_all || vary.contains("origin"),
        "a cache may give it to another page: {:?}",
        answer.head.headers
    );
    (answer.status(), origin, credentials.is_some())
}

#[tokio::test]
async fn the_cors_answers_are_exact() {
    let lookalikes = [
        "https://listed.example.evil.example",
        "https://evil-listed.example",
        "https://listed.example:8443",
        "http://listed.example",
        "https://listed.example/",
        "HTTPS://LISTED.EXAMPLE",
        "https://sub.listed.example",
        "null",
        FOREIGN,
    ];
    for setting in ["", LISTED, "*"] {
        let node = Node::builder().set("FANLIGHT_ALLOWED_ORIGINS", setting).start().await;
        let own = format!("http://{}", node.addr());
        let listed = [(own.as_str(), true), (LISTED, setting == LISTED)];
        for (origin, allowed) in listed.into_iter().chain(lookalikes.map(|origin| (origin, false))) {
            let request = |method: &str, path: &str| Request::new(method, path).header("Origin", origin);
            let expected = match (setting, allowed) {
                ("*", _) => (true, Some("*".to_owned()), false),
                (_, true) => (true, Some(origin.to_owned()), setting == LISTED),
                (_, false) => (false, None, setting == LISTED),
            };
            let (may, allow_origin, credentials) = expected;
            let stream = cors(&node.send(&request("HEAD", "/stream")).await);
            let status = if may { 200 } else { 403 };
            assert_eq!((stream.0, &stream.1), (status, &allow_origin), "{setting:?} {origin}");
            if may {
                assert_eq!(stream.2, credentials, "{setting:?} {origin}");
            }
            // A refusal can be read by a page that may talk to the node.
            let refusal = cors(&node.send(&request("GET", "/stream?channels=none")).await);
            assert_eq!((refusal.0, &refusal.1), (403, &allow_origin), "{setting:?} {origin}");
            let preflight = request("OPTIONS", "/api/events")
                .header("Access-Control-Request-Method", "POST")
                .header("Access-Control-Request-Headers", "authorization,content-type");
            let answer = node.send(&preflight).await;
            assert_eq!(cors(&answer).1, allow_origin, "{setting:?} {origin}");
            let methods = answer.head.get("access-control-allow-methods").unwrap_or_default();
            assert_eq!(methods, "GET,POST,DELETE");
            let headers = answer.head.get("access-control-allow-headers").unwrap_or_default();
            assert!(headers.contains("authorization") && headers.contains("last-event-id"), "{headers}");
            assert!(!headers.contains('*') && !methods.contains('*'));
        }
    }
}

/// Without keys everything may be done by who can connect; a browser on this machine can, for any page.
#[tokio::test]
async fn a_node_without_keys_obeys_no_page_from_elsewhere() {
    for setting in ["", LISTED, "*"] {
        let node = Node::builder().set("FANLIGHT_ALLOWED_ORIGINS", setting).start().await;
        let event = r#"{"channel":"jobs","data":1}"#;
        let port = node.addr().port();
        let publish = |host: &str, origin: Option<&str>| {
            let request = Request::new("POST", "/api/events").header("Host", host).body(event);
            match origin {
                Some(origin) => request.header("Origin", origin),
                None => request,
            }
        };
        let own = [format!("127.0.0.1:{port}"), format!("localhost:{port}"), "[::1]".to_owned()];
        for host in own {
            assert_eq!(node.send(&publish(&host, None)).await.status(), 202, "{setting:?} {host}");
            let same = format!("http://{host}");
            assert_eq!(node.send(&publish(&host, Some(&same))).await.status(), 202, "{setting:?} {host}");
        }
        // Its name was made to point at this machine: for the browser the page is at home here.
        let rebound = node.send(&publish("evil.example:8080", Some("http://evil.example:8080"))).await;
        assert_eq!((rebound.status(), rebound.code()), (403, "forbidden".to_owned()), "{setting:?}");
        for (method, path) in
            [("GET", "/api/sse/connections"), ("POST", "/api/sse/drain"), ("GET", "/api/sse/tap")]
        {
            let request = Request::new(method, path).header("Host", "evil.example");
            assert_eq!(node.send(&request).await.status(), 403, "{setting:?} {path}");
        }
        let foreign = node.send(&publish(&format!("127.0.0.1:{port}"), Some(FOREIGN))).await;
        assert_eq!(foreign.status(), 403, "{setting:?}");
        let listed = node.send(&publish("listed.example", Some(LISTED))).await;
        assert_eq!(listed.status(), if setting == LISTED { 202 } else { 403 }, "{setting:?}");
        assert_eq!(node.get("/livez").await.status(), 200);
    }
}
