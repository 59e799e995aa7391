//! The result of a run, for people and for machines.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use hdrhistogram::Histogram;
use serde::Serialize;

use super::checker::Verdict;

/// A distribution of times, in milliseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Times {
    count: u64,
    mean: f64,
    p50: f64,
    p90: f64,
    p99: f64,
    p999: f64,
    max: f64,
}

impl Times {
    /// From a histogram of microseconds.
    pub(super) fn of(histogram: &Histogram<u64>) -> Self {
        let millis = |micros: u64| micros as f64 / 1000.0;
        let at = |quantile| millis(histogram.value_at_quantile(quantile));
        Self {
            count: histogram.len(),
            mean: histogram.mean() / 1000.0,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: millis(histogram.max()),
        }
    }
}

/// What a histogram has counted: the upper end of each step that is not empty, and how much is in it.
pub(super) fn steps(histogram: &Histogram<u64>) -> Vec<(u64, u64)> {
    histogram
        .iter_recorded()
        .map(|step| (step.value_iterated_to(), step.count_since_last_iteration()))
        .collect()
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.count == 0 {
            return f.write_str("–");
        }
        let Self { p50, p90, p99, p999, max, .. } = self;
        write!(f, "p50 {p50:.2} ms  p90 {p90:.2}  p99 {p99:.2}  p99.9 {p999:.2}  max {max:.2}")
    }
}

/// What the server used.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ServerUse {
    /// Process id.
    pub(super) pid: u32,
    /// While measuring, in microseconds.
    pub(super) cpu_micros: u64,
    /// Of one core, while measuring.
    pub(super) cpu_percent: f64,
    /// None without deliveries.
    pub(super) cpu_micros_per_delivery: Option<f64>,
    /// Before the first connection.
    pub(super) pss_bytes_before: u64,
    /// With all connections, before the first event.
    pub(super) pss_bytes_connected: u64,
    /// The growth, per open stream.
    pub(super) bytes_per_connection: f64,
}

/// The result of a run.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    /// Streams asked for.
    pub(super) connections: usize,
    /// Streams that were open when measuring began.
    pub(super) open: usize,
    /// Attempts that came to nothing, by reason.
    pub(super) refused: BTreeMap<String, u64>,
    /// Streams that ended before the run did.
    pub(super) closed: u64,
    /// From the first attempt until all were decided.
    pub(super) connect_seconds: f64,
    /// Until TCP stood; 1 s and more means a lost SYN.
    pub(super) connect_millis: Times,
    /// Until the first byte of the answer.
    pub(super) first_byte_millis: Times,
    /// Over which deliveries and CPU were counted.
    pub(super) measured_seconds: f64,
    /// Events published while measuring.
    pub(super) published: u64,
    /// Events that the server did not take, by reason.
    pub(super) publish_refused: BTreeMap<String, u64>,
    /// Of the publisher.
    pub(super) publish_reconnects: u64,
    /// Deliveries while measuring.
    pub(super) deliveries: u64,
    /// Deliveries while measuring, per second.
    pub(super) deliveries_per_second: f64,
    /// From publishing (open loop: from when it was due) to receipt.
    pub(super) latency_millis: Times,
    /// The same as steps to be added up over several runs: up to so many microseconds, so many deliveries. Steps differ by
    /// less than 0.1 %.
    pub(super) latency_steps: Vec<(u64, u64)>,
    /// Of the whole run, warm-up included.
    pub(super) acknowledged: u64,
    /// Acknowledged, and missing on a stream.
    pub(super) lost: u64,
    /// Arrived again on the same stream.
    pub(super) duplicated: u64,
    /// Arrived after a later one.
    pub(super) out_of_order: u64,
    /// Events that were not everywhere within the patience of the run.
    pub(super) overdue: u64,
    /// Numbers of other publishers.
    pub(super) foreign: u64,
    /// Bytes read by all streams.
    pub(super) bytes: u64,
    /// The load generator's own share of one core: near 100, it is what was measured.
    pub(super) client_cpu_percent: f64,
    /// With `--pid`.
    pub(super) server: Option<ServerUse>,
}

impl Report {
    /// Takes over what the checker found.
    pub(super) fn judge(&mut self, verdict: &Verdict) {
        self.acknowledged = verdict.acknowledged;
        self.lost = verdict.lost;
        self.duplicated = verdict.duplicated;
        self.out_of_order = verdict.out_of_order;
    }

    /// Nothing was refused, closed, lost, repeated or out of order.
    pub(super) fn is_clean(&self) -> bool {
        let bad = self.closed + self.lost + self.duplicated + self.out_of_order;
        bad == 0 && self.refused.is_empty() && self.publish_refused.is_empty()
    }

    /// The result as aligned lines.
    pub(super) fn table(&self) -> String {
        let mut table = String::new();
        // Writing into a String cannot fail.
        let mut row = |name: &str, text: String| _ = writeln!(table, "{name:<12} {text}");
        row(
            "streams",
            format!(
                "{} open of {}, {} closed early{}",
                self.open,
                self.connections,
                self.closed,
                reasons("refused", &self.refused)
            ),
        );
        row("connect", format!("{}  (all in {:.2} s)", self.connect_millis, self.connect_seconds));
        row("first byte", self.first_byte_millis.to_string());
        let per_second = self.published as f64 / self.measured_seconds.max(1e-9);
        row(
            "published",
            format!(
                "{} in {:.2} s ({per_second:.1}/s){}",
                self.published,
                self.measured_seconds,
                reasons("refused", &self.publish_refused)
            ),
        );
        row("deliveries", format!("{} ({:.0}/s)", self.deliveries, self.deliveries_per_second));
        row(
            "check",
            format!(
                "{} lost, {} duplicated, {} out of order, {} overdue",
                self.lost, self.duplicated, self.out_of_order, self.overdue
            ),
        );
        row("latency", self.latency_millis.to_string());
        if let Some(server) = &self.server {
            row("server", server.to_string());
        }
        row("client", format!("{:.0} % of a core", self.client_cpu_percent));
        table
    }
}

impl fmt::Display for ServerUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(micros) = self.cpu_micros_per_delivery {
            write!(f, "{micros:.2} µs CPU per delivery, ")?;
        }
        write!(
            f,
            "{:.0} % of a core, {:.0} bytes per connection",
            self.cpu_percent, self.bytes_per_connection
        )
    }
}

fn reasons(label: &str, reasons: &BTreeMap<String, u64>) -> String {
    reasons.iter().map(|(reason, count)| format!(", {count} {label}: {reason}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_milliseconds_of_a_histogram_of_microseconds() {
        let mut histogram = super::super::tracker::histogram().unwrap();
        (1..=1000).for_each(|n| histogram.saturating_record(n * 10));
        let times = Times::of(&histogram);
        assert_eq!((times.p50, times.count), (5.003, 1000));
        assert!((times.max - 10.0).abs() < 0.01, "{times}");
        assert_eq!(Times::default().to_string(), "–");
    }

    #[test]
    fn steps_can_be_added_up() {
        let mut histogram = super::super::tracker::histogram().unwrap();
        [100, 100, 7_000].into_iter().for_each(|micros| histogram.saturating_record(micros));
        assert_eq!(steps(&histogram), [(100, 2), (7_003, 1)]);
    }
}
