//! A span for each request, by OpenTelemetry's conventions (semantic conventions 1.42, HTTP server). A stream's span ends with its
//! head; what goes over the stream afterwards has the spans of its events.

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, Method};
use axum::middleware::Next;
use axum::response::Response;
use tracing::{Instrument as _, field};

use crate::protocol::event;
use crate::trace;

/// Probes come every few seconds from everywhere, and say nothing in a trace.
const UNTRACED: [&str; 4] = ["/livez", "/readyz", "/health", "/metrics"];

pub(super) async fn traced(request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    if UNTRACED.contains(&route) {
        return next.run(request).await;
    }
    // The path itself may hold what is secret, and its query does.
    let span = tracing::info_span!(
        target: trace::TARGET,
        "request",
        otel.name = format!("{} {route}", known(request.method())).trim_end(),
        otel.kind = "server",
        otel.status_code = field::Empty,
        error.type = field::Empty,
        http.request.method = known(request.method()),
        http.route = route,
        http.response.status_code = field::Empty,
    );
    if let Some(parent) = parent(request.headers()) {
        trace::continue_from(&span, &parent);
    }
    let response = next.run(request).instrument(span.clone()).await;
    span.record("http.response.status_code", i64::from(response.status().as_u16()));
    if response.status().is_server_error() {
        span.record("otel.status_code", "ERROR");
        span.record("error.type", response.status().as_str());
    }
    response
}

fn parent(headers: &HeaderMap) -> Option<Box<str>> {
    event::traceparent(headers.get("traceparent")?.to_str().ok()?)
}

/// The method, if it is a usual one: a name of a span has few values.
fn known(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "_OTHER",
    }
}
