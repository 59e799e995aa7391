//! Installs what observes the program: the log and the exporter of traces. Only `main` does it; every other room logs and
//! opens spans with `tracing`, and knows nothing of where they go.

mod counting;
mod log;
mod sampling;
mod traces;
mod variables;

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use traces::Traces;
use variables::Choice;
pub use variables::WrongVariable;

/// How the log is written.
#[derive(Clone, Copy, Debug)]
pub struct LogStyle<'a> {
    /// Directives as of `tracing_subscriber::EnvFilter`.
    pub filter: &'a str,
    /// One JSON object a line, and not text.
    pub json: bool,
}

/// What is installed. Dropped, it sends the last spans, for at most some seconds.
#[derive(Debug)]
pub struct Telemetry {
    _traces: Option<Traces>,
}

/// Installs the log, if there is one, and the exporter that the variables `OTEL_*` ask for; `variable` reads them. The
/// program says of itself that it is `instance`.
///
/// # Errors
/// The variables whose values are not understood.
pub fn install(
    log: Option<LogStyle<'_>>,
    instance: Option<&str>,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Telemetry, Vec<WrongVariable>> {
    let traces = Traces::start(instance, variable)?;
    let subscriber = tracing_subscriber::registry()
        .with(log.map(|style| log::layer(style, instance)))
        .with(traces.as_ref().map(Traces::layer));
    // An error means that a subscriber is installed already, as in tests.
    let _ = subscriber.try_init();
    Ok(Telemetry { _traces: traces })
}

/// The variables `OTEL_*` that [`install`] would refuse.
pub fn mistakes(variable: &dyn Fn(&str) -> Option<String>) -> Vec<WrongVariable> {
    Choice::of(variable).err().unwrap_or_default()
}
