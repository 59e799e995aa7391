//! `fanlight doctor` and `fanlight health` through real proxies, with good and with spoiled settings.

use futures_util::future::join_all;
use serde_json::Value;

use super::{Change, KINDS, proxy};
use crate::support::node::fanlight;
use crate::support::web_proxy::Kind;
use crate::support::{Node, NodeBuilder};

/// What spoils a committed file so that answers are kept until there is more.
fn buffering(kind: Kind) -> &'static [Change] {
    match kind {
        Kind::HaProxy => {
            &[("balance leastconn", "balance leastconn\n  http-response wait-for-body time 4s at-least 64k")]
        }
        Kind::Caddy => &[("flush_interval -1", "buffer_responses")],
        // In HTTP/1.1 nginx passes every chunk on even so; in HTTP/1.0, its default, it waits for a full buffer.
        _ => &[
            ("proxy_buffering off;", "proxy_ignore_headers X-Accel-Buffering;"),
            ("proxy_http_version 1.1;", ""),
        ],
    }
}

/// The doctor's exit code and JSON.
async fn doctor(url: &str, wait: &str) -> (i32, Value) {
    let arguments = ["doctor", "--json", "--wait", wait, "--url", url].map(str::to_owned);
    let output =
        tokio::task::spawn_blocking(move || fanlight().args(arguments).output().unwrap()).await.unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    let json = serde_json::from_str(&told)
        .unwrap_or_else(|e| panic!("{e}: {told}{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code().unwrap(), json)
}

fn findings(told: &Value) -> Vec<&str> {
    told["findings"].as_array().unwrap().iter().map(|finding| finding["code"].as_str().unwrap()).collect()
}

fn beating(every: &str) -> NodeBuilder {
    Node::builder().set("FANLIGHT_HEARTBEAT", every)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_finds_nothing_wrong_with_the_documented_settings_nor_with_a_bare_node() {
    let node = beating("1s").start().await;
    let examined = KINDS.map(async |kind| {
        let proxy = proxy(kind, [node.addr(); 2], &[]).await;
        let (code, told) = doctor(&format!("http://{}", proxy.addr()), "5s").await;
        assert_eq!((code, findings(&told)), (0, vec![]), "{kind:?}: {told}");
        assert!(told["signsOfLife"].as_u64().unwrap() >= 2, "{kind:?}: {told}");
    });
    join_all(examined).await;
    let (code, told) = doctor(&node.url(), "2s").await;
    assert_eq!((code, findings(&told)), (0, vec![]), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_finds_buffering_through_each_proxy() {
    let node = beating("1s").start().await;
    let examined = KINDS.map(async |kind| {
        let proxy = proxy(kind, [node.addr(); 2], buffering(kind)).await;
        let (code, told) = doctor(&format!("http://{}", proxy.addr()), "1s").await;
        assert_eq!((code, findings(&told)), (3, vec!["buffering"]), "{kind:?}: {told}");
    });
    join_all(examined).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_finds_the_idle_cut_off_of_each_proxy() {
    let node = beating("1h").start().await;
    let examined = KINDS.map(async |kind| {
        let proxy = proxy(kind, [node.addr(); 2], &[]).await;
        let (code, told) = doctor(&format!("http://{}", proxy.addr()), "60s").await;
        assert_eq!((code, findings(&told)), (3, vec!["idle_cut_off"]), "{kind:?}: {told}");
        let silence = told["cut"]["silenceMs"].as_u64().unwrap();
        assert!(silence < 20_000, "the proxy's 3 s, not the 60 s of the wait: {told}");
    });
    join_all(examined).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_no_stream_cannot_be_examined() {
    let output = fanlight().args(["doctor", "--url", "http://127.0.0.1:1"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_0_while_the_node_is_ready_and_1_without_one() {
    let node = Node::builder().start().await;
    let health = |url: String| fanlight().args(["health", "--url", &url]).status().unwrap().code();
    assert_eq!(health(node.url()), Some(0));
    assert_eq!(health("http://127.0.0.1:1".into()), Some(1));
    let by_environment = fanlight().arg("health").env("FANLIGHT_LISTEN", node.addr().to_string()).status();
    assert_eq!(by_environment.unwrap().code(), Some(0));
}
