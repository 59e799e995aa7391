//! What the node counts and measures, as text.
//!
//! The numbers are those of the statistics, of the self-watch and of whoever measures, put together when they are asked
//! for. No channel, address or session is a label, so the number of series does not grow with use. docs/telemetry.md has the
//! list; a test keeps it true.

mod page;

use super::Node;
use crate::cluster::Metrics;
use crate::hub::Counters;
use crate::protocol::latency::RoundTrips;
use crate::trace;
pub use page::MetricsFormat;
use page::{Latencies, Page};

impl Node {
    /// This node's metrics as a page of text.
    pub async fn metrics(&self, format: MetricsFormat) -> String {
        let mut page = Page::new();
        let counters = self.counters().await;
        let stats = self.own_stats().await;
        page.note("build_info", "1, with the version", "version", env!("CARGO_PKG_VERSION"));
        page.gauge("connections", "Streams open now", stats.active_connections as f64);
        page.gauge("connections_limit", "Streams that this node takes", self.max_connections() as f64);
        connections(&mut page, &stats.metrics);
        self.events(&mut page, &stats.metrics, &counters);
        self.shards(&mut page, &counters);
        self.broker_and_limits(&mut page);
        self.itself(&mut page, stats.metrics.uptime_ms);
        page.text(format)
    }

    fn events(&self, page: &mut Page, totals: &Metrics, counters: &Counters) {
        let (published, published_bytes) = self.tally.taken_in();
        let received_bytes = self.tally.received_bytes();
        page.counter("events_published", "Events that publishers gave to this node", published);
        page.counter("published_bytes", "Bytes of data in these", published_bytes);
        page.counter("events_received", "Events that came for this node's streams", totals.total_broadcasts);
        page.counter("received_bytes", "Bytes of data in these", received_bytes);
        page.counter(
            "events_sent",
            "Events handed to sockets, once for each stream",
            totals.total_messages_sent,
        );
        page.counter("sent_bytes", "Bytes handed to sockets", totals.total_bytes_sent);
        let lags =
            vec![("published", counters.lag_published.clone()), ("arrived", counters.lag_arrived.clone())];
        let help =
            "From publication, or arrival where that is not known, until every socket was given the event";
        page.latency("delivery_lag_seconds", help, Latencies::ByLabel("since", lags));
        page.counter("errors", "Publications, histories and payloads that failed", totals.total_errors);
        page.counters("gaps", "Gaps told, by reason", "reason", self.tally.gaps());
        page.counter("history_reads", "Reads of histories for clients that came back", self.history.reads());
        page.counter("spans_dropped", "Spans that the exporter could not take", trace::dropped());
    }

    fn shards(&self, page: &mut Page, counters: &Counters) {
        let strain = self.vitals.strain();
        let waiting = counters.waiting as f64;
        page.gauge("connections_waiting", "Streams with events that wait for their socket", waiting);
        page.gauge("waiting_events", "Events that wait for sockets", counters.waiting_events as f64);
        page.gauge("waiting_bytes", "Bytes that wait for sockets", counters.waiting_bytes as f64);
        page.gauge("waiting_events_max", "Events that wait for one socket", counters.longest_queue as f64);
        page.latency("shard_turn_seconds", "The turns of the shards' loops", counters.turns.clone());
        let longest = strain.longest_turn.as_secs_f64();
        page.gauge("shard_turn_max_seconds", "The longest turn in the last second", longest);
        let help = "The fullest inbox of a shard in the last second";
        page.gauge("shard_inbox_ratio", help, strain.fullest_inbox);
    }

    fn broker_and_limits(&self, page: &mut Page) {
        let (status, limits) = (self.broker_status(), self.admission.status());
        let lag = status.lag.map_or(f64::NAN, |lag| lag.as_secs_f64());
        let age = status.probed_at.map_or(f64::NAN, |at| self.clock.now().since(at).as_secs_f64());
        page.flag("broker_subscribed", "1 while the subscriptions stand", status.subscribed);
        page.gauge("broker_lag_seconds", "The last probe's way through the broker and back", lag);
        page.gauge("broker_probe_age_seconds", "Since the last probe came back", age);
        page.counter("broker_reconnects", "Subscriber connections made again", status.reconnects);
        page.counter("payloads_dropped", "Payloads that no event could be read from", status.dropped);
        let RoundTrips { took, failed } = self.broker.round_trips();
        page.latency("redis_command_seconds", "Commands to Redis and back", took);
        page.counter("redis_command_errors", "Commands that Redis refused or did not answer", failed);
        let renewals = [("ok", limits.renewals), ("failed", limits.failed_renewals)];
        page.counters("lease_renewals", "Renewals of this node's lease, by result", "result", renewals);
        page.counter("leases_lost", "Leases that Redis had forgotten", limits.lost_leases);
        page.flag("limits_cluster_wide", "1 while Redis decides about the limits", limits.cluster_wide);
    }

    fn itself(&self, page: &mut Page, uptime_ms: u64) {
        let usage = *self.vitals.usage();
        page.flag("draining", "1 while the node is going", self.is_draining());
        page.gauge("degraded", "Reasons for which the node is degraded", self.troubles().len() as f64);
        page.gauge("uptime_seconds", "Since the start", uptime_ms as f64 / 1000.0);
        page.gauge("memory_bytes", "Resident memory", usage.memory as f64);
        let limit = usage.memory_limit.map_or(f64::INFINITY, |limit| limit as f64);
        page.gauge("memory_limit_bytes", "Memory that the node may use", limit);
        page.gauge("cpu_ratio", "CPU time in the last second; 1 is one core", usage.cpu);
        page.seconds("cpu_seconds", "CPU time since the start", usage.cpu_seconds);
        page.gauge("threads", "Threads of the process", usage.threads as f64);
        page.gauge("open_files", "Open files, sockets included", usage.open_files as f64);
        page.gauge("open_files_limit", "Open files that the process may have", usage.max_files as f64);
    }
}

fn connections(page: &mut Page, totals: &Metrics) {
    let each = |counts: &std::collections::BTreeMap<String, u64>| counts.clone().into_iter();
    page.counter("connections_opened", "Streams ever opened", totals.total_connections);
    page.counters("connections_closed", "Streams ended, by reason", "reason", each(&totals.closed_by));
    page.counter("connections_resumed", "Streams of clients that had one before", totals.total_reconnects);
    page.counters("requests_rejected", "Refusals, by code", "code", each(&totals.total_rejected));
}
