//! `GET /metrics`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};

use super::State as Shared;
use crate::node::MetricsFormat;

/// This node's metrics: as OpenMetrics for who asks for it, like Prometheus, else in the format that every tool reads.
pub(super) async fn metrics(State(state): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    let format =
        if asks_for_openmetrics(&headers) { MetricsFormat::OpenMetrics } else { MetricsFormat::Prometheus };
    let head = [(header::CONTENT_TYPE, format.content_type()), (header::VARY, "accept")];
    (head, state.node.metrics(format).await).into_response()
}

fn asks_for_openmetrics(headers: &HeaderMap) -> bool {
    let mut accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.any(|value| value.contains("application/openmetrics-text"))
}
