//! The hub on real sockets; time moves only when a test says so.

mod delivery;
mod draining;
mod endings;
mod listing;
mod replays;
mod slow_readers;
mod timers;

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::protocol::event::Event;

const ROUND: Duration = Duration::from_secs(10);

/// A membership that counts how often it is given back.
struct Counted {
    topics: Vec<TopicId>,
    about: About,
    dropped: Arc<AtomicUsize>,
}

impl Membership for Counted {
    fn topics(&self) -> &[TopicId] {
        &self.topics
    }

    fn about(&self) -> &About {
        &self.about
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.dropped.fetch_add(1, Ordering::SeqCst);
    }
}

struct Fixture {
    hub: Hub,
    clock: Clock,
    listener: TcpListener,
    dropped: Arc<AtomicUsize>,
}

struct Client {
    stream: TcpStream,
    key: ConnectionKey,
}

fn topic(index: u32) -> TopicId {
    TopicId { index, generation: 0 }
}

fn block(data: &str) -> Block {
    Block::event(&Event::unnamed(data), None)
}

fn config() -> Config {
    Config {
        shards: 2,
        heartbeat: Duration::from_secs(1000),
        idle_timeout: Duration::ZERO,
        max_age: Duration::ZERO,
        buffer_events: 50,
        buffer_bytes: 256 * 1024,
        send_timeout: Duration::from_secs(5),
    }
}

impl Fixture {
    fn new(config: &Config) -> Self {
        let clock = Clock::held();
        clock.advance(Duration::from_secs(10_000));
        let hub = Hub::start(config, &clock).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Self { hub, clock, listener, dropped: Arc::default() }
    }

    async fn connect(&self, topics: &[u32], framing: Framing, hello: Option<&str>) -> Client {
        self.attach(topics, framing, hello, None).await
    }

    async fn attach(
        &self,
        topics: &[u32],
        framing: Framing,
        hello: Option<&str>,
        expires_at: Option<Tick>,
    ) -> Client {
        let stream = TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
        stream.set_read_timeout(Some(ROUND)).unwrap();
        let new = NewConnection {
            stream: self.listener.accept().unwrap().0,
            framing,
            id: Uuid::new_v4(),
            hello: hello.map(Block::from_text),
            expires_at,
            membership: Box::new(Counted {
                topics: topics.iter().copied().map(topic).collect(),
                about: About {
                    ip: std::net::Ipv4Addr::LOCALHOST.into(),
                    session: topics.first().map(|topic| format!("s{topic}").into()),
                    user_agent: None,
                },
                dropped: Arc::clone(&self.dropped),
            }),
        };
        Client { stream, key: self.hub.attach(new).await.unwrap() }
    }

    async fn bare(&self, topics: &[u32]) -> Client {
        self.connect(topics, Framing::Bare, Some(":hello\n\n")).await
    }

    async fn expiring(&self, after: Duration) -> Client {
        let expires_at = Some(self.clock.now().after(after));
        self.attach(&[0], Framing::Bare, Some(":hello\n\n"), expires_at).await
    }

    async fn say(&self, index: u32, n: u64, data: &str) {
        let broadcast = Broadcast { topic: topic(index), block: block(data), n, last: false, born: None };
        self.hub.broadcast(broadcast).await;
    }

    /// Waits until the counters are as wanted.
    async fn until(&self, what: &str, wanted: impl Fn(&Counters) -> bool) -> Counters {
        for _ in 0..1000 {
            let counters = self.hub.counters().await;
            if wanted(&counters) {
                return counters;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{what}: {:?}", self.hub.counters().await);
    }
}

impl Client {
    fn expect(&mut self, text: &str) {
        let mut bytes = vec![0; text.len()];
        self.stream.read_exact(&mut bytes).unwrap();
        assert_eq!(String::from_utf8(bytes).unwrap(), text);
    }

    fn rest(&mut self) -> String {
        let mut text = String::new();
        self.stream.read_to_string(&mut text).unwrap();
        text
    }
}
