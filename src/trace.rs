//! Traces across processes: a span's place in a trace, as the `traceparent` that events and requests carry (W3C Trace Context,
//! section 3.2).
//!
//! Spans are opened with `tracing` and [`TARGET`], which is what is exported; without an exporter such a span is nothing and
//! costs next to nothing. Which exporter there is, is not known here.

use std::sync::atomic::{AtomicU64, Ordering};

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// The target of all spans that are exported.
pub const TARGET: &str = "fanlight::span";

/// Spans that nobody will see.
static DROPPED: AtomicU64 = AtomicU64::new(0);

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

/// What others need to continue from `span`; `None` when nobody exports it.
pub fn traceparent(span: &Span) -> Option<Box<str>> {
    if span.is_none() {
        return None;
    }
    let context = span.context();
    let span = context.span();
    let own = span.span_context();
    own.is_valid()
        .then(|| format!("00-{}-{}-{:02x}", own.trace_id(), own.span_id(), own.trace_flags().to_u8()).into())
}

/// Whether this is part of a trace: what would else be a trace of its own, like a heartbeat, is then no span at all.
pub fn is_traced() -> bool {
    !Span::current().is_none()
}

/// Whether the publisher has decided against this trace.
pub fn is_unsampled(traceparent: &str) -> bool {
    context_of(traceparent).is_some_and(|context| !context.is_sampled())
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
