//! Who asks, and what that one may do: by an API key or by a token.
//!
//! An API key is for publishing and administration as a whole. A token is for what it says, and only a token opens more
//! channels to a reader. A credential that is there and wrong is refused, never passed over: whoever sends one believes
//! to be somebody.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State as Extract};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use http_body::Body as _;

use super::State;
use super::credentials::Credentials;
use super::error::ApiError;
use crate::auth::{Grants, Verifier};
use crate::protocol::channel::ChannelName;
use crate::protocol::secret::Secret;

/// By what callers are recognised.
#[derive(Clone, Debug, Default)]
pub struct Recognition {
    /// Keys for publishing and administration.
    pub api_keys: Vec<Secret>,
    /// Checks tokens; none means that there are none.
    pub tokens: Option<Arc<Verifier>>,
    /// Nobody reads without a token.
    pub require_token: bool,
}

/// Somebody who may publish or administer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Holder {
    /// Everything: by an API key, or because this node asks nobody (it then listens on loopback only, or was told to be
    /// open).
    Everything,
    /// What a token says.
    Token(Grants),
}

impl Recognition {
    /// There is nothing to recognise anybody by.
    pub(super) const fn asks_nobody(&self) -> bool {
        self.api_keys.is_empty() && self.tokens.is_none()
    }

    /// What a reader's token allows; `None` for the anonymous.
    ///
    /// # Errors
    /// 401 when the token is not accepted, or there must be one.
    pub(super) fn reader(&self, given: &Credentials) -> Result<Option<Grants>, ApiError> {
        // A backend may send its key with everything; for reading it says nothing.
        let token = given.token().filter(|token| !Secret::any_matches(&self.api_keys, token.as_bytes()));
        match (token, &self.tokens) {
            (Some(token), Some(verifier)) => verify(verifier, token).map(Some),
            _ if self.require_token => Err(ApiError::unauthorized(
                "A token is needed: Authorization: Bearer TOKEN, the cookie fanlight_token, or ?token=",
            )),
            _ => Ok(None),
        }
    }

    /// Who wants to publish or administer.
    ///
    /// # Errors
    /// 401 when that cannot be told.
    pub(super) fn holder(&self, given: &Credentials) -> Result<Holder, ApiError> {
        if self.asks_nobody() {
            return Ok(Holder::Everything);
        }
        if let Some(key) = given.api_key() {
            let known = Secret::any_matches(&self.api_keys, key);
            let wrong = || ApiError::unauthorized("This API key is not one of the node's");
            return if known { Ok(Holder::Everything) } else { Err(wrong()) };
        }
        let Some(token) = given.token() else {
            return Err(ApiError::unauthorized(
                "A key is needed: Authorization: Bearer with an API key or a token, or X-API-Key",
            ));
        };
        if Secret::any_matches(&self.api_keys, token.as_bytes()) {
            return Ok(Holder::Everything);
        }
        match &self.tokens {
            Some(verifier) => verify(verifier, token).map(Holder::Token),
            None => Err(ApiError::unauthorized("This API key is not one of the node's")),
        }
    }
}

fn verify(verifier: &Verifier, token: &str) -> Result<Grants, ApiError> {
    verifier.verify(token).map_err(|error| {
        tracing::debug!(%error, "a token is refused");
        ApiError::invalid_token(error.to_string())
    })
}

impl Holder {
    /// Passes who may publish on all of `channels`.
    ///
    /// # Errors
    /// 403.
    pub(super) fn may_publish<'a>(
        &self,
        mut channels: impl Iterator<Item = &'a ChannelName>,
    ) -> Result<(), ApiError> {
        let Self::Token(grants) = self else { return Ok(()) };
        let granted = |channel| grants.publish.iter().any(|pattern| pattern.matches(channel));
        match channels.find(|channel| !granted(channel)) {
            None => Ok(()),
            Some(channel) => Err(ApiError::forbidden(format!("This token may not publish on {channel}"))),
        }
    }

    /// Until when one may administer, in milliseconds of Unix time; `None` for ever.
    ///
    /// # Errors
    /// 403.
    pub(super) fn may_administer(&self) -> Result<Option<u64>, ApiError> {
        match self {
            Self::Everything => Ok(None),
            Self::Token(Grants { admin: true, expires_at, .. }) => Ok(Some(*expires_at)),
            Self::Token(_) => Err(ApiError::forbidden("This token is not for administration")),
        }
    }
}

/// Lets administrators pass. What a token opened ends with it, however long the answer would have been.
pub(super) async fn administrators_only(
    Extract(state): Extract<Arc<State>>,
    request: Request,
    next: Next,
) -> Response {
    let given = Credentials::of(request.headers(), request.uri(), &state.allowed_origins);
    let judged = given.and_then(|given| state.recognition.holder(&given)?.may_administer());
    let until = match judged {
        Ok(until) => until,
        Err(refusal) => return refusal.into_response(),
    };
    let response = next.run(request).await;
    match until {
        Some(until) if response.body().size_hint().exact().is_none() => {
            let left = Duration::from_millis(until.saturating_sub(state.node.clock().unix_millis()));
            response.map(|body| ended_after(left, body))
        }
        _ => response,
    }
}

/// `body` as far as it comes within `left`.
fn ended_after(left: Duration, body: Body) -> Body {
    Body::from_stream(body.into_data_stream().take_until(Box::pin(tokio::time::sleep(left))))
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_endless_answer_ends_in_time() {
        let tick = |n: u32| async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Some((Ok::<_, std::convert::Infallible>("."), n + 1))
        };
        let endless = Body::from_stream(stream::unfold(0, tick));
        let body = axum::body::to_bytes(ended_after(Duration::from_millis(3_500), endless), 100).await;
        assert_eq!(body.unwrap(), "...");
    }
}
