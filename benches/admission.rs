//! How fast connections come in: three doors of this process on one `redis-server`, and the script by itself.
//!
//! `cargo bench --bench admission`. Not a criterion benchmark: it measures storms, not repetitions of one call.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a benchmark fails by panicking, and takes the time"
)]
#![allow(missing_docs, reason = "a program")]

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fanlight::admission::lease::call::Call;
use fanlight::admission::lease::state::Lease;
use fanlight::admission::local::Ledger;
use fanlight::admission::{
    Admission, Config, IpKey, LeaseStore as _, Limits, NodeTag, Permit, RedisLeases, Request, SessionKey,
    SessionPolicy, WithoutRedis,
};
use fanlight::clock::Clock;
use hdrhistogram::Histogram;

const CLIENTS: usize = 15_000;
const LIMITS: Limits = Limits { per_ip: 2, per_session: 1, policy: SessionPolicy::Reject };

struct Redis(Child, String);

impl Redis {
    fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new("redis-server");
        command.args(["--port", &port.to_string(), "--save", ""]).stdout(Stdio::null());
        Self(command.spawn().unwrap(), format!("redis://127.0.0.1:{port}"))
    }

    fn leases(&self) -> RedisLeases {
        RedisLeases::new(fanlight::redis::Config::new(&self.1, "bench:").unwrap())
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn client(n: usize) -> Request {
    let [a, b, c, d] = (n as u32).to_be_bytes();
    Request { ip: IpKey::V4([a, b, c, d]), session: Some(SessionKey::of(&n.to_string())) }
}

async fn storm(doors: &[Arc<Admission>]) -> Vec<Permit> {
    let start = Instant::now();
    let tries = (0..CLIENTS).map(|n| {
        let door = Arc::clone(&doors[n % doors.len()]);
        tokio::spawn(async move {
            let asked = Instant::now();
            let permit = door.admit(client(n)).await.unwrap();
            (permit, asked.elapsed())
        })
    });
    let mut latency = Histogram::<u64>::new(3).unwrap();
    let mut permits = Vec::new();
    for answer in tries.collect::<Vec<_>>() {
        let (permit, took) = answer.await.unwrap();
        latency.record(took.as_micros() as u64).unwrap();
        permits.push(permit);
    }
    let rate = CLIENTS as f64 / start.elapsed().as_secs_f64();
    let calls: u64 = doors.iter().map(|door| door.status().calls).sum();
    let [p50, p99] = [0.5, 0.99].map(|q| Duration::from_micros(latency.value_at_quantile(q)));
    println!("storm: {rate:.0}/s, p50 {p50:?}, p99 {p99:?}; {calls} calls so far");
    permits
}

/// Calls of the script with so many requests each, one after the other.
async fn script(redis: &Redis, requests: usize, calls: usize) {
    let (store, mut ledger) = (redis.leases(), Ledger::new(LIMITS));
    let mut lease = Lease::new(NodeTag::random(), Duration::from_secs(15), Duration::ZERO);
    let clients: Vec<Request> = (0..requests).map(|n| client(1_000_000 + n)).collect();
    let mut took = Duration::ZERO;
    for _ in 0..calls {
        let call = lease.next_call(&mut ledger, &clients, false);
        let start = Instant::now();
        let reply = store.call(&call).await.unwrap();
        took += start.elapsed();
        lease.settle(&mut ledger, &call, reply);
        if let Call::Apply(_) = call {
            clients.iter().for_each(|client| {
                while ledger.meets(client).is_some() {
                    ledger.leave(client, None);
                }
            });
        }
    }
    let per_second = calls as f64 / took.as_secs_f64();
    println!(
        "script: {requests} requests per call: {per_second:.0} calls/s, {:.0} requests/s",
        per_second * requests as f64
    );
}

#[tokio::main(worker_threads = 2)]
async fn main() {
    let redis = Redis::start();
    let config = Config {
        max_connections: 100_000,
        limits: LIMITS,
        connect_rate: None,
        lease_ttl: Duration::from_secs(15),
        without_redis: WithoutRedis::Closed,
    };
    let door = || Admission::clustered(config.clone(), Arc::new(redis.leases()), Clock::system(), |_| {});
    let doors: Vec<Arc<Admission>> = (0..3).map(|_| Arc::new(door())).collect();
    for door in &doors {
        // Redis may still be starting.
        let mut tries = 0;
        while let Err(refusal) = door.admit(client(0)).await {
            tries += 1;
            assert!(tries < 100, "{refusal}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    for _ in 0..3 {
        drop(storm(&doors).await);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    for (requests, calls) in [(1, 5000), (10, 2000), (100, 500), (500, 100)] {
        script(&redis, requests, calls).await;
    }
}
