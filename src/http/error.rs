//! Refusals: one type that knows its status, its code and its words.

use std::ops::RangeInclusive;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use rand::Rng;
use serde::Serialize;

use super::soft::ForNow;
use crate::node::{LimitMet, PeersUnreachable, PublishRefusal, Refusal};

/// An answer that is not what was asked for: `{"error":…,"code":…}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
    limit: Option<usize>,
    /// For a refusal of the moment: when to try again.
    retry_ms: Option<u64>,
    /// What a 401 asks for (RFC 6750, section 3).
    challenge: &'static str,
}

/// Marks an answer as a refusal with this code, for whoever counts them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refused(pub(super) &'static str);

impl ApiError {
    const fn new(status: StatusCode, code: &'static str, message: String) -> Self {
        Self { status, code, message, limit: None, retry_ms: None, challenge: "Bearer" }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message.into())
    }

    pub(super) fn bad_channel(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_channel", message.into())
    }

    pub(super) fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", message.into())
    }

    /// A token that is there and not accepted.
    pub(super) fn invalid_token(message: impl Into<String>) -> Self {
        Self { challenge: r#"Bearer error="invalid_token""#, ..Self::unauthorized(message) }
    }

    pub(super) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", message.into())
    }

    pub(super) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "There is nothing at this path".into())
    }

    /// What the path or the query names is not there.
    pub(super) fn no_such(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message.into())
    }

    pub(super) fn method_not_allowed() -> Self {
        let message = "This path does not take this method; the Allow header has those it takes".into();
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
    }

    pub(super) fn not_acceptable() -> Self {
        let message = "This is a stream of text/event-stream, which the Accept header excludes".into();
        Self::new(StatusCode::NOT_ACCEPTABLE, "not_acceptable", message)
    }

    pub(super) fn too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message.into())
    }

    pub(super) fn broker_unavailable(message: impl Into<String>) -> Self {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Self::for_now(status, "broker_unavailable", message.into(), 500..=2_000)
    }

    pub(super) fn too_many_stats_streams(limit: usize) -> Self {
        let message = "This node has as many streams of statistics as it takes".into();
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Self { limit: Some(limit), ..Self::for_now(status, "capacity", message, 5_000..=15_000) }
    }

    /// A refusal that says nothing about the request, only about the moment. When to try again is drawn from `wait_ms`
    /// (milliseconds): those who were refused together must not come back together.
    fn for_now(
        status: StatusCode,
        code: &'static str,
        message: String,
        wait_ms: RangeInclusive<u64>,
    ) -> Self {
        let retry_ms = Some(rand::rng().random_range(wait_ms));
        Self { retry_ms, ..Self::new(status, code, message) }
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let busy = StatusCode::SERVICE_UNAVAILABLE;
        match refusal {
            Refusal::Admission(refusal) => refusal.into(),
            Refusal::Overloaded => {
                let message = "This node is short of memory or files and takes no new streams".into();
                Self::for_now(busy, "capacity", message, 5_000..=15_000)
            }
            // Whoever asks again soon is sent to another node.
            Refusal::Draining => {
                Self::for_now(busy, "draining", "This node is shutting down".into(), 500..=2_000)
            }
            Refusal::Forbidden => Self::forbidden("A channel of this request cannot be read"),
        }
    }
}

impl From<LimitMet> for ApiError {
    /// How long a refused client waits: until a reload of its own is over, or until others have left.
    fn from(refusal: LimitMet) -> Self {
        let too_many = StatusCode::TOO_MANY_REQUESTS;
        let (status, wait_ms) = match refusal {
            LimitMet::IpLimit { .. } | LimitMet::SessionLimit { .. } => (too_many, 3_000..=8_000),
            LimitMet::RateLimit { retry_after } => {
                let after = u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX / 2);
                (too_many, after.max(1_000)..=after.max(1_000) * 2)
            }
            LimitMet::Capacity { .. } => (StatusCode::SERVICE_UNAVAILABLE, 5_000..=15_000),
            LimitMet::LimitsUnavailable => (StatusCode::SERVICE_UNAVAILABLE, 1_000..=3_000),
        };
        let error = Self::for_now(status, refusal.code(), refusal.to_string(), wait_ms);
        Self { limit: refusal.limit(), ..error }
    }
}

impl From<PublishRefusal> for ApiError {
    fn from(refusal: PublishRefusal) -> Self {
        Self::broker_unavailable(refusal.to_string())
    }
}

impl From<PeersUnreachable> for ApiError {
    fn from(error: PeersUnreachable) -> Self {
        Self::broker_unavailable(error.to_string())
    }
}

#[derive(Serialize)]
struct Body<'a> {
    error: &'a str,
    code: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<usize>,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = Json(Body { error: &self.message, code: self.code, limit: self.limit });
        let mut response = (self.status, body).into_response();
        response.extensions_mut().insert(Refused(self.code));
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(self.challenge));
        }
        if let Some(retry_ms) = self.retry_ms {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(retry_ms.div_ceil(1000)));
            response.extensions_mut().insert(ForNow { code: self.code, retry_ms });
        }
        response
    }
}
