//! Reading history for clients that come back, many at a time.
//!
//! After a node has gone, all of its clients resume at once, mostly on the same channels and from nearly the same place.
//! Each read therefore serves everybody who waits: for each channel it starts at the oldest position asked for, and each
//! client takes its part. A read begins only after all that it serves had asked, so that nothing falls between a client's
//! registration in the hub and the end of its replay.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::resume::READ_LIMIT;
use super::streak::Streak;
use crate::broker::{Broker, BrokerError, History, HistoryRequest};
use crate::protocol::channel::ChannelName;
use crate::protocol::event::Delivery;
use crate::protocol::position::Position;
use crate::protocol::sse::Block;

/// The shortest time between two reads: a storm of clients costs at most two reads in any 100 ms.
const INTERVAL: Duration = Duration::from_millis(60);

/// Clients that may wait for the next read; the others wait for room.
const QUEUE: usize = 4096;

/// A client's wish to catch up.
struct Request {
    channels: Arc<[ChannelName]>,
    after: Position,
    reply: oneshot::Sender<Result<Arc<Replay>, BrokerError>>,
}

/// An answer of the broker with its events encoded, once for everybody who asked.
pub(super) struct Replay {
    pub(super) history: History,
    /// In the order of `history.events`.
    pub(super) blocks: Vec<Block>,
}

impl Replay {
    fn new(history: History) -> Self {
        let encode = |delivery: &Delivery| Block::event(&delivery.event, delivery.position);
        Self { blocks: history.events.iter().map(encode).collect(), history }
    }

    /// The events of `channels` after `after`, with their blocks. After a position of an earlier epoch, all.
    pub(super) fn after<'a>(
        &'a self,
        channels: &'a [ChannelName],
        after: Position,
    ) -> impl Iterator<Item = (&'a Delivery, &'a Block)> {
        let wanted = move |(delivery, _): &(&Delivery, &Block)| {
            delivery.position.is_none_or(|position| position > after) && channels.contains(&delivery.channel)
        };
        self.history.events.iter().zip(&self.blocks).filter(wanted)
    }
}

/// Asks for history. Cheap to clone.
#[derive(Clone)]
pub(super) struct HistoryReader {
    requests: mpsc::Sender<Request>,
    reads: Arc<AtomicU64>,
}

/// Answers the readers; its task must run.
pub(super) struct HistoryTask {
    requests: mpsc::Receiver<Request>,
    broker: Arc<dyn Broker>,
    reads: Arc<AtomicU64>,
    streak: Streak,
}

/// A reader and the task that serves it.
pub(super) fn reader(broker: Arc<dyn Broker>) -> (HistoryReader, HistoryTask) {
    let (sender, requests) = mpsc::channel(QUEUE);
    let reads = Arc::new(AtomicU64::new(0));
    let reader = HistoryReader { requests: sender, reads: Arc::clone(&reads) };
    (reader, HistoryTask { requests, broker, reads, streak: Streak::new("reading histories") })
}

impl HistoryReader {
    /// How often the broker was asked so far.
    pub(super) fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    /// What there is of `channels` after `after`, and perhaps more: others may have asked for an older beginning.
    pub(super) async fn read(
        &self,
        channels: Arc<[ChannelName]>,
        after: Position,
    ) -> Result<Arc<Replay>, BrokerError> {
        let (reply, answer) = oneshot::channel();
        let stopping = |_| BrokerError::Unavailable("the node is shutting down".into());
        let request = Request { channels, after, reply };
        self.requests.send(request).await.map_err(|_| stopping(()))?;
        answer.await.map_err(|_| stopping(()))?
    }
}

impl HistoryTask {
    /// Runs until every reader is gone.
    pub(super) async fn run(mut self) {
        let mut waiting = Vec::new();
        while self.requests.recv_many(&mut waiting, QUEUE).await > 0 {
            let began = Instant::now();
            self.reads.fetch_add(1, Ordering::Relaxed);
            let answer = self.broker.history(&union(&waiting)).await.map(Replay::new).map(Arc::new);
            match &answer {
                Err(error) => self.streak.failed(error),
                Ok(_) if began.elapsed() > READ_LIMIT => self.streak.failed(&"no answer in time"),
                Ok(_) => self.streak.worked(),
            }
            for request in waiting.drain(..) {
                // The client may have left.
                let _ = request.reply.send(answer.clone());
            }
            tokio::time::sleep_until(began + INTERVAL).await;
        }
    }
}

/// One request per channel, from the oldest position that anybody asked for.
fn union(requests: &[Request]) -> Vec<HistoryRequest> {
    let mut oldest: HashMap<&ChannelName, Position> = HashMap::new();
    for request in requests {
        for channel in request.channels.iter() {
            oldest.entry(channel).and_modify(|p| *p = request.after.min(*p)).or_insert(request.after);
        }
    }
    oldest.into_iter().map(|(channel, after)| HistoryRequest { channel: channel.clone(), after }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::{Acknowledgement, Publication, Recipient, Status};
    use futures_util::future::{BoxFuture, FutureExt};
    use std::sync::Mutex;
    use tokio::sync::watch;

    /// Answers with nothing and remembers what it was asked.
    #[derive(Default)]
    struct Asked(Mutex<Vec<Vec<HistoryRequest>>>);

    impl Broker for Asked {
        fn publish<'a>(
            &'a self,
            _: &'a [Publication],
        ) -> BoxFuture<'a, Result<Vec<Acknowledgement>, BrokerError>> {
            std::future::ready(Ok(vec![])).boxed()
        }

        fn history<'a>(
            &'a self,
            requests: &'a [HistoryRequest],
        ) -> BoxFuture<'a, Result<History, BrokerError>> {
            self.0.lock().unwrap().push(requests.to_vec());
            let up_to = Position { epoch: 1, n: 1000 };
            std::future::ready(Ok(History { up_to, lost: 0, events: vec![], floors: HashMap::new() })).boxed()
        }

        fn tell<'a>(&'a self, _: &'a Recipient, _: &'a [u8]) -> BoxFuture<'a, Result<usize, BrokerError>> {
            std::future::ready(Ok(0)).boxed()
        }

        fn mailbox(&self) -> &str {
            ""
        }

        fn status(&self) -> watch::Receiver<Status> {
            watch::channel(Status::default()).1
        }

        fn describe(&self) -> String {
            "test".into()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn everybody_who_waits_is_served_by_one_read_from_the_oldest_position() {
        let broker = Arc::new(Asked::default());
        let (reader, task) = reader(Arc::clone(&broker) as Arc<dyn Broker>);
        let task = tokio::spawn(task.run());
        let jobs: Arc<[ChannelName]> = [ChannelName::parse("jobs").unwrap()].into();
        let clients: Vec<_> = (0..1000u64)
            .map(|i| {
                let (reader, jobs) = (reader.clone(), Arc::clone(&jobs));
                tokio::spawn(async move { reader.read(jobs, Position { epoch: 1, n: 500 - i % 7 }).await })
            })
            .collect();
        for client in clients {
            client.await.unwrap().unwrap();
        }
        let asked = std::mem::take(&mut *broker.0.lock().unwrap());
        assert!(asked.len() <= 2, "{} reads", asked.len());
        assert!(asked.iter().all(|requests| requests.len() == 1));
        assert!(asked.iter().any(|requests| requests[0].after.n == 494));
        drop(reader);
        task.await.unwrap();
    }
}
