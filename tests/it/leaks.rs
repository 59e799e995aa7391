//! Connections come and go in every way that a network knows, and afterwards nothing of them is left: no file, no
//! subscription, no slot, no memory.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::support::http::connect;
use crate::support::swarm::source;
use crate::support::wait::{check, secs};
use crate::support::{Node, RedisServer, SseRequest, eventually, full, leases};

/// How many connections `make chaos` opens; `make test` opens a fifth.
const CYCLES: usize = 100_000;

/// How many are in the middle of their life at the same time.
const AT_ONCE: usize = 64;

/// How many connections it takes until the pools and the allocator have reached their size.
const WARM_UP: usize = 25_000;

/// After which share of the connections the figures are taken: memory moves by some MiB up and down from one time to the
/// next, and a leak is what only goes up.
const ROUNDS: usize = 6;

/// By how much the least of the later rounds may lie above the most of the earlier ones.
const SLACK_KIB: u64 = 512;

fn cycles() -> usize {
    if full() { CYCLES } else { CYCLES / 5 }
}

/// One connection's life, by its number: each fifth alike.
async fn cycle(to: SocketAddr, i: usize) {
    let path = format!("/api/sse/stream?channels=jobs,public:{}&session=s{}", i % 1000, i % 300);
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    match i % 5 {
        0 => stay_and_leave(to, i, &path).await,
        1 => SseRequest::new(&path).from(source(i)).unrecorded().open(to).await.reset(),
        2 => cut(to, i, &request.as_bytes()[..1 + i % (request.len() - 1)], Duration::ZERO).await,
        3 => cut(to, i, b"", Duration::ZERO).await,
        // Anywhere between the handshake and the first block.
        _ => cut(to, i, request.as_bytes(), Duration::from_micros((i * 37 % 2000) as u64)).await,
    }
}

async fn stay_and_leave(to: SocketAddr, i: usize, path: &str) {
    let mut client = SseRequest::new(path).from(source(i)).unrecorded().open(to).await;
    client.next_event(secs(10)).await.expect("a first block");
}

/// Sends `bytes`, waits for `pause`, and closes with RST.
async fn cut(to: SocketAddr, i: usize, bytes: &[u8], pause: Duration) {
    let mut stream = connect(to, Some(source(i).into()), None).await.unwrap();
    let _ = stream.write_all(bytes).await;
    sleep(pause).await;
    let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
}

async fn run(to: SocketAddr, count: usize) {
    let mut running = JoinSet::new();
    for i in 0..count {
        if running.len() == AT_ONCE {
            running.join_next().await.unwrap().unwrap();
        }
        running.spawn(cycle(to, i));
    }
    while let Some(ended) = running.join_next().await {
        ended.unwrap();
    }
}

/// The Redis channels that anyone is subscribed to, and how many connections to each.
async fn subscriptions(redis: &RedisServer) -> String {
    let channels = redis.cli(&["PUBSUB", "CHANNELS"]).await;
    let mut names: Vec<&str> = channels.lines().filter(|name| !name.is_empty()).collect();
    names.sort_unstable();
    redis.cli(&[&["PUBSUB", "NUMSUB"][..], &names[..]].concat()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_come_and_go_in_every_way_leave_nothing_behind() {
    let redis = RedisServer::start().await;
    let mut node = Node::start(
        &redis,
        &[
            ("FANLIGHT_CHANNELS", "jobs,pending-changes,public:*"),
            ("FANLIGHT_LOG", "info"),
            // High enough for everybody, so that slots are taken and given back.
            ("FANLIGHT_MAX_PER_IP", "1000"),
            ("FANLIGHT_MAX_PER_SESSION", "1000"),
        ],
    )
    .await;
    let baseline = subscriptions(&redis).await;
    run(node.addr(), WARM_UP).await;
    let files = settled(&mut node, &redis, &baseline).await;
    let mut memory = Vec::new();
    for _ in 0..ROUNDS {
        run(node.addr(), cycles() / ROUNDS).await;
        assert_eq!(settled(&mut node, &redis, &baseline).await, files, "open files");
        memory.push(node.process().pss_kib());
    }
    println!("{files} files and the memory in KiB after each {} connections: {memory:?}", cycles() / ROUNDS);
    let (early, late) = memory.split_at(ROUNDS / 2);
    let flat = late.iter().min().unwrap() <= &(early.iter().max().unwrap() + SLACK_KIB);
    assert!(flat, "KiB after each {} connections: {memory:?}", cycles() / ROUNDS);
    assert_eq!(node.get("/health").await.json()["stream"]["active_connections"], 0);
}

/// Waits until the subscriptions are what they were, no slot is taken and the open files stay the same; returns how many.
async fn settled(node: &mut Node, redis: &RedisServer, baseline: &str) -> usize {
    // Half requests live until the header time-out of 10 s, and interest lingers.
    eventually("the subscriptions are what they were", secs(60), async || {
        let now = subscriptions(redis).await;
        check(now == baseline, now.lines().take(6).collect::<Vec<_>>().join(" "))
    })
    .await;
    eventually("no stream is counted", secs(20), async || {
        let active = node.get("/health").await.json()["stream"]["active_connections"].clone();
        check(active == 0, active)
    })
    .await;
    leases::come_to(redis, &BTreeMap::new()).await;
    let mut last = (0, 0);
    eventually("the open files stay the same", secs(20), async || {
        let now = node.open_files(redis).await;
        last = if now == last.0 { (now, last.1 + 1) } else { (now, 0) };
        check(last.1 >= 100, format!("{now} files"))
    })
    .await;
    last.0
}
