//! Channel names and the families of them that a setting or a token allows.

use std::fmt;
use std::sync::Arc;

/// The longest channel name, in bytes.
pub const MAX_LEN: usize = 128;

/// The word that stands for every plain configured channel; never a channel itself.
pub const ALL: &str = "all";

/// The channel whose events are about jobs: it exists by default, and `data.id` is the key where none is given.
pub const JOBS: &str = "jobs";

/// A valid channel name: 1 to 128 of `A-Z a-z 0-9 . _ : / -`, and not `all`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelName(Arc<str>);

/// Why a string is not a channel name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChannelNameError {
    /// The empty string.
    #[error("a channel name must not be empty")]
    Empty,
    /// Longer than [`MAX_LEN`] bytes.
    #[error("a channel name has at most {MAX_LEN} characters")]
    TooLong,
    /// A character outside the allowed set.
    #[error("a channel name has only the characters A-Z a-z 0-9 . _ : / -")]
    BadCharacter,
    /// The reserved word [`ALL`].
    #[error("`all` stands for every channel and is not a channel")]
    Reserved,
}

fn check(name: &str) -> Result<(), ChannelNameError> {
    if name.is_empty() {
        return Err(ChannelNameError::Empty);
    }
    if name.len() > MAX_LEN {
        return Err(ChannelNameError::TooLong);
    }
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'/' | b'-');
    if !name.bytes().all(allowed) {
        return Err(ChannelNameError::BadCharacter);
    }
    Ok(())
}

impl ChannelName {
    /// Checks `name`.
    ///
    /// # Errors
    /// When it is empty, too long, reserved or has a character outside the set.
    pub fn parse(name: &str) -> Result<Self, ChannelNameError> {
        check(name)?;
        if name == ALL {
            return Err(ChannelNameError::Reserved);
        }
        Ok(Self(name.into()))
    }

    /// The channel [`JOBS`].
    pub fn jobs() -> Self {
        Self(JOBS.into())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl std::borrow::Borrow<str> for ChannelName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl serde::Serialize for ChannelName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for ChannelName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// The channels that a client asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChannelList {
    /// Every plain name that the client may read.
    pub all: bool,
    /// These besides.
    pub names: Vec<ChannelName>,
}

impl From<ChannelName> for ChannelList {
    fn from(name: ChannelName) -> Self {
        Self { all: false, names: vec![name] }
    }
}

/// One entry of a channel list: a plain name, or a family (`public:*`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChannelPattern {
    /// Exactly this channel.
    Plain(ChannelName),
    /// Every channel that starts with these characters; empty means every channel.
    Family(Arc<str>),
}

impl ChannelPattern {
    /// Parses a name or a name with one trailing `*`; a lone `*` is the family of all channels.
    ///
    /// # Errors
    /// When what stands before the `*` could not begin a channel name.
    pub fn parse(text: &str) -> Result<Self, ChannelNameError> {
        match text.strip_suffix('*') {
            None => ChannelName::parse(text).map(Self::Plain),
            Some("") => Ok(Self::Family("".into())),
            Some(prefix) => check(prefix).map(|()| Self::Family(prefix.into())),
        }
    }

    /// The channel, when it is exactly one.
    pub const fn plain(&self) -> Option<&ChannelName> {
        match self {
            Self::Plain(name) => Some(name),
            Self::Family(_) => None,
        }
    }

    /// Whether `channel` is meant.
    pub fn matches(&self, channel: &ChannelName) -> bool {
        match self {
            Self::Plain(name) => name == channel,
            Self::Family(prefix) => channel.as_str().starts_with(&**prefix),
        }
    }
}

impl fmt::Display for ChannelPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(name) => name.fmt(f),
            Self::Family(prefix) => write!(f, "{prefix}*"),
        }
    }
}

impl serde::Serialize for ChannelPattern {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for ChannelPattern {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_allowed_characters_up_to_128_are_taken() {
        for name in ["jobs", "pending-changes", "A.z_0:/-", &"x".repeat(128)] {
            assert_eq!(ChannelName::parse(name).unwrap().as_str(), name);
        }
    }

    #[test]
    fn everything_else_is_refused_with_its_reason() {
        use ChannelNameError as E;
        let long = "x".repeat(129);
        for (name, why) in [
            ("", E::Empty),
            ("all", E::Reserved),
            (long.as_str(), E::TooLong),
            ("a b", E::BadCharacter),
            ("a*", E::BadCharacter),
            ("a\n", E::BadCharacter),
            ("é", E::BadCharacter),
            ("a\0", E::BadCharacter),
        ] {
            assert_eq!(ChannelName::parse(name), Err(why), "{name:?}");
        }
    }

    #[test]
    fn a_family_matches_by_prefix_only() {
        let family = ChannelPattern::parse("public:*").unwrap();
        assert!(family.matches(&ChannelName::parse("public:a").unwrap()));
        assert!(!family.matches(&ChannelName::parse("publi").unwrap()));
        assert!(ChannelPattern::parse("*").unwrap().matches(&ChannelName::parse("x").unwrap()));
        assert!(ChannelPattern::parse("a*b").is_err());
        assert!(ChannelPattern::parse("a**").is_err());
    }
}
