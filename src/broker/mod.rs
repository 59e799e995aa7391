//! Pub/sub and history behind one trait, with two implementations that pass the same contract suite.
//!
//! The broker has never heard of the hub: it yields [`Notice`]s in order on a bounded queue, and asks an [`Interest`]
//! which channels are wanted. It does not know who subscribes or how events reach a socket.

pub mod memory;
pub mod redis;
mod replay;

use std::collections::HashMap;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::{Notify, watch};

use crate::clock::Tick;
use crate::protocol::channel::ChannelName;
use crate::protocol::close::GapReason;
use crate::protocol::event::{Delivery, Event};
use crate::protocol::latency::RoundTrips;
use crate::protocol::position::Position;

/// How many [`Notice`]s wait for the node at most. When it is full the memory broker makes its publishers wait, and the
/// Redis broker stops reading until its own queue behind it overflows, which it treats as an interruption: cut,
/// reconnect, fill.
pub const NOTICE_QUEUE: usize = 4096;

/// The settings that both brokers share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// How many events a channel's history keeps at least; 1 or more.
    pub history_size: usize,
    /// How long a channel's history is kept after its last event.
    pub history_ttl: Duration,
    /// Events from Redis with more data than this are dropped and counted.
    pub max_event_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { history_size: 1000, history_ttl: Duration::from_secs(3600), max_event_bytes: 256 * 1024 }
    }
}

/// What a broker yields, in order, on one bounded queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// An event, live or filled in from history after an interruption; positions never go back. It may be of a channel
    /// that nobody wants (any more).
    Event(Delivery),
    /// Events of these channels may be missing before the next notice. Whoever still waits for the confirmation of a
    /// channel need not be told.
    Gap {
        /// The affected channels, all of them wanted.
        channels: Vec<ChannelName>,
        /// Why.
        reason: GapReason,
    },
    /// Every durable event up to here, on a channel that was wanted when it was published, has been yielded: whoever begins to
    /// listen now and comes back with this position misses none. Comes with every probe and every change of what is
    /// wanted; events say it by their own positions.
    Passed(Position),
    /// What a node of the cluster, perhaps this one, said with [`Broker::tell`].
    Peer(Vec<u8>),
}

/// Whom a node talks to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recipient {
    /// Every node, itself included.
    All,
    /// The node with this [`Broker::mailbox`].
    Mailbox(String),
}

/// An event to be published.
#[derive(Clone, Debug)]
pub struct Publication {
    /// Where.
    pub channel: ChannelName,
    /// What.
    pub event: Event,
    /// A key that was used before on the same channel answers the first position again and delivers nothing, for as
    /// long as a quiet channel's history is kept; at most [`MAX_FIELD_LEN`](crate::protocol::event::MAX_FIELD_LEN)
    /// bytes.
    pub idempotency_key: Option<Box<str>>,
}

/// What became of a publication that the broker has acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acknowledgement {
    /// It is in the history, at this position.
    Appended(Position),
    /// Its idempotency key had been used before, for the event at this position, whatever that one said. Nothing of the
    /// publication is anywhere.
    Repeated(Position),
}

impl Acknowledgement {
    /// What its publisher is answered.
    pub const fn position(self) -> Position {
        match self {
            Self::Appended(position) | Self::Repeated(position) => position,
        }
    }

    /// Where the publication is; `None` when it is nowhere.
    pub const fn appended(self) -> Option<Position> {
        match self {
            Self::Appended(position) => Some(position),
            Self::Repeated(_) => None,
        }
    }
}

/// A durable channel that somebody wants to catch up on.
#[derive(Clone, Debug)]
pub struct HistoryRequest {
    /// The channel.
    pub channel: ChannelName,
    /// Everything after this position is wanted.
    pub after: Position,
}

/// The answer to a list of [`HistoryRequest`]s: one consistent view of all of them.
#[derive(Clone, Debug)]
pub struct History {
    /// Everything up to here is included; whatever comes later arrives live.
    pub up_to: Position,
    /// All events asked for, over all channels, in the order of their positions. For a channel with a gap, what there
    /// is of it.
    pub events: Vec<Delivery>,
    /// Up to this number events of any channel may be missing without a trace (Redis lost some and went on); 0 when
    /// none are.
    pub lost: u64,
    /// For each channel asked for: everything after this number is in `events`, as far as it was asked for.
    pub floors: HashMap<ChannelName, u64>,
}

