//! What a plain Redis `PUBLISH` carries, read into an [`Event`].
//!
//! An object with `data` or `event` is an envelope: `event`, `data`, `key` and `traceparent` are taken from it and
//! everything else in it is ignored. Any other payload is delivered as it stands, as the data of an unnamed event.
//!
//! An `id` in an envelope is ignored like every unknown member: the `id:` of a stream is a position in the history,
//! and a plain event has none. Passed on, it would overwrite the client's last position, and the next resume would
//! start from something that no history knows.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::channel::{ChannelName, JOBS};
use super::event::{self, Event, EventType, FieldError, Key};

/// What an envelope may need beside its data, in bytes: names, a type and a key of the greatest length with every
/// character escaped, a traceparent. A payload beyond the data limit and this is refused before it is parsed.
const OVERHEAD: usize = 4096;

/// Why no event could be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// More data than the limit.
    #[error("an event of {bytes} bytes; the limit is {max}")]
    TooLarge {
        /// What came.
        bytes: usize,
        /// What is allowed.
        max: usize,
    },
    /// Not UTF-8, which an event stream must be (WHATWG HTML, 9.2.5).
    #[error("not valid UTF-8")]
    Utf8,
    /// The event type cannot be one.
    #[error("`event` {0}")]
    Kind(FieldError),
    /// The key cannot be one.
    #[error("`key` {0}")]
    Key(FieldError),
    /// A member of the wrong JSON type.
    #[error("`{member}` must be {expected}")]
    Type {
        /// The member's name.
        member: &'static str,
        /// What it must be.
        expected: &'static str,
    },
}

/// Reads the payload of a plain `PUBLISH` on `channel`.
///
/// Missing `data` becomes `null`, which is what JSON calls nothing and what a client's `JSON.parse` takes. `event`,
/// `key` and `traceparent` that are `null` or empty count as missing, a number is taken as key in the form in which it was
/// written, and a broken `traceparent` is ignored. Where a name is given twice the last one counts.
///
/// # Errors
/// When the data is larger than `max_bytes`, the payload is not UTF-8, or `event` or `key` cannot be one.
pub fn parse_plain(payload: &[u8], channel: &ChannelName, max_bytes: usize) -> Result<Event, EnvelopeError> {
    check_size(payload.len().saturating_sub(OVERHEAD), max_bytes)?;
    let text = std::str::from_utf8(payload).map_err(|_| EnvelopeError::Utf8)?;
    let envelope = Members::parse(text).ok().filter(is_envelope);
    let event = match envelope {
        Some(members) => from_members(&members, channel)?,
        None => Event { key: implied_key(channel, text), ..Event::unnamed(text) },
    };
    check_size(event.data.len(), max_bytes)?;
    Ok(event)
}

fn is_envelope(members: &Members<'_>) -> bool {
    members.raw("data").is_some() || !matches!(members.raw("event"), None | Some("null" | "\"\""))
}

fn from_members(members: &Members<'_>, channel: &ChannelName) -> Result<Event, EnvelopeError> {
    let given = |text: &Cow<'_, str>| !text.is_empty();
    let kind = members.text("event")?.filter(given).map(|text| EventType::parse(&text)).transpose();
    let data = members.raw("data").unwrap_or("null");
    let key = members.text_or_number("key")?.filter(given).map(|text| Key::parse(&text)).transpose();
    Ok(Event {
        kind: kind.map_err(EnvelopeError::Kind)?,
        key: key.map_err(EnvelopeError::Key)?.or_else(|| implied_key(channel, data)),
        data: data.to_owned(),
        traceparent: members.text("traceparent").ok().flatten().as_deref().and_then(event::traceparent),
    })
}

/// An event's size is the size of its data, whatever way it came.
pub(super) fn check_size(bytes: usize, max: usize) -> Result<(), EnvelopeError> {
    if bytes > max { Err(EnvelopeError::TooLarge { bytes, max }) } else { Ok(()) }
}

/// The key of an event that came without one: on channel `jobs` it is `data.id`, a string or a number; elsewhere, and
/// when that cannot be a key, there is none.
pub(super) fn implied_key(channel: &ChannelName, data: &str) -> Option<Key> {
    if channel.as_str() != JOBS {
        return None;
    }
    let id = Members::parse(data).ok()?.text_or_number("id").ok()??;
    Key::parse(&id).ok()
}

/// The members of a JSON object in their order, the values as the text that they were written in.
pub(super) struct Members<'a>(pub(super) Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Members<'a> {
    /// Reads an object; anything else is an error.
    pub(super) fn parse(text: &'a str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// The last member of this name, as it was written.
    pub(super) fn raw(&self, name: &str) -> Option<&'a str> {
        self.0.iter().rev().find(|(found, _)| found == name).map(|(_, value)| value.get())
    }

    /// A string; `null` counts as missing.
    pub(super) fn text(&self, name: &'static str) -> Result<Option<Cow<'a, str>>, EnvelopeError> {
        let wrong = EnvelopeError::Type { member: name, expected: "a string" };
        match self.raw(name) {
            None | Some("null") => Ok(None),
            Some(raw) => string(raw).map(Some).ok_or(wrong),
        }
    }

    /// The same, or a number as it was written.
    pub(super) fn text_or_number(&self, name: &'static str) -> Result<Option<Cow<'a, str>>, EnvelopeError> {
        match self.raw(name) {
            Some(raw) if raw.starts_with(|c: char| c == '-' || c.is_ascii_digit()) => Ok(Some(raw.into())),
            _ => self
                .text(name)
                .map_err(|_| EnvelopeError::Type { member: name, expected: "a string or a number" }),
        }
    }
}

/// The value of a JSON string, borrowed where nothing in it is escaped.
fn string(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') { serde_json::from_str(raw).ok().map(Cow::Owned) } else { Some(inner.into()) }
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor).map(Self)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some((name, value)) = map.next_entry::<Name<'de>, &RawValue>()? {
            members.push((name.0, value));
        }
        Ok(members)
    }
}

/// A member's name, borrowed where nothing in it is escaped (`Cow` alone is always owned under serde).
struct Name<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameVisitor;
        impl<'de> Visitor<'de> for NameVisitor {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Borrowed(name)))
            }

            fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Owned(name.to_owned())))
            }
        }
        deserializer.deserialize_str(NameVisitor)
    }
}
