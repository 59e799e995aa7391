//! The body of `POST /api/events`: one event or an array of them.
//!
//! Strict where the plain envelope is lenient, because here somebody reads the answer: an unknown member is refused by
//! its name (a misspelt `idempotencyKey` would otherwise publish twice), and every error says which event it means.

use std::fmt;

use serde_json::value::RawValue;

use super::channel::{ChannelName, ChannelNameError};
use super::envelope::{self, EnvelopeError, Members};
use super::event::{self, Event, EventType, FieldError, Key};

/// The most events in one request.
pub const MAX_EVENTS: usize = 1000;

/// The members of an event, for messages.
const MEMBERS: [&str; 5] = ["channel", "event", "data", "key", "idempotencyKey"];

/// What a request body asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublishRequest {
    /// An object, answered with one `id`.
    One(PublishEvent),
    /// An array, answered with `ids` in its order; may be empty.
    Many(Vec<PublishEvent>),
}

/// One event of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishEvent {
    /// Where it is published.
    pub channel: ChannelName,
    /// What is published; it has no `traceparent` yet, which comes with the request's headers.
    pub event: Event,
    /// A repeated key publishes nothing; checked as a [`Key`] is.
    pub idempotency_key: Option<Box<str>>,
}

/// Why a request body is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestError {
    /// Which event of an array, counted from 0; `None` for the body as a whole or a single event.
    pub index: Option<usize>,
    /// What is wrong.
    pub problem: Problem,
}

