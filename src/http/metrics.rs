//! `GET /metrics`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::State as Shared;

/// OpenMetrics 1.0, which Prometheus reads.
const TEXT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// This node's metrics.
pub(super) async fn metrics(State(state): State<Arc<Shared>>) -> Response {
    ([(header::CONTENT_TYPE, TEXT)], state.node.metrics().await).into_response()
}
