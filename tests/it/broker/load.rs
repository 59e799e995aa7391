//! Much at once: interruptions under load, queues that overflow, very many channels.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fanlight::broker::{Config, Notice};
use fanlight::protocol::position::Position;
use tokio::task::JoinHandle;

use super::fixture::{self, Fixture, channel, publication};
use crate::support::{RedisServer, eventually, secs};

/// Publishes small batches on three channels until it is told to stop; returns what was acknowledged.
fn publish_until(node: &Fixture, stop: Arc<AtomicBool>) -> JoinHandle<BTreeSet<Position>> {
    let broker = node.broker.clone();
    tokio::spawn(async move {
        let mut acknowledged = BTreeSet::new();
        for i in 0.. {
            let batch: Vec<_> =
                (0..10).map(|k| publication(["a", "b", "c"][(i + k) % 3], &format!("{i}.{k}"))).collect();
            acknowledged.extend(fixture::positions(
                broker.publish(&batch).await.expect("commands are not disturbed"),
            ));
            if stop.load(Ordering::Relaxed) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        acknowledged
    })
}

/// Takes everything until the last of `acknowledged`; each must come exactly once (their order is checked by `next`).
async fn all_arrive(node: &mut Fixture, acknowledged: &BTreeSet<Position>) {
    let last = acknowledged.last().copied();
    let mut found = BTreeSet::new();
    while found.last().copied() < last {
        match node.next().await {
            Notice::Event(delivery) => assert!(found.insert(delivery.position.unwrap())),
            other => panic!("{other:?} after {} of {}", found.len(), acknowledged.len()),
        }
    }
    assert!(&found == acknowledged, "{} of {}", found.len(), acknowledged.len());
}

async fn node_with_durable_channels(server: &RedisServer, config: Config) -> Fixture {
    let mut node = Fixture::redis(server, config);
    node.subscribe(&["a", "b", "c"]).await;
    node.broker.publish(&["a", "b", "c"].map(|name| publication(name, "first"))).await.unwrap();
    for _ in 0..3 {
        node.event().await;
    }
    node
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_cut_subscriptions_under_load_cost_durable_channels_nothing() {
    let server = RedisServer::start().await;
    let config = Config { history_size: 100_000, ..Config::default() };
    let mut node = node_with_durable_channels(&server, config).await;
    let stop = Arc::new(AtomicBool::new(false));
    let publisher = publish_until(&node, stop.clone());
    let status = node.broker.status();
    let kill = async {
        for kill in 1..=50 {
            eventually("it is cut", secs(10), async || {
                match &*server.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]).await {
                    "0" => Err("nobody was subscribed"),
                    _ => Ok(()),
                }
            })
            .await;
            eventually("it is back", secs(10), async || match status.borrow().reconnects {
                reconnects if reconnects >= kill => Ok(()),
                reconnects => Err(reconnects),
            })
            .await;
        }
        stop.store(true, Ordering::Relaxed);
        publisher.await.unwrap()
    };
    let mut found = Vec::new();
    let acknowledged = {
        tokio::pin!(kill);
        loop {
            tokio::select! {
                acknowledged = &mut kill => break acknowledged,
                notice = node.next() => found.push(notice),
            }
        }
    };
    found.extend(node.drain("a").await);
    let positions: Vec<Position> = found
        .iter()
        .map(|notice| match notice {
            Notice::Event(delivery) => delivery.position.unwrap(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(positions, acknowledged.into_iter().collect::<Vec<_>>());
    for name in ["a", "b", "c"] {
        assert_eq!(server.subscribers(name).await, 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscriber_cut_for_its_output_buffer_is_filled() {
    let server = RedisServer::start().await;
    let config = Config { history_size: 100_000, ..Config::default() };
    let mut node = node_with_durable_channels(&server, config).await;
    server.cli(&["CONFIG", "SET", "client-output-buffer-limit", "pubsub 256kb 128kb 1"]).await;
    for round in 1..=3 {
        // One script, so that Redis cannot write anything of it out before the limit is reached.
        let batch: Vec<_> = (0..1000).map(|i| publication(["a", "b"][i % 2], &"x".repeat(1000))).collect();
        let acknowledged = node.publish_all(&batch).await.into_iter().collect();
        all_arrive(&mut node, &acknowledged).await;
        eventually("the limit was reached and it is back", secs(10), async || {
            match node.broker.status().borrow().reconnects {
                reconnects if reconnects >= round => Ok(()),
                reconnects => Err(reconnects),
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_takes_nothing_for_a_while_misses_nothing() {
    let server = RedisServer::start().await;
    let config = Config { history_size: 100_000, ..Config::default() };
    let mut node = node_with_durable_channels(&server, config).await;
    let mut acknowledged = BTreeSet::new();
    for _ in 0..30 {
        let batch: Vec<_> = (0..1000).map(|i| publication(["a", "b", "c"][i % 3], "x")).collect();
        acknowledged.extend(node.publish_all(&batch).await);
    }
    all_arrive(&mut node, &acknowledged).await;
    assert!(node.broker.status().borrow().reconnects > 0, "the queues were not full");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_channels_are_subscribed_and_after_a_cut_only_those_with_news_are_read() {
    const CHANNELS: usize = 20_000;
    let server = RedisServer::start().await;
    let mut node = node_with_durable_channels(&server, Config::default()).await;
    node.wants.add((0..CHANNELS).map(|i| channel(&format!("user:{i}"))));
    node.confirmed().await;
    let subscribed =
        async || server.cli(&["PUBSUB", "CHANNELS", &server.key("user:*")]).await.lines().count();
    assert_eq!(subscribed().await, CHANNELS);
    for i in 0..100 {
        node.publish(&format!("user:{}", i * 7), "1").await;
        node.event().await;
    }
    server.cli(&["CONFIG", "RESETSTAT"]).await;
    server.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
    let position = node.publish("user:7", "2").await;
    let (told, _) = node.gap_after(position).await;
    assert_eq!(told.len(), CHANNELS - 100, "nothing is known of the others");
    node.confirmed().await;
    assert_eq!(subscribed().await, CHANNELS);
    let reads = calls(&server, "xrange").await;
    assert!(reads <= 10, "{reads} histories were read");
}

/// How often Redis has run a command since its statistics were reset.
async fn calls(server: &RedisServer, command: &str) -> usize {
    let stats = server.cli(&["INFO", "commandstats"]).await;
    let line = stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
    line.map_or(0, |rest| rest.split(',').next().unwrap().parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_history_costs_what_it_holds_however_far_back_it_is_asked_for() {
    let server = RedisServer::start().await;
    let node = Fixture::redis(&server, Config::default());
    node.publish("a", "0").await;
    for _ in 0..20 {
        let batch: Vec<_> = (0..10).map(|_| publication("a", &"x".repeat(200_000))).collect();
        node.publish_all(&batch).await;
    }
    server.cli(&["CONFIG", "RESETSTAT"]).await;
    let epoch = node.publish("b", "0").await.epoch;
    let history = node.history(&[("a", Position { epoch, n: 0 })]).await;
    assert!(history.events.len() > 100);
    // 40 MB in pages of 4 MiB; each looks at the first entry, and at 32 at a time.
    let reads = calls(&server, "xrange").await;
    assert!(reads <= 10 * 3, "Redis was asked {reads} times for what is in ten pages");
}
