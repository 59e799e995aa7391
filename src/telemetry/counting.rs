//! Between the spans and their exporter: a bound on what waits, and a count of what was dropped.
//!
//! The SDK's batch processor drops as well when its queue is full, but tells nobody how many. So nothing is given to it
//! beyond its bound.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{BatchSpanProcessor, Span, SpanData, SpanExporter, SpanProcessor};

use crate::trace;

/// How many spans have been given to the processor and are not exported yet.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    count: AtomicUsize,
    failing: AtomicBool,
}

/// Gives the batch processor no more than it takes.
#[derive(Debug)]
pub(super) struct Bounded {
    pub(super) inner: BatchSpanProcessor,
    pub(super) waiting: Arc<Waiting>,
    pub(super) bound: usize,
}

impl SpanProcessor for Bounded {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.inner.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        // Two that come at once may both pass the bound by one; the processor's own queue has room for that.
        if self.waiting.count.load(Ordering::Relaxed) >= self.bound {
            trace::count_dropped(1);
            return;
        }
        if span.span_context.is_sampled() {
            self.waiting.count.fetch_add(1, Ordering::Relaxed);
        }
        self.inner.on_end(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// Counts what went out and what did not.
#[derive(Debug)]
pub(super) struct Counting<E> {
    pub(super) inner: E,
    pub(super) waiting: Arc<Waiting>,
}

impl<E: SpanExporter> SpanExporter for Counting<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len();
        let result = self.inner.export(batch).await;
        self.waiting.count.fetch_sub(count, Ordering::Relaxed);
        match &result {
            Ok(()) if self.waiting.failing.swap(false, Ordering::Relaxed) => {
                tracing::info!("spans are exported again");
            }
            Ok(()) => {}
            Err(error) => {
                trace::count_dropped(count as u64);
                if !self.waiting.failing.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "spans cannot be exported; they are dropped and counted until that works again");
                }
            }
        }
        result
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}
