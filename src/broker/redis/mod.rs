//! The broker over Redis.
//!
//! # Publishing
//! One script appends to the channel's stream, assigns the position, and publishes the durable frame, for a whole
//! batch as one step ([`scripts`], `lua/`). The publishing function for Redis 7 is made of the same source
//! ([`function`]).
//!
//! # Hearing
//! One connection per node under its own supervisor ([`supervisor`]), for ever: connect, check that it is a master
//! and what became of its data, subscribe what the node wants in confirmed batches, fill what was missed from history
//! ([`catch_up`]), go live ([`live`]); on any failure again after a jittered wait. A connection is believed only
//! while its own probe comes back.
//!
//! Positions rise over all channels and a connection keeps their order, so that one number per node ([`course`]) says
//! what has been yielded. Every durable frame names the number before it on its channel: a hole is seen and filled
//! before anything later is delivered. After a reconnect only channels with news are read; the index of last events
//! tells which.
//!
//! # Who is told what after an interruption
//! | what | told |
//! | --- | --- |
//! | a plain `PUBLISH` was seen on the channel since it was subscribed | `broker_interrupted`: plain events have no history |
//! | durable events were seen or are in Redis, and no plain ones | nothing, it is filled |
//! | the same, but the history no longer reaches back | `history_trimmed` |
//! | nothing was ever seen and Redis has no history | `broker_interrupted`: what it missed cannot be known |
//! | Redis has another epoch (came back empty, was flushed) | `history_lost`, every channel |
//! | Redis knows less than the node has seen (rewound) | the same; and the clock moves past what was seen |
//! | another server, a promoted replica, or a restart without an append-only file | `history_lost`, every channel (*) |
//! | the same server restarted with its append-only file, and what was seen last is there | nothing, it is filled |
//!
//! (*) and filled as far as it goes: acknowledged events may be gone that no node has seen.
//!
//! A loss that is noticed is written to the clock, so that a client that was away and resumes later is told as well.
//!
//! This room does not know the hub, does not share history reads between clients, and does not retry a publication:
//! only its sender knows whether it had an idempotency key.

mod catch_up;
mod course;
mod function;
mod health;
mod inbox;
mod live;
mod reader;
mod scripts;
mod seen;
mod server;
mod supervisor;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::{BoxFuture, FutureExt as _};
use tokio::sync::{mpsc, watch};
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use self::health::Health;
use self::reader::Reader;
use self::scripts::Scripts;
use self::supervisor::{Supervisor, Tools};
use super::replay::Replay;
use super::{
    Acknowledgement, Broker, BrokerError, Config, History, HistoryRequest, Interest, NOTICE_QUEUE, Notice,
    Publication, Recipient, Status,
};
use crate::clock::Clock;
use crate::protocol::latency::RoundTrips;
use crate::protocol::position::{N_LIMIT, Position};
use crate::redis::{CommandError, Commands, Invoke as _};

/// Events per script call: a thousand keep Redis for some milliseconds.
const MAX_BATCH: usize = 1000;

/// Starts the broker: it connects, and reconnects, until its [`Owner`] is gone.
///
/// # Panics
/// Outside a tokio runtime.
pub fn start(
    config: Config,
    commands: Commands,
    clock: Clock,
    interest: Arc<dyn Interest>,
) -> (Arc<dyn Broker>, mpsc::Receiver<Notice>, Owner) {
    let (notices, receiver) = mpsc::channel(NOTICE_QUEUE);
    let scripts = Scripts::new(commands.config().keys(), &config);
    let health = Health::new(clock.clone());
    let status = health.watch();
    let max_bytes = config.max_event_bytes;
    let mailbox = Uuid::new_v4().simple().to_string();
    let keys = commands.config().keys().clone();
    let tools = Tools {
        commands: commands.clone(),
        scripts: scripts.clone(),
        clock,
        interest,
        notices,
        max_bytes,
        probe_channel: keys.probe(&mailbox),
        peer_channels: [keys.nodes(), keys.node(&mailbox)],
        keys,
    };
    let supervisor = Supervisor::new(tools, health);
    let owner = Owner { supervisor: AbortOnDropHandle::new(tokio::spawn(supervisor.run())) };
    let broker = RedisBroker { commands, scripts, status, max_bytes, mailbox, epoch: AtomicU64::new(0) };
    (Arc::new(broker), receiver, owner)
}

/// A broker that publishes and reads history but hears nothing, for those who are no node: it has no task, and its
/// status never changes.
pub fn publisher(config: &Config, commands: Commands) -> Arc<dyn Broker> {
    let scripts = Scripts::new(commands.config().keys(), config);
    let status = watch::Sender::new(Status::default());
    Arc::new(RedisBroker {
        commands,
        scripts,
        status,
        max_bytes: config.max_event_bytes,
        mailbox: String::new(),
        epoch: AtomicU64::new(0),
    })
}

