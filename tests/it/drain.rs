//! SIGTERM with a thousand clients: each gets its `bye` and its own `retry`, spread over the drain time.

use std::collections::BTreeSet;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::time::Instant;

use crate::support::wait::{check, secs};
use crate::support::{End, Node, RedisServer, Request, SseRequest, Swarm, eventually};

/// Waits until new streams are refused and probes say so, or nobody listens any more.
async fn turned_away(node: &Node) {
    eventually("new streams are turned away", secs(5), async || {
        let stream = SseRequest::new("/stream").try_open(node.addr()).await.map(|client| client.head.status);
        let ready = Request::get("/readyz").send(node.addr()).await.map(|answer| answer.status());
        let away = |seen: &Result<u16, String>| !matches!(seen, Ok(200));
        check(away(&stream) && away(&ready), format!("stream {stream:?}, readyz {ready:?}"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_clients_get_their_bye_spread_over_the_drain_time_and_the_exit_code_is_0() {
    const CLIENTS: usize = 1000;
    const DRAIN: Duration = secs(6);
    let redis = RedisServer::start().await;
    let mut node = Node::start(&redis, &[("FANLIGHT_DRAIN", "6s")]).await;
    let swarm = Swarm::open(&[node.addr()], CLIENTS, "/api/sse/stream").await;
    let start = Instant::now();
    node.terminate();
    turned_away(&node).await;
    let status = node.exit(DRAIN + secs(10)).await;
    assert_eq!(status.code(), Some(0));
    swarm.all("ended", secs(5), |log| log.ended.is_some()).await;

    let mut retries = BTreeSet::new();
    let mut bins = [0; 6];
    for log in swarm.logs() {
        let (end, at) = log.ended.unwrap();
        assert_eq!(end, End::Clean);
        let [bye] = &log.events[..] else { panic!("more or less than a bye: {:?}", log.events) };
        let data = bye.json();
        assert_eq!(
            (bye.name(), &data["reason"], &data["reconnect"]),
            ("bye", &"server_shutdown".into(), &true.into())
        );
        assert_eq!(bye.retry, data["retryMs"].as_u64());
        retries.insert(bye.retry.unwrap());
        let after = at.duration_since(start);
        bins[(after.as_secs() as usize).min(bins.len() - 1)] += 1;
    }
    assert!(retries.len() > CLIENTS / 5, "only {} different retries", retries.len());
    assert!(
        bins.iter().all(|n| (CLIENTS / 20..CLIENTS / 2).contains(n)),
        "closings in each second: {bins:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn events_still_arrive_while_a_node_drains() {
    let redis = RedisServer::start().await;
    let mut leaving = Node::start(&redis, &[("FANLIGHT_DRAIN", "60s")]).await;
    let staying = Node::start(&redis, &[]).await;
    let swarm = Swarm::open(&[leaving.addr()], 50, "/api/jobs/stream").await;
    leaving.terminate();
    turned_away(&leaving).await;
    staying.publish("jobs", "late", &serde_json::json!({})).await;
    swarm.all("the event, or goodbye", secs(5), |log| !log.events.is_empty()).await;
    let got = swarm.logs().filter(|log| log.events[0].name() == "late").count();
    assert!(got > 25, "only {got} of 50 streams got the event");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_a_node_at_once() {
    for (first, second) in [(Signal::SIGTERM, Signal::SIGTERM), (Signal::SIGINT, Signal::SIGINT)] {
        let mut node = Node::builder().set("FANLIGHT_DRAIN", "300s").start().await;
        let swarm = Swarm::open(&[node.addr()], 20, "/stream").await;
        node.process().signal(first);
        turned_away(&node).await;
        assert_eq!(node.process().status(), None, "{first} alone drains");
        node.process().signal(second);
        node.exit(secs(5)).await;
        swarm.all("ended", secs(5), |log| log.ended.is_some()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_streams_ends_without_waiting() {
    let redis = RedisServer::start().await;
    let mut node = Node::start(&redis, &[("FANLIGHT_DRAIN", "300s")]).await;
    drop(node.subscribe("/stream").await);
    node.process().signal(Signal::SIGINT);
    assert_eq!(node.exit(secs(10)).await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_drains_one_node_over_http_and_it_ends_like_after_sigterm() {
    let redis = RedisServer::start().await;
    let settings = [("FANLIGHT_DRAIN", "3s"), ("FANLIGHT_API_KEYS", "0123456789abcdef")];
    let mut leaving = Node::start(&redis, &settings).await;
    let staying = Node::start(&redis, &settings).await;
    let swarm = Swarm::open(&[leaving.addr()], 40, "/stream").await;
    let order = Request::new("POST", "/api/sse/drain");
    assert_eq!(leaving.send(&order).await.code(), "unauthorized");
    let answer = leaving.send(&order.clone().header("x-api-key", "0123456789abcdef")).await;
    assert_eq!(answer.status(), 202, "{}", answer.text());
    let told = answer.json();
    assert_eq!((&told["overMs"], &told["connections"]), (&3000.into(), &40.into()));
    turned_away(&leaving).await;
    assert_eq!(leaving.exit(secs(15)).await.code(), Some(0));
    swarm.all("a goodbye", secs(5), |log| log.events.last().is_some_and(|e| e.name() == "bye")).await;
    drop(staying.subscribe("/stream").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_drained_by_its_name_through_any_other_and_nobody_else_is() {
    let redis = RedisServer::start().await;
    let asked = Node::start(&redis, &[("FANLIGHT_NODE_ID", "asked")]).await;
    let mut meant = Node::start(&redis, &[("FANLIGHT_NODE_ID", "meant-1"), ("FANLIGHT_DRAIN", "1s")]).await;
    let nobody = asked.send(&Request::new("POST", "/api/sse/drain?node=nobody")).await;
    assert_eq!((nobody.status(), nobody.code().as_str()), (404, "not_found"));
    let answer = asked.send(&Request::new("POST", "/api/sse/drain?node=meant-1")).await;
    assert_eq!((answer.status(), &answer.json()["node"]), (202, &"meant-1".into()));
    assert_eq!(meant.exit(secs(15)).await.code(), Some(0));
    drop(asked.subscribe("/stream").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_drain_together_ask_for_longer_pauses_than_one_alone() {
    let redis = RedisServer::start().await;
    let mut nodes = Node::cluster(&redis, 3, &[("FANLIGHT_DRAIN", "8s")]).await;
    let addresses: Vec<_> = nodes.iter().map(Node::addr).collect();
    let swarm = Swarm::open(&addresses, 600, "/stream").await;
    nodes.iter_mut().for_each(Node::terminate);
    swarm.all("ended", secs(30), |log| log.ended.is_some()).await;
    let retries: Vec<u64> = swarm.logs().map(|log| log.events.last().unwrap().retry.unwrap()).collect();
    let usual = 1_000;
    // Before the nodes have seen each other drain, a second or two, pauses are the usual ones.
    let longer = retries.iter().filter(|retry| **retry > usual).count();
    assert!(longer > retries.len() / 4, "{longer} of {} pauses are longer", retries.len());
    assert!(retries.iter().all(|retry| *retry <= 3 * usual));
}
