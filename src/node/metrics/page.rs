//! A page of metrics: numbers that somebody else has counted, put into a registry for one answer.

use std::collections::HashSet;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text::encode_registry;
use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::protocol::latency::Latency;

type Labels = Vec<(&'static str, String)>;

/// How a page of metrics is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricsFormat {
    /// OpenMetrics 1.0 (<https://prometheus.io/docs/specs/om/open_metrics_spec/>).
    OpenMetrics,
    /// Prometheus' text format 0.0.4 (<https://prometheus.io/docs/instrumenting/exposition_formats/>).
    Prometheus,
}

impl MetricsFormat {
    /// Its media type.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// The registry of one answer.
pub(super) struct Page(Registry);

impl Page {
    pub(super) fn new() -> Self {
        Self(Registry::with_prefix("fanlight"))
    }

    pub(super) fn gauge(&mut self, name: &str, help: &str, value: f64) {
        let gauge = Gauge::<f64, AtomicU64>::default();
        gauge.set(value);
        self.0.register(name, help, gauge);
    }

    /// 1 for yes.
    pub(super) fn flag(&mut self, name: &str, help: &str, value: bool) {
        self.gauge(name, help, f64::from(u8::from(value)));
    }

    /// A 1 that is there for its label.
    pub(super) fn note(&mut self, name: &str, help: &str, label: &'static str, value: &str) {
        let family = Family::<Labels, Gauge>::default();
        family.get_or_create(&vec![(label, value.to_owned())]).set(1);
        self.0.register(name, help, family);
    }

    pub(super) fn counter(&mut self, name: &str, help: &str, value: u64) {
        let counter = Counter::<u64>::default();
        counter.inc_by(value);
        self.0.register(name, help, counter);
    }

    pub(super) fn seconds(&mut self, name: &str, help: &str, value: f64) {
        let counter = Counter::<f64, AtomicU64>::default();
        counter.inc_by(value);
        self.0.register(name, help, counter);
    }

    pub(super) fn counters(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        values: impl IntoIterator<Item = (impl Into<String>, u64)>,
    ) {
        let family = Family::<Labels, Counter>::default();
        for (value, count) in values {
            family.get_or_create(&vec![(label, value.into())]).inc_by(count);
        }
        self.0.register(name, help, family);
    }

    /// A histogram in seconds, or one for each value of a label.
    pub(super) fn latency(&mut self, name: &str, help: &str, latency: impl Into<Latencies>) {
        self.0.register(name, help, latency.into());
    }

    pub(super) fn text(&self, format: MetricsFormat) -> String {
        let mut text = String::new();
        // Writing into a string does not fail.
        let _ = encode_registry(&mut text, &self.0);
        match format {
            MetricsFormat::OpenMetrics => text + "# EOF\n",
            MetricsFormat::Prometheus => with_endings(&text),
        }
    }
}

/// The head of a counter bears its whole name in Prometheus' format, and in OpenMetrics the name without `_total`.
fn with_endings(text: &str) -> String {
    let counter = |line: &'_ str| Some(line.strip_prefix("# TYPE ")?.strip_suffix(" counter")?.to_owned());
    let counters: HashSet<String> = text.lines().filter_map(counter).collect();
    let mut page = String::with_capacity(text.len() + 12 * counters.len());
    for line in text.lines() {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        match words[..] {
            ["#", word, name, rest] if counters.contains(name) => {
                page.extend(["# ", word, " ", name, "_total ", rest, "\n"]);
            }
            _ => page.extend([line, "\n"]),
        }
    }
    page
}

/// Histograms that are counted already, which the library's own cannot hold.
#[derive(Debug)]
pub(super) enum Latencies {
    One(Latency),
    ByLabel(&'static str, Vec<(&'static str, Latency)>),
}

impl From<Latency> for Latencies {
    fn from(latency: Latency) -> Self {
        Self::One(latency)
    }
}

impl EncodeMetric for Latencies {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        match self {
            Self::One(latency) => encode(&mut encoder, latency),
            Self::ByLabel(label, latencies) => latencies.iter().try_for_each(|(value, latency)| {
                encode(&mut encoder.encode_family(&[(*label, *value)])?, latency)
            }),
        }
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

fn encode(encoder: &mut MetricEncoder<'_>, latency: &Latency) -> Result<(), std::fmt::Error> {
    let buckets: Vec<(f64, u64)> = latency.buckets().collect();
    encoder.encode_histogram::<NoLabelSet>(latency.sum().as_secs_f64(), latency.count(), &buckets, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_is_cumulative_and_its_last_bucket_holds_everything() {
        let mut latency = Latency::default();
        latency.record(400, 3);
        latency.record(20_000_000, 1);
        let mut page = Page::new();
        page.latency("a_seconds", "A", latency.clone());
        page.latency(
            "b_seconds",
            "B",
            Latencies::ByLabel("since", vec![("x", latency), ("y", Latency::default())]),
        );
        let text = page.text(MetricsFormat::OpenMetrics);
        for line in [
            "fanlight_a_seconds_bucket{le=\"0.00025\"} 0",
            "fanlight_a_seconds_bucket{le=\"0.0005\"} 3",
            "fanlight_a_seconds_bucket{le=\"10.0\"} 3",
            "fanlight_a_seconds_bucket{le=\"+Inf\"} 4",
            "fanlight_a_seconds_count 4",
            "fanlight_b_seconds_bucket{le=\"+Inf\",since=\"x\"} 4",
            "fanlight_b_seconds_count{since=\"y\"} 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in {text}");
        }
    }

    #[test]
    fn a_counter_s_head_has_its_ending_where_the_format_wants_it() {
        let mut page = Page::new();
        page.counter("a", "Of a counter", 7);
        page.gauge("b", "Of a gauge", 1.0);
        let open = page.text(MetricsFormat::OpenMetrics);
        assert!(open.starts_with("# HELP fanlight_a Of") && open.ends_with("# EOF\n"), "{open}");
        assert_eq!(
            page.text(MetricsFormat::Prometheus),
            "# HELP fanlight_a_total Of a counter.\n# TYPE fanlight_a_total counter\nfanlight_a_total 7\n\
             # HELP fanlight_b Of a gauge.\n# TYPE fanlight_b gauge\nfanlight_b 1.0\n"
        );
    }
}
