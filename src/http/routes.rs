//! All routes on one page, and the layers around them.

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::routing::{delete, get, post};

use super::error::ApiError;
use super::{State, connections, health, origin, publish, streams};

pub(super) fn router(state: Arc<State>) -> Router {
    let cors = state.allowed_origins.cors();
    let foreign = from_fn_with_state(Arc::clone(&state), origin::refuse_foreign);
    Router::new()
        .route("/api/sse/stream", get(streams::multiplexed).head(streams::head))
        .route("/stream", get(streams::multiplexed).head(streams::head))
        .route("/api/jobs/stream", get(streams::jobs).head(streams::head))
        .route("/api/events", post(publish::publish))
        .route("/api/sse/connections", get(connections::list).delete(connections::kick_matching))
        .route("/api/sse/connections/{id}", delete(connections::kick_one))
        .route("/livez", get(health::live))
        .route("/readyz", get(health::ready))
        .route("/health", get(health::health))
        .fallback(async || ApiError::not_found())
        .method_not_allowed_fallback(async || ApiError::method_not_allowed())
        .layer(DefaultBodyLimit::max(publish::max_body(state.node.max_event_bytes())))
        .layer(foreign)
        .layer(cors)
        .with_state(state)
}
