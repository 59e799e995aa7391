//! What is counted outside of the hub: refusals, reconnects, broadcasts, errors.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::broker::Publication;
use crate::cluster::Heard;
use crate::cluster::counts::{self, Counts};
use crate::protocol::channel::ChannelName;
use crate::protocol::close::GapReason;

/// The node's own counts since its start.
#[derive(Debug)]
pub(super) struct Tally {
    /// By code. Refusals are answered by HTTP, beside which a lock is nothing.
    rejected: Mutex<BTreeMap<&'static str, u64>>,
    reconnected: AtomicU64,
    heard: Arc<Heard>,
    /// On channels that are not counted in `heard`.
    broadcasts: AtomicU64,
    errors: AtomicU64,
    /// By reason, in the order of [`GapReason::ALL`].
    gaps: [AtomicU64; GapReason::ALL.len()],
    published: Volume,
    received: Volume,
}

/// Events and the bytes of their data.
#[derive(Debug, Default)]
pub(super) struct Volume {
    events: AtomicU64,
    bytes: AtomicU64,
}

impl Volume {
    fn add(&self, events: usize, bytes: usize) {
        self.events.fetch_add(events as u64, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Events and bytes so far.
    pub(super) fn get(&self) -> (u64, u64) {
        (self.events.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }
}

impl Tally {
    pub(super) fn new(heard: Arc<Heard>) -> Self {
        let [reconnected, broadcasts, errors] = [const { AtomicU64::new(0) }; 3];
        let (rejected, gaps) = (Mutex::default(), Default::default());
        let (published, received) = (Volume::default(), Volume::default());
        Self { rejected, reconnected, heard, broadcasts, errors, gaps, published, received }
    }

    /// A request was refused with this code.
    pub(super) fn rejected(&self, code: &'static str) {
        *self.rejected.lock().unwrap_or_else(PoisonError::into_inner).entry(code).or_default() += 1;
    }

    /// A stream opened for a client that had one before.
    pub(super) fn reconnected(&self) {
        self.reconnected.fetch_add(1, Ordering::Relaxed);
    }

    /// An event was given to the local streams.
    pub(super) fn broadcast(&self, channel: &ChannelName) {
        if !self.heard.note(channel) {
            self.broadcasts.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Something failed on the way of an event or of a question.
    pub(super) fn error(&self) {
        self.errors.fetch_add(1, Ordering::Relaxed);
    }

    /// The streams of a channel, or one that came back, were told a gap.
    pub(super) fn gap(&self, reason: GapReason) {
        let place = GapReason::ALL.iter().position(|known| *known == reason);
        if let Some(count) = place.and_then(|place| self.gaps.get(place)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Gaps so far by reason, those that did not happen included.
    pub(super) fn gaps(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.gaps.iter().map(|count| count.load(Ordering::Relaxed));
        GapReason::ALL.iter().map(|reason| reason.name()).zip(counts)
    }

    /// The broker has taken these from publishers of this node.
    pub(super) fn published(&self, batch: &[Publication]) {
        self.published.add(batch.len(), batch.iter().map(|publication| publication.event.data.len()).sum());
    }

    /// An event with so many bytes of data came for this node's streams.
    pub(super) fn received(&self, bytes: usize) {
        self.received.add(1, bytes);
    }

    /// What publishers gave to this node.
    pub(super) fn taken_in(&self) -> &Volume {
        &self.published
    }

    /// What the broker gave to this node's streams.
    pub(super) fn passed_on(&self) -> &Volume {
        &self.received
    }

    /// Errors so far.
    pub(super) fn errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }

    /// Says all of it.
    pub(super) fn tell(&self, counts: &mut Counts) {
        counts.set(counts::RECONNECTED, self.reconnected.load(Ordering::Relaxed));
        counts.set(counts::BROADCASTS, self.broadcasts.load(Ordering::Relaxed));
        for (code, count) in &*self.rejected.lock().unwrap_or_else(PoisonError::into_inner) {
            counts.set(format!("{}{code}", counts::REJECTED), *count);
        }
    }
}
