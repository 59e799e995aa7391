//! A span for each request, by OpenTelemetry's conventions (semantic conventions 1.44, HTTP server). A stream's span ends with its
//! head; what goes over the stream afterwards has the spans of its events.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, Method, Version};
use axum::middleware::Next;
use axum::response::Response;
use tracing::{Instrument as _, Span, field};

use super::State as Shared;
use crate::protocol::event;
use crate::trace;

/// Probes come every few seconds from everywhere, and say nothing in a trace.
const UNTRACED: [&str; 4] = ["/livez", "/readyz", "/health", "/metrics"];

/// The methods of RFC 9110, `PATCH` (RFC 5789) and `QUERY`.
const METHODS: [&str; 10] =
    ["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"];

const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

pub(super) async fn traced(State(state): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    if route.is_some_and(|route| UNTRACED.contains(&route)) {
        return next.run(request).await;
    }
    let span = span(&request, route, || scheme(&state, &request));
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

/// A path that matches holds the words of its route and an id. One that does not may hold anything, a token too, and is left
/// out although the conventions require one, as is a method that nobody knows; the query, where tokens do stand, always is.
fn span(request: &Request, route: Option<&str>, scheme: impl FnOnce() -> &'static str) -> Span {
    let method = known(request.method());
    tracing::info_span!(
        target: trace::TARGET,
        "request",
        otel.name = name(method, route),
        otel.kind = "server",
        otel.status_code = field::Empty,
        error.type = field::Empty,
        http.request.method = method.unwrap_or("_OTHER"),
        http.route = route,
        http.response.status_code = field::Empty,
        url.scheme = scheme(),
        url.path = route.map(|_| request.uri().path()),
        network.protocol.version = version(request.version()),
    )
}

fn name(method: Option<&str>, route: Option<&str>) -> String {
    let method = method.unwrap_or("HTTP");
    route.map_or_else(|| method.to_owned(), |route| format!("{method} {route}"))
}

/// What the client spoke, as far as the proxy before this node is to be believed; the node itself speaks no TLS.
fn scheme(state: &Shared, request: &Request) -> &'static str {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    let trusted = peer.is_some_and(|ConnectInfo(peer)| state.trusted_proxies.trusts(peer.ip()));
    let said = request.headers().get_all(X_FORWARDED_PROTO).into_iter().next_back();
    let said = said.and_then(|line| line.as_bytes().rsplit(|b| *b == b',').next()).filter(|_| trusted);
    if said.is_some_and(|said| said.trim_ascii().eq_ignore_ascii_case(b"https")) { "https" } else { "http" }
}

fn parent(headers: &HeaderMap) -> Option<Box<str>> {
    event::traceparent(headers.get("traceparent")?.to_str().ok()?)
}

/// The method, if it is one that the conventions know: a name of a span has few values.
fn known(method: &Method) -> Option<&'static str> {
    METHODS.into_iter().find(|known| *known == method.as_str())
}

fn version(version: Version) -> Option<&'static str> {
    match version {
        Version::HTTP_10 => Some("1.0"),
        Version::HTTP_11 => Some("1.1"),
        _ => None,
    }
}
