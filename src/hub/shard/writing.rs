//! Writing to sockets, and the timers that belong to it.

use std::rc::Rc;

use mio::{Interest, Token};

use super::Shard;
use crate::hub::connection::{Cause, Phase, Taken, Wrote};
use crate::hub::timers::Due;
use crate::protocol::close::CloseReason;

/// Sockets flushed before the poller is looked at again.
const FLUSHES_PER_TURN: usize = 512;

/// Of them, those that are behind their replay: a write of a replay is large (what a socket's buffer takes). After a node has
/// died thousands come back at once; who is live waits for the tenths of a millisecond that these take, and not for all.
const REPLAYS_PER_TURN: usize = 8;

impl Shard {
    /// Some of those that are live, then a few replays; neither waits for the end of the others.
    pub(super) fn flush_some(&mut self) {
        for _ in 0..FLUSHES_PER_TURN {
            let Some(slot) = self.dirty.pop_front() else { break };
            self.flushed += 1;
            self.flush_dirty(slot);
        }
        for _ in 0..REPLAYS_PER_TURN {
            let Some(slot) = self.replaying.pop_front() else { break };
            self.flush_dirty(slot);
        }
    }

    fn flush_dirty(&mut self, slot: u32) {
        if let Some(connection) = self.connections.get_mut(slot as usize)
            && std::mem::take(&mut connection.dirty)
        {
            self.flush(slot);
        }
    }

    /// Writes what the socket takes, and does what follows from it.
    pub(super) fn flush(&mut self, slot: u32) {
        let Some(connection) = self.connections.get_mut(slot as usize) else { return };
        let mut taken = Taken::default();
        let wrote = connection.flush(&mut taken);
        self.counters.bytes_sent += taken.bytes;
        self.counters.events_sent += taken.events;
        connection.bytes_sent += taken.bytes;
        connection.events_sent += taken.events;
        if taken.bytes > 0 {
            connection.last_write = self.now;
            if connection.blocked {
                let blocked = self.now.saturating_sub(connection.stalled_since);
                connection.blocked_for = connection.blocked_for.saturating_add(blocked);
            }
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
            Wrote::More => {
                self.watch_writable(slot, false);
                self.schedule(slot);
                self.touch(slot);
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

    /// Puts the connection into the list of those to be flushed.
    pub(super) fn touch(&mut self, slot: u32) {
        if let Some(connection) = self.connections.get_mut(slot as usize)
            && !std::mem::replace(&mut connection.dirty, true)
        {
            let list = if connection.is_catching_up() { &mut self.replaying } else { &mut self.dirty };
            list.push_back(slot);
        }
    }

    /// Arms write interest only while something waits: an armed idle socket would be reported at every turn of its
    /// buffer for nothing.
    pub(super) fn watch_writable(&mut self, slot: u32, watch: bool) {
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

    pub(super) fn look_at_timers(&mut self) {
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
                Due::End(reason) => self.end(slot, reason),
                Due::Stalled => self.remove(slot, Cause::Server(CloseReason::SlowConsumer)),
            }
        }
    }

    /// Enters the connection into the wheel for its next due time, unless an earlier entry will do that.
    pub(super) fn schedule(&mut self, slot: u32) {
        let Some(connection) = self.connections.get_mut(slot as usize) else { return };
        let next = self.timers.next(connection).max(self.now + 1);
        // An entry of this very turn waits as well until the wheel has come to it: who is written to in every turn would
        // put it off for ever.
        let waits = connection.wheel_at > self.wheel.now() && connection.wheel_at <= next;
        if !waits {
            connection.wheel_at = next;
            self.wheel.insert(next, slot);
        }
    }
}

fn cause_of(phase: &Phase) -> Cause {
    match phase {
        Phase::Closing(cause) => *cause,
        Phase::CatchingUp(_) | Phase::Live => Cause::Client,
    }
}
