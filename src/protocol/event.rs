//! An event as it is published, before it is encoded for anybody.

use std::fmt;

use super::channel::ChannelName;
use super::position::Position;

/// The longest event type, key and idempotency key, in bytes.
pub const MAX_FIELD_LEN: usize = 256;

/// Why a string cannot be an event type or a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// CR, LF or NUL, which would end the SSE line or void the id (WHATWG HTML, 9.2.6).
    #[error("must not contain CR, LF or NUL")]
    ControlCharacter,
    /// Longer than [`MAX_FIELD_LEN`] bytes.
    #[error("must have at most {MAX_FIELD_LEN} bytes")]
    TooLong,
    /// The empty string.
    #[error("must not be empty")]
    Empty,
}

pub(super) fn check(text: &str) -> Result<(), FieldError> {
    if text.is_empty() {
        return Err(FieldError::Empty);
    }
    if text.len() > MAX_FIELD_LEN {
        return Err(FieldError::TooLong);
    }
    if text.bytes().any(|b| matches!(b, b'\r' | b'\n' | 0)) {
        return Err(FieldError::ControlCharacter);
    }
    Ok(())
}

macro_rules! field {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Box<str>);

        impl $name {
            /// Checks `text`.
            ///
            /// # Errors
            /// When it is empty, too long or has CR, LF or NUL.
            pub fn parse(text: &str) -> Result<Self, FieldError> {
                check(text)?;
                Ok(Self(text.into()))
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

field! {
    /// An event's type: what stands behind `event:`.
    EventType
}
field! {
    /// The id of the thing that an event is about (a job's id).
    Key
}

/// Reads a `traceparent` (W3C Trace Context, section 3.2); `None` for one that is invalid, which the recommendation says
/// to ignore. The result is always of version 00 and 55 bytes long: of a future version only the parts that version 00
/// knows may be passed on (section 4).
pub fn traceparent(text: &str) -> Option<Box<str>> {
    let version = text.get(..2)?;
    let parts = text.get(2..55)?;
    let (rest, bytes) = (&text[55..], parts.as_bytes());
    let hex =
        |range: std::ops::Range<usize>| bytes[range].iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let dashes = bytes[0] == b'-' && bytes[33] == b'-' && bytes[50] == b'-';
    let not_zero = |range: std::ops::Range<usize>| bytes[range].iter().any(|&b| b != b'0');
    let shape = dashes && hex(1..33) && hex(34..50) && hex(51..53) && not_zero(1..33) && not_zero(34..50);
    let known = match version {
        "00" => rest.is_empty(),
        "ff" => false,
        later => {
            let hex = later.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            hex && (rest.is_empty() || rest.starts_with('-'))
        }
    };
    (shape && known).then(|| format!("00{parts}").into())
}

/// What is published on a channel. The data is passed through as it came, never re-serialised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The type; without one a browser fires `message`.
    pub kind: Option<EventType>,
    /// What it is about.
    pub key: Option<Key>,
    /// The payload, valid UTF-8; usually JSON.
    pub data: String,
    /// The W3C `traceparent` of whoever published it, checked to be ASCII without control characters.
    pub traceparent: Option<Box<str>>,
}

impl Event {
    /// An event with data and nothing else.
    pub fn unnamed(data: impl Into<String>) -> Self {
        Self { kind: None, key: None, data: data.into(), traceparent: None }
    }
}

/// An event on its way from the broker to the subscribers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Where it was published.
    pub channel: ChannelName,
    /// What was published.
    pub event: Event,
    /// Its place in the history; none for what came by plain `PUBLISH`.
    pub position: Option<Position>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_breaks_and_nul_are_refused_not_stripped() {
        for bad in ["a\rb", "a\nb", "a\r\nb", "a\0b"] {
            assert_eq!(EventType::parse(bad), Err(FieldError::ControlCharacter), "{bad:?}");
            assert_eq!(Key::parse(bad), Err(FieldError::ControlCharacter), "{bad:?}");
        }
        assert_eq!(EventType::parse(""), Err(FieldError::Empty));
        assert_eq!(Key::parse(&"k".repeat(257)), Err(FieldError::TooLong));
        assert_eq!(EventType::parse("job_progress ü").unwrap().as_str(), "job_progress ü");
    }

    #[test]
    fn a_traceparent_of_a_future_version_is_passed_on_as_version_00() {
        const PARTS: &str = "-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let read = |text: String| traceparent(&text).map(String::from);
        let valid = Some(format!("00{PARTS}"));
        assert_eq!(read(format!("00{PARTS}")), valid);
        assert_eq!(read(format!("01{PARTS}")), valid);
        assert_eq!(read(format!("cc{PARTS}-what-may-come")), valid);
        for invalid in [
            format!("00{PARTS}-more"),
            format!("01{PARTS}.more"),
            format!("ff{PARTS}"),
            format!("0X{PARTS}"),
            format!("00{}", PARTS.to_uppercase()),
            format!("00{}", &PARTS[..52]),
            "00-00000000000000000000000000000000-b7ad6b7169203331-01".into(),
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01".into(),
            "00-0af7651916cd43dd8448eb211c80319c_b7ad6b7169203331-01".into(),
            "00-0af7651916cd43dd8448eb211c8031é-b7ad6b7169203331-01".into(),
            String::new(),
            "é".into(),
        ] {
            assert_eq!(read(invalid.clone()), None, "{invalid}");
        }
    }
}
