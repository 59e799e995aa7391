//! What one event costs from `Hub::broadcast` to the kernel, by the number of subscribers.
#![allow(missing_docs, clippy::unwrap_used, clippy::disallowed_methods, reason = "a benchmark")]

use std::hint::black_box;
use std::io::Read;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fanlight::clock::Clock;
use fanlight::hub::{About, Broadcast, Config, Hub, Membership, NewConnection, TopicId};
use fanlight::protocol::event::Event;
use fanlight::protocol::sse::{Block, Framing};
use uuid::Uuid;

const TOPIC: TopicId = TopicId { index: 0, generation: 0 };

struct Member(About);

impl Membership for Member {
    fn topics(&self) -> &[TopicId] {
        &[TOPIC]
    }

    fn about(&self) -> &About {
        &self.0
    }
}

fn member() -> Box<dyn Membership> {
    Box::new(Member(About { ip: Ipv4Addr::LOCALHOST.into(), session: None, user_agent: None }))
}

/// A hub with so many readers, each emptied by a thread of its own machine's making.
async fn hub(subscribers: usize) -> Hub {
    let never = Duration::from_secs(100_000);
    let config = Config {
        shards: 1,
        heartbeat: never,
        idle_timeout: Duration::ZERO,
        max_age: Duration::ZERO,
        buffer_events: 1_000,
        buffer_bytes: 1 << 20,
        send_timeout: never,
    };
    let hub = Hub::start(&config, &Clock::system()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut readers = Vec::new();
    for _ in 0..subscribers {
        readers.push(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
        let new = NewConnection {
            stream: listener.accept().unwrap().0,
            framing: Framing::Chunked,
            id: Uuid::new_v4(),
            hello: None,
            expires_at: None,
            membership: member(),
        };
        let key = hub.attach(new).await.unwrap();
        hub.release(key, Vec::new(), 0, false).await;
    }
    std::thread::spawn(move || {
        let mut bytes = vec![0; 1 << 16];
        loop {
            for reader in &mut readers {
                if matches!(reader.read(&mut bytes), Ok(0) | Err(_)) {
                    return;
                }
            }
        }
    });
    hub
}

fn broadcast(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let block = Block::event(&Event::unnamed("x".repeat(150)), None);
    let mut group = c.benchmark_group("broadcast to the kernel");
    for subscribers in [10, 100, 1000] {
        let hub = runtime.block_on(hub(subscribers));
        let mut sent = 0;
        group.throughput(Throughput::Elements(subscribers as u64));
        group.bench_function(BenchmarkId::from_parameter(subscribers), |b| {
            b.iter(|| {
                sent += subscribers as u64;
                runtime.block_on(async {
                    let broadcast = Broadcast {
                        topic: TOPIC,
                        block: black_box(block.clone()),
                        n: 0,
                        last: false,
                        born: None,
                    };
                    hub.broadcast(broadcast).await;
                    while hub.counters().await.events_sent < sent {}
                });
            });
        });
    }
    group.finish();
}

criterion_group!(benches, broadcast);
criterion_main!(benches);
