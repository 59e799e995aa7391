//! The status that others see, and the log lines that go with its changes.

use std::time::Duration;

use tokio::sync::watch;

use crate::broker::Status;
use crate::clock::{Clock, Tick};
use crate::protocol::channel::ChannelName;

/// How often dropped payloads are mentioned at most: whoever publishes garbage does so all the time.
const DROP_LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Keeps the status and says what changed.
#[derive(Debug)]
pub(super) struct Health {
    status: watch::Sender<Status>,
    clock: Clock,
    drops_told: Option<(Tick, u64)>,
    holes: Holes,
}

/// Events that did not arrive on a connection that stands: told once when that begins and once when it is over, which a probe
/// decides that has come back without one more.
#[derive(Debug, Default)]
struct Holes {
    /// Since it began; 0 when there is nothing.
    count: u64,
    /// Since the last probe.
    fresh: bool,
}

impl Health {
    pub(super) fn new(clock: Clock) -> Self {
        let status = Status { problem: Some("connecting".into()), ..Status::default() };
        Self { status: watch::Sender::new(status), clock, drops_told: None, holes: Holes::default() }
    }

    pub(super) fn watch(&self) -> watch::Sender<Status> {
        self.status.clone()
    }

    /// Everything wanted is subscribed.
    pub(super) fn subscribed(&self, channels: usize, again: bool) {
        self.status.send_modify(|status| {
            status.subscribed = true;
            status.problem = None;
            status.reconnects += u64::from(again);
        });
        tracing::info!(channels, "subscribed");
    }

    /// The connection is gone, or could not be made. Says so when it is news.
    pub(super) fn lost(&self, why: &str) {
        let before = self.status.borrow().clone();
        if before.subscribed {
            tracing::warn!(reason = why, "lost the subscriber connection to Redis; retrying");
        } else if before.problem.as_deref() != Some(why) {
            tracing::warn!(reason = why, "cannot subscribe to Redis; retrying");
        }
        self.status.send_if_modified(|status| {
            let news = status.subscribed || status.problem.as_deref() != Some(why);
            status.subscribed = false;
            status.problem = Some(why.to_owned());
            news
        });
    }

    /// An event did not arrive on this channel, though the connection stands.
    pub(super) fn missed(&mut self, channel: &ChannelName) {
        if self.holes.count == 0 {
            tracing::warn!(%channel, "an event did not arrive; filling from history, and told once until all arrive again");
        } else {
            tracing::debug!(%channel, "an event did not arrive; filling from history");
        }
        self.holes = Holes { count: self.holes.count + 1, fresh: true };
    }

    /// The probe came back.
    pub(super) fn probed(&mut self, lag: Duration) {
        if !std::mem::take(&mut self.holes.fresh) && self.holes.count > 0 {
            let Holes { count, .. } = std::mem::take(&mut self.holes);
            tracing::info!(filled = count, "all events arrive again");
        }
        let now = self.clock.now();
        self.status.send_modify(|status| {
            status.lag = Some(lag);
            status.probed_at = Some(now);
        });
    }

    /// Payloads were dropped.
    pub(super) fn dropped(&mut self, count: u64, why: &str) {
        if count == 0 {
            return;
        }
        self.status.send_modify(|status| status.dropped += count);
        let (now, total) = (self.clock.now(), self.status.borrow().dropped);
        let quiet = self.drops_told.is_some_and(|(told, _)| now.since(told) < DROP_LOG_INTERVAL);
        if !quiet {
            let since = self.drops_told.map_or(0, |(_, total)| total);
            tracing::warn!(reason = why, dropped = total - since, "dropped what was published on Redis");
            self.drops_told = Some((now, total));
        }
    }
}
