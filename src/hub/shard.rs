//! One shard: a thread, a poller, a slab of sockets.
//!
//! A turn of the loop: wait for readiness, a command or the next timer tick; take all commands and append their blocks
//! to the subscribers' queues; look at the timers; then flush the touched sockets, some hundreds at a time, so that a
//! broadcast to everybody does not keep the poller, the timers and other topics waiting.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mio::event::Event;
use mio::{Events, Interest, Poll, Token};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use slab::Slab;
use socket2::SockRef;
use tokio::sync::oneshot;

use super::connection::{Cause, Connection, Phase, Taken, Wrote};
use super::counters::Counters;
use super::drain::Drain;
use super::inbox::{Inbox, WAKE};
use super::subscribers::Subscribers;
use super::timers::{Due, Timers};
use super::wheel::{self, Wheel, WheelTick};
use super::{Broadcast, Command, Config, ConnectionKey, NewConnection, TopicId};
use crate::clock::Clock;
use crate::protocol::close::CloseReason;
use crate::protocol::control;
use crate::protocol::sse::Block;

/// Sockets flushed before the poller is looked at again.
const FLUSHES_PER_TURN: usize = 512;

/// What the kernel may hold of a stream (it doubles the figure). Without a cap its autotuning hides megabytes of unsent
/// events per slow reader; 64 KiB take a burst of some hundred usual events.
const SEND_BUFFER: usize = 64 * 1024;

/// Unacknowledged data older than this ends the connection (`TCP_USER_TIMEOUT`, tcp(7)). Heartbeats alone prove nothing:
/// they fit into the kernel's buffer for hours after the peer has vanished.
const USER_TIMEOUT: Duration = Duration::from_secs(20);

pub(super) struct Shard {
    index: usize,
    config: Config,
    clock: Clock,
    inbox: Arc<Inbox>,
    poll: Poll,
    timers: Timers,
    connections: Slab<Connection>,
    subscribers: Subscribers,
    wheel: Wheel,
    /// Slots with something to write whose socket is not known to be full. A slot that was emptied or reused meanwhile
    /// costs a look and nothing else.
    dirty: VecDeque<u32>,
    drain: Option<Drain>,
    counters: Counters,
    heartbeat: Rc<Block>,
    generation: u32,
    now: WheelTick,
    rng: SmallRng,
}

impl Shard {
    pub(super) fn new(index: usize, config: Config, clock: Clock, inbox: Arc<Inbox>, poll: Poll) -> Self {
        let now = wheel::wheel_tick(clock.now());
        Self {
            index,
            timers: Timers::new(&config),
            config,
            clock,
            inbox,
            poll,
            connections: Slab::new(),
            subscribers: Subscribers::default(),
            wheel: Wheel::new(now),
            dirty: VecDeque::new(),
            drain: None,
            counters: Counters::default(),
            heartbeat: Rc::new(Block::comment("ping")),
            generation: 0,
            now,
            rng: SmallRng::from_os_rng(),
        }
    }

