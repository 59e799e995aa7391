//! The node judges itself: what is measured once a second against documented thresholds (docs/operations.md, "When a node is
//! degraded"). Pure but for the log: what is to be done about it is decided elsewhere.

use std::collections::VecDeque;
use std::time::Duration;

use crate::hub::Strain;

/// How many seconds in a row a sign must be bad before it counts; a machine that is busy for a moment is not ill.
const BAD_LOOKS: u32 = 3;

/// How many seconds in a row it must be good again.
const GOOD_LOOKS: u32 = 5;

/// Over how many seconds rates are taken.
const RATE_LOOKS: usize = 10;

/// Rates of slow consumers are of at least so many streams: one slow reader among three is no illness of the node.
const FEW_STREAMS: u64 = 100;

/// The share of failed publications is of at least so many: one that failed is its publisher's business.
const FEW_PUBLICATIONS: u64 = 3;

/// From this share of memory or files on newcomers are refused.
const REFUSE_AT: f64 = 0.85;

/// From this share on streams are closed as well.
const SHED_AT: f64 = 0.92;

/// Below this share the pressure is over.
const CALM_BELOW: f64 = 0.80;

/// What is measured, and from when on it is bad.
#[derive(Clone, Copy, Debug)]
struct Threshold {
    /// In the log; stands for it in all output.
    sign: &'static str,
    words: &'static str,
    unit: Unit,
    bad_from: f64,
    good_below: f64,
    /// Counts as soon as it is seen.
    at_once: bool,
}

#[derive(Clone, Copy, Debug)]
enum Unit {
    Milliseconds,
    Percent,
    PerSecond,
}

const fn threshold(
    sign: &'static str,
    words: &'static str,
    unit: Unit,
    bad_from: f64,
    good_below: f64,
) -> Threshold {
    Threshold { sign, words, unit, bad_from, good_below, at_once: false }
}

/// How many signs are watched. Not the table's length: the release build would need the table to compile the function
/// that makes it.
const SIGNS: usize = 10;

/// In the order of the members of [`Signs::values`].
const THRESHOLDS: [Threshold; SIGNS] = [
    threshold("broker_lag", "the way through Redis takes", Unit::Milliseconds, 1000.0, 500.0),
    threshold("broker_probe", "the last probe through Redis is old:", Unit::Milliseconds, 10_000.0, 5_000.0),
    threshold(
        "cluster_heartbeat",
        "Redis has counted no heartbeat for",
        Unit::Milliseconds,
        5_000.0,
        2_500.0,
    ),
    threshold("shard_turn", "a shard is busy with one turn for", Unit::Milliseconds, 250.0, 100.0),
    threshold("shard_inbox", "a shard's inbox is filled to", Unit::Percent, 0.5, 0.25),
    threshold("slow_consumers", "streams closed in 10 s as too slow:", Unit::Percent, 0.05, 0.01),
    threshold("errors", "errors:", Unit::PerSecond, 1.0, 0.2),
    threshold("publishing", "publications that failed in 10 s:", Unit::Percent, 0.5, 0.25),
    Threshold {
        at_once: true,
        ..threshold("memory", "memory is used to", Unit::Percent, REFUSE_AT, CALM_BELOW)
    },
    Threshold {
        at_once: true,
        ..threshold("open_files", "open files are used to", Unit::Percent, REFUSE_AT, CALM_BELOW)
    },
];

/// What is measured. `None` is what does not apply, and never bad.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Signs {
    pub(super) broker_lag: Option<Duration>,
    pub(super) probe_age: Option<Duration>,
    /// Since Redis last counted a heartbeat.
    pub(super) silence: Option<Duration>,
    pub(super) strain: Strain,
    /// Streams open.
    pub(super) streams: u64,
    /// Streams ever closed as too slow.
    pub(super) slow: u64,
    /// Errors ever.
    pub(super) errors: u64,
    /// Calls of the broker with something to publish, ever.
    pub(super) publications: u64,
    /// Those of them that failed.
    pub(super) failed_publications: u64,
    /// Share of the limit.
    pub(super) memory: Option<f64>,
    /// Share of the limit.
    pub(super) files: f64,
}

