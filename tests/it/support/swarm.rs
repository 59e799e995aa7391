//! Many streams at once: each is read all the time by a task of its own, and what it got can be looked at.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use super::sse::{Block, End, SseClient, SseRequest};
use super::wait::{eventually, secs};

/// How many connections are being opened at the same time.
const OPENING: usize = 256;

/// What one stream of a [`Swarm`] has seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    /// Every event after the first (`connected`) block, control events too.
    pub(crate) events: Vec<Block>,
    /// How many blocks without data came, and when the last one came.
    pub(crate) pings: usize,
    /// The last `retry:` and how often there was one.
    pub(crate) retry: Option<u64>,
    /// How it ended and when; none while it is open.
    pub(crate) ended: Option<(End, Instant)>,
}

impl Log {
    /// The events named `name`.
    pub(crate) fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Block> {
        self.events.iter().filter(move |event| event.name() == name)
    }
}

/// Many open streams; all are cut when dropped.
#[derive(Debug, Default)]
pub(crate) struct Swarm {
    logs: Vec<Arc<Mutex<Log>>>,
    tasks: JoinSet<()>,
    aborts: Vec<AbortHandle>,
}

impl Swarm {
    /// Opens `count` streams of `path`, spread evenly over `nodes` and over source addresses 127.0.1.x, and waits for the
    /// first block of each.
    ///
    /// # Panics
    /// When one is not answered with 200.
    pub(crate) async fn open(nodes: &[SocketAddr], count: usize, path: &str) -> Self {
        let request = SseRequest::new(path).unrecorded();
        let all = (0..count).map(|i| (nodes[i % nodes.len()], request.clone().from(source(i)))).collect();
        Self::open_all(all).await
    }

    /// Opens one stream for each request and waits for the first block of each.
    ///
    /// # Panics
    /// When one is not answered with 200.
    pub(crate) async fn open_all(requests: Vec<(SocketAddr, SseRequest)>) -> Self {
        let mut swarm = Self::default();
        let mut opening = JoinSet::new();
        for (to, request) in requests {
            if opening.len() == OPENING {
                swarm.add(opening.join_next().await.unwrap().unwrap());
            }
            opening.spawn(async move { greeted(request.open(to).await).await });
        }
        while let Some(opened) = opening.join_next().await {
            swarm.add(opened.unwrap());
        }
        swarm
    }

    fn add(&mut self, client: SseClient) {
        let log = Arc::new(Mutex::new(Log::default()));
        self.logs.push(Arc::clone(&log));
        self.aborts.push(self.tasks.spawn(follow(client, log)));
    }

    /// How many streams there are, open or ended.
    pub(crate) fn len(&self) -> usize {
        self.logs.len()
    }

    /// What every stream has seen so far.
    pub(crate) fn logs(&self) -> impl Iterator<Item = MutexGuard<'_, Log>> {
        self.logs.iter().map(|log| log.lock().unwrap())
    }

    /// How many are open.
    pub(crate) fn open_count(&self) -> usize {
        self.logs().filter(|log| log.ended.is_none()).count()
    }

    /// Waits until `condition` holds for every stream.
    pub(crate) async fn all(&self, what: &str, within: Duration, condition: impl Fn(&Log) -> bool) {
        eventually(&format!("each of {} streams: {what}", self.len()), within, async || {
            let missing = self.logs().filter(|log| !condition(log)).count();
            if missing == 0 {
                return Ok(());
            }
            let example = self.logs().find(|log| !condition(log)).map(|log| brief(&log));
            Err(format!("{missing} streams not yet, for example {example:?}"))
        })
        .await;
    }

    /// Waits until every stream has at least `count` events named `name`.
    pub(crate) async fn each_has(&self, count: usize, name: &str, within: Duration) {
        self.all(&format!("{count} × {name}"), within, |log| log.named(name).count() >= count).await;
    }

    /// How often each text was seen that `look` finds in a stream, over all streams.
    pub(crate) fn tally(&self, look: impl Fn(&Log) -> String) -> BTreeMap<String, usize> {
        let mut tally = BTreeMap::new();
        for log in self.logs() {
            *tally.entry(look(&log)).or_default() += 1;
        }
        tally
    }

    /// Cuts the first `count` streams that are still here, without a word.
    pub(crate) fn cut(&mut self, count: usize) {
        for abort in self.aborts.drain(..count) {
            abort.abort();
        }
        self.logs.drain(..count);
    }
}

/// The source address of client `i`: 127.0.1.1 to 127.0.1.250 in turn.
pub(crate) fn source(i: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 1, 1 + (i % 250) as u8)
}

fn brief(log: &Log) -> String {
    let short = |text: &str| text.chars().take(80).collect::<String>();
    let names: Vec<_> = log.events.iter().rev().take(5).map(|e| (e.name(), short(e.text()))).collect();
    format!("{} events, the last {names:?}, {} pings, end {:?}", log.events.len(), log.pings, log.ended)
}

/// A stream is subscribed when its first block is here, not when its head is.
async fn greeted(mut client: SseClient) -> SseClient {
    let hello = client.next_event(secs(20)).await.expect("a first block");
    assert!(hello.text().contains("hello"), "{hello:?}");
    client
}

async fn follow(mut client: SseClient, log: Arc<Mutex<Log>>) {
    loop {
        let next = client.next_block(secs(3600)).await;
        let mut log = log.lock().unwrap();
        match next {
            Ok(block) => {
                log.retry = block.retry.or(log.retry);
                match block.is_event() {
                    true => log.events.push(block),
                    false => log.pings += usize::from(!block.comments.is_empty()),
                }
            }
            Err(end) => {
                log.ended = Some((end, Instant::now()));
                return;
            }
        }
    }
}
