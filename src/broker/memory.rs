//! The embedded broker: one node, its history in memory, gone with the process.
//!
//! The same contract as over Redis: positions that rise over all channels, idempotency, a bounded history per channel
//! that expires, the same gaps. It does not reach a second node and survives nothing: a position from before a restart
//! is of an earlier epoch and is answered `history_lost`.

mod store;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt as _};
use tokio::sync::{mpsc, watch};
use tokio_util::task::AbortOnDropHandle;

use self::store::Store;
use super::{
    Acknowledgement, Broker, BrokerError, Config, History, HistoryRequest, Interest, NOTICE_QUEUE, Notice,
    Publication, Recipient, Status,
};
use crate::clock::Clock;

/// How long a publisher waits for a node that does not take its events.
const PUBLISH_WAIT: Duration = Duration::from_secs(5);

/// How many events are appended as one step; a larger batch is several steps, so that it fits into the queue.
const STEP: usize = NOTICE_QUEUE / 4;

/// How often the status says that the broker is alive; the same as over Redis, so that whoever watches need not know.
const PROBE_INTERVAL: Duration = Duration::from_secs(2);

/// How many changes of interest are taken at once.
const INTEREST_BATCH: usize = 512;

/// Starts the embedded broker; it ends when the last reference to it is dropped.
///
/// # Panics
/// Outside a tokio runtime.
pub fn start(
    config: Config,
    clock: Clock,
    interest: Arc<dyn Interest>,
) -> (Arc<dyn Broker>, mpsc::Receiver<Notice>) {
    let (notices, receiver) = mpsc::channel(NOTICE_QUEUE);
    let (status, _) = watch::channel(Status::default());
    let store = Store::new(&config, clock.unix_millis());
    // There is room: the queue is empty.
    let _ = notices.try_send(Notice::Passed(store.position()));
    let store = Mutex::new(store);
    let confirming = tokio::spawn(confirm(interest, status.clone(), clock.clone()));
    let broker = Memory { store, clock, notices, status, _confirming: AbortOnDropHandle::new(confirming) };
    (Arc::new(broker), receiver)
}

struct Memory {
    store: Mutex<Store>,
    clock: Clock,
    notices: mpsc::Sender<Notice>,
    status: watch::Sender<Status>,
    _confirming: AbortOnDropHandle<()>,
}

impl Memory {
    /// A panic cannot leave the store half changed in a way that matters more than answering.
    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn append(&self, step: &[Publication]) -> Result<Vec<Acknowledgement>, BrokerError> {
        // The places in the queue come before the lock: the queue is in the order of the positions only if nobody can
        // slip in between assigning and sending, and nothing may wait while it holds a lock.
        let reserved = tokio::time::timeout(PUBLISH_WAIT, self.notices.reserve_many(step.len())).await;
        let mut permits = reserved
            .map_err(|_| BrokerError::Unavailable("the node does not take its events".into()))?
            .map_err(|_| BrokerError::Unavailable("the node is shutting down".into()))?;
        let now = self.clock.unix_millis();
        let mut store = self.store();
        let append = |publication| {
            let (acknowledgement, delivery) = store.append(publication, now);
            if let Some(delivery) = delivery
                && let Some(permit) = permits.next()
            {
                permit.send(Notice::Event(delivery));
            }
            acknowledgement
        };
        Ok(step.iter().map(append).collect())
    }
}

impl Broker for Memory {
    fn publish<'a>(
        &'a self,
        batch: &'a [Publication],
    ) -> BoxFuture<'a, Result<Vec<Acknowledgement>, BrokerError>> {
        async move {
            let mut acknowledged = Vec::with_capacity(batch.len());
            for step in batch.chunks(STEP) {
                acknowledged.extend(self.append(step).await?);
            }
            Ok(acknowledged)
        }
        .boxed()
    }

    fn history<'a>(&'a self, requests: &'a [HistoryRequest]) -> BoxFuture<'a, Result<History, BrokerError>> {
        let now = self.clock.unix_millis();
        async move { Ok(self.store().read(requests, now)) }.boxed()
    }

    fn tell<'a>(&'a self, to: &'a Recipient, words: &'a [u8]) -> BoxFuture<'a, Result<usize, BrokerError>> {
        async move {
            if matches!(to, Recipient::Mailbox(name) if name != self.mailbox()) {
                return Ok(0);
            }
            let sending = self.notices.send_timeout(Notice::Peer(words.to_vec()), PUBLISH_WAIT).await;
            sending.map_err(|_| BrokerError::Unavailable("the node does not take its messages".into()))?;
            Ok(1)
        }
        .boxed()
    }

    fn mailbox(&self) -> &str {
        "embedded"
    }

    fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    fn describe(&self) -> String {
        "embedded".into()
    }
}

/// Everything wanted is heard at once; nothing is told to leave.
async fn confirm(interest: Arc<dyn Interest>, status: watch::Sender<Status>, clock: Clock) {
    loop {
        loop {
            let changes = interest.take_changes(INTEREST_BATCH);
            if changes.is_empty() {
                break;
            }
            interest.confirmed(&changes.subscribe);
        }
        status.send_modify(|status| {
            status.subscribed = true;
            status.lag = Some(Duration::ZERO);
            status.probed_at = Some(clock.now());
        });
        tokio::select! {
            () = interest.changed().notified() => {}
            () = tokio::time::sleep(PROBE_INTERVAL) => {}
        }
    }
}