/// Owns the broker's task; it ends when this is dropped. Publishing and history go on working.
#[derive(Debug)]
pub struct Owner {
    supervisor: AbortOnDropHandle<()>,
}

impl Owner {
    /// Ends the task and waits until it has.
    pub async fn shutdown(self) {
        self.supervisor.abort();
        // It was told to end; how it did is of no interest.
        let _ = self.supervisor.await;
    }
}

struct RedisBroker {
    commands: Commands,
    scripts: Scripts,
    status: watch::Sender<Status>,
    max_bytes: usize,
    mailbox: String,
    /// The epoch of the last answer, a guess at that of the next one.
    epoch: AtomicU64,
}

impl RedisBroker {
    async fn publish(&self, batch: &[Publication]) -> Result<Vec<Acknowledgement>, BrokerError> {
        let mut acknowledged = Vec::with_capacity(batch.len());
        for part in batch.chunks(MAX_BATCH) {
            let texts: Vec<String> = self.commands.invoke(&self.scripts.publish(part)).await?;
            let parsed: Option<Vec<_>> = texts.iter().map(|text| scripts::acknowledgement(text)).collect();
            let parsed = parsed.filter(|parsed| parsed.len() == part.len());
            acknowledged
                .extend(parsed.ok_or_else(|| BrokerError::Refused("an answer without positions".into()))?);
        }
        Ok(acknowledged)
    }

    async fn history(&self, requests: &[HistoryRequest]) -> Result<History, BrokerError> {
        // Where a read begins depends on the epoch, which is known when it is answered: the last one's is tried first.
        for _ in 0..3 {
            let epoch = self.epoch.load(Ordering::Relaxed);
            if let Some(history) = self.history_in(epoch, requests).await? {
                return Ok(history);
            }
        }
        Err(BrokerError::Unavailable("Redis loses its data again and again".into()))
    }

    /// `None` when Redis is in another epoch.
    async fn history_in(
        &self,
        epoch: u64,
        requests: &[HistoryRequest],
    ) -> Result<Option<History>, BrokerError> {
        let from = |after: Position| match after.epoch {
            earlier if earlier < epoch => 0,
            later if later > epoch => N_LIMIT,
            _ => after.n,
        };
        let channels =
            requests.iter().map(|request| (request.channel.clone(), from(request.after))).collect();
        let mut reader = Reader::new(&self.commands, &self.scripts, self.max_bytes, channels, None);
        let (mut replay, mut end, mut lost) = (Replay::default(), Position { epoch, n: 0 }, 0);
        while let Some(page) = reader.next().await? {
            if page.epoch != epoch {
                self.epoch.store(page.epoch, Ordering::Relaxed);
                return Ok(None);
            }
            (end.n, lost) = (page.up_to, page.lost);
            page.events.into_iter().for_each(|(_, delivery)| replay.push(delivery));
            for (request, floor) in requests.iter().zip(page.floors) {
                replay.complete_after(request.channel.clone(), floor);
            }
        }
        Ok(Some(replay.finish(end, lost)))
    }
}

impl Broker for RedisBroker {
    fn publish<'a>(
        &'a self,
        batch: &'a [Publication],
    ) -> BoxFuture<'a, Result<Vec<Acknowledgement>, BrokerError>> {
        self.publish(batch).boxed()
    }

    fn history<'a>(&'a self, requests: &'a [HistoryRequest]) -> BoxFuture<'a, Result<History, BrokerError>> {
        self.history(requests).boxed()
    }

    fn tell<'a>(&'a self, to: &'a Recipient, words: &'a [u8]) -> BoxFuture<'a, Result<usize, BrokerError>> {
        let keys = self.commands.config().keys();
        let channel = match to {
            Recipient::All => keys.nodes(),
            Recipient::Mailbox(id) => keys.node(id),
        };
        async move {
            let mut publish = redis::cmd("PUBLISH");
            Ok(self.commands.run(publish.arg(channel).arg(words)).await?)
        }
        .boxed()
    }

    fn mailbox(&self) -> &str {
        &self.mailbox
    }

    fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    fn round_trips(&self) -> RoundTrips {
        self.commands.config().timings().get()
    }

    fn describe(&self) -> String {
        self.commands.config().to_string()
    }
}

impl From<CommandError> for BrokerError {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::Unavailable(why) => Self::Unavailable(why),
            CommandError::Refused(why) => Self::Refused(why),
        }
    }
}
