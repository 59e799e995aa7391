//! The token by which a client is recognised over its connections.

use std::fmt;

/// The longest session token, in bytes.
pub const MAX_LEN: usize = 128;

/// A session: a token that a client chooses and keeps, one per browser profile. 1 to 128 of `A-Z a-z 0-9` and
/// `. _ ~ : / + = @ | -`: every usual id and base64 in both alphabets, and nothing that a log line, a header or a table
/// would have to quote.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SessionToken(Box<str>);

/// A text that is no session token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a session token is 1 to {MAX_LEN} of A-Z a-z 0-9 . _ ~ : / + = @ | -")]
pub struct BadSessionToken;

impl SessionToken {
    /// Checks `text`.
    ///
    /// # Errors
    /// When it is empty, too long or has a character outside the set.
    pub fn parse(text: &str) -> Result<Self, BadSessionToken> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._~:/+=@|-".contains(&b);
        let good = (1..=MAX_LEN).contains(&text.len()) && text.bytes().all(allowed);
        if good { Ok(Self(text.into())) } else { Err(BadSessionToken) }
    }

    /// The token as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The token as text, without a copy.
    pub fn into_text(self) -> Box<str> {
        self.0
    }
}

impl fmt::Display for SessionToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_ids_are_taken() {
        let longest = "x".repeat(128);
        for good in [
            "a",
            "6f1c2c1e-7b1a-4a6f-9f2e-0d9a3b1c2d4e",
            "auth0|5f7c",
            "a+b/c==",
            "user@example.com",
            &longest,
        ] {
            assert_eq!(SessionToken::parse(good).unwrap().as_str(), good);
        }
    }

    #[test]
    fn what_would_have_to_be_quoted_is_refused() {
        let long = "x".repeat(129);
        for bad in ["", &long, "a b", "a\nb", "a\"b", "a,b", "a;b", "<a>", "é", "a\0", "*", "%20"] {
            assert_eq!(SessionToken::parse(bad), Err(BadSessionToken), "{bad:?}");
        }
    }
}
