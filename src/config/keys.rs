//! The keys of tokens: reading them is the only way to tell whether they are good, so `config check` does.

use std::path::Path;

use super::values::Read;
use crate::auth::{JwksFile, PublicKey};
use crate::protocol::secret::Secret;

/// The longest shared secret, in bytes.
const MAX_SECRET: usize = 4096;

/// The largest file with a public key, in bytes.
const MAX_PEM: u64 = 64 << 10;

/// The beginning of every PEM text.
const PEM: &str = "-----BEGIN";

/// Whether the value of a setting is the text of a key itself, and not where to find one.
pub(super) fn is_pem(text: &str) -> bool {
    text.trim_start().starts_with(PEM)
}

/// The secret that tokens are signed with, as it stands: not decoded from base64.
pub(super) fn jwt_secret(text: &str) -> Read<Option<Secret>> {
    let allowed = format!("1 to {MAX_SECRET} bytes; not a PEM text, which is for --jwt-public-key");
    // A public key for a secret would let everybody sign.
    let good = (1..=MAX_SECRET).contains(&text.len()) && !is_pem(text) && !text.contains('\0');
    if good { Ok(Some(Secret::new(text))) } else { Err(allowed) }
}

/// A PEM text, also with `\n` written out as container settings have it, or a file with one.
pub(super) fn public_key(text: &str) -> Read<Option<PublicKey>> {
    let allowed = "a PEM public key (RSA of 2048 bits and more, P-256 or Ed25519), or a file with one";
    let pem = if is_pem(text) { Ok(text.replace("\\n", "\n")) } else { read_pem(text) };
    let key = pem.and_then(|pem| PublicKey::from_pem(&pem).map_err(|error| error.to_string()));
    key.map(Some).map_err(|why| because(text, allowed, &why))
}

/// What is allowed, and why this is not; a text that can be no path needs no reason.
fn because(text: &str, allowed: &str, why: &str) -> String {
    if text.contains('\0') { allowed.to_owned() } else { format!("{allowed}: {why}") }
}

fn read_pem(path: &str) -> Result<String, String> {
    let metadata = std::fs::metadata(path).map_err(|error| error.to_string())?;
    if !metadata.is_file() || metadata.len() > MAX_PEM {
        return Err(format!("not a file of at most {MAX_PEM} bytes"));
    }
    #[allow(clippy::disallowed_methods)] // before anything runs
    std::fs::read_to_string(path).map_err(|error| error.to_string())
}

/// A file with a JSON Web Key Set.
pub(super) fn jwks_file(text: &str) -> Read<Option<JwksFile>> {
    let allowed = "a file with a JSON Web Key Set of public keys";
    JwksFile::open(Path::new(text)).map(Some).map_err(|error| because(text, allowed, &error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ED25519: &str = "-----BEGIN PUBLIC KEY-----\\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\\n-----END PUBLIC KEY-----\\n";

    #[test]
    fn a_public_key_is_a_text_or_a_file_and_never_a_private_one() {
        assert!(public_key(ED25519).is_ok());
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), ED25519.replace("\\n", "\n")).unwrap();
        assert!(public_key(file.path().to_str().unwrap()).is_ok());
        std::fs::write(file.path(), "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
            .unwrap();
        let refused = public_key(file.path().to_str().unwrap()).unwrap_err();
        assert!(refused.contains("private key") && !refused.contains("AAAA"), "{refused}");
        for bad in ["", "/nonexistent", "/", "-----BEGIN PUBLIC KEY-----", "/dev/zero"] {
            assert!(public_key(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_key_is_no_secret() {
        assert!(jwt_secret("s").is_ok());
        for bad in ["", "a\0b", ED25519, &"x".repeat(4097)] {
            assert!(jwt_secret(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_file_without_keys_is_refused_with_the_reason() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let refused = || jwks_file(file.path().to_str().unwrap()).unwrap_err();
        assert!(refused().contains("not a JSON Web Key Set"), "{}", refused());
        std::fs::write(file.path(), r#"{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}"#).unwrap();
        assert!(refused().contains("none of its 1 keys"), "{}", refused());
        assert!(jwks_file("/nonexistent").unwrap_err().contains("No such file"));
    }
}