    /// Runs until it is told to stop; every socket is closed then.
    pub(super) fn run(mut self) {
        let mut events = Events::with_capacity(1024);
        let mut batch = Vec::new();
        loop {
            match self.poll.poll(&mut events, self.patience()) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => {
                    tracing::error!(shard = self.index, %error, "the poller failed; the shard ends");
                    return;
                }
            }
            self.now = wheel::wheel_tick(self.clock.now());
            for event in &events {
                if event.token() != WAKE {
                    self.on_ready(event);
                }
            }
            self.inbox.take(&mut batch);
            if self.carry_out(&mut batch) {
                return;
            }
            self.look_at_timers();
            self.close_drained();
            self.flush_some();
        }
    }

    /// How long the poller may wait.
    fn patience(&self) -> Option<Duration> {
        if !self.dirty.is_empty() {
            return Some(Duration::ZERO);
        }
        (!self.wheel.is_empty() || self.drain.is_some()).then_some(wheel::GRANULARITY)
    }

    fn on_ready(&mut self, event: &Event) {
        let Ok(slot) = u32::try_from(event.token().0) else { return };
        let Some(connection) = self.connections.get_mut(slot as usize) else { return };
        if event.is_writable() && connection.blocked {
            self.flush(slot);
        }
        let Some(connection) = self.connections.get_mut(slot as usize) else { return };
        let alive = !event.is_error() && (!event.is_readable() || connection.discard_input());
        if !alive {
            self.remove(slot, Cause::Client);
        }
    }

    /// Carries out a batch of commands. Consecutive broadcasts to one topic become one block: a burst costs one write
    /// per socket instead of one per event. `true` means stop.
    fn carry_out(&mut self, batch: &mut Vec<Command>) -> bool {
        let mut run: Vec<Broadcast> = Vec::new();
        for command in batch.drain(..) {
            if let Command::Broadcast(broadcast) = command {
                let joins = run.last().is_none_or(|b| b.topic == broadcast.topic && !b.last);
                if !joins {
                    self.broadcast(&mut run);
                }
                run.push(broadcast);
                continue;
            }
            self.broadcast(&mut run);
            match command {
                Command::Attach(connection, reply) => self.attach(*connection, reply),
                Command::Release { key, blocks, replayed_to } => self.release(key, blocks, replayed_to),
                Command::Close(key, reason) => self.close(key, reason),
                Command::Drain { over, done } => self.begin_drain(over, done),
                // Whoever asked may have stopped waiting.
                Command::Count(reply) => drop(reply.send(self.count())),
                Command::Stop => return true,
                Command::Broadcast(_) => {}
            }
        }
        self.broadcast(&mut run);
        false
    }

    fn attach(&mut self, new: NewConnection, reply: oneshot::Sender<ConnectionKey>) {
        let NewConnection { stream, framing, id, hello, membership } = new;
        let entry = self.connections.vacant_entry();
        let slot = u32::try_from(entry.key()).unwrap_or(u32::MAX);
        let mut stream = match prepare(stream) {
            Ok(stream) => stream,
            // The client has gone; dropping the membership gives everything back.
            Err(error) => return tracing::debug!(%error, "a socket was lost at the handover"),
        };
        if let Err(error) =
            self.poll.registry().register(&mut stream, Token(slot as usize), Interest::READABLE)
        {
            return tracing::warn!(%error, "cannot watch a socket");
        }
        self.generation = self.generation.wrapping_add(1);
        let mut connection = Connection::new(stream, framing, id, membership, self.generation, self.now);
        self.timers.start(&mut connection, self.now, &mut self.rng);
        connection.places =
            connection.membership.topics().iter().map(|topic| self.subscribers.add(*topic, slot)).collect();
        match hello {
            Some(hello) => connection.push(Rc::new(hello)),
            None => connection.phase = Phase::Parked(Box::default()),
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

    fn release(&mut self, key: ConnectionKey, blocks: Vec<Block>, replayed_to: u64) {
        if let Some(slot) = self.find(key) {
            self.connections[slot as usize].release(blocks, replayed_to);
            self.flush(slot);
            self.judge(slot);
        }
    }

    fn close(&mut self, key: ConnectionKey, reason: CloseReason) {
        if let Some(slot) = self.find(key) {
            self.end(slot, reason);
        }
    }

    fn find(&self, key: ConnectionKey) -> Option<u32> {
        let connection = self.connections.get(key.slot as usize)?;
        (connection.generation == key.generation).then_some(key.slot)
    }

    fn begin_drain(&mut self, over: Duration, done: oneshot::Sender<()>) {
        let Self { drain, connections, rng, now, .. } = self;
        let drain = drain.get_or_insert_with(|| {
            let mut order: Vec<(u32, u32)> = connections
                .iter()
                .map(|(slot, c)| (u32::try_from(slot).unwrap_or(u32::MAX), c.generation))
                .collect();
            for i in (1..order.len()).rev() {
                order.swap(i, rng.random_range(0..=i));
            }
            Drain::new(order, *now, wheel::ticks(over))
        });
        drain.tell(done);
    }

    fn close_drained(&mut self) {
        while let Some((slot, generation)) = self.drain.as_mut().and_then(|drain| drain.next(self.now)) {
            let key = ConnectionKey { shard: self.index, slot, generation };
            self.close(key, CloseReason::ServerShutdown);
        }
        if self.connections.is_empty()
            && let Some(drain) = &mut self.drain
        {
            drain.finish();
        }
    }

    fn count(&self) -> Counters {
        let waiting = self.connections.iter().filter(|(_, c)| !c.queue.is_empty()).count();
        Counters {
            connections: self.connections.len() as u64,
            waiting: waiting as u64,
            ..self.counters.clone()
        }
    }

    /// Appends a run of broadcasts to one topic to its subscribers' queues.
    fn broadcast(&mut self, run: &mut Vec<Broadcast>) {
        let Some(first) = run.first() else { return };
        let (topic, last) = (first.topic, run.last().is_some_and(|b| b.last));
        self.counters.broadcasts += run.len() as u64;
        let single: Vec<(u64, Rc<Block>)> = if run.len() == 1 {
            vec![]
        } else {
            run.iter().map(|b| (b.n, Rc::new(b.block.clone()))).collect()
        };
        let merged = Rc::new(merge(run));
        let numbers = run.iter().map(|b| b.n).filter(|n| *n != 0);
        let (lowest, highest) = (numbers.clone().min().unwrap_or(0), numbers.max().unwrap_or(0));
        let mut full = Vec::new();
        for slot in self.subscribers.of(topic) {
            let Some(connection) = self.connections.get_mut(*slot as usize) else { continue };
            // A connection whose replay reaches into the run takes its blocks one by one.
            let whole = single.is_empty()
                || (matches!(connection.phase, Phase::Live)
                    && (lowest == 0 || lowest > connection.replayed_to));
            let taken = if whole {
                connection.offer(highest, &merged)
            } else {
                single.iter().all(|(n, block)| connection.offer(*n, block))
            };
            if merged.events() > 0 {
                connection.last_event = self.now;
            }
            if !connection.dirty && !connection.blocked {
                connection.dirty = true;
                self.dirty.push_back(*slot);
            }
            if !taken || over_limit(&self.config, connection) {
                full.push(*slot);
            }
        }
        run.clear();
        self.settle(topic, &full, last);
    }

    /// After a broadcast: connections over their limit get one chance to write before they are judged.
    fn settle(&mut self, topic: TopicId, full: &[u32], last: bool) {
        for slot in full {
            if self.connections.get(*slot as usize).is_some_and(|c| !c.blocked) {
                self.flush(*slot);
            }
            self.judge(*slot);
        }
        if last {
            for slot in self.subscribers.of(topic).to_vec() {
                self.finish(slot, Cause::Complete, None, true);
            }
        }
    }

    /// Ends a connection whose queue is over its limits after it was flushed.
    fn judge(&mut self, slot: u32) {
        let Some(connection) = self.connections.get(slot as usize) else { return };
        let overfull = matches!(&connection.phase, Phase::Parked(parked) if parked.len() >= super::connection::MAX_PARKED);
        if overfull || (matches!(connection.phase, Phase::Live) && over_limit(&self.config, connection)) {
            self.end(slot, CloseReason::SlowConsumer);
        }
    }

    fn look_at_timers(&mut self) {
        let mut due = Vec::new();
        self.wheel.advance(self.now, &mut due);
        for (at, slot) in due {
            let Some(connection) = self.connections.get_mut(slot as usize) else { continue };
            if connection.wheel_at != at {
                continue; // scheduled anew since, or another connection's entry
            }
            match self.timers.due(connection, self.now) {
                Due::Nothing => self.schedule(slot),
                Due::Heartbeat if connection.blocked || !connection.queue.is_empty() => self.schedule(slot),
                Due::Heartbeat => {
                    connection.push(Rc::clone(&self.heartbeat));
                    self.flush(slot);
                }
                Due::Idle => self.end(slot, CloseReason::IdleTimeout),
                Due::MaxAge => self.end(slot, CloseReason::MaxAge),
                Due::Stalled => self.remove(slot, Cause::Server(CloseReason::SlowConsumer)),
            }
        }
    }

    /// Enters the connection into the wheel for its next due time, unless an earlier entry will do that.
    fn schedule(&mut self, slot: u32) {
        let Some(connection) = self.connections.get_mut(slot as usize) else { return };
        let next = self.timers.next(connection).max(self.now + 1);
        let waits = connection.wheel_at > self.now && connection.wheel_at <= next;
        if !waits {
            connection.wheel_at = next;
            self.wheel.insert(next, slot);
        }
    }

    fn flush_some(&mut self) {
        for _ in 0..FLUSHES_PER_TURN {
            let Some(slot) = self.dirty.pop_front() else { return };
            if let Some(connection) = self.connections.get_mut(slot as usize)
                && std::mem::take(&mut connection.dirty)
            {
                self.flush(slot);
            }
        }
    }

    /// Writes what the socket takes, and does what follows from it.
    fn flush(&mut self, slot: u32) {
        let Some(connection) = self.connections.get_mut(slot as usize) else { return };
        let mut taken = Taken::default();
        let wrote = connection.flush(&mut taken);
        self.counters.bytes_sent += taken.bytes;
        self.counters.events_sent += taken.events;
        if taken.bytes > 0 {
            connection.last_write = self.now;
            connection.stalled_since = self.now;
        }
        match wrote {
            Wrote::All if matches!(connection.phase, Phase::Closing(_)) => {
                let cause = cause_of(&connection.phase);
                self.remove(slot, cause);
            }
            Wrote::All => {
                self.watch_writable(slot, false);
                self.schedule(slot);
            }
            Wrote::Blocked => {
                self.watch_writable(slot, true);
                self.schedule(slot);
            }
            Wrote::Broken => {
                let cause = cause_of(&connection.phase);
                self.remove(slot, cause);
            }
        }
    }

    /// Arms write interest only while something waits: an armed idle socket would be reported at every turn of its
    /// buffer for nothing.
    fn watch_writable(&mut self, slot: u32, watch: bool) {
        let connection = &mut self.connections[slot as usize];
        if connection.blocked == watch {
            return;
        }
        connection.blocked = watch;
        if watch {
            connection.stalled_since = self.now;
        }
        let interest = if watch { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
        let token = Token(slot as usize);
        if let Err(error) = self.poll.registry().reregister(connection.stream(), token, interest) {
            tracing::warn!(%error, "cannot watch a socket");
            self.remove(slot, Cause::Client);
        }
    }

    /// Ends a connection with a `bye`.
    fn end(&mut self, slot: u32, reason: CloseReason) {
        let retry = self.rng.random_range(reason.retry_ms());
        let keep = reason != CloseReason::SlowConsumer;
        self.finish(slot, Cause::Server(reason), Some(control::bye(reason, retry)), keep);
    }

    fn finish(&mut self, slot: u32, cause: Cause, bye: Option<Block>, keep_waiting: bool) {
        let Some(connection) = self.connections.get_mut(slot as usize) else { return };
        if matches!(connection.phase, Phase::Closing(_)) {
            return;
        }
        connection.begin_close(cause, bye, keep_waiting);
        self.unsubscribe(slot);
        self.flush(slot);
    }

    /// Takes the connection out of its topics' lists.
    fn unsubscribe(&mut self, slot: u32) {
        let connection = &mut self.connections[slot as usize];
        let places = std::mem::take(&mut connection.places);
        for (i, place) in places.iter().enumerate() {
            let topic = self.connections[slot as usize].membership.topics()[i];
            if let Some(moved) = self.subscribers.remove(topic, *place) {
                self.moved(moved, topic, *place);
            }
        }
    }

    /// Tells a connection that its place in a topic's list has changed.
    fn moved(&mut self, slot: u32, topic: TopicId, place: u32) {
        let connection = &mut self.connections[slot as usize];
        let index = connection.membership.topics().iter().position(|t| *t == topic);
        if let Some(entry) = index.and_then(|i| connection.places.get_mut(i)) {
            *entry = place;
        }
    }

    /// The end of a connection: its socket closes and its membership is given back.
    fn remove(&mut self, slot: u32, cause: Cause) {
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
        self.counters.lived_ms += u64::from(lived) * wheel::GRANULARITY.as_millis() as u64;
        tracing::debug!(connection = %connection.id, ?cause, "connection ended");
    }
}

fn cause_of(phase: &Phase) -> Cause {
    match phase {
        Phase::Closing(cause) => *cause,
        Phase::Parked(_) | Phase::Live => Cause::Client,
    }
}

fn over_limit(config: &Config, connection: &Connection) -> bool {
    let queue = &connection.queue;
    // One block alone is always taken: the bound on its size is the greatest event's.
    !queue.is_single()
        && (connection.waiting_events() > config.buffer_events || queue.bytes > config.buffer_bytes)
}

fn merge(run: &[Broadcast]) -> Block {
    match run {
        [one] => one.block.clone(),
        many => Block::merge(&many.iter().map(|b| b.block.clone()).collect::<Vec<_>>()),
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
