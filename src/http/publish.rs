//! `POST /api/events`.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tokio::time::timeout;

use super::State as Shared;
use super::credentials::Credentials;
use super::error::ApiError;
use crate::protocol::envelope::EnvelopeError;
use crate::protocol::request::{Problem, PublishRequest, RequestError};

/// How long a body may take to arrive.
const BODY_LIMIT: Duration = Duration::from_secs(30);

/// The greatest body: room for a thousand usual events, and for some of the greatest.
const USUAL_BODY: usize = 8 * 1024 * 1024;

/// The greatest body for the greatest event, in bytes: JSON may write each byte as six.
pub(super) fn max_body(max_event_bytes: usize) -> usize {
    USUAL_BODY.max(max_event_bytes.saturating_mul(6).saturating_add(64 * 1024))
}

pub(super) async fn publish(
    State(state): State<Arc<Shared>>,
    request: Request,
) -> Result<Response, ApiError> {
    let given = Credentials::of(request.headers(), request.uri(), &state.allowed_origins)?;
    let holder = state.recognition.holder(&given)?;
    let body = timeout(BODY_LIMIT, Bytes::from_request(request, &()))
        .await
        .map_err(|_| ApiError::bad_request("The body did not arrive within 30 s"))??;
    let request = PublishRequest::parse(&body, state.node.max_event_bytes())?;
    let (single, events) = match request {
        PublishRequest::One(event) => (true, vec![event]),
        PublishRequest::Many(events) => (false, events),
    };
    holder.may_publish(events.iter().map(|event| &event.channel))?;
    let ids = state.node.publish(events).await?;
    let answer = if single { json!({ "id": ids.first() }) } else { json!({ "ids": ids }) };
    Ok((StatusCode::ACCEPTED, Json(answer)).into_response())
}

impl From<RequestError> for ApiError {
    fn from(error: RequestError) -> Self {
        let message = error.to_string();
        match error.problem {
            Problem::Channel(_) => Self::bad_channel(message),
            Problem::TooMany(_) | Problem::Event(EnvelopeError::TooLarge { .. }) => Self::too_large(message),
            _ => Self::bad_request(message),
        }
    }
}

impl From<BytesRejection> for ApiError {
    fn from(rejection: BytesRejection) -> Self {
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            Self::too_large("The body is larger than the node takes; publish in smaller batches")
        } else {
            Self::bad_request("The body could not be read")
        }
    }
}
