//! Which traces are exported: the sampler of the standard variables, asked once for each trace.
//!
//! The SDK would read the variables itself, but it asks its sampler only about a span that is built already. For an event on
//! its way to the sockets that is too late ([`trace::takes`]), so the share of traces to begin is also told there.

use opentelemetry::trace::{Link, SpanKind, TraceContextExt as _, TraceId};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{Sampler, SamplingResult, ShouldSample};

use super::variables::{self, Variables, WrongVariable};
use crate::trace;

/// The variables' sampler, except for what has been chosen before it came here.
#[derive(Clone, Debug)]
pub(super) struct Sampling(Sampler);

impl Sampling {
    /// Reads `OTEL_TRACES_SAMPLER` and its `_ARG`, and tells [`trace`] what they mean.
    pub(super) fn install(variable: Variables<'_>) -> Result<Self, WrongVariable> {
        let name = variables::sampler(variable)?;
        let (begun, sampler) = match name.trim_start_matches("parentbased_") {
            "always_off" => (0.0, Sampler::AlwaysOff),
            "traceidratio" => {
                let share = variables::share(variable)?;
                (share, Sampler::TraceIdRatioBased(share))
            }
            _ => (1.0, Sampler::AlwaysOn),
        };
        trace::sample(begun, name != "always_off");
        let asks_parent = name.is_empty() || name.starts_with("parentbased_");
        Ok(Self(if asks_parent { Sampler::ParentBased(Box::new(sampler)) } else { sampler }))
    }
}

impl ShouldSample for Sampling {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        // Only an event on its way to the sockets begins a trace as a consumer, and for it the lot has been drawn.
        let chosen = *kind == SpanKind::Consumer && !parent.is_some_and(Context::has_active_span);
        let sampler = if chosen { &Sampler::AlwaysOn } else { &self.0 };
        sampler.should_sample(parent, trace, name, kind, attributes, links)
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_sdk::trace::SamplingDecision;

    use super::*;

    #[test]
    fn a_trace_is_chosen_once() {
        let none = Sampling(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(0.0))));
        let decision = |kind| none.should_sample(None, TraceId::from(7), "x", &kind, &[], &[]).decision;
        assert_eq!(decision(SpanKind::Server), SamplingDecision::Drop);
        assert_eq!(decision(SpanKind::Consumer), SamplingDecision::RecordAndSample);
    }
}
