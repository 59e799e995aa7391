//! Something that may fail again and again: the log says when it began and when it is over. A line for each failure would be one
//! for each event or client just when there is the most trouble, so these are for `debug`.

use std::fmt::Display;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether something fails at the moment.
#[derive(Debug)]
pub(super) struct Streak {
    /// As the log calls it: "publishing".
    what: &'static str,
    failing: AtomicBool,
}

impl Streak {
    pub(super) const fn new(what: &'static str) -> Self {
        Self { what, failing: AtomicBool::new(false) }
    }

    /// It failed.
    pub(super) fn failed(&self, error: &dyn Display) {
        if self.failing.swap(true, Ordering::Relaxed) {
            tracing::debug!(%error, "{} fails", self.what);
        } else {
            tracing::warn!(%error, "{} fails; told once until it works again", self.what);
        }
    }

    /// It worked.
    pub(super) fn worked(&self) {
        if self.failing.load(Ordering::Relaxed) && self.failing.swap(false, Ordering::Relaxed) {
            tracing::info!("{} works again", self.what);
        }
    }
}