/// What to do about memory and files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Pressure {
    /// Nothing.
    #[default]
    None,
    /// No newcomers.
    Refuse,
    /// Close streams as well.
    Shed,
}

/// The judgement, as it develops.
#[derive(Debug, Default)]
pub(super) struct Watch {
    looks: [Look; SIGNS],
    /// What was measured at the last looks.
    history: VecDeque<Signs>,
    worst: Option<f64>,
}

/// One sign.
#[derive(Clone, Copy, Debug, Default)]
struct Look {
    bad: bool,
    /// Looks in a row that say otherwise.
    against: u32,
    value: f64,
}

impl Watch {
    /// Takes the measurements of this second.
    pub(super) fn look(&mut self, signs: &Signs) {
        let before = self.history.front().copied().unwrap_or(*signs);
        let looked = self.history.len().max(1) as f64;
        self.history.push_back(*signs);
        if self.history.len() > RATE_LOOKS {
            self.history.pop_front();
        }
        let values = signs.values(&before, looked);
        for ((look, threshold), value) in self.looks.iter_mut().zip(&THRESHOLDS).zip(values) {
            look.take(threshold, value.unwrap_or(0.0));
        }
        self.worst = signs.memory.into_iter().chain([signs.files]).reduce(f64::max);
    }

    /// Why the node is degraded; empty when it is not.
    pub(super) fn reasons(&self) -> Vec<String> {
        let bad = self.looks.iter().zip(&THRESHOLDS).filter(|(look, _)| look.bad);
        bad.map(|(look, threshold)| threshold.describe(look.value)).collect()
    }

    /// How pressing memory and files are.
    pub(super) fn pressure(&self) -> Pressure {
        let pressed =
            self.looks.iter().zip(&THRESHOLDS).any(|(look, threshold)| look.bad && threshold.at_once);
        match self.worst {
            Some(worst) if pressed && worst >= SHED_AT => Pressure::Shed,
            _ if pressed => Pressure::Refuse,
            _ => Pressure::None,
        }
    }
}

impl Signs {
    /// What is compared with the thresholds; `before` was measured `looked` seconds ago.
    fn values(&self, before: &Self, looked: f64) -> [Option<f64>; SIGNS] {
        let slow = self.slow.saturating_sub(before.slow) as f64 / self.streams.max(FEW_STREAMS) as f64;
        let errors = self.errors.saturating_sub(before.errors) as f64 / looked;
        let tried = self.publications.saturating_sub(before.publications).max(FEW_PUBLICATIONS);
        let failed = self.failed_publications.saturating_sub(before.failed_publications);
        let millis = |duration: Duration| duration.as_secs_f64() * 1000.0;
        [
            self.broker_lag.map(millis),
            self.probe_age.map(millis),
            self.silence.map(millis),
            Some(millis(self.strain.longest_turn)),
            Some(self.strain.fullest_inbox),
            Some(slow),
            Some(errors),
            Some(failed as f64 / tried as f64),
            self.memory,
            Some(self.files),
        ]
    }
}

impl Look {
    fn take(&mut self, threshold: &Threshold, value: f64) {
        self.value = value;
        let disagrees = if self.bad { value < threshold.good_below } else { value >= threshold.bad_from };
        self.against = if disagrees { self.against + 1 } else { 0 };
        let enough = match (self.bad, threshold.at_once) {
            (true, _) => GOOD_LOOKS,
            (false, true) => 1,
            (false, false) => BAD_LOOKS,
        };
        if self.against >= enough {
            self.against = 0;
            self.bad = !self.bad;
            let sign = threshold.sign;
            if self.bad {
                tracing::warn!(sign, reason = threshold.describe(value), "degraded");
            } else {
                tracing::info!(sign, "no longer degraded");
            }
        }
    }
}

