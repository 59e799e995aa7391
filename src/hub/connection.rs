//! One detached socket and what waits for it.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::rc::Rc;

use mio::net::TcpStream;
use uuid::Uuid;

use super::Membership;
use super::queue::{MAX_SLICES, Queue};
use super::wheel::WheelTick;
use crate::protocol::close::CloseReason;
use crate::protocol::sse::{Block, Framing};

/// What a client may send at once on a stream that expects nothing from it. More is abuse and ends the connection.
const MAX_JUNK: usize = 64 * 1024;

/// Live events that may wait behind a replay; their bytes are shared, so one costs 24 bytes here. Full, the connection
/// is closed as a slow consumer and resumes from where it got to.
const MAX_PARKED: usize = 4096;

/// Whether and how a connection takes blocks.
pub(super) enum Phase {
    /// Live events wait until the replay before them is out. Boxed, since few connections catch up at a time and all
    /// would pay for the room.
    CatchingUp(Box<CatchUp>),
    /// Takes events.
    Live,
    /// Writes what is left, then goes.
    Closing(Cause),
}

/// What a connection still has to be given before it is live.
#[derive(Default)]
pub(super) struct CatchUp {
    /// `None` while the replay is not there yet: the connection is parked.
    replay: Option<std::vec::IntoIter<Block>>,
    live: VecDeque<(u64, Rc<Block>)>,
    /// The stream ends behind all of it; nothing is added any more.
    complete: bool,
}

impl CatchUp {
    /// Everything has been taken out of it.
    fn is_over(&self) -> bool {
        self.replay.as_ref().is_some_and(|replay| replay.len() == 0) && self.live.is_empty()
    }
}

/// How a connection came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The server closed it.
    Server(CloseReason),
    /// The client closed it, or it broke.
    Client,
    /// The stream was complete.
    Complete,
}

impl Cause {
    /// The name that it has in the statistics.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Server(reason) => reason.name(),
            Self::Client => "client",
            Self::Complete => "completed",
        }
    }
}

/// What became of a write.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wrote {
    /// Nothing waits any more.
    All,
    /// Nothing waits in the queue, but the replay goes on: others first.
    More,
    /// The socket takes no more now.
    Blocked,
    /// The connection is dead.
    Broken,
}

pub(super) struct Connection {
    stream: TcpStream,
    framing: Framing,
    pub(super) generation: u32,
    pub(super) phase: Phase,
    /// Stands in its topics' lists of subscribers.
    pub(super) subscribed: bool,
    /// Its place in each of these lists, in the order of the membership's topics; empty while it is the first in all of
    /// them, as everybody is on channels of their own.
    pub(super) places: Box<[u32]>,
    pub(super) membership: Box<dyn Membership>,
    pub(super) queue: Queue,
    /// Events numbered up to here were in the replay.
    pub(super) replayed_to: u64,
    pub(super) id: Uuid,
    pub(super) events_sent: u64,
    pub(super) bytes_sent: u64,
    /// Waits in the shard's list of connections to be flushed.
    pub(super) dirty: bool,
    /// The socket took less than it was given; write interest is armed.
    pub(super) blocked: bool,
    pub(super) opened: WheelTick,
    /// When it is closed in any case, and why.
    pub(super) ends_at: WheelTick,
    pub(super) end_reason: CloseReason,
    pub(super) last_event: WheelTick,
    /// Last time that the socket took bytes.
    pub(super) last_write: WheelTick,
    /// Since when a blocked socket has taken nothing.
    pub(super) stalled_since: WheelTick,
    /// How long it was blocked in all, up to `stalled_since`; since it began to close, if it closes.
    pub(super) blocked_for: WheelTick,
    pub(super) wheel_at: WheelTick,
}

// What a delivery goes through is marked to be inlined. Otherwise the compiler may put it into another unit than the shard's
// loops, whenever something else in the crate grows, and then calls it: 29 more instructions a delivery, one in twenty
// (bench/instructions).
impl Connection {
    pub(super) fn new(
        stream: TcpStream,
        framing: Framing,
        id: Uuid,
        membership: Box<dyn Membership>,
        generation: u32,
        now: WheelTick,
    ) -> Self {
        Self {
            stream,
            framing,
            generation,
            phase: Phase::Live,
            subscribed: false,
            places: Box::default(),
            membership,
            queue: Queue::default(),
            replayed_to: 0,
            id,
            events_sent: 0,
            bytes_sent: 0,
            dirty: false,
            blocked: false,
            opened: now,
            ends_at: WheelTick::MAX,
            end_reason: CloseReason::MaxAge,
            last_event: now,
            last_write: now,
            stalled_since: now,
            blocked_for: 0,
            wheel_at: 0,
        }
    }

    pub(super) fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Queues one block that belongs to no history, such as a heartbeat.
    #[inline]
    pub(super) fn push(&mut self, block: Rc<Block>) {
        self.queue.push(block, self.framing);
    }

