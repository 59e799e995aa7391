//! Everybody comes at once, with all limits on: what happens after a load balancer's restart.
//!
//! In full (`make chaos`) this is a benchmark too: it prints the rate and the time until the first byte. The figures mean
//! something in the release profile, on a machine that does nothing else.

use std::process::Output;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::Value;
use tokio::time::sleep;

use crate::support::node::fanlight;
use crate::support::{Node, RedisServer, full, leases, secs};

const NODES: usize = 3;

/// As people start it, but behind a proxy at 127.0.0.1: two per address, one per session, 20 tries a second.
async fn start(redis: &RedisServer) -> Node {
    Node::builder()
        .redis(redis)
        .set("FANLIGHT_LOG", "info")
        .set("FANLIGHT_TRUSTED_PROXIES", "127.0.0.0/8")
        .set("FANLIGHT_MAX_PER_IP", 2)
        .set("FANLIGHT_MAX_PER_SESSION", 1)
        .set("FANLIGHT_CONNECT_RATE_PER_IP", "20/s")
        .start()
        .await
}

/// `fanlight bench` at one node: each client has an IPv6 network and a session of its own.
async fn clients(node: &Node, number: usize, count: usize, hold: Duration) -> Output {
    let mut command = fanlight();
    command.args(["bench", "--json", "--idle", "--warmup=0s", "--url", &node.url()]);
    command.args(["--connections", &count.to_string(), "--duration", &format!("{}s", hold.as_secs())]);
    // Each group has at most four digits, whatever they are read as, and a limit of addresses is per /64.
    command.args(["--header", &format!("X-Forwarded-For: 2001:db8:{number}:{{i}}::1")]);
    command.args(["--header", &format!("X-Session-Token: s{number}-{{i}}")]);
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr)))
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_who_comes_at_once_to_three_nodes_with_all_limits_on_gets_in() {
    let redis = RedisServer::start().await;
    let nodes = join_all((0..NODES).map(|_| start(&redis))).await;
    // The record of the limits is not young any more: at a cluster's very first start newcomers wait for 0.6 s.
    sleep(secs(1)).await;
    let each = if full() { 5_000 } else { 300 };
    let hold = if full() { secs(8) } else { secs(3) };
    let storm = join_all(nodes.iter().enumerate().map(|(n, node)| clients(node, n, each, hold)));
    let counted = async {
        let mut most = 0;
        for _ in 0..if full() { 16 } else { 10 } {
            sleep(Duration::from_millis(500)).await;
            most = most.max(leases::counted(&redis).await.len());
        }
        most
    };
    let (outputs, most) = tokio::join!(storm, counted);
    let reports: Vec<Value> = outputs.iter().map(report).collect();
    for report in &reports {
        assert_eq!(report["open"], each, "{report}");
        assert_eq!((&report["refused"], &report["closed"]), (&serde_json::json!({}), &0.into()), "{report}");
    }
    assert_eq!(most, NODES * each * 2, "an address and a session of each are counted");
    let number = |report: &Value, name: &str| report.pointer(name).and_then(Value::as_f64).unwrap();
    let most_of = |name: &str| reports.iter().map(|report| number(report, name)).fold(0.0, f64::max);
    let seconds = most_of("/connectSeconds");
    println!(
        "{} clients in {seconds:.2} s: {:.0}/s; first byte p50 {:.0} ms, p99 {:.0} ms, max {:.0} ms; TCP max {:.0} ms",
        NODES * each,
        (NODES * each) as f64 / seconds,
        most_of("/firstByteMillis/p50"),
        most_of("/firstByteMillis/p99"),
        most_of("/firstByteMillis/max"),
        most_of("/connectMillis/max"),
    );
}
