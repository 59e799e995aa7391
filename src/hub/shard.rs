//! One shard: a thread, a poller, a slab of sockets.
//!
//! A turn of the loop: wait for readiness, a command or the next timer tick; take all commands and append their blocks
//! to the subscribers' queues; look at the timers; then flush the touched sockets, some hundreds at a time, so that a
//! broadcast to everybody does not keep the poller, the timers and other topics waiting. Replays are written last and
//! little of them at a time.

mod fanout;
mod lag;
mod life;
mod writing;

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mio::event::Event;
use mio::{Events, Poll};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use slab::Slab;
use tokio::sync::oneshot;

use super::connection::{Cause, Connection};
use super::counters::{Counters, Strain};
use super::drain::Drain;
use super::inbox::{CAPACITY, Inbox, WAKE};
use super::subscribers::Subscribers;
use super::timers::Timers;
use super::wheel::{self, Wheel, WheelTick};
use super::{Broadcast, Command, Config, ConnectionKey};
use crate::clock::Clock;
use crate::protocol::close::CloseReason;
use crate::protocol::sse::Block;
use lag::OnTheWay;

/// How long a shard rests between some replays and the next ones, unless something is to be done. It would else hold its core
/// for as long as the kernel's scheduler lets it, some milliseconds, and the thread that brings a live event would wait.
const REST: Duration = Duration::from_millis(1);

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
    /// The same of those that still have to be given their replay.
    replaying: VecDeque<u32>,
    /// How many slots were ever taken out of `dirty`.
    flushed: u64,
    on_the_way: OnTheWay,
    drain: Option<Drain>,
    /// Nodes that drain at the moment, this one included.
    draining_together: u32,
    counters: Counters,
    strain: Strain,
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
            replaying: VecDeque::new(),
            flushed: 0,
            on_the_way: OnTheWay::default(),
            drain: None,
            draining_together: 1,
            counters: Counters::default(),
            strain: Strain::default(),
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
            let began = self.clock.micros();
            self.now = wheel::wheel_tick(self.clock.now());
            for event in &events {
                if event.token() != WAKE {
                    self.on_ready(event);
                }
            }
            self.inbox.take(&mut batch);
            let waited = batch.len();
            if self.carry_out(&mut batch) {
                return;
            }
            self.look_at_timers();
            self.close_drained();
            self.flush_some();
            self.end_turn(began, waited);
        }
    }

    /// Measures a turn that began then, with so many commands.
    fn end_turn(&mut self, began: u64, commands: usize) {
        let now = self.clock.micros();
        let took = now.saturating_sub(began);
        self.counters.turns.record(took, 1);
        self.on_the_way.done(self.flushed, now, &mut self.counters);
        self.strain.add(&Strain {
            longest_turn: Duration::from_micros(took),
            fullest_inbox: commands as f64 / CAPACITY as f64,
        });
    }

    /// How long the poller may wait.
    fn patience(&self) -> Option<Duration> {
        if !self.dirty.is_empty() {
            return Some(Duration::ZERO);
        }
        if !self.replaying.is_empty() {
            return Some(REST);
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
                Command::Release { key, blocks, replayed_to, last } => {
                    self.release(key, blocks, replayed_to, last);
                }
                Command::Close(key, reason) => self.close(key, reason),
                Command::SharePace(together) => self.draining_together = together.max(1),
                Command::Drain { over, done } => self.begin_drain(over, done),
                // Whoever asked may have stopped waiting, here and below.
                Command::Count(reply) => {
                    let _ = reply.send(self.count());
                }
                Command::Strain(reply) => {
                    let _ = reply.send(std::mem::take(&mut self.strain));
                }
                Command::Shed(count, reply) => {
                    let _ = reply.send(self.shed(count));
                }
                Command::List(selection, reply) => {
                    let connections = self.connections.iter().map(|(_, connection)| connection);
                    let _ = reply.send(selection.take(connections, self.now));
                }
                Command::CloseMatching(matching, reason, reply) => {
                    let _ = reply.send(self.close_matching(&matching, reason));
                }
                Command::Stop => return true,
                Command::Broadcast(_) => {}
            }
        }
        self.broadcast(&mut run);
        false
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
        let mut counters = Counters { connections: self.connections.len() as u64, ..self.counters.clone() };
        for (_, connection) in self.connections.iter().filter(|(_, c)| !c.queue.is_empty()) {
            let events = connection.waiting_events() as u64;
            counters.waiting += 1;
            counters.waiting_events += events;
            counters.waiting_bytes += connection.queue.bytes as u64;
            counters.longest_queue = counters.longest_queue.max(events);
        }
        counters
    }
}
