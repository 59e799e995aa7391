//! What is counted outside of the hub: refusals, reconnects, broadcasts, errors.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::cluster::Heard;
use crate::cluster::counts::{self, Counts};
use crate::protocol::channel::ChannelName;

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
    gaps: AtomicU64,
}

impl Tally {
    pub(super) fn new(heard: Arc<Heard>) -> Self {
        let [reconnected, broadcasts, errors, gaps] = [const { AtomicU64::new(0) }; 4];
        Self { rejected: Mutex::default(), reconnected, heard, broadcasts, errors, gaps }
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

    /// The streams of a channel were told a gap.
    pub(super) fn gap(&self) {
        self.gaps.fetch_add(1, Ordering::Relaxed);
    }

    /// Gaps so far, one for each channel.
    pub(super) fn gaps(&self) -> u64 {
        self.gaps.load(Ordering::Relaxed)
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
