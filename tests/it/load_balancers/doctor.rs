//! `fanlight doctor` and `fanlight health` through real proxies, with good and with spoiled settings.

use std::net::SocketAddr;
use std::path::Path;

use futures_util::future::join_all;
use serde_json::Value;

use super::{Change, KINDS, changed, config, proxy};
use crate::support::node::fanlight;
use crate::support::tls::{Authority, Certified};
use crate::support::web_proxy::{Kind, WebProxy};
use crate::support::{Node, NodeBuilder, eventually, secs};

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

/// The doctor's exit code and what it prints, JSON and complaints.
async fn examined(url: &str, wait: &str, trusted: Option<&Path>) -> (i32, String, String) {
    let mut doctor = fanlight();
    doctor.args(["doctor", "--json", "--wait", wait, "--url", url]);
    doctor.envs(trusted.map(|file| ("SSL_CERT_FILE", file.to_owned())));
    let output = tokio::task::spawn_blocking(move || doctor.output().unwrap()).await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

/// The doctor's exit code and JSON.
async fn doctor(url: &str, wait: &str) -> (i32, Value) {
    let (code, told, complaints) = examined(url, wait, None).await;
    (code, serde_json::from_str(&told).unwrap_or_else(|e| panic!("{e}: {told}{complaints}")))
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

/// The committed file of `kind`, with TLS.
fn config_with_tls(kind: Kind, addr: SocketAddr, nodes: [SocketAddr; 2], certified: &Certified) -> String {
    let (text, certificate, key) =
        (config(kind, addr, nodes, &[]), certified.certificate.display(), certified.key.display());
    match kind {
        // It looks for the key in a file beside the certificate, `.key` after its whole name.
        Kind::HaProxy => {
            changed(&text, &format!("bind {addr}"), &format!("bind {addr} ssl crt {certificate}"))
        }
        Kind::Caddy => {
            let site = |scheme: &str| format!("\n{scheme}:{} {{\n", addr.port());
            let text = changed(&text, &site("http://"), &site("https://localhost"));
            changed(&text, "\treverse_proxy", &format!("\ttls {certificate} {key}\n\treverse_proxy"))
        }
        _ => changed(
            &text,
            &format!("listen {addr};"),
            &format!("listen {addr} ssl; ssl_certificate {certificate}; ssl_certificate_key {key};"),
        ),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn over_https_the_doctor_examines_whom_it_trusts_and_names_a_stranger() {
    let node = beating("1s").start().await;
    let (authority, stranger) = (Authority::new(), Authority::new());
    let certified = authority.certify_loopback();
    let trusted = authority.certificate();
    let examine = KINDS.map(async |kind| {
        let proxy =
            WebProxy::start_with(kind, |addr| config_with_tls(kind, addr, [node.addr(); 2], &certified))
                .await;
        let url = format!("https://localhost:{}", proxy.addr().port());
        eventually("the proxy has a node", secs(10), async || {
            match examined(&url, "0s", Some(&trusted)).await {
                (0, ..) => Ok(()),
                other => Err(format!("{kind:?}: {other:?}")),
            }
        })
        .await;
        let (code, told, complaints) = examined(&url, "3s", Some(&trusted)).await;
        assert_eq!((code, complaints.as_str()), (0, ""), "{kind:?}: {told}");
        let (code, _, complaints) = examined(&url, "3s", Some(&stranger.certificate())).await;
        assert!(code == 1 && complaints.contains("UnknownIssuer"), "{kind:?}: {code} {complaints}");
    });
    join_all(examine).await;
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
