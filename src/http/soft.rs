//! Refusals that a browser's `EventSource` survives.
//!
//! After any status but 200 an `EventSource` never comes back (WHATWG HTML, 9.2.3), so a page that asked with
//! `onLimit=soft` is told of a limit in a stream that ends: an event with the code, and when to try again. Only refusals
//! of the moment are told like that. One that would be the same next time (400, 401, 403) stays what it is, or the page
//! would ask for ever.

use axum::body::Body;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;

use super::query;
use super::streams::with_stream_headers;
use crate::protocol::control;

/// Marks the answer that refuses for the moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct ForNow {
    /// The refusal's code.
    pub(super) code: &'static str,
    /// When to try again, in milliseconds.
    pub(super) retry_ms: u64,
}

/// Turns a refusal of the moment into a stream, where that was asked for.
pub(super) async fn soften(request: Request, next: Next) -> Response {
    let soft = query::member(request.uri(), "onLimit").is_ok_and(|how| how.as_deref() == Some("soft"));
    let mut response = next.run(request).await;
    let Some(ForNow { code, retry_ms }) = response.extensions().get().copied().filter(|_| soft) else {
        return response;
    };
    let mut told = with_stream_headers(Body::from(control::limit(code, retry_ms).bare()));
    // It is the same refusal for whoever counts them.
    std::mem::swap(told.extensions_mut(), response.extensions_mut());
    told
}
