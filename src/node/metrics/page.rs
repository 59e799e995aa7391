//! A page of metrics: numbers that somebody else has counted, put into a registry for one answer.

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

    /// The page as OpenMetrics text.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        // Writing into a string does not fail.
        let _ = encode_registry(&mut text, &self.0);
        text + "# EOF\n"
    }
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
        let text = page.text();
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
}
