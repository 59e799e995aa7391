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

/// The member `name` of an event's data: none when the data is not an object, or when it is no string.
pub fn text_member<'a>(data: &'a str, name: &'static str) -> Option<Cow<'a, str>> {
    Members::parse(data).ok()?.text(name).ok()?
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAX: usize = 1000;
    const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn parse_on(channel: &str, payload: &str) -> Result<Event, EnvelopeError> {
        parse_plain(payload.as_bytes(), &ChannelName::parse(channel).unwrap(), MAX)
    }

    fn parse(payload: &str) -> Result<Event, EnvelopeError> {
        parse_on("news", payload)
    }

    fn key_on(channel: &str, payload: &str) -> Option<String> {
        parse_on(channel, payload).unwrap().key.map(|key| key.to_string())
    }

    #[test]
    fn every_member_of_an_envelope_is_taken_and_the_rest_ignored() {
        let event = parse(&format!(
            r#" {{"v":2,"event":"job\u005fdone","data":{{"id":"42"}},"key":"k","id":"7","traceparent":"{TRACE}"}} "#
        ));
        let expected = Event {
            kind: Some(EventType::parse("job_done").unwrap()),
            key: Some(Key::parse("k").unwrap()),
            data: r#"{"id":"42"}"#.into(),
            traceparent: Some(TRACE.into()),
        };
        assert_eq!(event, Ok(expected));
    }

    #[test]
    fn json_data_passes_through_as_it_was_written() {
        for data in [
            "1.0",
            "1e400",
            "-0",
            r#""text""#,
            r#"{ "b":1,"a":1,"a":2 }"#,
            r#""\u00e9\/\ud800""#,
            "[1,\r\n 2]",
            "null",
        ] {
            assert_eq!(parse(&format!("{{\"data\": {data} }}")).unwrap(), Event::unnamed(data));
        }
    }

    #[test]
    fn an_envelope_without_data_carries_null() {
        let event = parse(r#"{"event":"tick"}"#).unwrap();
        assert_eq!((event.kind.unwrap().as_str(), event.data.as_str()), ("tick", "null"));
    }

    #[test]
    fn what_is_no_envelope_is_delivered_as_it_stands() {
        for payload in [
            "",
            "hello\r\nworld\0",
            "42",
            "\"data\"",
            "null",
            r#"["event","data"]"#,
            r#"[{"data":1}]"#,
            "{}",
            r#"{"status":"ok"}"#,
            r#"{"event":null}"#,
            r#"{"event":""}"#,
            r#"{"event":"cut","data":{"id":"#,
            r#"{"data":1} trailing"#,
            "\u{feff}{\"data\":1}",
        ] {
            assert_eq!(parse(payload), Ok(Event::unnamed(payload)), "{payload:?}");
        }
    }

    #[test]
    fn null_and_empty_members_count_as_missing_and_the_last_of_a_name_counts() {
        assert_eq!(
            parse(r#"{"event":null,"key":null,"traceparent":null,"data":1}"#),
            Ok(Event::unnamed("1"))
        );
        assert_eq!(parse(r#"{"event":"","key":"","data":1}"#), Ok(Event::unnamed("1")));
        assert_eq!(parse(r#"{"data":1,"data":2}"#), Ok(Event::unnamed("2")));
    }

    #[test]
    fn types_and_keys_that_cannot_be_one_are_refused() {
        use EnvelopeError as E;
        let long = "k".repeat(event::MAX_FIELD_LEN + 1);
        for (value, why) in [
            (r#""a\nb""#.to_owned(), FieldError::ControlCharacter),
            (r#""a\rb""#.into(), FieldError::ControlCharacter),
            (r#""\u0000""#.into(), FieldError::ControlCharacter),
            (format!("\"{long}\""), FieldError::TooLong),
        ] {
            assert_eq!(parse(&format!("{{\"event\":{value}}}")), Err(E::Kind(why)));
            assert_eq!(parse(&format!("{{\"data\":1,\"key\":{value}}}")), Err(E::Key(why)));
        }
        for value in ["true", "{}", "[]", r#""\ud800""#] {
            let wrong = |member, expected| Err(E::Type { member, expected });
            assert_eq!(parse(&format!("{{\"event\":{value}}}")), wrong("event", "a string"));
            assert_eq!(
                parse(&format!("{{\"data\":1,\"key\":{value}}}")),
                wrong("key", "a string or a number")
            );
        }
        assert!(matches!(parse(r#"{"event":1}"#), Err(E::Type { member: "event", .. })));
    }

    #[test]
    fn a_number_is_a_key_in_the_form_in_which_it_was_written() {
        for number in ["42", "-1", "4.20", "1E3", "12345678901234567890"] {
            assert_eq!(key_on("news", &format!("{{\"data\":1,\"key\":{number}}}")).as_deref(), Some(number));
        }
    }

    #[test]
    fn on_jobs_the_id_in_the_data_is_the_key_where_none_is_given() {
        let key = |payload| key_on("jobs", payload);
        assert_eq!(key(r#"{"data":{"id":"a\u0062"}}"#).as_deref(), Some("ab"));
        assert_eq!(key(r#"{"data":{"status":"x","id":42}}"#).as_deref(), Some("42"));
        assert_eq!(key(r#"{"data":{"id":"42"},"key":"k"}"#).as_deref(), Some("k"));
        assert_eq!(key(r#"{"id":"42","status":"completed"}"#).as_deref(), Some("42"), "as it stands");
        for without in [
            r#"{"data":{"id":{}}}"#,
            r#"{"data":{"id":"a\nb"}}"#,
            r#"{"data":["id"]}"#,
            r#"{"event":"x"}"#,
            "x",
        ] {
            assert_eq!(key(without), None, "{without}");
        }
        assert_eq!(key_on("news", r#"{"data":{"id":"42"}}"#), None);
    }

    #[test]
    fn a_broken_traceparent_is_ignored_never_passed_on() {
        for trace in [r#""x""#, "1", r#""00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\nid: 1""#]
        {
            let event = parse(&format!("{{\"data\":1,\"traceparent\":{trace}}}")).unwrap();
            assert_eq!(event, Event::unnamed("1"));
        }
    }

    #[test]
    fn the_limit_is_on_the_data_whatever_stands_around_it() {
        let data = format!("\"{}\"", "x".repeat(MAX - 2));
        let envelope = |data: &str| format!("{{\"event\":\"{}\",\"data\":{data}}}", "e".repeat(256));
        assert_eq!(parse(&envelope(&data)).unwrap().data, data);
        assert_eq!(parse(&data).unwrap().data, data);
        let over = Err(EnvelopeError::TooLarge { bytes: MAX + 1, max: MAX });
        assert_eq!(parse(&envelope(&format!("{data} ").replace("\" ", "x\""))), over);
        assert_eq!(parse(&"x".repeat(MAX + 1)), over);
        let ballast = format!("{{\"data\":1,\"more\":\"{}\"}}", "x".repeat(MAX + OVERHEAD));
        assert!(
            matches!(parse(&ballast), Err(EnvelopeError::TooLarge { .. })),
            "refused before it is parsed"
        );
    }

    #[test]
    fn bytes_that_are_not_utf8_are_refused() {
        let channel = ChannelName::parse("news").unwrap();
        for payload in [&b"\xff"[..], b"{\"data\":\"\xc3\"}", b"\xed\xa0\x80"] {
            assert_eq!(parse_plain(payload, &channel, MAX), Err(EnvelopeError::Utf8));
        }
    }

    #[test]
    fn depth_does_not_overflow_the_stack() {
        let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
        let channel = ChannelName::parse("jobs").unwrap();
        for payload in
            [format!("{{\"data\":{deep}}}"), format!("{{\"data\":{{\"id\":{deep}}}}}"), deep.clone()]
        {
            assert!(parse_plain(payload.as_bytes(), &channel, 1 << 20).is_ok());
        }
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        use serde_json::Value;
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        let name = prop_oneof![
            prop::sample::select(&["event", "data", "key", "id", "traceparent"][..]).prop_map(str::to_owned),
            any::<String>(),
        ];
        leaf.prop_recursive(4, 32, 6, move |inner| {
            let object = prop::collection::hash_map(name.clone(), inner.clone(), 0..6);
            let object = object.prop_map(|members| Value::Object(members.into_iter().collect()));
            prop_oneof![prop::collection::vec(inner, 0..6).prop_map(Value::from), object]
        })
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_event_or_a_refusal(payload in prop::collection::vec(any::<u8>(), 0..200), jobs: bool) {
            let channel = ChannelName::parse(if jobs { "jobs" } else { "news" }).unwrap();
            let event = parse_plain(&payload, &channel, MAX);
            prop_assert_eq!(event.is_err(), std::str::from_utf8(&payload).is_err());
        }

        #[test]
        fn any_json_in_an_envelope_arrives_as_it_was_written(value in json(), pretty: bool) {
            let data = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
            let channel = ChannelName::parse("jobs").unwrap();
            let event = parse_plain(format!("{{\"data\":{data}}}").as_bytes(), &channel, 1 << 20).unwrap();
            prop_assert_eq!(event.data, data);
        }

        /// Against the obvious way of reading an envelope, by a whole JSON tree.
        #[test]
        fn any_json_as_payload_is_read_as_its_tree_says(value in json()) {
            let payload = serde_json::to_string(&value).unwrap();
            let event = parse_plain(payload.as_bytes(), &ChannelName::parse("news").unwrap(), 1 << 20);
            let kind = value.get("event").filter(|kind| !kind.is_null() && *kind != "");
            match (value.get("data"), kind) {
                (None, None) => prop_assert_eq!(event, Ok(Event::unnamed(payload))),
                (data, kind) => if let Ok(event) = event {
                    prop_assert_eq!(&event.data, &data.map_or("null".into(), ToString::to_string));
                    prop_assert_eq!(event.kind.as_ref().map(EventType::as_str), kind.and_then(|kind| kind.as_str()));
                },
            }
        }
    }
}
