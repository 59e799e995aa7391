//! Who may publish and administer.

use std::sync::Arc;

use axum::extract::{Request, State as Extract};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::State;
use super::error::ApiError;
use crate::protocol::secret::Secret;

const API_KEY: &str = "x-api-key";

/// Lets administrators pass.
pub(super) async fn administrators_only(
    Extract(state): Extract<Arc<State>>,
    request: Request,
    next: Next,
) -> Response {
    match require_key(&state, request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

/// Passes a request that carries one of the configured keys; with none configured, every request (the node then listens
/// on loopback only, or was told to be open).
pub(super) fn require_key(state: &State, headers: &HeaderMap) -> Result<(), ApiError> {
    if state.api_keys.is_empty() {
        return Ok(());
    }
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| bearer(value.as_bytes()));
    let key = headers.get(API_KEY).map(|value| value.as_bytes());
    let Some(given) = bearer.or(key) else {
        let message = "An API key is needed: Authorization: Bearer KEY, or X-API-Key: KEY";
        return Err(ApiError::unauthorized(message));
    };
    if Secret::any_matches(&state.api_keys, given) {
        Ok(())
    } else {
        Err(ApiError::unauthorized("This API key is not one of the node's"))
    }
}

/// The credentials of the Bearer scheme, whose name is not case-sensitive (RFC 9110, section 11.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, credentials) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| credentials.trim_ascii())
}
