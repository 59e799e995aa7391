//! Who a token speaks for: JSON Web Tokens (RFC 7519) checked against the keys that the operator configured.
//!
//! A key is bound to one algorithm when it is read: HS256 for the shared secret, RS256, ES256 or EdDSA for public keys
//! ([`keys`]). A token's header only chooses among these; it never brings a key, names a place to fetch one from, or
//! picks an algorithm for a key of another kind. What a token may do stands in its own claim ([`claims`]).
//!
//! This room has never heard of HTTP: where a token stands in a request, and what is answered to a bad one, is decided
//! elsewhere. It never fetches anything; the file of keys is looked at again while the node runs ([`jwks`]).

mod claims;
mod jwks;
mod keys;
#[cfg(test)]
mod tests;

use std::sync::{Arc, PoisonError, RwLock};

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Header, decode, decode_header};
use tokio_util::task::AbortOnDropHandle;

use crate::clock::Clock;
use crate::protocol::channel::ChannelPattern;
use crate::protocol::secret::Secret;
use claims::Claims;
use keys::Key;

pub use claims::{SignError, sign};
pub use jwks::{JwksError, JwksFile};
pub use keys::{BadKey, PublicKey};

/// The longest token, in bytes: more than a usual head of a request takes.
const MAX_TOKEN: usize = 8 * 1024;

/// The longest name of a key, in bytes.
const MAX_KEY_ID: usize = 128;

/// The keys that tokens are checked against.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Shared with whoever signs tokens: HS256.
    pub secret: Option<Secret>,
    /// Of whoever signs tokens.
    pub public_key: Option<PublicKey>,
    /// More of these, which may change while the node runs.
    pub jwks: Option<JwksFile>,
}

impl Config {
    /// Whether there is no key at all.
    pub const fn is_empty(&self) -> bool {
        self.secret.is_none() && self.public_key.is_none() && self.jwks.is_none()
    }
}

/// What a token allows. Everything ends at its expiry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grants {
    /// Channels to read beyond those that anyone may read.
    pub read: Vec<ChannelPattern>,
    /// Channels to publish on.
    pub publish: Vec<ChannelPattern>,
    /// Administration.
    pub admin: bool,
    /// When it ends, in milliseconds of Unix time.
    pub expires_at: u64,
}

/// Why a token is not accepted. No variant holds any part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is no signed token, or of a kind that is not taken here.
    #[error("The token is not a signed JWT of a kind that this server takes")]
    Malformed,
    /// No configured key has signed it.
    #[error("The token is not signed by a key that this server knows")]
    Untrusted,
    /// A claim is missing or not of its form.
    #[error("A claim of the token is missing or malformed; `exp` is required")]
    Claims,
    /// Its time is over.
    #[error("The token has expired")]
    Expired,
    /// Its time has not come.
    #[error("The token is not valid yet")]
    NotYet,
    /// It is meant for somebody else.
    #[error("The token is for another audience; `aud`, where there is one, must name fanlight")]
    Audience,
}

/// Checks tokens. Shared by everybody who asks.
#[derive(Debug)]
pub struct Verifier {
    fixed: Vec<Key>,
    /// The keys of the file, replaced as a whole when it changes.
    reloaded: RwLock<Arc<[Key]>>,
    clock: Clock,
}

/// Looks after the file of keys; ends when dropped.
#[derive(Debug)]
pub struct Reloading(#[expect(dead_code, reason = "held for its end")] Option<AbortOnDropHandle<()>>);

impl Verifier {
    /// A verifier with the keys of `config`, and the task that reads its file again; `None` without any key. Call it
    /// within a tokio runtime.
    pub fn start(config: Config, clock: Clock) -> (Option<Arc<Self>>, Reloading) {
        if config.is_empty() {
            return (None, Reloading(None));
        }
        let Config { secret, public_key, jwks } = config;
        let verifier = Arc::new(Self::new(secret.as_ref(), public_key, jwks.as_ref(), clock));
        let reload = jwks.map(|file| file.watch(Arc::clone(&verifier)));
        (Some(verifier), Reloading(reload.map(|task| AbortOnDropHandle::new(tokio::spawn(task)))))
    }

    fn new(
        secret: Option<&Secret>,
        public_key: Option<PublicKey>,
        jwks: Option<&JwksFile>,
        clock: Clock,
    ) -> Self {
        let fixed = secret.map(Key::secret).into_iter().chain(public_key.map(|key| Key::public(None, key)));
        let reloaded = jwks.map(JwksFile::keys).unwrap_or_default();
        Self { fixed: fixed.collect(), reloaded: RwLock::new(reloaded), clock }
    }

    fn replace(&self, keys: Arc<[Key]>) {
        *self.reloaded.write().unwrap_or_else(PoisonError::into_inner) = keys;
    }

    /// What `token` allows now.
    ///
    /// # Errors
    /// When it is not to be believed, or not now.
    pub fn verify(&self, token: &str) -> Result<Grants, TokenError> {
        if token.len() > MAX_TOKEN {
            return Err(TokenError::Malformed);
        }
        let header = decode_header(token).map_err(|_| TokenError::Malformed)?;
        if !is_plain(&header) {
            return Err(TokenError::Malformed);
        }
        self.claims(token, &header)?.grants(self.clock.unix_millis())
    }

    /// The claims, if a key that the header may choose has signed them.
    fn claims(&self, token: &str, header: &Header) -> Result<Claims, TokenError> {
        let reloaded = Arc::clone(&self.reloaded.read().unwrap_or_else(PoisonError::into_inner));
        let keys = self.fixed.iter().chain(reloaded.iter());
        for key in keys.filter(|key| key.is_for(header.alg, header.kid.as_deref())) {
            match decode::<Claims>(token, key.decoding(), key.validation()) {
                Ok(data) => return Ok(data.claims),
                Err(error) => match error.kind() {
                    ErrorKind::InvalidSignature => {}
                    ErrorKind::Json(_) | ErrorKind::Utf8(_) => return Err(TokenError::Claims),
                    _ => return Err(TokenError::Malformed),
                },
            }
        }
        Err(TokenError::Untrusted)
    }
}

/// A header that only says how the token is signed and by whom.
///
/// One that brings a key or the place of one (`jwk`, `jku`, `x5c`, `x5u`) is not from anybody we know, even if a known
/// key has signed it; `crit` names extensions that must be understood (RFC 7515, section 4.1.11), of which we have none;
/// and a token of another type is not ours to take (RFC 8725, section 3.11).
fn is_plain(header: &Header) -> bool {
    let brings_a_key =
        header.jwk.is_some() || header.jku.is_some() || header.x5c.is_some() || header.x5u.is_some();
    let typ = header.typ.as_deref().unwrap_or("JWT").to_ascii_lowercase();
    let is_jwt = matches!(typ.strip_prefix("application/").unwrap_or(&typ), "jwt" | "at+jwt");
    let is_named_well = header.kid.as_deref().is_none_or(is_key_id);
    is_jwt && is_named_well && !brings_a_key && header.crit.is_none() && header.enc.is_none()
}

/// The characters of every usual `kid`: hashes, UUIDs, base64 in both alphabets, dates.
fn is_key_id(id: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._~:/+=@|-".contains(&b);
    (1..=MAX_KEY_ID).contains(&id.len()) && id.bytes().all(allowed)
}
