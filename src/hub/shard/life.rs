//! A connection's way through the shard: from the handover to the end of its socket.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use mio::{Interest, Token};
use rand::Rng;
use socket2::SockRef;
use tokio::sync::oneshot;

use super::Shard;
use crate::hub::connection::{Cause, Connection, Phase};
use crate::hub::wheel::{self, WheelTick};
use crate::hub::{ConnectionKey, Matching, NewConnection, TopicId};
use crate::protocol::close::CloseReason;
use crate::protocol::control;
use crate::protocol::sse::Block;

/// What the kernel may hold of a stream (it doubles the figure). Without a cap its autotuning hides megabytes of unsent
/// events per slow reader; 64 KiB take a burst of some hundred usual events.
const SEND_BUFFER: usize = 64 * 1024;

/// Unacknowledged data older than this ends the connection (`TCP_USER_TIMEOUT`, tcp(7)). Heartbeats alone prove nothing:
/// they fit into the kernel's buffer for hours after the peer has vanished.
const USER_TIMEOUT: Duration = Duration::from_secs(20);

impl Shard {
    pub(super) fn attach(&mut self, new: NewConnection, reply: oneshot::Sender<ConnectionKey>) {
        let NewConnection { stream, framing, id, hello, expires_at, membership } = new;
        let entry = self.connections.vacant_entry();
        let slot = u32::try_from(entry.key()).unwrap_or(u32::MAX);
        let mut stream = match prepare(stream) {
            Ok(stream) => stream,
            // The client has gone; dropping the membership gives everything back.
            Err(error) => {
                return tracing::debug!(connection = %id, %error, "a socket was lost at the handover");
            }
        };
        if let Err(error) =
            self.poll.registry().register(&mut stream, Token(slot as usize), Interest::READABLE)
        {
            return tracing::warn!(connection = %id, %error, "cannot watch a socket");
        }
        self.generation = self.generation.wrapping_add(1);
        let mut connection = Connection::new(stream, framing, id, membership, self.generation, self.now);
        self.timers.start(&mut connection, expires_at, self.now, &mut self.rng);
        let places: Vec<u32> =
            connection.membership.topics().iter().map(|topic| self.subscribers.add(*topic, slot)).collect();
        connection.subscribed = true;
        if places.iter().any(|place| *place != 0) {
            connection.places = places.into();
        }
        match hello {
            Some(hello) => connection.push(Rc::new(hello)),
            None => connection.phase = Phase::CatchingUp(Box::default()),
        }
        entry.insert(connection);
        self.counters.opened += 1;
        if let Some(drain) = &mut self.drain {
            drain.add(slot, self.generation);
        }
        // A client that left meanwhile is found by its socket, not by this answer.
        let _ = reply.send(ConnectionKey { shard: self.index, slot, generation: self.generation });
        self.flush(slot);
    }

    pub(super) fn release(&mut self, key: ConnectionKey, blocks: Vec<Block>, replayed_to: u64, last: bool) {
        if let Some(slot) = self.find(key) {
            let connection = &mut self.connections[slot as usize];
            connection.last_event = self.now;
            if last {
                // Past the parking.
                blocks.into_iter().for_each(|block| connection.push(Rc::new(block)));
                return self.finish(slot, Cause::Complete, None, true);
            }
            connection.release(blocks, replayed_to);
            self.touch(slot);
        }
    }

    pub(super) fn close(&mut self, key: ConnectionKey, reason: CloseReason) {
        if let Some(slot) = self.find(key) {
            self.end(slot, reason);
        }
    }

    pub(super) fn close_matching(&mut self, matching: &Matching, reason: CloseReason) -> usize {
        let matches = self.connections.iter().filter(|(_, connection)| matching.takes(connection));
        let slots: Vec<u32> = matches.filter_map(|(slot, _)| u32::try_from(slot).ok()).collect();
        slots.iter().for_each(|slot| self.end(*slot, reason));
        slots.len()
    }

