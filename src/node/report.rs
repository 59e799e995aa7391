//! What the node says of itself, and the statistics.

use std::time::{Duration, UNIX_EPOCH};

use super::Node;
use crate::cluster::counts::{self, Counts};
use crate::cluster::{Announcement, NodeRow, RedisRow, Report, State, Stats, TOP_CHANNELS};
use crate::hub::Counters;
use crate::protocol::channel::{ChannelName, ChannelPattern};

impl Node {
    /// The contract's statistics, of the whole cluster. Answers within a second, whatever Redis does.
    pub async fn stats(&self) -> Stats {
        let (view, stale) = self.cluster.view(self.report()).await;
        view.stats(&self.plain_channels(), stale, self.timestamp())
    }

    /// The same of this node alone.
    pub async fn own_stats(&self) -> Stats {
        let view = self.cluster.own_view(self.report().await);
        view.stats(&self.plain_channels(), false, self.timestamp())
    }

    /// A request was refused with this code.
    pub fn count_refusal(&self, code: &'static str) {
        self.tally.rejected(code);
    }

    /// What the node says of itself in a heartbeat.
    pub(super) async fn report(&self) -> Report {
        let counters = self.counters().await;
        let channels = self.interest.audience(&self.plain_channels(), TOP_CHANNELS, &self.jobs.heard);
        Report {
            announcement: Announcement { row: self.node_row(&counters), channels },
            counts: self.counts(&counters),
        }
    }

    fn node_row(&self, counters: &Counters) -> NodeRow {
        let (usage, status) = (*self.vitals.usage(), self.broker_status());
        let reasons = self.troubles();
        let state = match (self.is_draining(), self.was_ready(), reasons.is_empty()) {
            (true, ..) => State::Draining,
            (_, false, _) => State::Starting,
            (_, _, false) => State::Degraded,
            _ => State::Healthy,
        };
        NodeRow {
            id: self.id().to_owned(),
            address: self.vitals.address.get().cloned().unwrap_or_default(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_ms: millis(self.clock.now().since(self.vitals.started)),
            connections: counters.connections,
            max_connections: self.max_connections() as u64,
            state,
            reasons,
            redis: RedisRow {
                connected: status.subscribed,
                lag_ms: status.lag.map(|lag| rounded(lag.as_secs_f64() * 1000.0)),
            },
            memory_bytes: usage.memory,
            memory_limit_bytes: usage.memory_limit,
            cpu_percent: rounded(usage.cpu * 100.0),
            open_files: usage.open_files,
        }
    }

    fn counts(&self, counters: &Counters) -> Counts {
        let mut counts = Counts::default();
        counts.set(counts::OPENED, counters.opened);
        counts.set(counts::MESSAGES, counters.events_sent);
        counts.set(counts::BYTES, counters.bytes_sent);
        counts.set(counts::LIVED_MS, counters.lived_ms);
        counts.set(counts::ERRORS, self.errors());
        for (cause, count) in counters.closings() {
            counts.set(format!("{}{cause}", counts::CLOSED), count);
        }
        for (end, count) in counters.lived.filled() {
            counts.set(format!("{}{end}", counts::LIVED), count);
        }
        self.tally.tell(&mut counts);
        counts
    }

    fn plain_channels(&self) -> Vec<ChannelName> {
        self.config.channels.iter().filter_map(ChannelPattern::plain).cloned().collect()
    }

    fn timestamp(&self) -> String {
        let now = UNIX_EPOCH + Duration::from_millis(self.clock.unix_millis());
        humantime::format_rfc3339_millis(now).to_string()
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// To a tenth.
fn rounded(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}
