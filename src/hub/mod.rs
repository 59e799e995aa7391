//! Local fanout: shard threads that own bare sockets and write the same bytes to each subscriber of a topic.
//!
//! The hub has never heard of Redis, of HTTP or of names: it knows topics by number ([`TopicId`]), connections by their
//! socket, and blocks of bytes. Who may connect, what a topic is called and what an event says is decided elsewhere.
//!
//! Each shard is one thread with one poller ([`shard`]). The rest of the node talks to it through one bounded inbox
//! ([`inbox`]); when that is full the sender waits, so that pressure goes back to the broker instead of into memory.

mod connection;
mod counters;
mod drain;
mod inbox;
mod listing;
mod queue;
mod shard;
mod subscribers;
#[cfg(test)]
#[allow(clippy::disallowed_methods)] // blocking sockets on the test side
mod tests;
mod timers;
mod wheel;

use std::io;
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;
use uuid::Uuid;

use crate::clock::{Clock, Tick};
use crate::protocol::close::CloseReason;
use crate::protocol::sse::{Block, Framing};

pub use counters::{Counters, Strain};
use inbox::Inbox;
pub use listing::{About, Listed, Matching, Selection};

/// The number of a topic. Indices are dense and reused; the generation tells a reused one from its predecessor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TopicId {
    /// Position in the tables; small and dense.
    pub index: u32,
    /// Counts the reuses of `index`.
    pub generation: u32,
}

/// What a connection holds for as long as it lives: its place in the tables of the node. Dropped exactly once, when the
/// socket is gone.
pub trait Membership: Send {
    /// The topics that the connection hears; the same slice at every call.
    fn topics(&self) -> &[TopicId];

    /// Who is connected.
    fn about(&self) -> &About;
}

/// How the hub treats its connections.
#[derive(Clone, Debug)]
pub struct Config {
    /// Number of shard threads; at least 1.
    pub shards: usize,
    /// A comment is sent after so long without any byte.
    pub heartbeat: Duration,
    /// Closes after so long without an event; zero means never.
    pub idle_timeout: Duration,
    /// Closes after about so long (±10 %); zero means never.
    pub max_age: Duration,
    /// Events that may wait for one socket.
    pub buffer_events: usize,
    /// Bytes that may wait for one socket; a single larger block is still taken by an empty queue.
    pub buffer_bytes: usize,
    /// A socket that takes nothing for so long is closed; so is one that takes its replay in sips, after a few times this.
    pub send_timeout: Duration,
}

/// A connection whose response head is written and flushed.
pub struct NewConnection {
    /// The socket; made non-blocking by the hub.
    pub stream: TcpStream,
    /// Whether blocks are HTTP/1.1 chunks.
    pub framing: Framing,
    /// The id that the client was told.
    pub id: Uuid,
    /// The first block. Without one the connection is parked: events wait until [`Hub::release`].
    pub hello: Option<Block>,
    /// Closes with `token_expired` when this comes, if it comes before the greatest age.
    pub expires_at: Option<Tick>,
    /// Its topics and whatever must be given back when it ends.
    pub membership: Box<dyn Membership>,
}

/// Where an attached connection is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionKey {
    shard: usize,
    slot: u32,
    generation: u32,
}

/// One block for every subscriber of one topic.
#[derive(Clone, Debug)]
pub struct Broadcast {
    /// The topic.
    pub topic: TopicId,
    /// The bytes.
    pub block: Block,
    /// The event's number in the history; 0 for what has none. A released connection skips what its replay held.
    pub n: u64,
    /// Ends the subscribers after this block, without a `bye`: the stream is complete.
    pub last: bool,
    /// When the event in it came to be; `None` for what is no event.
    pub born: Option<Born>,
}

/// When an event came to be, in microseconds of [`Clock::micros`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Born {
    /// It says itself when it was published.
    Published(u64),
    /// Nobody knows but when it arrived here.
    Arrived(u64),
}

enum Command {
    Attach(Box<NewConnection>, oneshot::Sender<ConnectionKey>),
    Release { key: ConnectionKey, blocks: Vec<Block>, replayed_to: u64, last: bool },
    Broadcast(Broadcast),
    Close(ConnectionKey, CloseReason),
    SharePace(u32),
    Drain { over: Duration, done: oneshot::Sender<()> },
    Count(oneshot::Sender<Counters>),
    Strain(oneshot::Sender<Strain>),
    Shed(usize, oneshot::Sender<usize>),
    List(Arc<Selection>, oneshot::Sender<Vec<Listed>>),
    CloseMatching(Arc<Matching>, CloseReason, oneshot::Sender<usize>),
    Stop,
}

struct ShardHandle {
    inbox: Arc<Inbox>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// The local fanout. Dropping it ends the shard threads and closes every socket.
pub struct Hub {
    shards: Vec<ShardHandle>,
    next: AtomicUsize,
    /// By topic index: which shards may have subscribers (bit = shard). A stale bit costs a look-up and nothing else, so
    /// bits are never cleared.
    interested: Mutex<Vec<u8>>,
}

/// The bit of a shard in [`Hub::interested`]. From nine shards on some share one, which costs look-ups in vain, and keeps
/// it a byte per topic.
const fn bit(shard: usize) -> u8 {
    1 << (shard % 8)
}

impl Hub {
    /// Starts the shard threads.
    ///
    /// # Errors
    /// When the system gives no poller or thread.
    pub fn start(config: &Config, clock: &Clock) -> io::Result<Self> {
        let count = config.shards.max(1);
        let shards = (0..count)
            .map(|index| {
                let (inbox, poll) = Inbox::new()?;
                let inbox = Arc::new(inbox);
                let (config, clock, its_inbox) = (config.clone(), clock.clone(), Arc::clone(&inbox));
                let run = move || shard::Shard::new(index, config, clock, its_inbox, poll).run();
                let thread = std::thread::Builder::new().name(format!("shard-{index}")).spawn(run)?;
                Ok(ShardHandle { inbox, thread: Mutex::new(Some(thread)) })
            })
            .collect::<io::Result<_>>()?;
        Ok(Self { shards, next: AtomicUsize::new(0), interested: Mutex::default() })
    }

