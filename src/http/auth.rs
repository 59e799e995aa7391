//! Who asks, and what that one may do: by an API key or by a token.
//!
//! An API key is for publishing and administration as a whole. A token is for what it says, and only a token opens more
//! channels to a reader. A credential that is there and wrong is refused, never passed over: whoever sends one believes
//! to be somebody.

use std::sync::Arc;

use axum::extract::{Request, State as Extract};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

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
        if self.api_keys.is_empty() && self.tokens.is_none() {
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
        if channels.all(granted) {
            Ok(())
        } else {
            Err(ApiError::forbidden("This token may not publish on every channel of the request"))
        }
    }

    /// # Errors
    /// 403.
    fn may_administer(&self) -> Result<(), ApiError> {
        match self {
            Self::Everything | Self::Token(Grants { admin: true, .. }) => Ok(()),
            Self::Token(_) => Err(ApiError::forbidden("This token is not for administration")),
        }
    }
}

/// Lets administrators pass.
pub(super) async fn administrators_only(
    Extract(state): Extract<Arc<State>>,
    request: Request,
    next: Next,
) -> Response {
    let given = Credentials::of(request.headers(), request.uri(), &state.allowed_origins);
    let judged = given.and_then(|given| state.recognition.holder(&given)?.may_administer());
    match judged {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}
