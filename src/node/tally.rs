//! What is counted outside of the hub: refusals, reconnects, broadcasts, errors.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::cluster::counts::{self, Counts};

/// The node's own counts since its start.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// By code. Refusals are answered by HTTP, beside which a lock is nothing.
    rejected: Mutex<BTreeMap<&'static str, u64>>,
    reconnected: AtomicU64,
    broadcasts: AtomicU64,
    errors: AtomicU64,
}

impl Tally {
    /// A request was refused with this code.
    pub(super) fn rejected(&self, code: &'static str) {
        *self.rejected.lock().unwrap_or_else(PoisonError::into_inner).entry(code).or_default() += 1;
    }

    /// A stream opened for a client that had one before.
    pub(super) fn reconnected(&self) {
        self.reconnected.fetch_add(1, Ordering::Relaxed);
    }

    /// An event was given to the local streams.
    pub(super) fn broadcast(&self) {
        self.broadcasts.fetch_add(1, Ordering::Relaxed);
    }

    /// Something failed on the way of an event or of a question.
    pub(super) fn error(&self) {
        self.errors.fetch_add(1, Ordering::Relaxed);
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
