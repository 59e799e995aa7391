//! The one place where a number for the cluster is computed (invariant 6).
//!
//! Two kinds of numbers: what is the case now is added up from the rows of the living nodes, of which each has one; what was counted
//! ever is read from the totals, to which each node has added its own, and never from rows. Pure.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::counts::{self, Counts};
use super::row::{Announcement, NodeRow, State};
use crate::protocol::channel::ChannelName;
use crate::protocol::close::CloseReason;
use crate::protocol::durations::percentile;

/// Channels that are told beside the configured ones: those with most subscribers.
pub const TOP_CHANNELS: usize = 100;

/// The reasons of closings that are not the server's.
const OTHER_REASONS: [&str; 2] = ["client", "completed"];

/// Everything that is known of the cluster, or of one node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct View {
    /// The living nodes by their incarnations.
    pub nodes: BTreeMap<String, Announcement>,
    /// What all nodes that there ever were have counted.
    pub totals: Counts,
    /// Different addresses.
    pub unique_ips: u64,
    /// Different sessions.
    pub unique_sessions: u64,
    /// For how long it has been counted.
    pub uptime_ms: u64,
}

/// The contract's statistics.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Stats {
    /// Streams open now.
    pub active_connections: u64,
    /// Different addresses that they come from.
    pub unique_ips: u64,
    /// Different sessions that they belong to.
    pub unique_sessions: u64,
    /// What was counted.
    pub metrics: Metrics,
    /// Subscribers by channel.
    pub channels: Channels,
    /// The nodes, in the order of their names.
    pub nodes: Vec<NodeRow>,
    /// The rest of the cluster cannot be asked now: of the other nodes this is what was known last.
    pub stale: bool,
    /// When this was computed (RFC 3339).
    pub generated_at: String,
}

/// What was counted since the totals began, or since the node started.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Metrics {
    /// Connections ever opened.
    pub total_connections: u64,
    /// Connections ever ended.
    pub total_disconnections: u64,
    /// Connections opened by a client that had been connected before.
    pub total_reconnects: u64,
    /// Events broadcast.
    pub total_broadcasts: u64,
    /// Events sent, once per stream.
    pub total_messages_sent: u64,
    /// Bytes sent.
    pub total_bytes_sent: u64,
    /// What failed.
    pub total_errors: u64,
    /// Refusals by their code.
    pub total_rejected: BTreeMap<String, u64>,
    /// Closings by their reason.
    pub closed_by: BTreeMap<String, u64>,
    /// Of the connections that have ended.
    pub avg_connection_duration_ms: u64,
    /// Of the connections that have ended, to within 10 %.
    #[serde(rename = "p50ConnectionDurationMs")]
    pub p50_connection_duration_ms: u64,
    /// Of the connections that have ended, to within 10 %.
    #[serde(rename = "p95ConnectionDurationMs")]
    pub p95_connection_duration_ms: u64,
    /// For how long it has been counted.
    pub uptime_ms: u64,
}

/// Subscribers by channel, most first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Channels(pub Vec<(ChannelName, u64)>);

impl Serialize for Channels {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (channel, subscribers) in &self.0 {
            map.serialize_entry(channel, subscribers)?;
        }
        map.end()
    }
}

impl View {
    /// The statistics; `configured` channels are told even when nobody hears them.
    pub fn stats(&self, configured: &[ChannelName], stale: bool, generated_at: String) -> Stats {
        let mut nodes: Vec<NodeRow> = self.nodes.values().map(|node| node.row.clone()).collect();
        nodes.sort_by(|a, b| a.id.cmp(&b.id));
        Stats {
            active_connections: nodes.iter().map(|node| node.connections).sum(),
            unique_ips: self.unique_ips,
            unique_sessions: self.unique_sessions,
            metrics: metrics(&self.totals, self.uptime_ms),
            channels: self.channels(configured),
            nodes,
            stale,
            generated_at,
        }
    }

    /// The nodes that are going.
    pub fn draining(&self) -> impl Iterator<Item = &NodeRow> {
        self.nodes.values().map(|node| &node.row).filter(|row| row.state == State::Draining)
    }

    fn channels(&self, configured: &[ChannelName]) -> Channels {
        let mut subscribers: BTreeMap<&ChannelName, u64> = configured.iter().map(|name| (name, 0)).collect();
        for (channel, count) in self.nodes.values().flat_map(|node| &node.channels) {
            *subscribers.entry(channel).or_default() += count;
        }
        let mut ranked: Vec<(ChannelName, u64)> =
            subscribers.into_iter().map(|(channel, count)| (channel.clone(), count)).collect();
        ranked.sort_by_key(|(_, count)| Reverse(*count));
        let mut others = 0;
        ranked.retain(|(channel, _)| {
            let is_configured = configured.contains(channel);
            others += usize::from(!is_configured);
            is_configured || others <= TOP_CHANNELS
        });
        Channels(ranked)
    }
}

