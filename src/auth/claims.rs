//! What stands in a token, and when it holds.

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde::{Deserialize, Serialize};

use super::{Grants, TokenError};
use crate::protocol::channel::ChannelPattern;
use crate::protocol::secret::Secret;

/// The audience that this server is. A token without `aud` is for everybody who knows its key; one with an `aud` in which
/// we are not must be refused (RFC 7519, section 4.1.3).
const AUDIENCE: &str = "fanlight";

/// How far an issuer's clock may be ahead of ours. Only `nbf` is given this: what has expired has expired, and a stream
/// that opened after it would end at once.
const LEEWAY_MS: u64 = 5_000;

/// The last second of the year 9999. Later times are nobody's intention but that of arithmetic.
const LAST_SECOND: u64 = 253_402_300_799;

/// Entries of one list: as many channels as one stream may name.
const MAX_PATTERNS: usize = 128;

/// The claims that are looked at; all others are not.
///
/// Times are whole seconds: RFC 7519 would allow fractions, and nobody means them. A name that stands there twice is an
/// error, so that no two readers can disagree about a token.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Claims {
    #[serde(skip_serializing_if = "Option::is_none")]
    sub: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<Audience>,
    exp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    nbf: Option<u64>,
    #[serde(default)]
    fanlight: Permissions,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

/// The claim `fanlight`. A member that this version does not know may be a restriction, so it is not ignored.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Permissions {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    read: Vec<ChannelPattern>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    publish: Vec<ChannelPattern>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    admin: bool,
}

impl Claims {
    /// What they allow at `now`, in milliseconds of Unix time.
    pub(super) fn grants(self, now: u64) -> Result<Grants, TokenError> {
        let Permissions { read, publish, admin } = self.fanlight;
        if self.exp > LAST_SECOND || read.len() > MAX_PATTERNS || publish.len() > MAX_PATTERNS {
            return Err(TokenError::Claims);
        }
        let expires_at = self.exp * 1000;
        if expires_at <= now {
            return Err(TokenError::Expired);
        }
        if self.nbf.is_some_and(|nbf| nbf.saturating_mul(1000) > now.saturating_add(LEEWAY_MS)) {
            return Err(TokenError::NotYet);
        }
        if !self.aud.as_ref().is_none_or(Audience::is_us) {
            return Err(TokenError::Audience);
        }
        Ok(Grants { read, publish, admin, expires_at })
    }
}

impl Audience {
    fn is_us(&self) -> bool {
        match self {
            Self::One(name) => name == AUDIENCE,
            Self::Many(names) => names.iter().any(|name| name == AUDIENCE),
        }
    }
}

/// A token that could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot sign a token: {0}")]
pub struct SignError(#[from] jsonwebtoken::errors::Error);

/// A token for `grants`, signed with the shared secret; `subject` says for whom, and is not looked at by a node.
///
/// # Errors
/// When the cryptography fails.
pub fn sign(secret: &Secret, subject: Option<String>, grants: Grants) -> Result<String, SignError> {
    let Grants { read, publish, admin, expires_at } = grants;
    let claims = Claims {
        sub: subject,
        aud: Some(Audience::One(AUDIENCE.to_owned())),
        exp: expires_at.div_ceil(1000),
        nbf: None,
        fanlight: Permissions { read, publish, admin },
    };
    let key = EncodingKey::from_secret(secret.expose().as_bytes());
    Ok(encode(&Header::new(Algorithm::HS256), &claims, &key)?)
}
