//! The bounded queue between the task that reads the socket and the one that makes sense of it.
//!
//! The reader must never wait (it also carries the answers to commands) and nothing may be dropped in silence, so
//! when the queue is full the connection is over: what is in it is still good and in order, and the rest is filled
//! from history.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::{Notify, mpsc};

use crate::redis::Push;

/// How many messages wait at most.
const MESSAGES: usize = 4096;

/// How many bytes of them.
const BYTES: usize = 64 * 1024 * 1024;

/// A message from Redis.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) channel: Vec<u8>,
    pub(super) payload: Vec<u8>,
}

#[derive(Debug)]
enum Item {
    Message(Message),
    Mark,
}

/// What comes out.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// A message.
    Message(Message),
    /// The mark that was put in: what came before it has come out.
    Mark,
}

#[derive(Debug, Default)]
struct Shared {
    bytes: AtomicUsize,
    /// Why nothing comes any more.
    over: OnceLock<&'static str>,
    wake: Notify,
}

/// Where the reader puts things.
#[derive(Clone, Debug)]
pub(super) struct Intake {
    sender: mpsc::Sender<Item>,
    shared: Arc<Shared>,
}

/// Where they come out.
#[derive(Debug)]
pub(super) struct Inbox {
    receiver: mpsc::Receiver<Item>,
    intake: Intake,
}

/// A queue for one connection.
pub(super) fn inbox() -> (Intake, Inbox) {
    let (sender, receiver) = mpsc::channel(MESSAGES);
    let intake = Intake { sender, shared: Arc::default() };
    (intake.clone(), Inbox { receiver, intake })
}

impl Intake {
    /// Takes what Redis pushed.
    pub(super) fn push(&self, push: Push) {
        match push {
            Push::Disconnected => self.end("the connection was closed"),
            Push::Message { channel, payload } => self.put(Item::Message(Message { channel, payload })),
        }
    }

    fn put(&self, item: Item) {
        let size = size(&item);
        // After the end nothing may follow, or it would stand behind a hole.
        if self.shared.over.get().is_some() {
            return;
        }
        let bytes = self.shared.bytes.fetch_add(size, Ordering::Relaxed) + size;
        if bytes > BYTES || self.sender.try_send(item).is_err() {
            self.end("the node cannot keep up with what is published");
        }
    }

    fn end(&self, why: &'static str) {
        let _ = self.shared.over.set(why);
        self.shared.wake.notify_one();
    }
}

impl Inbox {
    /// Puts a mark behind everything that has come so far.
    pub(super) fn mark(&self) {
        self.intake.put(Item::Mark);
    }

    /// The next arrival; the reason why there is none only after the last one. May be cancelled at any time.
    pub(super) async fn next(&mut self) -> Result<Arrival, &'static str> {
        loop {
            if let Some(arrival) = self.ready() {
                return Ok(arrival);
            }
            if let Some(&why) = self.intake.shared.over.get() {
                // It may have been put in between the two looks; after the end nothing else is.
                return self.ready().ok_or(why);
            }
            let item = tokio::select! {
                Some(item) = self.receiver.recv() => item,
                () = self.intake.shared.wake.notified() => continue,
            };
            return Ok(self.open(item));
        }
    }

    /// The next arrival if there is one already.
    pub(super) fn ready(&mut self) -> Option<Arrival> {
        let item = self.receiver.try_recv().ok()?;
        Some(self.open(item))
    }

    fn open(&self, item: Item) -> Arrival {
        self.intake.shared.bytes.fetch_sub(size(&item), Ordering::Relaxed);
        match item {
            Item::Message(message) => Arrival::Message(message),
            Item::Mark => Arrival::Mark,
        }
    }
}

fn size(item: &Item) -> usize {
    match item {
        Item::Message(message) => message.channel.len() + message.payload.len(),
        Item::Mark => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(payload: Vec<u8>) -> Push {
        Push::Message { channel: b"c".to_vec(), payload }
    }

    #[tokio::test]
    async fn what_came_before_the_end_is_still_delivered_and_nothing_after() {
        let (intake, mut inbox) = inbox();
        intake.push(message(b"1".to_vec()));
        inbox.mark();
        intake.push(Push::Disconnected);
        intake.push(message(b"2".to_vec()));
        let first = Message { channel: b"c".to_vec(), payload: b"1".to_vec() };
        assert_eq!(inbox.next().await, Ok(Arrival::Message(first)));
        assert_eq!(inbox.next().await, Ok(Arrival::Mark));
        assert_eq!(inbox.next().await, Err("the connection was closed"));
        assert_eq!(inbox.next().await, Err("the connection was closed"));
    }

    #[tokio::test]
    async fn too_many_messages_end_the_connection_after_those_that_fit() {
        let (intake, mut inbox) = inbox();
        for _ in 0..=MESSAGES {
            intake.push(message(vec![]));
        }
        for _ in 0..MESSAGES {
            assert!(inbox.next().await.is_ok());
        }
        assert!(inbox.next().await.is_err());
    }

    #[tokio::test]
    async fn too_many_bytes_do_the_same() {
        let (intake, mut inbox) = inbox();
        intake.push(message(vec![0; BYTES - 10]));
        intake.push(message(vec![0; 100]));
        assert!(inbox.next().await.is_ok());
        assert!(inbox.next().await.is_err());
    }
}
