//! `POST /api/sse/drain`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::State as Shared;
use super::error::ApiError;
use super::query;

/// Starts the drain of this node, or of the one that `node=` names; it ends as after SIGTERM. Asking again changes nothing.
pub(super) async fn drain(State(state): State<Arc<Shared>>, uri: Uri) -> Result<Response, ApiError> {
    let node = &state.node;
    let ordered = match query::member(&uri, "node")? {
        Some(name) => node
            .order_drain_of(&name)
            .await?
            .ok_or_else(|| ApiError::no_such(format!("No node of the cluster has the id {name}")))?,
        None => node.order_drain(),
    };
    let body = json!({
        "node": ordered.node,
        "draining": true,
        "overMs": ordered.over_ms,
        "connections": ordered.connections,
    });
    Ok((StatusCode::ACCEPTED, Json(body)).into_response())
}
