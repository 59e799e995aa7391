//! What a cluster asks of Redis.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::crowd::{addresses, nodes, of};
use crate::support::process::Process;
use crate::support::{RedisServer, Swarm, check, eventually, full, leases, secs};

/// All commands since the start by `INFO commandstats`, those inside scripts and functions included.
async fn commands(redis: &RedisServer) -> u64 {
    let text = redis.cli(&["INFO", "commandstats"]).await;
    let calls = text.lines().filter_map(|line| {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        let ours = !name.starts_with("info") && !name.starts_with("hgetall") && !name.starts_with("keys");
        ours.then(|| rest.split(',').next()?.parse::<u64>().ok())?
    });
    calls.sum()
}

/// Somebody with an address of their own.
fn own_address(n: usize) -> String {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 0, 0)) + n as u32).to_string()
}

async fn swarm(nodes: &[SocketAddr], clients: std::ops::Range<usize>) -> Swarm {
    Swarm::open_all(clients.map(|n| (nodes[n % nodes.len()], of(&own_address(n)))).collect()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_cluster_asks_redis_as_much_with_ten_thousand_connections_as_with_a_hundred() {
    let redis = RedisServer::start().await;
    let nodes = nodes(&redis, 3, 2).await;
    let (crowd, window) = if full() { (10_000, secs(20)) } else { (1_000, secs(5)) };
    let mut swarms = Vec::new();
    let mut idle = Vec::new();
    for clients in [0..100, 100..crowd] {
        swarms.push(swarm(&addresses(&nodes), clients).await);
        eventually("everybody is counted", secs(20), async || {
            let counted = leases::counted(&redis).await.len();
            check(counted == swarms.iter().map(Swarm::len).sum::<usize>(), counted)
        })
        .await;
        // The statistics of the newcomers are told with the next heartbeats.
        sleep(secs(3)).await;
        let before = commands(&redis).await;
        sleep(window).await;
        idle.push(commands(&redis).await - before);
    }
    println!("commands of an idle cluster in {window:?}: {} with 100, {} with {crowd}", idle[0], idle[1]);
    assert!(idle[1] * 10 <= idle[0] * 12, "{idle:?}");
}

/// Everything that clients of a Redis send, by `MONITOR`.
struct Monitor {
    _process: Process,
    output: tempfile::NamedTempFile,
}

impl Monitor {
    async fn start(redis: &RedisServer) -> Self {
        let output = tempfile::NamedTempFile::new().unwrap();
        let mut command = Command::new("redis-cli");
        command.args(["-p", &redis.addr().port().to_string(), "MONITOR"]).stdin(Stdio::null());
        command.stdout(File::create(output.path()).unwrap());
        let monitor = Self { _process: Process::spawn(&mut command), output };
        eventually("it listens", secs(5), async || check(monitor.text().contains("OK"), "no")).await;
        monitor
    }

    fn text(&self) -> String {
        std::fs::read_to_string(self.output.path()).unwrap()
    }

    /// Commands of clients so far; what a script does on its own is marked `lua`, and what this test asks is left out.
    fn sent(&self) -> usize {
        let asked_here = ["\"KEYS\"", "\"HGETALL\"", "\"INFO\""];
        let text = self.text();
        let sent = text.lines().filter(|line| line.contains("] \"") && !line.contains(" lua] "));
        sent.filter(|line| !asked_here.iter().any(|name| line.contains(name))).count()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_comes_and_goes_costs_three_commands_at_most_and_a_crowd_a_fraction() {
    let redis = RedisServer::start().await;
    let nodes = nodes(&redis, 3, 2).await;
    let addresses = addresses(&nodes);
    // Somebody stays, so that the channels are subscribed all the time.
    let _staying = swarm(&addresses, 0..3).await;
    let (alone, crowd, window) = if full() { (1_000, 9_000, secs(10)) } else { (200, 1_500, secs(3)) };
    let monitor = Monitor::start(&redis).await;
    let start = Instant::now();
    sleep(window).await;
    let per_second = monitor.sent() as f64 / start.elapsed().as_secs_f64();
    let beats = |since: Instant| (since.elapsed().as_secs_f64() * per_second) as usize;

    let (before, start) = (monitor.sent(), Instant::now());
    for n in 0..alone {
        drop(of(&own_address(10 + n)).open(addresses[n % 3]).await);
        // The next one comes when this one is gone, so that nothing is batched.
        if n % 10 == 0 {
            sleep(Duration::from_millis(20)).await;
        }
    }
    let one_by_one = (monitor.sent() - before).saturating_sub(beats(start));
    let (before, start) = (monitor.sent(), Instant::now());
    let swarm = swarm(&addresses, 100_000..100_000 + crowd).await;
    drop(swarm);
    eventually("all are gone", secs(20), async || {
        let left = leases::counted(&redis).await.len();
        check(left == 3, left)
    })
    .await;
    let at_once = (monitor.sent() - before).saturating_sub(beats(start));
    println!(
        "idle {per_second:.1}/s; {alone} one by one: {one_by_one} commands; {crowd} at once: {at_once} commands"
    );
    assert!(one_by_one <= alone * 3, "{one_by_one} commands for {alone} connections");
    assert!(at_once <= crowd, "{at_once} commands for {crowd} connections");
}