    /// Hands a socket to a shard; answers once it is registered, so that whatever is broadcast from then on reaches it.
    /// `None` when the hub is stopping or the socket died; the connection is then gone and its membership given back.
    pub async fn attach(&self, connection: NewConnection) -> Option<ConnectionKey> {
        let index = self.next.fetch_add(1, Ordering::Relaxed) % self.shards.len();
        self.note_interest(connection.membership.topics(), index);
        let (reply, registered) = oneshot::channel();
        self.shards[index].inbox.send(Command::Attach(Box::new(connection), reply)).await;
        registered.await.ok()
    }

    /// Ends the parking of a connection: writes `blocks`, then what came meanwhile without what the blocks already hold
    /// (events numbered up to `replayed_to`). With `last` the stream is complete: it ends after `blocks`.
    pub async fn release(&self, key: ConnectionKey, blocks: Vec<Block>, replayed_to: u64, last: bool) {
        self.shards[key.shard].inbox.send(Command::Release { key, blocks, replayed_to, last }).await;
    }

    /// Gives a block to every shard that cares. Waits while an inbox is full.
    pub async fn broadcast(&self, broadcast: Broadcast) {
        let shards = self.shards_of(broadcast.topic);
        for (index, shard) in self.shards.iter().enumerate() {
            if shards & bit(index) != 0 {
                shard.inbox.send(Command::Broadcast(broadcast.clone())).await;
            }
        }
    }

    /// Ends one connection with a `bye`; does nothing when it is gone.
    pub async fn close(&self, key: ConnectionKey, reason: CloseReason) {
        self.shards[key.shard].inbox.send(Command::Close(key, reason)).await;
    }

    /// Closes every connection, evenly spread over `over`; answers when none is left.
    pub async fn drain(&self, over: Duration) {
        self.ask_all(|done| Command::Drain { over, done }).await;
    }

    /// So many nodes drain at the moment, this one included: their clients come back to the same few others, so each is told to
    /// wait for a time out of so many times the usual span.
    pub async fn share_pace(&self, together: u32) {
        for shard in &self.shards {
            shard.inbox.send(Command::SharePace(together)).await;
        }
    }

    /// Adds up the shards' counters.
    pub async fn counters(&self) -> Counters {
        let mut total = Counters::default();
        self.ask_all(Command::Count).await.iter().for_each(|counters| total.add(counters));
        total
    }

    /// How hard the shards had to work since the last time that this was asked.
    pub async fn strain(&self) -> Strain {
        let mut worst = Strain::default();
        self.ask_all(Command::Strain).await.iter().for_each(|strain| worst.add(strain));
        worst
    }

    /// Ends about `count` connections with `bye` `overloaded`, those first that got no event for the longest time; answers how
    /// many these were.
    pub async fn shed(&self, count: usize) -> usize {
        let share = count.div_ceil(self.shards.len());
        self.ask_all(|reply| Command::Shed(share, reply)).await.into_iter().sum()
    }

    /// The connections of a selection, the shards' parts one after the other: at most its limit from each.
    pub async fn list(&self, selection: Selection) -> Vec<Listed> {
        let selection = Arc::new(selection);
        self.ask_all(|reply| Command::List(Arc::clone(&selection), reply))
            .await
            .into_iter()
            .flatten()
            .collect()
    }

    /// Ends every connection that matches with a `bye`; answers how many these were.
    pub async fn close_matching(&self, matching: Matching, reason: CloseReason) -> usize {
        let matching = Arc::new(matching);
        self.ask_all(|reply| Command::CloseMatching(Arc::clone(&matching), reason, reply))
            .await
            .into_iter()
            .sum()
    }

    /// Asks every shard at once; a shard that has stopped does not answer.
    async fn ask_all<T>(&self, command: impl Fn(oneshot::Sender<T>) -> Command) -> Vec<T> {
        let mut waiting = Vec::with_capacity(self.shards.len());
        for shard in &self.shards {
            let (reply, answer) = oneshot::channel();
            shard.inbox.send(command(reply)).await;
            waiting.push(answer);
        }
        let mut answers = Vec::with_capacity(waiting.len());
        for answer in waiting {
            answers.extend(answer.await);
        }
        answers
    }

    fn note_interest(&self, topics: &[TopicId], shard: usize) {
        let mut interested = self.interested.lock().unwrap_or_else(PoisonError::into_inner);
        for topic in topics {
            let index = topic.index as usize;
            if index >= interested.len() {
                interested.resize(index + 1, 0);
            }
            interested[index] |= bit(shard);
        }
    }

    fn shards_of(&self, topic: TopicId) -> u8 {
        let interested = self.interested.lock().unwrap_or_else(PoisonError::into_inner);
        interested.get(topic.index as usize).copied().unwrap_or(0)
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        for shard in &self.shards {
            shard.inbox.push_always(Command::Stop);
        }
        for shard in &self.shards {
            let thread = shard.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(thread) = thread {
                // A panic of a shard has been reported by the panic hook; there is nobody left to tell.
                let _ = thread.join();
            }
        }
    }
}
