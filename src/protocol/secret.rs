//! A text that must never be printed: keys and passwords.

use std::fmt;

use subtle::{Choice, ConstantTimeEq};

/// What is printed in place of a secret.
pub const MASK: &str = "****";

/// A key or password. Printing it in any way prints [`MASK`]; it is compared in constant time.
#[derive(Clone)]
pub struct Secret(Box<str>);

impl Secret {
    /// Takes the text as it is.
    pub fn new(text: impl Into<Box<str>>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one place that sends it on.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether `candidate` is this secret. Takes as long for a wrong text as for the right one of the same length; only
    /// the length can be learnt from the time it takes.
    pub fn matches(&self, candidate: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(candidate).into()
    }

    /// Whether `candidate` is one of `secrets`; all of them are looked at, so that the time does not tell which it was.
    pub fn any_matches(secrets: &[Self], candidate: &[u8]) -> bool {
        let found = secrets
            .iter()
            .fold(Choice::from(0), |found, secret| found | secret.0.as_bytes().ct_eq(candidate));
        found.into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_printed() {
        let secret = Secret::new("canary");
        assert_eq!(format!("{secret} {secret:?} {:?}", Some(&secret)), "**** **** Some(****)");
    }

    #[test]
    fn only_the_same_bytes_match() {
        let secrets = [Secret::new("one"), Secret::new("two")];
        assert!(secrets[1].matches(b"two"));
        assert!(Secret::any_matches(&secrets, b"one") && Secret::any_matches(&secrets, b"two"));
        for wrong in [&b""[..], b"tw", b"twoo", b"Two"] {
            assert!(!Secret::any_matches(&secrets, wrong));
        }
        assert!(!Secret::any_matches(&[], b""));
    }
}
