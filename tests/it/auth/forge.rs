//! Tokens byte by byte: every part is under the test's control, and nothing here is Fanlight's.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256,
    RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RsaEncoding, RsaKeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use crate::support::NodeBuilder;

/// Seconds of Unix time.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// base64url without padding (RFC 7515, section 2).
pub(crate) fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// `header.payload`, from the texts of both.
pub(crate) fn message(header: impl AsRef<[u8]>, payload: impl AsRef<[u8]>) -> String {
    format!("{}.{}", b64(header), b64(payload))
}

/// A signed token: the message, and what `sign` makes of it.
pub(crate) fn token(header: &str, payload: impl AsRef<[u8]>, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let message = message(header, payload);
    let signature = sign(message.as_bytes());
    format!("{message}.{}", b64(signature))
}

/// HMAC-SHA256 with any key.
pub(crate) fn hs256(key: impl AsRef<[u8]>) -> impl Fn(&[u8]) -> Vec<u8> {
    hs(hmac::HMAC_SHA256, key)
}

/// HMAC with any hash.
pub(crate) fn hs(hash: hmac::Algorithm, key: impl AsRef<[u8]>) -> impl Fn(&[u8]) -> Vec<u8> {
    let key = hmac::Key::new(hash, key.as_ref());
    move |message| hmac::sign(&key, message).as_ref().to_vec()
}

/// One issuer with a key of every kind.
pub(super) struct Keys {
    pub(super) secret: String,
    rsa: RsaKeyPair,
    ec: EcdsaKeyPair,
    ed: Ed25519KeyPair,
}

impl Keys {
    pub(super) fn new() -> Self {
        Self {
            secret: format!("{:064x}", rand::random::<u128>()),
            rsa: RsaKeyPair::generate(KeySize::Rsa2048).unwrap(),
            ec: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
            ed: Ed25519KeyPair::generate().unwrap(),
        }
    }

    /// The `SubjectPublicKeyInfo` of the RSA key.
    pub(super) fn rsa_der(&self) -> Vec<u8> {
        let der: PublicKeyX509Der<'_> = self.rsa.public_key().as_der().unwrap();
        der.as_ref().to_vec()
    }

    /// The same as PEM, as `openssl pkey -pubout` writes it.
    pub(super) fn rsa_pem(&self) -> String {
        let base64 = STANDARD.encode(self.rsa_der());
        let lines: Vec<&str> =
            base64.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"))
    }

    /// The uncompressed point of the P-256 key.
    pub(super) fn ec_point(&self) -> &[u8] {
        self.ec.public_key().as_ref()
    }

    /// The bytes of the Ed25519 key.
    pub(super) fn ed_bytes(&self) -> &[u8] {
        self.ed.public_key().as_ref()
    }

    /// The P-256 key as `kid` `ec-1`.
    pub(super) fn ec_jwk(&self) -> Value {
        let point = self.ec_point();
        json!({ "kty": "EC", "crv": "P-256", "kid": "ec-1", "x": b64(&point[1..33]), "y": b64(&point[33..]) })
    }

    /// The Ed25519 key as `kid` `ed-1`.
    pub(super) fn ed_jwk(&self) -> Value {
        json!({ "kty": "OKP", "crv": "Ed25519", "kid": "ed-1", "x": b64(self.ed_bytes()) })
    }

    /// A key set with both, `ec` and `ed`.
    pub(super) fn jwks(&self) -> String {
        json!({ "keys": [self.ec_jwk(), self.ed_jwk()] }).to_string()
    }

    /// A node that knows all keys, and the file that has two of them.
    pub(super) fn configure(&self, node: NodeBuilder) -> (NodeBuilder, NamedTempFile) {
        let file = NamedTempFile::new().unwrap();
        std::fs::write(file.path(), self.jwks()).unwrap();
        let node = node
            .set("FANLIGHT_JWT_SECRET", &self.secret)
            .set("FANLIGHT_JWT_PUBLIC_KEY", self.rsa_pem())
            .set("FANLIGHT_JWKS_FILE", file.path().display());
        (node, file)
    }

    pub(super) fn hs256(&self) -> impl Fn(&[u8]) -> Vec<u8> {
        hs256(&self.secret)
    }

    pub(super) fn rs256(&self, message: &[u8]) -> Vec<u8> {
        self.rsa(&RSA_PKCS1_SHA256, message)
    }

    pub(super) fn rs384(&self, message: &[u8]) -> Vec<u8> {
        self.rsa(&RSA_PKCS1_SHA384, message)
    }

    pub(super) fn rs512(&self, message: &[u8]) -> Vec<u8> {
        self.rsa(&RSA_PKCS1_SHA512, message)
    }

    pub(super) fn ps256(&self, message: &[u8]) -> Vec<u8> {
        self.rsa(&RSA_PSS_SHA256, message)
    }

    fn rsa(&self, encoding: &'static dyn RsaEncoding, message: &[u8]) -> Vec<u8> {
        let mut signature = vec![0; self.rsa.public_modulus_len()];
        self.rsa.sign(encoding, &SystemRandom::new(), message, &mut signature).unwrap();
        signature
    }

    pub(super) fn es256(&self, message: &[u8]) -> Vec<u8> {
        self.ec.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()
    }

    pub(super) fn eddsa(&self, message: &[u8]) -> Vec<u8> {
        self.ed.sign(message).as_ref().to_vec()
    }

    /// A token of the shared secret with these claims.
    pub(super) fn sign(&self, claims: &Value) -> String {
        token(r#"{"alg":"HS256","typ":"JWT"}"#, claims.to_string(), self.hs256())
    }

    /// One that is good for a minute and grants `fanlight`.
    pub(super) fn grant(&self, fanlight: Value) -> String {
        self.sign(&json!({ "exp": now() + 60, "fanlight": fanlight }))
    }
}
