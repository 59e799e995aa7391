//! The stream routes: from a request to a stream's answer.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, Path, Query, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version, header};
use axum::response::{IntoResponse, Response};

use super::State as Shared;
use super::detach::Handover;
use super::error::ApiError;
use crate::node::{Client, SubscribeRequest};
use crate::protocol::channel::{self, ChannelList, ChannelName};
use crate::protocol::event::Key;
use crate::protocol::sse::Framing;

/// Channels that one stream may name.
const MAX_CHANNELS: usize = 128;

const CONNECTION_ID: HeaderName = HeaderName::from_static("x-sse-connection-id");
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// What a stream route needs of its request.
pub(super) struct StreamCall {
    handover: Handover,
    /// The query's members in their order; one may stand there more than once.
    members: Vec<(String, String)>,
    version: Version,
    headers: HeaderMap,
    client: Client,
}

impl<S: Send + Sync> FromRequestParts<S> for StreamCall {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let unreadable = |_| ApiError::bad_request("The query cannot be read");
        let Query(members) = Query::from_request_parts(parts, state).await.map_err(unreadable)?;
        // Both are put there for every request of a stream route; without them there is no socket to stream to.
        let handover = parts.extensions.get::<Handover>().cloned();
        let client = parts.extensions.get::<Client>().cloned();
        let (Some(handover), Some(client)) = (handover, client) else {
            return Err(ApiError::bad_request("This connection cannot become a stream"));
        };
        Ok(Self { handover, members, version: parts.version, headers: parts.headers.clone(), client })
    }
}

/// `GET /api/sse/stream`: the channels of the query, or all.
pub(super) async fn multiplexed(
    State(state): State<Arc<Shared>>,
    call: StreamCall,
) -> Result<Response, ApiError> {
    let channels = channels(&call.members)?;
    open(&state, call, channels, true, None).await
}

/// `GET /api/jobs/stream`: the channel `jobs`; its first block is an unnamed event.
pub(super) async fn jobs(State(state): State<Arc<Shared>>, call: StreamCall) -> Result<Response, ApiError> {
    open(&state, call, ChannelName::jobs().into(), false, None).await
}

/// `GET /api/jobs/{id}/stream`: one job, from where it stands to its end. Who has had the end is answered 204, which is
/// what makes an `EventSource` stop (WHATWG HTML, 9.2.3).
pub(super) async fn job(
    State(state): State<Arc<Shared>>,
    id: Result<Path<String>, PathRejection>,
    call: StreamCall,
) -> Result<Response, ApiError> {
    let id = super::jobs::job_id(id)?;
    let position = last_event_id(&call.members, &call.headers);
    if let Some(position) = &position
        && state.node.has_seen_the_end(&id, position).await
    {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    open(&state, call, ChannelName::jobs().into(), false, Some(id)).await
}

/// `HEAD` of a stream: what `GET` would answer, without a stream and without a slot.
pub(super) async fn head() -> Response {
    with_stream_headers(Body::empty())
}

async fn open(
    state: &Shared,
    call: StreamCall,
    channels: ChannelList,
    named_hello: bool,
    job: Option<Key>,
) -> Result<Response, ApiError> {
    if !accepts_event_stream(&call.headers) {
        return Err(ApiError::not_acceptable());
    }
    let last_event_id = last_event_id(&call.members, &call.headers);
    let request = SubscribeRequest { client: call.client, channels, named_hello, last_event_id, job };
    let attachment = state.node.subscribe(request).await?;
    let id = HeaderValue::from_str(&attachment.id.to_string()).ok();
    let framing = if call.version == Version::HTTP_11 { Framing::Chunked } else { Framing::Bare };
    let mut response = with_stream_headers(call.handover.body(attachment, framing));
    if let Some(id) = id {
        response.headers_mut().insert(CONNECTION_ID, id);
    }
    Ok(response)
}

pub(super) fn with_stream_headers(body: Body) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-cache, no-transform"),
        (ACCEL_BUFFERING, "no"),
    ];
    (headers, body).into_response()
}

/// The channels of `channels=a,b`; without such a member, all.
fn channels(members: &[(String, String)]) -> Result<ChannelList, ApiError> {
    let lists = members.iter().filter(|(name, _)| name == "channels").map(|(_, list)| list.as_str());
    let names: Vec<&str> = lists.flat_map(|list| list.split(',')).map(str::trim).collect();
    if names.len() > MAX_CHANNELS {
        let message = format!("{} channels; a stream carries at most {MAX_CHANNELS}", names.len());
        return Err(ApiError::bad_channel(message));
    }
    if matches!(names[..], [] | [""]) {
        return Ok(ChannelList { all: true, names: Vec::new() });
    }
    let parse = |name: &&str| {
        ChannelName::parse(name)
            .map_err(|error| ApiError::bad_channel(format!("{:?}: {error}", shortened(name))))
    };
    let all = names.contains(&channel::ALL);
    let names = names.iter().filter(|name| **name != channel::ALL).map(parse).collect::<Result<_, _>>()?;
    Ok(ChannelList { all, names })
}

/// Where the client got to. The header, which a browser sends when it reconnects, wins over the query, which is part of
/// the page's URL and stays as old as the page. An empty one is none (WHATWG HTML, 9.2.3).
fn last_event_id(members: &[(String, String)], headers: &HeaderMap) -> Option<String> {
    let header =
        headers.get("last-event-id").map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let query = || members.iter().find(|(name, _)| name == "lastEventId").map(|(_, id)| id.clone());
    header.or_else(query).filter(|id| !id.is_empty())
}

/// Enough of a wrong name to find it by.
fn shortened(name: &str) -> String {
    name.chars().take(64).collect()
}

/// Whether the Accept header, where there is one, has room for an event stream (RFC 9110, section 12.5.1).
fn accepts_event_stream(headers: &HeaderMap) -> bool {
    let mut ranges = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .peekable();
    let fits = |range: &str| {
        let media = range.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        matches!(media.as_str(), "" | "*/*" | "text/*" | "text/event-stream")
    };
    ranges.peek().is_none() || ranges.any(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(list: &str) -> Result<ChannelList, ApiError> {
        channels(&[("channels".to_owned(), list.to_owned())])
    }

    fn all() -> Result<ChannelList, ApiError> {
        Ok(ChannelList { all: true, names: vec![] })
    }

    #[test]
    fn all_and_nothing_mean_every_configured_channel() {
        for list in ["all", ""] {
            assert_eq!(parse(list), all());
        }
        assert_eq!(channels(&[]), all());
    }

    #[test]
    fn a_wrong_name_refuses_the_whole_list_and_is_named() {
        assert_eq!(parse("jobs,pending-changes").unwrap().names.len(), 2);
        let both = parse("all,x").unwrap();
        assert!(both.all && both.names == [ChannelName::parse("x").unwrap()]);
        for list in ["jobs,", "a b", "jobs,,x", "é"] {
            assert!(parse(list).is_err(), "{list}");
        }
        assert!(parse(&vec!["c"; 128].join(",")).is_ok());
        assert!(parse(&vec!["c"; 129].join(",")).is_err());
    }

    #[test]
    fn only_an_accept_header_that_excludes_streams_is_refused() {
        let with = |accept: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
            accepts_event_stream(&headers)
        };
        assert!(accepts_event_stream(&HeaderMap::new()));
        for accept in
            ["text/event-stream", "*/*", "text/html, text/*;q=0.5", "TEXT/EVENT-STREAM; charset=utf-8"]
        {
            assert!(with(accept), "{accept}");
        }
        assert!(!with("application/json"));
    }
}
