//! The log: to standard error, one JSON object a line or text for people.

use std::io::IsTerminal;

use tracing::Subscriber;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, Layer};

use crate::trace::TARGET;

/// Writes the log to standard error: `filter` as of [`EnvFilter`], one JSON object a line if `json`, else for people, with
/// colours on a terminal. A filter that cannot be read lets `info` through; whoever has settings has checked it before.
pub(super) fn layer<S>(filter: &str, json: bool) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let mut filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    // Spans are for traces: in the log they would stand before every line.
    if let Ok(off) = format!("{TARGET}=off").parse() {
        filter = filter.add_directive(off);
    }
    let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    if json {
        lines.json().flatten_event(true).with_filter(filter).boxed()
    } else {
        lines.with_ansi(std::io::stderr().is_terminal() && !no_colour).with_filter(filter).boxed()
    }
}
