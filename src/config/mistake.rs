//! Wrong settings, collected and printed together.

use std::fmt;

use crate::protocol::secret::MASK;

/// The longest part of a wrong value that is printed, in characters.
const SHOWN_CHARS: usize = 120;

/// One wrong setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    name: String,
    value: Option<String>,
    allowed: String,
}

impl Mistake {
    /// A wrong value: `name` as the user gave it (flag, variable or key in a file), and what is allowed.
    pub(super) fn new(
        name: impl Into<String>,
        value: &str,
        secret: bool,
        allowed: impl Into<String>,
    ) -> Self {
        let shown = if secret { MASK.to_owned() } else { shorten(value) };
        Self { name: name.into(), value: Some(shown), allowed: allowed.into() }
    }

    /// A mistake that is not about a value: an unknown key, a file that cannot be read.
    pub(super) fn without_value(name: impl Into<String>, allowed: impl Into<String>) -> Self {
        Self { name: name.into(), value: None, allowed: allowed.into() }
    }
}

/// Escaped, so that a value cannot forge lines on a terminal or in a log.
fn shorten(value: &str) -> String {
    match value.char_indices().nth(SHOWN_CHARS) {
        None => format!("{value:?}"),
        Some((end, _)) => format!("{:?}…", &value[..end]),
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{} is {value}; allowed: {}", self.name, self.allowed),
            None => write!(f, "{}: {}", self.name, self.allowed),
        }
    }
}

/// All that is wrong with the settings; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistakes(pub Vec<Mistake>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [_] => f.write_str("a setting is wrong:")?,
            many => write!(f, "{} settings are wrong:", many.len())?,
        }
        self.0.iter().try_for_each(|mistake| write!(f, "\n  {mistake}"))
    }
}

impl std::error::Error for Mistakes {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_escaped_and_shortened_and_secrets_masked() {
        let long = "x".repeat(500);
        let shown = Mistake::new("--log", &long, false, "less").to_string();
        assert!(shown.len() < 200, "{shown}");
        let forged = Mistake::new("--log", "a\nERROR b\u{1b}[31m", false, "less").to_string();
        assert!(!forged.contains('\n') && !forged.contains('\u{1b}'), "{forged}");
        let secret = Mistake::new("--api-keys", "canary", true, "less").to_string();
        assert_eq!(secret, "--api-keys is ****; allowed: less");
    }
}
