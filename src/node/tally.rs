//! What is counted outside of the hub: refusals, reconnects, broadcasts, errors.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::broker::Publication;
use crate::cluster::Heard;
use crate::cluster::counts::{self, Counts};
use crate::protocol::channel::ChannelName;
use crate::protocol::close::GapReason;
use crate::protocol::position::Position;

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
    /// Calls of the broker with something to publish, and how many of them failed.
    publications: AtomicU64,
    failed_publications: AtomicU64,
    /// By reason, in the order of [`GapReason::ALL`].
    gaps: [AtomicU64; GapReason::ALL.len()],
    published: AtomicU64,
    published_bytes: AtomicU64,
    received_bytes: AtomicU64,
}

impl Tally {
    pub(super) fn new(heard: Arc<Heard>) -> Self {
        Self {
            rejected: Mutex::default(),
            reconnected: AtomicU64::new(0),
            heard,
            broadcasts: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            publications: AtomicU64::new(0),
            failed_publications: AtomicU64::new(0),
            gaps: Default::default(),
            published: AtomicU64::new(0),
            published_bytes: AtomicU64::new(0),
            received_bytes: AtomicU64::new(0),
        }
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

    /// The broker was given something to publish, and has taken it or not. A failure is an error as well.
    pub(super) fn publication(&self, taken: bool) {
        self.publications.fetch_add(1, Ordering::Relaxed);
        if !taken {
            self.failed_publications.fetch_add(1, Ordering::Relaxed);
            self.error();
        }
    }

    /// How often something was to be published, and how often it failed.
    pub(super) fn publications(&self) -> (u64, u64) {
        (self.publications.load(Ordering::Relaxed), self.failed_publications.load(Ordering::Relaxed))
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

    /// The broker has appended these, from publishers of this node.
    pub(super) fn published(&self, appended: &[(&Publication, Position)]) {
        let bytes: usize = appended.iter().map(|(publication, _)| publication.event.data.len()).sum();
        self.published.fetch_add(appended.len() as u64, Ordering::Relaxed);
        self.published_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Events that publishers gave to this node, and the bytes of their data.
    pub(super) fn taken_in(&self) -> (u64, u64) {
        (self.published.load(Ordering::Relaxed), self.published_bytes.load(Ordering::Relaxed))
    }

    /// An event with so many bytes of data came for this node's streams.
    pub(super) fn received(&self, bytes: usize) {
        self.received_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes of data that came for this node's streams.
    pub(super) fn received_bytes(&self) -> u64 {
        self.received_bytes.load(Ordering::Relaxed)
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
