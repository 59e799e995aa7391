//! A file of public keys (RFC 7517, section 5), read again when it changes.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::signature::RsaPublicKeyComponents;
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, JwkSet, KeyAlgorithm, KeyOperations, PublicKeyUse};
use jsonwebtoken::{DecodingKey, DecodingKeyKind};

use super::Verifier;
use super::keys::{Key, PublicKey};

/// How often the file is looked at. Its content is compared, not its time: a mounted volume replaces files by links, and
/// two writes may share a time stamp. Reading some KiB costs nothing.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The largest file that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// Keys in one file. A token without a `kid` is checked against all of its kind.
const MAX_KEYS: usize = 64;

/// A file of keys as it was found.
#[derive(Clone)]
pub struct JwksFile {
    path: PathBuf,
    content: Vec<u8>,
    keys: Arc<[Key]>,
}

/// Why there are no keys in a file.
#[derive(Debug, thiserror::Error)]
pub enum JwksError {
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    /// It is larger than is read.
    #[error("it is larger than {MAX_FILE} bytes")]
    TooLarge,
    /// It is not JSON of the form `{"keys":[…]}`. The parser's words are left out: they may quote the file.
    #[error("it is not a JSON Web Key Set: {{\"keys\":[…]}} (line {0})")]
    NoSet(usize),
    /// Too many for every token to be checked against.
    #[error("it has more than {MAX_KEYS} keys")]
    TooMany,
    /// No key in it is one that tokens are checked with.
    #[error("none of its {0} keys is a public key for signatures by RS256, ES256 or EdDSA")]
    Useless(usize),
}

impl JwksFile {
    /// Reads the file. Blocks; for the start.
    ///
    /// # Errors
    /// When there is no usable key in it.
    pub fn open(path: &Path) -> Result<Self, JwksError> {
        let content = read(path)?;
        let keys = parse(&content)?;
        Ok(Self { path: path.to_owned(), content, keys })
    }

    pub(super) fn keys(&self) -> Arc<[Key]> {
        Arc::clone(&self.keys)
    }

    /// Gives `verifier` the keys of the file whenever it changes. What has no keys changes nothing: the old ones are kept.
    pub(super) async fn watch(mut self, verifier: Arc<Verifier>) {
        let mut unreadable = false;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let path = self.path.clone();
            // An error here is a panic of the reader, which the panic hook has reported.
            let Ok(found) = tokio::task::spawn_blocking(move || read(&path)).await else { continue };
            match found {
                Ok(content) => {
                    unreadable = false;
                    self.take(content, &verifier);
                }
                Err(error) if !std::mem::replace(&mut unreadable, true) => {
                    tracing::warn!(path = %self.path.display(), %error, "the file of keys is lost; the keys that were in it are kept");
                }
                Err(_) => {}
            }
        }
    }

    /// Every content is looked at once, so that a bad one is warned about once.
    pub(super) fn take(&mut self, content: Vec<u8>, verifier: &Verifier) {
        if content == self.content {
            return;
        }
        match parse(&content) {
            Ok(keys) => {
                tracing::info!(path = %self.path.display(), keys = keys.len(), "the file of keys has changed");
                verifier.replace(keys);
            }
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "the file of keys has changed for the worse; the keys that were in it are kept");
            }
        }
        self.content = content;
    }
}

impl fmt::Debug for JwksFile {
    /// Without the content: somebody may have put private keys into it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwksFile").field("path", &self.path).finish_non_exhaustive()
    }
}

fn read(path: &Path) -> Result<Vec<u8>, JwksError> {
    let mut content = Vec::new();
    File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut content)?;
    if content.len() as u64 > MAX_FILE { Err(JwksError::TooLarge) } else { Ok(content) }
}

/// The keys of a set that tokens can be checked with; sets of identity providers also hold others.
fn parse(content: &[u8]) -> Result<Arc<[Key]>, JwksError> {
    let set: JwkSet = serde_json::from_slice(content).map_err(|error| JwksError::NoSet(error.line()))?;
    if set.keys.len() > MAX_KEYS {
        return Err(JwksError::TooMany);
    }
    let keys: Arc<[Key]> = set.keys.iter().filter_map(key).collect();
    if keys.is_empty() { Err(JwksError::Useless(set.keys.len())) } else { Ok(keys) }
}

fn key(jwk: &Jwk) -> Option<Key> {
    let common = &jwk.common;
    let for_signatures = !matches!(&common.public_key_use, Some(other) if *other != PublicKeyUse::Signature);
    let for_verifying = common.key_operations.as_ref().is_none_or(|ops| ops.contains(&KeyOperations::Verify));
    let key = public_key(jwk)?;
    let for_our_algorithm = common.key_algorithm.is_none_or(|alg| alg == KeyAlgorithm::from(key.algorithm()));
    (for_signatures && for_verifying && for_our_algorithm).then(|| Key::public(common.key_id.clone(), key))
}

/// A shared secret (`oct`) does not belong into a file of public keys, and is none.
fn public_key(jwk: &Jwk) -> Option<PublicKey> {
    if matches!(jwk.algorithm, AlgorithmParameters::OctetKey(_)) {
        return None;
    }
    match DecodingKey::from_jwk(jwk).ok()?.kind() {
        DecodingKeyKind::SecretOrDer(bytes) => PublicKey::from_bytes(bytes).ok(),
        DecodingKeyKind::RsaModulusExponent { n, e } => {
            let der = RsaPublicKeyComponents { n, e }.as_der().ok()?;
            PublicKey::from_bytes(der.as_ref()).ok()
        }
    }
}
