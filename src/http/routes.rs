//! All routes on one page, and the layers around them.

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State as Extract};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::Response;
use axum::routing::{delete, get, post};

use super::error::{ApiError, Refused};
use super::{
    State, auth, connections, dashboard, drain, health, identify, jobs, metrics, origin, publish, soft, span,
    stats, streams,
};

type Routes = Router<Arc<State>>;

/// What everybody may ask for, on an address of its own.
pub(super) fn public(state: &Arc<State>) -> Router {
    dressed(reading(state), state)
}

/// What is for those who run the node, on an address of its own.
pub(super) fn admin(state: &Arc<State>) -> Router {
    dressed(operating(state), state)
}

/// All of it on one address.
pub(super) fn everything(state: &Arc<State>) -> Router {
    dressed(reading(state).merge(operating(state)), state)
}

fn operating(state: &Arc<State>) -> Routes {
    let strangers = from_fn_with_state(Arc::clone(state), origin::refuse_strangers);
    let guarded = publishing(state).merge(administration(state)).merge(tap(state)).route_layer(strangers);
    guarded.merge(probes()).merge(dashboard::routes())
}

fn reading(state: &Arc<State>) -> Routes {
    let identify = from_fn_with_state(Arc::clone(state), identify::identify);
    let embedded = from_fn_with_state(Arc::clone(state), origin::refuse_embedded);
    let states = Router::new().route("/api/jobs/{id}", get(jobs::job)).route_layer(identify.clone());
    let streams = Router::new()
        .route("/api/sse/stream", get(streams::multiplexed).head(streams::head))
        .route("/stream", get(streams::multiplexed).head(streams::head))
        .route("/api/jobs/stream", get(streams::jobs).head(streams::head))
        .route("/api/jobs/{id}/stream", get(streams::job).head(streams::head))
        .route_layer(identify)
        .route_layer(from_fn(soft::soften))
        .route_layer(embedded);
    streams.merge(states)
}

/// A stream for those who run the node: the dashboard's tap. Outside of `administration`, because a stream's answer must
/// not be wrapped: it ends by itself when the token does.
fn tap(state: &Arc<State>) -> Routes {
    Router::new()
        .route("/api/sse/tap", get(streams::multiplexed).head(streams::head))
        .route_layer(from_fn_with_state(Arc::clone(state), identify::identify_operator))
        .route_layer(from_fn_with_state(Arc::clone(state), origin::refuse_embedded))
}

fn publishing(state: &State) -> Routes {
    let max_body = publish::max_body(state.node.max_event_bytes());
    Router::new().route("/api/events", post(publish::publish)).layer(DefaultBodyLimit::max(max_body))
}

fn administration(state: &Arc<State>) -> Routes {
    let guard = from_fn_with_state(Arc::clone(state), auth::administrators_only);
    Router::new()
        .route("/api/sse/stats", get(stats::stats))
        .route("/api/jobs/stream/stats", get(stats::stats))
        .route("/api/sse/connections", get(connections::list).delete(connections::kick_matching))
        .route("/api/sse/connections/{id}", delete(connections::kick_one))
        .route("/api/sse/drain", post(drain::drain))
        .route("/metrics", get(metrics::metrics))
        .route_layer(guard)
}

fn probes() -> Routes {
    Router::new()
        .route("/livez", get(health::live))
        .route("/readyz", get(health::ready))
        .route("/health", get(health::health))
}

/// The answers to unknown paths and methods, and what every request goes through first.
fn dressed(routes: Routes, state: &Arc<State>) -> Router {
    let foreign = from_fn_with_state(Arc::clone(state), origin::refuse_foreign);
    routes
        .fallback(async || ApiError::not_found())
        .method_not_allowed_fallback(async || ApiError::method_not_allowed())
        .layer(foreign)
        .layer(state.allowed_origins.cors())
        .layer(from_fn_with_state(Arc::clone(state), count_refusal))
        .layer(from_fn_with_state(Arc::clone(state), span::traced))
        .with_state(Arc::clone(state))
}

/// Every refusal is counted by its code, wherever it comes from. The path itself is not logged: it may hold what is secret.
async fn count_refusal(Extract(state): Extract<Arc<State>>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let response = next.run(request).await;
    if let Some(Refused(code)) = response.extensions().get() {
        state.node.count_refusal(code);
        let route = route.as_ref().map(MatchedPath::as_str);
        tracing::debug!(code, status = response.status().as_u16(), route, "request refused");
    }
    response
}
