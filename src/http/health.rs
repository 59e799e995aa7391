//! `/livez`, `/readyz` and `/health`.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::State as Shared;

/// 200 while the process can answer at all. Never asks Redis: a lost Redis must not restart every node.
pub(super) async fn live() -> Response {
    answer(StatusCode::OK, json!({ "status": "alive" }))
}

/// Whether a balancer should send clients here.
pub(super) async fn ready(State(state): State<Arc<Shared>>) -> Response {
    let mut reasons = Vec::new();
    if state.node.is_draining() {
        reasons.push("draining".to_owned());
    }
    if !state.node.was_ready() {
        let trouble = state.node.troubles().into_iter().next();
        reasons.push(trouble.unwrap_or_else(|| "no probe has come back yet".into()));
    }
    if reasons.is_empty() {
        answer(StatusCode::OK, json!({ "status": "ready" }))
    } else {
        answer(StatusCode::SERVICE_UNAVAILABLE, json!({ "status": "unready", "reasons": reasons }))
    }
}

/// For people and dashboards.
pub(super) async fn health(State(state): State<Arc<Shared>>) -> Response {
    let mut reasons = Vec::new();
    reasons.extend(state.node.is_draining().then(|| "draining".to_owned()));
    reasons.extend(state.node.troubles());
    let jobs = state.node.job_counts().await;
    reasons.extend(jobs.problem);
    let (status, code) = match (reasons.is_empty(), state.node.was_ready()) {
        (true, _) => ("healthy", StatusCode::OK),
        (false, true) => ("degraded", StatusCode::OK),
        (false, false) => ("unhealthy", StatusCode::SERVICE_UNAVAILABLE),
    };
    let counters = state.node.counters().await;
    let now = UNIX_EPOCH + Duration::from_millis(state.node.clock().unix_millis());
    let body = json!({
        "status": status,
        "reasons": reasons,
        "timestamp": humantime::format_rfc3339_millis(now).to_string(),
        "stream": {
            "active_connections": counters.connections,
            "total_messages": counters.events_sent,
            "max_connections": state.node.max_connections(),
        },
        "jobs": jobs.counts,
    });
    answer(code, body)
}

fn answer(status: StatusCode, body: Value) -> Response {
    (status, [(header::CACHE_CONTROL, "no-store")], Json(body)).into_response()
}