/// What is wrong with a request body or an event in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Not JSON, with the parser's words (which hold a place, and nothing of the body).
    #[error("not valid JSON: {0}")]
    Json(String),
    /// JSON, but not an object.
    #[error("must be an object")]
    NotAnObject,
    /// More events than [`MAX_EVENTS`].
    #[error("{0} events in one request; at most {MAX_EVENTS} are allowed")]
    TooMany(usize),
    /// A member that no event has.
    #[error("unknown member {name:?}; allowed are {}", MEMBERS.join(", "))]
    Unknown {
        /// Its name, cut after 64 characters.
        name: String,
    },
    /// A member that stands there twice.
    #[error("`{0}` is given twice")]
    Twice(&'static str),
    /// A member that must be there.
    #[error("`{0}` is missing")]
    Missing(&'static str),
    /// A channel name that is none.
    #[error("`channel`: {0}")]
    Channel(ChannelNameError),
    /// An idempotency key that cannot be one.
    #[error("`idempotencyKey` {0}")]
    IdempotencyKey(FieldError),
    /// Something that is wrong with plain envelopes too: a type, a key, a size.
    #[error(transparent)]
    Event(#[from] EnvelopeError),
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.index {
            Some(index) => write!(f, "event {index}: {}", self.problem),
            None => self.problem.fmt(f),
        }
    }
}

impl std::error::Error for RequestError {}

impl PublishRequest {
    /// Reads a body. An event's size is that of its data; `max_bytes` bounds each of them.
    ///
    /// # Errors
    /// When anything is wrong with any event: all of the request is refused then.
    pub fn parse(body: &[u8], max_bytes: usize) -> Result<Self, RequestError> {
        let whole = |problem| RequestError { index: None, problem };
        let text = std::str::from_utf8(body).map_err(|_| whole(EnvelopeError::Utf8.into()))?;
        if !text.trim_start().starts_with('[') {
            return PublishEvent::parse(text, max_bytes).map(Self::One).map_err(whole);
        }
        let items: Vec<&RawValue> =
            serde_json::from_str(text).map_err(|e| whole(Problem::Json(e.to_string())))?;
        if items.len() > MAX_EVENTS {
            return Err(whole(Problem::TooMany(items.len())));
        }
        let one = |(index, item): (usize, &&RawValue)| {
            PublishEvent::parse(item.get(), max_bytes)
                .map_err(|problem| RequestError { index: Some(index), problem })
        };
        items.iter().enumerate().map(one).collect::<Result<_, _>>().map(Self::Many)
    }
}

impl PublishEvent {
    fn parse(text: &str, max_bytes: usize) -> Result<Self, Problem> {
        let members = members(text)?;
        let channel = members.text("channel")?.ok_or(Problem::Missing("channel"))?;
        let channel = ChannelName::parse(&channel).map_err(Problem::Channel)?;
        let data = members.raw("data").ok_or(Problem::Missing("data"))?;
        envelope::check_size(data.len(), max_bytes)?;
        let kind = members.text("event")?.map(|text| EventType::parse(&text)).transpose();
        let key = members.text_or_number("key")?.map(|text| Key::parse(&text)).transpose();
        let key = key.map_err(EnvelopeError::Key)?.or_else(|| envelope::implied_key(&channel, data));
        let kind = kind.map_err(EnvelopeError::Kind)?;
        let idempotency_key = members.text("idempotencyKey")?.map(idempotency_key).transpose()?;
        let event = Event { kind, key, data: data.to_owned(), traceparent: None };
        Ok(Self { channel, event, idempotency_key })
    }
}

fn idempotency_key(text: std::borrow::Cow<'_, str>) -> Result<Box<str>, Problem> {
    event::check(&text).map_err(Problem::IdempotencyKey)?;
    Ok(text.into())
}

/// The members of an object, each of them known and there once.
fn members(text: &str) -> Result<Members<'_>, Problem> {
    let members = Members::parse(text).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => Problem::NotAnObject,
        _ => Problem::Json(error.to_string()),
    })?;
    let mut seen = [false; MEMBERS.len()];
    for (name, _) in &members.0 {
        let Some(at) = MEMBERS.iter().position(|known| known == name) else {
            return Err(Problem::Unknown { name: name.chars().take(64).collect() });
        };
        if std::mem::replace(&mut seen[at], true) {
            return Err(Problem::Twice(MEMBERS[at]));
        }
    }
    Ok(members)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn refusal(body: &str) -> String {
        PublishRequest::parse(body.as_bytes(), 100).unwrap_err().to_string()
    }

    fn one(body: &str) -> PublishEvent {
        match PublishRequest::parse(body.as_bytes(), 100).unwrap() {
            PublishRequest::One(event) => event,
            PublishRequest::Many(_) => panic!("an array"),
        }
    }

    #[test]
    fn an_object_is_one_event_with_every_member() {
        let event = one(
            r#" {"channel":"jobs","event":"job_completed","data":{"id": "42"},"key":7,"idempotencyKey":"once"} "#,
        );
        let expected = PublishEvent {
            channel: ChannelName::parse("jobs").unwrap(),
            event: Event {
                kind: Some(EventType::parse("job_completed").unwrap()),
                key: Some(Key::parse("7").unwrap()),
                data: r#"{"id": "42"}"#.into(),
                traceparent: None,
            },
            idempotency_key: Some("once".into()),
        };
        assert_eq!(event, expected);
    }

    #[test]
    fn only_channel_and_data_must_be_there_and_a_job_is_known_by_its_id() {
        let event =
            one(r#"{"channel":"jobs","data":{"id":42},"event":null,"key":null,"idempotencyKey":null}"#);
        assert_eq!((event.event.kind, event.idempotency_key), (None, None));
        assert_eq!(event.event.key.unwrap().as_str(), "42");
        assert_eq!(one(r#"{"channel":"x","data":null}"#).event, Event::unnamed("null"));
    }

    #[test]
    fn an_array_keeps_its_order_and_may_be_empty() {
        let body = r#"[{"channel":"a","data":1}, {"channel":"b","data":2}]"#;
        let Ok(PublishRequest::Many(events)) = PublishRequest::parse(body.as_bytes(), 100) else { panic!() };
        assert_eq!(events.iter().map(|e| e.channel.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(PublishRequest::parse(b" [] ", 100), Ok(PublishRequest::Many(Vec::new())));
    }

    #[test]
    fn every_refusal_names_the_member_and_what_is_wrong_with_it() {
        for (body, says) in [
            ("", "not valid JSON: EOF while parsing a value at line 1 column 0"),
            ("{", "not valid JSON: EOF while parsing an object at line 1 column 1"),
            ("{\"channel\":\"a\",\"data\":1}x", "not valid JSON: trailing characters at line 1 column 25"),
            ("[{},", "not valid JSON: EOF while parsing a value at line 1 column 4"),
            ("7", "must be an object"),
            ("{}", "`channel` is missing"),
            (r#"{"channel":null,"data":1}"#, "`channel` is missing"),
            (r#"{"channel":"a"}"#, "`data` is missing"),
            (r#"{"channel":7,"data":1}"#, "`channel` must be a string"),
            (
                r#"{"channel":"a b","data":1}"#,
                "`channel`: a channel name has only the characters A-Z a-z 0-9 . _ : / -",
            ),
            (
                r#"{"channel":"all","data":1}"#,
                "`channel`: `all` stands for every channel and is not a channel",
            ),
            (r#"{"channel":"a","data":1,"event":"a\nb"}"#, "`event` must not contain CR, LF or NUL"),
            (r#"{"channel":"a","data":1,"event":""}"#, "`event` must not be empty"),
            (r#"{"channel":"a","data":1,"event":{}}"#, "`event` must be a string"),
            (r#"{"channel":"a","data":1,"key":""}"#, "`key` must not be empty"),
            (r#"{"channel":"a","data":1,"key":[]}"#, "`key` must be a string or a number"),
            (r#"{"channel":"a","data":1,"idempotencyKey":""}"#, "`idempotencyKey` must not be empty"),
            (r#"{"channel":"a","data":1,"idempotencyKey":7}"#, "`idempotencyKey` must be a string"),
            (
                r#"{"channel":"a","data":1,"idempotencyKey":"\u0000"}"#,
                "`idempotencyKey` must not contain CR, LF or NUL",
            ),
            (r#"{"channel":"a","data":1,"data":2}"#, "`data` is given twice"),
            (
                "{\"channel\":\"a\",\"idempotency_key\\n\":1}",
                "unknown member \"idempotency_key\\n\"; allowed are channel, event, data, key, idempotencyKey",
            ),
            (r#"[{"channel":"a","data":1},{"channel":"a"}]"#, "event 1: `data` is missing"),
            (r#"[[]]"#, "event 0: must be an object"),
        ] {
            assert_eq!(refusal(body), says, "{body}");
        }
    }

    #[test]
    fn a_stranger_cannot_make_a_refusal_long() {
        let body = format!(r#"{{"{}":1}}"#, "x".repeat(100_000));
        assert!(refusal(&body).len() < 200);
    }

    #[test]
    fn an_event_beyond_the_limit_is_told_apart_so_that_it_can_be_answered_413() {
        let body = format!(r#"[{{"channel":"a","data":1}},{{"channel":"a","data":"{}"}}]"#, "x".repeat(99));
        let error = PublishRequest::parse(body.as_bytes(), 100).unwrap_err();
        let problem = Problem::Event(EnvelopeError::TooLarge { bytes: 101, max: 100 });
        assert_eq!(error, RequestError { index: Some(1), problem });
    }

    #[test]
    fn a_thousand_events_are_taken_and_one_more_refused() {
        let body = |n: usize| format!("[{}]", vec![r#"{"channel":"a","data":1}"#; n].join(","));
        assert!(PublishRequest::parse(body(1000).as_bytes(), 100).is_ok());
        assert_eq!(refusal(&body(1001)), "1001 events in one request; at most 1000 are allowed");
    }

    #[test]
    fn a_body_that_is_not_utf8_is_refused() {
        let error = PublishRequest::parse(b"{\"channel\":\"a\",\"data\":\"\xff\"}", 100).unwrap_err();
        assert_eq!(error.to_string(), "not valid UTF-8");
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_request_or_a_refusal(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = PublishRequest::parse(&body, 100);
        }

        #[test]
        fn no_refusal_is_longer_than_a_line_of_log(name in any::<String>(), value in any::<String>()) {
            let body = serde_json::json!({ "channel": value, name: value }).to_string();
            if let Err(error) = PublishRequest::parse(body.as_bytes(), 100) {
                let text = error.to_string();
                prop_assert!(text.len() < 1000 && !text.contains(['\r', '\n']), "{text}");
            }
        }
    }
}
