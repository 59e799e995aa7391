//! What a shard has counted. Plain integers, owned by its thread and read by snapshot.

use std::time::Duration;

use super::connection::Cause;
use crate::protocol::close::CloseReason;
use crate::protocol::durations::Histogram;
use crate::protocol::latency::Latency;

/// Counts since the start, and gauges of the moment, of one shard or of several added up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections open now.
    pub connections: u64,
    /// Connections ever attached.
    pub opened: u64,
    /// Connections closed by the server, by [`CloseReason`] in the order of [`CloseReason::ALL`].
    pub closed: [u64; CloseReason::ALL.len()],
    /// Connections that the client ended, or that broke.
    pub closed_by_client: u64,
    /// Connections ended because their stream was complete.
    pub completed: u64,
    /// Events handed to the kernel completely.
    pub events_sent: u64,
    /// Bytes handed to the kernel.
    pub bytes_sent: u64,
    /// Blocks broadcast on this shard, whatever their number of subscribers.
    pub broadcasts: u64,
    /// Connections that have something waiting now.
    pub waiting: u64,
    /// Events that wait for sockets now.
    pub waiting_events: u64,
    /// Bytes that wait for sockets now, counted once for each socket.
    pub waiting_bytes: u64,
    /// Events in the longest queue of a connection now.
    pub longest_queue: u64,
    /// How long the turns of the loops took.
    pub turns: Latency,
    /// From an event's publication until the shard's sockets had been given it.
    pub lag_published: Latency,
    /// The same from its arrival, for events that do not say when they were published.
    pub lag_arrived: Latency,
    /// Milliseconds that closed connections had lived, added up.
    pub lived_ms: u64,
    /// How long each of them had lived.
    pub lived: Histogram,
}

/// How hard the shards had to work since this was last asked.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Strain {
    /// The longest turn of a shard's loop. For so long nobody else was served.
    pub longest_turn: Duration,
    /// The fullest inbox, as a share of its capacity.
    pub fullest_inbox: f64,
}

impl Strain {
    /// Another shard's strain as well: the worse of both.
    pub fn add(&mut self, other: &Self) {
        self.longest_turn = self.longest_turn.max(other.longest_turn);
        self.fullest_inbox = self.fullest_inbox.max(other.fullest_inbox);
    }
}

impl Counters {
    /// Adds another shard's counts.
    pub fn add(&mut self, other: &Self) {
        self.connections += other.connections;
        self.opened += other.opened;
        for (mine, theirs) in self.closed.iter_mut().zip(other.closed) {
            *mine += theirs;
        }
        self.closed_by_client += other.closed_by_client;
        self.completed += other.completed;
        self.events_sent += other.events_sent;
        self.bytes_sent += other.bytes_sent;
        self.broadcasts += other.broadcasts;
        self.waiting += other.waiting;
        self.waiting_events += other.waiting_events;
        self.waiting_bytes += other.waiting_bytes;
        self.longest_queue = self.longest_queue.max(other.longest_queue);
        self.turns.add(&other.turns);
        self.lag_published.add(&other.lag_published);
        self.lag_arrived.add(&other.lag_arrived);
        self.lived_ms += other.lived_ms;
        self.lived.add(&other.lived);
    }

    /// Connections ever ended, however.
    pub fn ended(&self) -> u64 {
        self.closed.iter().sum::<u64>() + self.closed_by_client + self.completed
    }

    /// How many streams ended for each cause, by the name that the statistics have for it.
    pub fn closings(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let by_server = CloseReason::ALL.map(|reason| (Cause::Server(reason), self.closed_for(reason)));
        let of_themselves = [(Cause::Client, self.closed_by_client), (Cause::Complete, self.completed)];
        by_server.into_iter().chain(of_themselves).map(|(cause, count)| (cause.name(), count))
    }

    /// How many connections were closed for `reason`.
    pub fn closed_for(&self, reason: CloseReason) -> u64 {
        self.closed[index(reason)]
    }

    pub(super) fn count_close(&mut self, reason: CloseReason) {
        self.closed[index(reason)] += 1;
    }
}

fn index(reason: CloseReason) -> usize {
    CloseReason::ALL.iter().position(|r| *r == reason).unwrap_or(0)
}
