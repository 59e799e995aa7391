//! The exporter of traces, as the variables of the OpenTelemetry specification ask for it
//! (<https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>).
//!
//! What the SDK and its OTLP exporter read themselves is left to them: endpoint, headers, time-out, limits, sampler, batches.
//! Read in [`variables`](super::variables) is what they do not know: whether there is an exporter at all, which one, and over
//! what.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::tonic_types::transport::ClientTlsConfig;
use opentelemetry_otlp::{Protocol, WithExportConfig as _, WithTonicConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider, SpanExporter, TracerProviderBuilder,
};
use tokio::runtime::Runtime;
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::registry::LookupSpan;

use super::counting::{Bounded, Counting, Waiting};
use super::sampling::Sampling;
use super::variables::{Choice, Variables, WrongVariable, endpoint};
use crate::trace::TARGET;

/// How long the last spans may take at the end of the program.
const LAST_SPANS: Duration = Duration::from_secs(3);

/// Spans that wait for the exporter, unless `OTEL_BSP_MAX_QUEUE_SIZE` says otherwise; the specification's default.
const QUEUE: usize = 2048;

/// A running exporter.
#[derive(Debug)]
pub(super) struct Traces {
    provider: SdkTracerProvider,
    /// What gRPC runs on: of its own, so that a slow collector keeps nobody waiting.
    _runtime: Option<Runtime>,
}

impl Drop for Traces {
    fn drop(&mut self) {
        if let Err(error) = self.provider.shutdown_with_timeout(LAST_SPANS) {
            tracing::warn!(%error, "the last spans were not exported");
        }
    }
}

impl Traces {
    /// Starts what the variables ask for; `None` when that is nothing.
    pub(super) fn start(
        instance: Option<&str>,
        variable: Variables<'_>,
    ) -> Result<Option<Self>, Vec<WrongVariable>> {
        let unusable = |error: &dyn std::fmt::Display| vec![WrongVariable::unusable(variable, error)];
        let builder = SdkTracerProvider::builder().with_resource(resource(instance, variable));
        let mut runtime = None;
        let builder = match Choice::of(variable)? {
            Choice::Nowhere => return Ok(None),
            Choice::Console => with(builder, opentelemetry_stdout::SpanExporter::default(), variable),
            Choice::Grpc => {
                let own = tokio::runtime::Builder::new_multi_thread()
                    .worker_threads(1)
                    .thread_name("otlp")
                    .enable_all()
                    .build();
                let own = runtime.insert(own.map_err(|error| unusable(&error))?);
                let _inside = own.enter();
                let mut exporter = opentelemetry_otlp::SpanExporter::builder().with_tonic();
                // Without being told, tonic trusts nobody. The certificates are read at once, and a machine that has none
                // needs none for plain HTTP.
                if endpoint(variable).is_some_and(|(_, endpoint)| !endpoint.starts_with("http://")) {
                    exporter = exporter.with_tls_config(ClientTlsConfig::new().with_native_roots());
                }
                with(builder, exporter.build().map_err(|error| unusable(&error))?, variable)
            }
            Choice::Http => {
                let exporter = opentelemetry_otlp::SpanExporter::builder().with_http();
                let exporter = exporter.with_protocol(Protocol::HttpBinary).build();
                with(builder, exporter.map_err(|error| unusable(&error))?, variable)
            }
        };
        Ok(Some(Self {
            provider: builder.with_sampler(Sampling::install(variable).map_err(|wrong| vec![wrong])?).build(),
            _runtime: runtime,
        }))
    }

    /// Takes the spans of this program and nobody else's: those of the exporter's own HTTP would be exported in turn, for
    /// ever.
    pub(super) fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let only_ours = Targets::new().with_target(TARGET, LevelFilter::INFO);
        tracing_opentelemetry::layer()
            .with_tracer(self.provider.tracer("fanlight"))
            .with_location(false)
            .with_threads(false)
            .with_level(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            .with_filter(only_ours)
    }
}

fn with(
    builder: TracerProviderBuilder,
    exporter: impl SpanExporter + 'static,
    variable: Variables<'_>,
) -> TracerProviderBuilder {
    let waiting = Arc::new(Waiting::default());
    let bound = variable("OTEL_BSP_MAX_QUEUE_SIZE").and_then(|text| text.parse().ok()).unwrap_or(QUEUE);
    let exporter = Counting { inner: exporter, waiting: Arc::clone(&waiting) };
    let inner = BatchSpanProcessor::builder(exporter)
        .with_batch_config(BatchConfigBuilder::default().build())
        .build();
    builder.with_span_processor(Bounded { inner, waiting, bound })
}

/// Who the spans are of. What `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` say goes first.
fn resource(instance: Option<&str>, variable: Variables<'_>) -> Resource {
    let said = variable("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
    let named = |key: &str| said.split(',').any(|pair| pair.trim_start().starts_with(&format!("{key}=")));
    let mut builder = Resource::builder();
    if variable("OTEL_SERVICE_NAME").is_none_or(|name| name.is_empty()) && !named("service.name") {
        builder = builder.with_service_name("fanlight");
    }
    let own = [("service.version", Some(env!("CARGO_PKG_VERSION"))), ("service.instance.id", instance)];
    let own = own.into_iter().filter(|(key, _)| !named(key));
    builder
        .with_attributes(own.filter_map(|(key, value)| Some(KeyValue::new(key, value?.to_owned()))))
        .build()
}
