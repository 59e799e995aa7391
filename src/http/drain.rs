//! `POST /api/sse/drain`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::State as Shared;

/// Starts this node's drain; it ends as after SIGTERM. Asking again changes nothing.
pub(super) async fn drain(State(state): State<Arc<Shared>>) -> Response {
    let node = &state.node;
    node.order_drain();
    let over_ms = u64::try_from(node.drain_time().as_millis()).unwrap_or(u64::MAX);
    let body =
        json!({ "node": node.id(), "draining": true, "overMs": over_ms, "connections": node.streams() });
    (StatusCode::ACCEPTED, Json(body)).into_response()
}