fn metrics(totals: &Counts, uptime_ms: u64) -> Metrics {
    let family = |beginning| totals.family(beginning).map(|(name, count)| (name.to_owned(), count));
    let known = CloseReason::ALL.iter().map(|reason| reason.name()).chain(OTHER_REASONS);
    let mut closed_by: BTreeMap<String, u64> = known.map(|reason| (reason.to_owned(), 0)).collect();
    closed_by.extend(family(counts::CLOSED));
    let ended = closed_by.values().sum();
    let mut lived: Vec<(u64, u64)> =
        totals.family(counts::LIVED).filter_map(|(end, count)| Some((end.parse().ok()?, count))).collect();
    lived.sort_unstable();
    Metrics {
        total_connections: totals.get(counts::OPENED),
        total_disconnections: ended,
        total_reconnects: totals.get(counts::RECONNECTED),
        total_broadcasts: totals.get(counts::BROADCASTS),
        total_messages_sent: totals.get(counts::MESSAGES),
        total_bytes_sent: totals.get(counts::BYTES),
        total_errors: totals.get(counts::ERRORS),
        total_rejected: family(counts::REJECTED).collect(),
        closed_by,
        avg_connection_duration_ms: totals.get(counts::LIVED_MS).checked_div(ended).unwrap_or(0),
        p50_connection_duration_ms: percentile(&lived, 0.5).unwrap_or(0),
        p95_connection_duration_ms: percentile(&lived, 0.95).unwrap_or(0),
        uptime_ms,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn node(id: &str, connections: u64, channels: &[(&str, u64)]) -> Announcement {
        let row = NodeRow { id: id.into(), connections, ..NodeRow::default() };
        let named = |(name, count): &(&str, u64)| (ChannelName::parse(name).unwrap(), *count);
        Announcement { row, channels: channels.iter().map(named).collect() }
    }

    fn names(stats: &Stats) -> Vec<(&str, u64)> {
        stats.channels.0.iter().map(|(name, count)| (name.as_str(), *count)).collect()
    }

    #[test]
    fn channels_are_the_configured_ones_and_those_with_most_subscribers() {
        let many: Vec<(String, u64)> = (0..150).map(|i| (format!("c{i}"), 1000 + i)).collect();
        let many: Vec<(&str, u64)> = many.iter().map(|(name, count)| (name.as_str(), *count)).collect();
        let mut view = View::default();
        view.nodes.insert("a".into(), node("b", 3, &[("jobs", 2), ("x", 1)]));
        view.nodes.insert("b".into(), node("a", 4, &many));
        let configured = ["jobs", "quiet"].map(|name| ChannelName::parse(name).unwrap());
        let stats = view.stats(&configured, false, String::new());
        let channels = names(&stats);
        assert_eq!(channels.len(), 2 + TOP_CHANNELS);
        assert_eq!((channels[0], channels[99]), (("c149", 1149), ("c50", 1050)));
        assert_eq!(channels[100..], [("jobs", 2), ("quiet", 0)]);
        assert_eq!(stats.nodes.iter().map(|row| row.id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn every_reason_is_told_and_averages_are_of_ended_connections() {
        let counted = [
            ("closed:client", 3),
            ("closed:kicked", 1),
            ("lived_ms", 8000),
            ("lived:1600", 4),
            ("opened", 9),
        ];
        let view = View { totals: Counts::from_iter(counted), uptime_ms: 7, ..View::default() };
        let Metrics { total_disconnections, closed_by, avg_connection_duration_ms, .. } =
            view.stats(&[], false, String::new()).metrics;
        assert_eq!((total_disconnections, avg_connection_duration_ms), (4, 2000));
        assert_eq!(
            (closed_by["client"], closed_by["max_age"], closed_by.len()),
            (3, 0, CloseReason::ALL.len() + 2)
        );
        let nothing = View::default().stats(&[], false, String::new()).metrics;
        assert_eq!((nothing.avg_connection_duration_ms, nothing.p95_connection_duration_ms), (0, 0));
    }

    #[test]
    fn the_members_are_those_of_the_contract() {
        let mut view = View::default();
        view.nodes.insert("a".into(), node("a", 1, &[("jobs", 1)]));
        let json = serde_json::to_value(view.stats(&[], false, "now".into())).unwrap();
        for path in [
            "/activeConnections",
            "/uniqueIps",
            "/uniqueSessions",
            "/generatedAt",
            "/channels/jobs",
            "/metrics/totalConnections",
            "/metrics/totalDisconnections",
            "/metrics/totalReconnects",
            "/metrics/totalBroadcasts",
            "/metrics/totalMessagesSent",
            "/metrics/totalErrors",
            "/metrics/totalRejected",
            "/metrics/closedBy",
            "/metrics/avgConnectionDurationMs",
            "/metrics/p50ConnectionDurationMs",
            "/metrics/p95ConnectionDurationMs",
            "/metrics/uptimeMs",
            "/nodes/0/id",
            "/nodes/0/address",
            "/nodes/0/version",
            "/nodes/0/uptimeMs",
            "/nodes/0/connections",
            "/nodes/0/state",
            "/nodes/0/redis/connected",
            "/nodes/0/redis/lagMs",
            "/nodes/0/memoryBytes",
            "/nodes/0/cpuPercent",
        ] {
            assert!(json.pointer(path).is_some(), "{path}");
        }
    }

    proptest! {
        /// A row is there once per incarnation, however often it was read; what was counted never comes from rows.
        #[test]
        fn adding_rows_up_counts_nothing_twice(
            rows in prop::collection::vec((0usize..6, 0u64..1000), 0..30),
            opened in 0u64..1_000_000,
        ) {
            let mut view = View { totals: Counts::from_iter([(counts::OPENED, opened)]), ..View::default() };
            let mut last = [0; 6];
            for (incarnation, connections) in &rows {
                last[*incarnation] = *connections;
                view.nodes.insert(incarnation.to_string(), node("same", *connections, &[("jobs", *connections)]));
            }
            let stats = view.stats(&[], false, String::new());
            prop_assert_eq!(stats.active_connections, last.iter().sum::<u64>());
            prop_assert_eq!(names(&stats).iter().map(|(_, n)| n).sum::<u64>(), last.iter().sum::<u64>());
            prop_assert_eq!(stats.metrics.total_connections, opened);
        }
    }
}
