//! What the node counts and measures, in the text of OpenMetrics 1.0 (<https://prometheus.io/docs/specs/om/open_metrics_spec/>).
//!
//! Nothing is counted for it: the numbers are those of the statistics and of the self-watch, put together when they are asked
//! for. No channel, address or session is a label, so the number of series does not grow with use. docs/telemetry.md has the
//! list; a test keeps it true.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text::encode_registry;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::Node;
use crate::trace;

type Labels = Vec<(&'static str, String)>;

/// The registry of one answer.
struct Page(Registry);

impl Page {
    fn gauge(&mut self, name: &str, help: &str, value: f64) {
        let gauge = Gauge::<f64, AtomicU64>::default();
        gauge.set(value);
        self.0.register(name, help, gauge);
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        let counter = Counter::<u64>::default();
        counter.inc_by(value);
        self.0.register(name, help, counter);
    }

    fn counters<'a>(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        values: impl IntoIterator<Item = (&'a String, &'a u64)>,
    ) {
        let family = Family::<Labels, Counter>::default();
        for (value, count) in values {
            family.get_or_create(&vec![(label, value.clone())]).inc_by(*count);
        }
        self.0.register(name, help, family);
    }
}

impl Node {
    /// This node's metrics as a page of OpenMetrics text.
    pub async fn metrics(&self) -> String {
        let mut page = Page(Registry::with_prefix("fanlight"));
        let (usage, strain) = (*self.vitals.usage(), self.vitals.strain());
        let waiting = self.counters().await.waiting;
        let stats = self.own_stats().await;
        let m = &stats.metrics;
        page.gauge("connections", "Streams open now", stats.active_connections as f64);
        page.gauge("connections_limit", "Streams that this node takes", self.max_connections() as f64);
        page.gauge("connections_waiting", "Streams with events that wait for their socket", waiting as f64);
        page.counter("connections_opened", "Streams ever opened", m.total_connections);
        page.counters("connections_closed", "Streams ended, by reason", "reason", &m.closed_by);
        page.counter("connections_resumed", "Streams of clients that had one before", m.total_reconnects);
        page.counters("requests_rejected", "Refusals, by code", "code", &m.total_rejected);
        page.counter("events_received", "Events that came for this node's streams", m.total_broadcasts);
        page.counter("events_sent", "Events handed to sockets, once for each stream", m.total_messages_sent);
        page.counter("sent_bytes", "Bytes handed to sockets", m.total_bytes_sent);
        page.counter("errors", "Publications, histories and payloads that failed", m.total_errors);
        page.counter("gaps", "Gaps told to the streams of a channel", self.tally.gaps());
        page.counter("history_reads", "Reads of histories for clients that came back", self.history.reads());
        page.counter("spans_dropped", "Spans that the exporter could not take", trace::dropped());
        let turn = strain.longest_turn.as_secs_f64();
        page.gauge("shard_turn_seconds", "The longest turn of a shard's loop in the last second", turn);
        page.gauge(
            "shard_inbox_ratio",
            "The fullest inbox of a shard in the last second",
            strain.fullest_inbox,
        );
        self.broker_metrics(&mut page);
        page.gauge("draining", "1 while the node is going", f64::from(u8::from(self.is_draining())));
        page.gauge("degraded", "Reasons for which the node is degraded", self.troubles().len() as f64);
        page.gauge("uptime_seconds", "Since the start", m.uptime_ms as f64 / 1000.0);
        page.gauge("memory_bytes", "Resident memory", usage.memory as f64);
        page.gauge("cpu_ratio", "CPU time in the last second; 1 is one core", usage.cpu);
        page.gauge("open_files", "Open files, sockets included", usage.open_files as f64);
        page.gauge("open_files_limit", "Open files that the process may have", usage.max_files as f64);
        let mut text = String::new();
        // Writing into a string does not fail.
        let _ = encode_registry(&mut text, &page.0);
        text + "# EOF\n"
    }

    fn broker_metrics(&self, page: &mut Page) {
        let status = self.broker_status();
        let lag = status.lag.map_or(f64::NAN, |lag| lag.as_secs_f64());
        page.gauge(
            "broker_subscribed",
            "1 while the subscriptions stand",
            f64::from(u8::from(status.subscribed)),
        );
        page.gauge("broker_lag_seconds", "The last probe's way through the broker and back", lag);
        page.counter("broker_reconnects", "Subscriber connections made again", status.reconnects);
        page.counter("payloads_dropped", "Payloads that no event could be read from", status.dropped);
    }
}