    /// Queues an event. `false` when there is no room; nothing is queued then.
    #[inline]
    pub(super) fn offer(&mut self, n: u64, block: &Rc<Block>) -> bool {
        match &mut self.phase {
            Phase::CatchingUp(catch_up) if catch_up.complete => {}
            Phase::CatchingUp(catch_up) if catch_up.live.len() >= MAX_PARKED => return false,
            Phase::CatchingUp(catch_up) => catch_up.live.push_back((n, Rc::clone(block))),
            Phase::Live if n == 0 || n > self.replayed_to => self.push(Rc::clone(block)),
            Phase::Live | Phase::Closing(_) => {}
        }
        true
    }

    /// Ends the parking: `replay` is written, then what came meanwhile, without what the replay up to `replayed_to`
    /// already held.
    pub(super) fn release(&mut self, replay: Vec<Block>, replayed_to: u64) {
        if let Phase::CatchingUp(catch_up) = &mut self.phase {
            self.replayed_to = replayed_to;
            catch_up.replay = Some(replay.into_iter());
        }
    }

    /// Notes that its stream is complete. `true` when it ends by itself, behind what it still has to be given; one that is live
    /// is to be ended.
    pub(super) fn completes_later(&mut self) -> bool {
        let Phase::CatchingUp(catch_up) = &mut self.phase else { return false };
        catch_up.complete = true;
        true
    }

    /// Whether it stands behind its replay: then it is not written to for every event, but when its turn comes.
    #[inline]
    pub(super) const fn is_catching_up(&self) -> bool {
        matches!(self.phase, Phase::CatchingUp(_))
    }

    /// Moves the next blocks of the catch-up into the queue, as many as one write takes. What was live meanwhile comes
    /// after the replay.
    fn feed(&mut self) {
        for _ in 0..MAX_SLICES {
            let Phase::CatchingUp(catch_up) = &mut self.phase else { return };
            let Some(replay) = &mut catch_up.replay else { return };
            if let Some(block) = replay.next() {
                self.push(Rc::new(block));
            } else if let Some((n, block)) = catch_up.live.pop_front() {
                if n == 0 || n > self.replayed_to {
                    self.push(block);
                }
            } else {
                return;
            }
        }
    }

    /// Events waiting for the socket, those of a partly written block that are not yet out included.
    #[inline]
    pub(super) fn waiting_events(&self) -> usize {
        self.queue.events(self.framing)
    }

    /// Gives the kernel as much as it takes. Adds what it took to `taken`.
    #[inline]
    pub(super) fn flush(&mut self, taken: &mut Taken) -> Wrote {
        if self.queue.is_empty() {
            self.feed();
        }
        while !self.queue.is_empty() {
            match self.queue.write(&mut self.stream, self.framing) {
                Ok(0) => return Wrote::Broken,
                Ok(n) => {
                    taken.bytes += n as u64;
                    taken.events += self.queue.advance(n, self.framing);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Wrote::Blocked,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Wrote::Broken,
            }
        }
        match &self.phase {
            // Only now: what the socket has not taken of a replay does not count as waiting events.
            Phase::CatchingUp(catch_up) if catch_up.is_over() => {
                let complete = catch_up.complete;
                self.phase = if complete { Phase::Closing(Cause::Complete) } else { Phase::Live };
            }
            Phase::CatchingUp(catch_up) if catch_up.replay.is_some() => return Wrote::More,
            _ => {}
        }
        Wrote::All
    }

    /// Whether more waits than is allowed. A replay does not count: it is taken from as the socket takes it.
    #[inline]
    pub(super) fn is_over(&self, max_events: usize, max_bytes: usize) -> bool {
        match &self.phase {
            Phase::CatchingUp(catch_up) => catch_up.live.len() >= MAX_PARKED,
            Phase::Live => {
                let events = self.waiting_events();
                // One event alone is always taken: the bound on its size is the greatest event's.
                events > max_events || (events > 1 && self.queue.bytes > max_bytes)
            }
            Phase::Closing(_) => false,
        }
    }

    /// Reads and forgets what the client sent. `false` when the client is gone or sends without end.
    pub(super) fn discard_input(&mut self) -> bool {
        let mut scratch = [0; 4096];
        let mut total = 0;
        while total < MAX_JUNK {
            match self.stream.read(&mut scratch) {
                Ok(0) => return false,
                Ok(n) => total += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        false
    }

    /// Turns to writing its last block(s). Whole events that wait are dropped where `keep_waiting` is false: the client
    /// gets them when it resumes.
    pub(super) fn begin_close(&mut self, cause: Cause, bye: Option<Block>, keep_waiting: bool) {
        self.phase = Phase::Closing(cause);
        self.blocked_for = 0;
        if !keep_waiting {
            self.queue.drop_untouched(self.framing);
        }
        if let Some(bye) = bye {
            self.push(Rc::new(bye));
        }
    }

    /// Ends the stream cleanly: nothing waits any more. Unread input would turn the close into a reset, which can
    /// overtake the `bye`.
    pub(super) fn shut_down(&mut self) {
        // A socket that does not even take these few bytes ends without them: the client sees a broken stream.
        let _ = self.stream.write(self.framing.end());
        self.discard_input();
        // Fails when the peer is gone already, which is what is wanted.
        let _ = self.stream.shutdown(Shutdown::Write);
    }
}

/// What the kernel took.
#[derive(Default)]
pub(super) struct Taken {
    pub(super) bytes: u64,
    pub(super) events: u64,
}