impl History {
    /// Why a client at `after` has not got everything of `channel` with this answer; `None` when it has.
    pub fn gap(&self, channel: &ChannelName, after: Position) -> Option<GapReason> {
        let floor = self.floors.get(channel).copied().unwrap_or(0);
        replay::Extent { floor, lost: self.lost, end: self.up_to }.judge(after).1
    }
}

/// How the broker is doing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Status {
    /// The subscriber connection stands and everything wanted is confirmed.
    pub subscribed: bool,
    /// The last probe's way through the broker and back.
    pub lag: Option<Duration>,
    /// When the last probe came back.
    pub probed_at: Option<Tick>,
    /// How often the subscriber connection was made again.
    pub reconnects: u64,
    /// Payloads that were dropped because no event could be read from them.
    pub dropped: u64,
    /// Why it is not subscribed, for people; without secrets.
    pub problem: Option<String>,
}

/// Why nothing was published.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BrokerError {
    /// The broker could not be reached in time. Whether it took the events is not known; an idempotency key makes a
    /// second try safe.
    #[error("the broker cannot be reached: {0}")]
    Unavailable(String),
    /// The broker refused (for example out of memory, or read-only).
    #[error("the broker refused: {0}")]
    Refused(String),
}

/// Pub/sub and history.
pub trait Broker: Send + Sync + 'static {
    /// Appends to the channels' histories, assigns the positions and publishes, as one step and in one round trip: all or
    /// none of up to a thousand events. What is acknowledged is in the history.
    fn publish<'a>(
        &'a self,
        batch: &'a [Publication],
    ) -> BoxFuture<'a, Result<Vec<Acknowledgement>, BrokerError>>;

    /// Reads what came after the given positions; one request per channel.
    fn history<'a>(&'a self, requests: &'a [HistoryRequest]) -> BoxFuture<'a, Result<History, BrokerError>>;

    /// Says something to other nodes, at most once and to those that listen at the moment; answers how many these are.
    fn tell<'a>(&'a self, to: &'a Recipient, words: &'a [u8]) -> BoxFuture<'a, Result<usize, BrokerError>>;

    /// The name under which this node alone is reached.
    fn mailbox(&self) -> &str;

    /// How it is doing, and every change of it.
    fn status(&self) -> watch::Receiver<Status>;

    /// The commands that it and whoever else is at the same server have sent; none where there is no server.
    fn round_trips(&self) -> RoundTrips {
        RoundTrips::default()
    }

    /// What it is, for people: `embedded` or the Redis URL with its secrets masked.
    fn describe(&self) -> String;
}

/// A change of what is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InterestChanges {
    /// Wanted, not subscribed yet.
    pub subscribe: Vec<ChannelName>,
    /// Subscribed, no longer wanted.
    pub unsubscribe: Vec<ChannelName>,
}

/// Which channels the node wants to hear; the broker reconciles its subscriptions with it.
///
/// It is a level, not a stream of orders: a broker that lost its connection calls [`reset`](Interest::reset) and takes
/// all of it again.
pub trait Interest: Send + Sync + 'static {
    /// Rung (by `notify_one`, which is not lost on a broker that is busy) when
    /// [`take_changes`](Interest::take_changes) may have something.
    fn changed(&self) -> &Notify;

    /// At most `max` changes since the last call, marked as being carried out.
    fn take_changes(&self, max: usize) -> InterestChanges;

    /// These are subscribed: whoever waits for them may go on.
    fn confirmed(&self, channels: &[ChannelName]);

    /// Nothing is subscribed any more: everything wanted is a change again. Whoever waits goes on waiting.
    fn reset(&self);

    /// Calls `visit` for every channel that is wanted now.
    fn for_each_wanted(&self, visit: &mut dyn FnMut(&ChannelName));
}

impl InterestChanges {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.subscribe.is_empty() && self.unsubscribe.is_empty()
    }
}
