//! Installs what observes the program. For now that is the log; only `main` does it.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

/// Writes the log to standard error: `filter` as of [`EnvFilter`], one JSON object a line if `json`, else for people, with
/// colours on a terminal. A filter that cannot be read lets `info` through; whoever has settings has checked it before.
pub fn install_log(filter: &str, json: bool) {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // An error means that a subscriber is installed already, as in tests.
    let _ = if json {
        subscriber.json().flatten_event(true).finish().try_init()
    } else {
        subscriber.with_ansi(std::io::stderr().is_terminal() && !no_colour).finish().try_init()
    };
}
