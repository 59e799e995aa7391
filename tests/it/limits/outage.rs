//! Redis stands still in the middle of a storm: everybody is answered all the same, and who is inside stays.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::crowd::{builder, of};
use crate::support::{Node, NodeBuilder, RedisServer, SseRequest, Swarm, full, leases, secs};

/// Between two `: ping` of a stream.
const HEARTBEAT: Duration = secs(1);

/// How long a client waits before it comes again; in this time each comes once.
const SPREAD: Duration = secs(1);

/// Within what everybody is answered while Redis stands still. `make test` shares the machine with other tests, so that
/// its figure says no more than that nobody waits for Redis.
fn limit() -> Duration {
    if full() { secs(1) } else { secs(3) }
}

fn address(n: usize) -> String {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 0, 0)) + n as u32).to_string()
}

/// One that comes while Redis stands still: its status and how long it waited for it.
async fn newcomer(node: SocketAddr, request: SseRequest) -> (u16, Duration) {
    let asked = Instant::now();
    let stream = request.try_open(node).await.expect("an answer");
    (stream.head.status, asked.elapsed())
}

/// `clients` loop until `until`, each with an address of its own and in its turn a channel that nobody has heard before.
async fn storm(nodes: &[SocketAddr], clients: usize, until: Instant) -> Vec<(u16, Duration)> {
    let mut tasks = JoinSet::new();
    for n in 0..clients {
        let node = nodes[n % nodes.len()];
        tasks.spawn(async move {
            let mut answers = Vec::new();
            sleep(SPREAD * n as u32 / clients as u32).await;
            for round in 0.. {
                if Instant::now() >= until {
                    break;
                }
                let request = match n % 2 {
                    0 => SseRequest::new(&format!("/stream?channels=public:{n}-{round}"))
                        .header("X-Forwarded-For", &address(n))
                        .unrecorded(),
                    _ => of(&address(n)),
                };
                answers.push(newcomer(node, request).await);
                sleep(SPREAD).await;
            }
            answers
        });
    }
    tasks.join_all().await.concat()
}

fn configured(redis: &RedisServer, policy: &str) -> NodeBuilder {
    builder(redis, 100)
        .set("FANLIGHT_CHANNELS", "jobs,pending-changes,public:*")
        .set("FANLIGHT_HEARTBEAT", format!("{}s", HEARTBEAT.as_secs()))
        .set("FANLIGHT_LIMITS_WITHOUT_REDIS", policy)
}

async fn redis_stands_still_during_a_storm(policy: &str, status: u16) {
    let mut redis = RedisServer::start().await;
    let mut nodes: Vec<Node> = Vec::new();
    for _ in 0..3 {
        nodes.push(configured(&redis, policy).start().await);
    }
    let addresses: Vec<SocketAddr> = nodes.iter().map(Node::addr).collect();
    let old = (0..60).map(|n| (addresses[n % 3], of("192.0.2.9"))).collect();
    let old = Swarm::open_all(old).await;
    let (clients, during) = if full() { (1_500, secs(15)) } else { (45, secs(4)) };
    // A storm with a Redis first: everybody comes in.
    let answers = storm(&addresses, clients, Instant::now() + secs(1)).await;
    assert!(answers.iter().all(|(status, _)| *status == 200), "{answers:?}");
    let pings_before: Vec<usize> = old.logs().map(|log| log.pings).collect();
    redis.pause();
    let start = Instant::now();
    let answers = storm(&addresses, clients, start + during).await;
    let beats = (start.elapsed().as_secs_f64() / HEARTBEAT.as_secs_f64()) as usize;
    let slowest = answers.iter().map(|(_, waited)| *waited).max().unwrap();
    let late = answers.iter().filter(|(_, waited)| *waited > Duration::from_millis(850)).count();
    println!("{policy}: {late} of {} waited longer than 0.85 s", answers.len());
    println!("{policy}: {} answers while Redis stood still, the slowest after {slowest:?}", answers.len());
    assert!(answers.iter().all(|(got, _)| *got == status), "{policy}: {answers:?}");
    assert!(slowest <= limit(), "{policy}: {slowest:?}");
    assert_eq!(old.open_count(), old.len(), "old streams stay open");
    for (log, before) in old.logs().zip(pings_before) {
        // One may be about to come, and one may have come late.
        assert!(log.pings - before + 2 >= beats, "{policy}: {} pings in {beats}", log.pings - before);
    }
    redis.resume();
    drop(old);
    leases::come_to(&redis, &std::collections::BTreeMap::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_local_limits_everybody_is_answered_by_the_node_alone() {
    redis_stands_still_during_a_storm("local", 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_closed_doors_everybody_is_refused_in_time() {
    redis_stands_still_during_a_storm("closed", 503).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_open_doors_everybody_comes_in_in_time() {
    redis_stands_still_during_a_storm("open", 200).await;
}