impl Threshold {
    fn describe(&self, value: f64) -> String {
        let Self { words, unit, bad_from, .. } = self;
        let say = |value: f64| match unit {
            Unit::Milliseconds => format!("{value:.0} ms"),
            Unit::Percent => format!("{:.0} %", value * 100.0),
            Unit::PerSecond => format!("{value:.1}/s"),
        };
        format!("{words} {} (threshold {})", say(value), say(*bad_from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lag(ms: u64) -> Signs {
        Signs { broker_lag: Some(Duration::from_millis(ms)), ..Signs::default() }
    }

    #[test]
    fn a_sign_must_last_before_it_counts_and_be_gone_for_longer_before_it_does_not() {
        let mut watch = Watch::default();
        for _ in 0..BAD_LOOKS - 1 {
            watch.look(&lag(1500));
        }
        watch.look(&lag(900));
        assert!(watch.reasons().is_empty(), "a moment is no illness");
        for _ in 0..BAD_LOOKS {
            watch.look(&lag(1500));
        }
        assert_eq!(watch.reasons(), ["the way through Redis takes 1500 ms (threshold 1000 ms)"]);
        for _ in 0..3 * GOOD_LOOKS {
            watch.look(&lag(700));
        }
        assert_eq!(watch.reasons().len(), 1, "between the thresholds it stays as it was");
        for _ in 0..GOOD_LOOKS {
            watch.look(&lag(100));
        }
        assert!(watch.reasons().is_empty());
    }

    #[test]
    fn pressure_refuses_before_it_sheds_and_ends_below_the_lower_threshold() {
        let mut watch = Watch::default();
        let mut pressure = |memory| {
            watch.look(&Signs { memory: Some(memory), ..Signs::default() });
            watch.pressure()
        };
        assert_eq!(pressure(0.84), Pressure::None);
        assert_eq!(pressure(0.86), Pressure::Refuse);
        assert_eq!(pressure(0.93), Pressure::Shed);
        assert_eq!(pressure(0.86), Pressure::Refuse);
        for _ in 1..GOOD_LOOKS {
            assert_eq!(pressure(0.79), Pressure::Refuse);
        }
        assert_eq!(pressure(0.79), Pressure::None);
    }

    #[test]
    fn publications_that_fail_are_a_sign_however_few_there_are_but_for_one() {
        let mut watch = Watch::default();
        let mut reasons_after = |published: u64, failed: u64, looks: usize| {
            for _ in 0..looks {
                let (publications, failed_publications) = (published + failed, failed);
                watch.look(&Signs { publications, failed_publications, ..Signs::default() });
            }
            watch.reasons()
        };
        assert!(reasons_after(5, 0, 1).is_empty());
        assert!(reasons_after(5, 1, 2 * RATE_LOOKS).is_empty(), "one");
        assert_eq!(
            reasons_after(5, 4, BAD_LOOKS as usize),
            ["publications that failed in 10 s: 100 % (threshold 50 %)"]
        );
        assert!(
            reasons_after(5, 4, RATE_LOOKS + GOOD_LOOKS as usize).is_empty(),
            "nobody publishes any more"
        );
        assert!(reasons_after(50, 5, RATE_LOOKS).is_empty(), "few of many");
    }

    #[test]
    fn rates_are_taken_over_ten_seconds_and_end_after_them() {
        let mut watch = Watch::default();
        let mut errors = 0;
        for _ in 0..RATE_LOOKS + 2 {
            watch.look(&Signs { errors, slow: errors, streams: 1000, ..Signs::default() });
            errors += 6;
        }
        let reasons = watch.reasons();
        assert!(reasons.contains(&"errors: 6.0/s (threshold 1.0/s)".into()), "{reasons:?}");
        assert!(
            reasons.contains(&"streams closed in 10 s as too slow: 6 % (threshold 5 %)".into()),
            "{reasons:?}"
        );
        for _ in 0..RATE_LOOKS + GOOD_LOOKS as usize {
            watch.look(&Signs { errors, slow: errors, streams: 1000, ..Signs::default() });
        }
        assert!(watch.reasons().is_empty());
    }
}
