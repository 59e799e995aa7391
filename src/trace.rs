//! Traces across processes: a span's place in a trace, as the `traceparent` that events and requests carry (W3C Trace Context,
//! section 3.2).
//!
//! Spans are opened with `tracing` and [`TARGET`], which is what is exported; without an exporter such a span is nothing and
//! costs next to nothing. Which exporter there is, is not known here.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState};
use rand::Rng as _;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// The target of all spans that are exported.
pub const TARGET: &str = "fanlight::span";

/// Spans that nobody will see.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Of how many events in 2^64 that come without a trace a trace is begun; none as long as nobody exports.
static BEGUN: AtomicU64 = AtomicU64::new(0);

/// Whether traces that others have begun and sampled are followed.
static FOLLOWED: AtomicBool = AtomicBool::new(false);

/// Says what the exporter's sampler does: it begins a trace for this share of what has none, 0 to 1, and follows others' or
/// does not.
pub(crate) fn sample(begun: f64, followed: bool) {
    // Out of range it saturates.
    BEGUN.store((begun * 2f64.powi(64)) as u64, Ordering::Relaxed);
    FOLLOWED.store(followed, Ordering::Relaxed);
}

/// Whether an event with this `traceparent` is to have a span; one that only links to its publisher's is in a trace of its own.
///
/// Asked before there is a span: to build one that the sampler then throws away costs as much as a hundred deliveries.
/// Whoever begins a trace after a `true` must not ask the sampler again, or a tenth became a hundredth.
pub fn takes(traceparent: Option<&str>, links: bool) -> bool {
    let (begun, followed) = (BEGUN.load(Ordering::Relaxed), FOLLOWED.load(Ordering::Relaxed));
    if begun == 0 && !followed {
        return false;
    }
    match traceparent {
        Some(traceparent) if is_unsampled(traceparent) => false,
        Some(_) if !links => followed,
        _ => begun == u64::MAX || rand::rng().random::<u64>() < begun,
    }
}

/// Counts spans that were dropped because the exporter is slow or away.
pub(crate) fn count_dropped(count: u64) {
    DROPPED.fetch_add(count, Ordering::Relaxed);
}

/// How many spans were dropped since the start of the program.
pub fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// Makes `span` a child of the span that `traceparent` names.
pub fn continue_from(span: &Span, traceparent: &str) {
    if let Some(parent) = context_of(traceparent) {
        // An error means that nobody exports.
        let _ = span.set_parent(Context::new().with_remote_span_context(parent));
    }
}

/// Makes `span` point at the span that `traceparent` names, in a trace of its own.
pub fn link(span: &Span, traceparent: &str) {
    if let Some(other) = context_of(traceparent) {
        span.add_link(other);
    }
}

/// What others need to continue from `span`, or without one from where this thread is; `None` when nobody exports.
pub fn traceparent(span: &Span) -> Option<Box<str>> {
    if span.is_none() { in_current(written) } else { written(span.context().span().span_context()) }
}

fn written(own: &SpanContext) -> Option<Box<str>> {
    own.is_valid()
        .then(|| format!("00-{}-{}-{:02x}", own.trace_id(), own.span_id(), own.trace_flags().to_u8()).into())
}

/// Whether this is part of a trace that somebody will see: what would else be a trace of its own, like a heartbeat, is then no
/// span at all.
pub fn is_traced() -> bool {
    in_current(SpanContext::is_sampled)
}

/// Whether this is part of a trace that nobody will see, so that no further span is worth it.
pub fn is_passed_over() -> bool {
    in_current(|own| own.is_valid() && !own.is_sampled())
}

/// The trace and the span that this thread is in now, sampled or not.
pub(crate) fn here() -> Option<(TraceId, SpanId)> {
    in_current(|own| own.is_valid().then(|| (own.trace_id(), own.span_id())))
}

/// Looks at where this thread is; an invalid context means in no trace.
fn in_current<T>(look: impl FnOnce(&SpanContext) -> T) -> T {
    Context::map_current(|context| look(context.span().span_context()))
}

/// Whether the publisher has decided against this trace. Looks at the flags alone, since it is asked for every event.
fn is_unsampled(traceparent: &str) -> bool {
    let flags = traceparent.get(53..55).and_then(|flags| u8::from_str_radix(flags, 16).ok());
    flags.is_some_and(|flags| flags & TraceFlags::SAMPLED.to_u8() == 0)
}

fn context_of(traceparent: &str) -> Option<SpanContext> {
    let mut parts = traceparent.split('-').skip(1);
    let trace = TraceId::from_hex(parts.next()?).ok()?;
    let span = SpanId::from_hex(parts.next()?).ok()?;
    let flags = u8::from_str_radix(parts.next()?, 16).ok()?;
    let context = SpanContext::new(trace, span, TraceFlags::new(flags), true, TraceState::default());
    context.is_valid().then_some(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_read_and_a_broken_one_is_none() {
        let read = context_of("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").unwrap();
        assert!(read.is_sampled() && read.is_remote());
        assert!(is_unsampled("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"));
        for broken in
            ["", "00", "00-0-0-01", "00-00000000000000000000000000000000-b7ad6b7169203331-01", "00-é-é-é"]
        {
            assert!(context_of(broken).is_none() && !is_unsampled(broken), "{broken}");
        }
    }

    #[test]
    fn without_an_exporter_there_is_nothing_to_continue_from() {
        let span = tracing::info_span!(target: TARGET, "test");
        continue_from(&span, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        assert_eq!(traceparent(&span), None);
    }
}