    pub(super) fn find(&self, key: ConnectionKey) -> Option<u32> {
        let connection = self.connections.get(key.slot as usize)?;
        (connection.generation == key.generation).then_some(key.slot)
    }

    /// Ends a connection with a `bye`.
    pub(super) fn end(&mut self, slot: u32, reason: CloseReason) {
        let retry = self.rng.random_range(reason.retry_ms_of(self.draining_together));
        let keep = reason != CloseReason::SlowConsumer;
        self.finish(slot, Cause::Server(reason), Some(control::bye(reason, retry)), keep);
    }

    /// Ends `count` connections, those first that got no event for the longest time; answers how many these were.
    pub(super) fn shed(&mut self, count: usize) -> usize {
        let open = self.connections.iter().filter(|(_, c)| !matches!(c.phase, Phase::Closing(_)));
        let mut idle: Vec<(WheelTick, u32)> =
            open.map(|(slot, c)| (c.last_event, u32::try_from(slot).unwrap_or(u32::MAX))).collect();
        let count = count.min(idle.len());
        if count < idle.len() {
            idle.select_nth_unstable(count);
        }
        for (_, slot) in &idle[..count] {
            self.end(*slot, CloseReason::Overloaded);
        }
        count
    }

    pub(super) fn finish(&mut self, slot: u32, cause: Cause, bye: Option<Block>, keep_waiting: bool) {
        let Some(connection) = self.connections.get_mut(slot as usize) else { return };
        if matches!(connection.phase, Phase::Closing(_)) {
            return;
        }
        connection.begin_close(cause, bye, keep_waiting);
        self.unsubscribe(slot);
        self.flush(slot);
    }

    /// Takes the connection out of its topics' lists.
    pub(super) fn unsubscribe(&mut self, slot: u32) {
        let connection = &mut self.connections[slot as usize];
        if !std::mem::take(&mut connection.subscribed) {
            return;
        }
        let places = std::mem::take(&mut connection.places);
        for i in 0..connection.membership.topics().len() {
            let topic = self.connections[slot as usize].membership.topics()[i];
            let place = places.get(i).copied().unwrap_or(0);
            if let Some(moved) = self.subscribers.remove(topic, place) {
                self.moved(moved, topic, place);
            }
        }
    }

    /// Tells a connection that its place in a topic's list has changed.
    pub(super) fn moved(&mut self, slot: u32, topic: TopicId, place: u32) {
        let Some(connection) = self.connections.get_mut(slot as usize) else { return };
        let topics = connection.membership.topics();
        if let Some(index) = topics.iter().position(|t| *t == topic) {
            if connection.places.is_empty() {
                connection.places = vec![0; topics.len()].into();
            }
            connection.places[index] = place;
        }
    }

    /// The end of a connection: its socket closes and its membership is given back.
    pub(super) fn remove(&mut self, slot: u32, cause: Cause) {
        self.unsubscribe(slot);
        let mut connection = self.connections.remove(slot as usize);
        // Fails only when the socket was never registered.
        let _ = self.poll.registry().deregister(connection.stream());
        if connection.queue.is_empty() {
            connection.shut_down();
        }
        match cause {
            Cause::Server(reason) => self.counters.count_close(reason),
            Cause::Client => self.counters.closed_by_client += 1,
            Cause::Complete => self.counters.completed += 1,
        }
        let lived = self.now.saturating_sub(connection.opened);
        let lived_ms = u64::from(lived) * wheel::GRANULARITY.as_millis() as u64;
        self.counters.lived_ms += lived_ms;
        self.counters.lived.record(lived_ms);
        tracing::debug!(
            connection = %connection.id,
            cause = cause.name(),
            lived_ms,
            events = connection.events_sent,
            bytes = connection.bytes_sent,
            "connection ended"
        );
    }
}

fn prepare(stream: std::net::TcpStream) -> io::Result<mio::net::TcpStream> {
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    let socket = SockRef::from(&stream);
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    Ok(mio::net::TcpStream::from_std(stream))
}
