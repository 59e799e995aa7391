//! The bounded queue into a shard.

use std::io;
use std::sync::{Mutex, PoisonError};

use mio::{Poll, Token, Waker};
use tokio::sync::Notify;

use super::Command;

/// Commands that may wait for one shard. Full means that the shard is some hundred milliseconds behind: senders wait,
/// the broker's queue fills, and in the end Redis cuts the subscriber connection, which is told as a gap or refilled.
pub(super) const CAPACITY: usize = 8192;

/// The token under which the poller reports the waker; connections count from zero.
pub(super) const WAKE: Token = Token(usize::MAX);

pub(super) struct Inbox {
    queue: Mutex<Vec<Command>>,
    space: Notify,
    waker: Waker,
}

impl Inbox {
    /// An inbox and the poller that its waker rings.
    pub(super) fn new() -> io::Result<(Self, Poll)> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKE)?;
        Ok((Self { queue: Mutex::default(), space: Notify::new(), waker }, poll))
    }

    /// Queues `command`, waiting while the inbox is full.
    pub(super) async fn send(&self, command: Command) {
        let mut command = command;
        loop {
            let space = self.space.notified();
            match self.push(command) {
                Ok(()) => return,
                Err(back) => command = back,
            }
            space.await;
        }
    }

    fn push(&self, command: Command) -> Result<(), Command> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.len() >= CAPACITY {
            return Err(command);
        }
        self.append(&mut queue, command);
        Ok(())
    }

    /// Queues `command` even when the inbox is full; for the one `Stop` at the end.
    pub(super) fn push_always(&self, command: Command) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        self.append(&mut queue, command);
    }

    /// The waker is rung once per batch: the shard takes everything at once, so whoever finds the queue empty is the
    /// first since the shard last looked, and rings; all others ride along.
    fn append(&self, queue: &mut Vec<Command>, command: Command) {
        queue.push(command);
        if queue.len() == 1
            && let Err(error) = self.waker.wake()
        {
            tracing::error!(%error, "cannot wake a shard; it looks again at its next timer tick");
        }
    }

    /// Takes everything that waits; `batch` must be empty and lends its memory to the queue.
    pub(super) fn take(&self, batch: &mut Vec<Command>) {
        let was_full = {
            let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::swap(&mut *queue, batch);
            batch.len() >= CAPACITY
        };
        if was_full {
            self.space.notify_waiters();
        }
    }
}
