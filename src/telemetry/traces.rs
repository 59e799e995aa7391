//! The exporter of traces, as the variables of the OpenTelemetry specification ask for it
//! (<https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>).
//!
//! What the SDK and its OTLP exporter read themselves is left to them: endpoint, headers, time-out, limits, sampler, batches.
//! Read here is what they do not know: whether there is an exporter at all, which one, and over what.

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
use crate::trace::TARGET;

/// How long the last spans may take at the end of the program.
const LAST_SPANS: Duration = Duration::from_secs(3);

/// Spans that wait for the exporter, unless `OTEL_BSP_MAX_QUEUE_SIZE` says otherwise; the specification's default.
const QUEUE: usize = 2048;

/// What the specification knows as sampler. The SDK takes anything else for the default without a word.
const SAMPLERS: [&str; 6] = [
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
];

/// A variable has a value that is not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} {problem}")]
pub struct WrongVariable {
    pub(super) name: &'static str,
    pub(super) problem: String,
}

/// Where spans go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    Nowhere,
    Console,
    Grpc,
    Http,
}

impl Choice {
    fn of(variable: &dyn Fn(&str) -> Option<String>) -> Result<Self, WrongVariable> {
        let set = |name| set(variable, name);
        let wrong = |name, value: &str, allowed: &str| {
            Err(WrongVariable { name, problem: format!("is {value:?}; allowed: {allowed}") })
        };
        if let Some(sampler) = set("OTEL_TRACES_SAMPLER")
            && !SAMPLERS.contains(&sampler.as_str())
        {
            return wrong("OTEL_TRACES_SAMPLER", &sampler, &SAMPLERS.join(", "));
        }
        if set("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return Ok(Self::Nowhere);
        }
        match set("OTEL_TRACES_EXPORTER").as_deref() {
            Some("none") => return Ok(Self::Nowhere),
            None if endpoint(variable).is_none() => return Ok(Self::Nowhere),
            Some("console") => return Ok(Self::Console),
            Some("otlp") | None => {}
            Some(other) => return wrong("OTEL_TRACES_EXPORTER", other, "none, otlp or console"),
        }
        let protocol = set("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL").or(set("OTEL_EXPORTER_OTLP_PROTOCOL"));
        match protocol.as_deref() {
            Some("grpc") => Ok(Self::Grpc),
            Some("http/protobuf") | None => Ok(Self::Http),
            Some(other) => wrong("OTEL_EXPORTER_OTLP_PROTOCOL", other, "grpc or http/protobuf"),
        }
    }
}

/// Where the collector is; the SDK reads it too.
fn endpoint(variable: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    set(variable, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
        .or_else(|| set(variable, "OTEL_EXPORTER_OTLP_ENDPOINT"))
}

/// A variable's value. Empty is not set, by the specification.
fn set(variable: &dyn Fn(&str) -> Option<String>, name: &str) -> Option<String> {
    variable(name).filter(|value| !value.is_empty())
}

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
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, WrongVariable> {
        let unusable = |error: &dyn std::fmt::Display| WrongVariable {
            name: "OTEL_EXPORTER_OTLP_ENDPOINT",
            problem: format!("cannot be used: {error}"),
        };
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
                if endpoint(variable).is_some_and(|endpoint| !endpoint.starts_with("http://")) {
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
            provider: builder.with_sampler(Sampling::install(variable)?).build(),
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
    variable: &dyn Fn(&str) -> Option<String>,
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
fn resource(instance: Option<&str>, variable: &dyn Fn(&str) -> Option<String>) -> Resource {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(variables: &[(&str, &str)]) -> Result<Choice, String> {
        let read = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        Choice::of(&read).map_err(|wrong| wrong.to_string())
    }

    #[test]
    fn no_endpoint_is_no_exporter_and_the_variables_of_the_specification_decide() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318");
        let exporter = |name| ("OTEL_TRACES_EXPORTER", name);
        assert_eq!(choice(&[]), Ok(Choice::Nowhere));
        assert_eq!(choice(&[endpoint]), Ok(Choice::Http));
        assert_eq!(choice(&[endpoint, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]), Ok(Choice::Grpc));
        assert_eq!(choice(&[endpoint, ("OTEL_SDK_DISABLED", "TRUE")]), Ok(Choice::Nowhere));
        assert_eq!(choice(&[endpoint, exporter("none")]), Ok(Choice::Nowhere));
        assert_eq!(choice(&[exporter("console")]), Ok(Choice::Console));
        assert_eq!(choice(&[exporter("otlp")]), Ok(Choice::Http));
    }

    #[test]
    fn a_wrong_value_is_told_with_its_name_and_what_is_allowed() {
        for (name, value) in [
            ("OTEL_TRACES_EXPORTER", "jaeger"),
            ("OTEL_TRACES_SAMPLER", "sometimes"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ] {
            let wrong = choice(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c"), (name, value)]).unwrap_err();
            assert!(wrong.starts_with(name) && wrong.contains(value) && wrong.contains("allowed"), "{wrong}");
        }
    }
}
