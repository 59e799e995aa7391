//! Keys, each bound to the one algorithm that it is used with.

use std::ops::RangeInclusive;

use aws_lc_rs::rsa;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ED25519, UnparsedPublicKey, VerificationAlgorithm};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject;

use crate::protocol::secret::Secret;

/// The length of an RSA modulus: 2048 to 8192 bits.
const RSA_BYTES: RangeInclusive<usize> = 256..=1024;

/// A key of whoever signs tokens: RSA of 2048 to 8192 bits (RS256), NIST P-256 (ES256) or Ed25519 (EdDSA).
#[derive(Clone, Debug)]
pub struct PublicKey {
    algorithm: Algorithm,
    key: DecodingKey,
}

/// Why something is not a key for tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadKey {
    /// There is no such block in the text.
    #[error("there is no -----BEGIN PUBLIC KEY----- in it")]
    NoPublicKey,
    /// A node checks tokens; it must not be able to sign them.
    #[error(
        "it has a private key, which a node must not have; give it the public key (openssl pkey -pubout)"
    )]
    Private,
    /// Another kind, another curve, or too short.
    #[error("it is neither RSA of 2048 to 8192 bits, nor P-256, nor Ed25519")]
    Unsupported,
}

/// What a public key may be, and what it is used for then.
type Kind = (fn(&[u8]) -> bool, Algorithm, fn(&[u8]) -> DecodingKey);

const KINDS: [Kind; 3] = [
    (is_rsa, Algorithm::RS256, DecodingKey::from_rsa_der),
    (|bytes| is_for(&ECDSA_P256_SHA256_FIXED, bytes), Algorithm::ES256, DecodingKey::from_ec_der),
    (|bytes| is_for(&ED25519, bytes), Algorithm::EdDSA, DecodingKey::from_ed_der),
];

/// The library checks the length of an RSA key only when it verifies; a key that will never do is refused now.
fn is_rsa(bytes: &[u8]) -> bool {
    rsa::PublicKey::from_der(bytes).is_ok_and(|key| RSA_BYTES.contains(&key.modulus_len()))
}

fn is_for(algorithm: &'static dyn VerificationAlgorithm, bytes: &[u8]) -> bool {
    UnparsedPublicKey::new(algorithm, bytes).parse().is_ok()
}

impl PublicKey {
    /// Reads the first public key of a PEM text (RFC 7468, section 13).
    ///
    /// # Errors
    /// When there is none, or of a kind that is not used.
    pub fn from_pem(text: &str) -> Result<Self, BadKey> {
        if text.contains("PRIVATE KEY-----") {
            return Err(BadKey::Private);
        }
        let der =
            SubjectPublicKeyInfoDer::from_pem_slice(text.as_bytes()).map_err(|_| BadKey::NoPublicKey)?;
        Self::from_bytes(&der)
    }

    /// Reads a `SubjectPublicKeyInfo` (RFC 5280, section 4.1.2.7), the point of a curve, or the bytes of an Ed25519 key. No
    /// bytes are more than one of these.
    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, BadKey> {
        let kind = KINDS.iter().find(|(fits, ..)| fits(bytes));
        let (_, algorithm, decoding) = kind.ok_or(BadKey::Unsupported)?;
        Ok(Self { algorithm: *algorithm, key: decoding(bytes) })
    }

    /// What it is used with.
    pub(super) const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

/// A key with the only algorithm that it is used with.
#[derive(Debug)]
pub(super) struct Key {
    id: Option<String>,
    decoding: DecodingKey,
    algorithm: Algorithm,
    /// Only the signature: times are our clock's business and claims are ours.
    validation: Validation,
}

impl Key {
    pub(super) fn secret(secret: &Secret) -> Self {
        Self::new(None, Algorithm::HS256, DecodingKey::from_secret(secret.expose().as_bytes()))
    }

    pub(super) fn public(id: Option<String>, PublicKey { algorithm, key }: PublicKey) -> Self {
        Self::new(id, algorithm, key)
    }

    fn new(id: Option<String>, algorithm: Algorithm, decoding: DecodingKey) -> Self {
        let mut validation = Validation::new(algorithm);
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_aud = false;
        Self { id, decoding, algorithm, validation }
    }

    /// Whether a token whose header says this may be checked with it. A key without a name may be meant by any name, and
    /// a token without one may mean any key.
    pub(super) fn is_for(&self, algorithm: Algorithm, id: Option<&str>) -> bool {
        let named = self.id.as_deref().zip(id).is_none_or(|(mine, wanted)| mine == wanted);
        self.algorithm == algorithm && named
    }

    pub(super) const fn decoding(&self) -> &DecodingKey {
        &self.decoding
    }

    pub(super) const fn validation(&self) -> &Validation {
        &self.validation
    }
}
