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
