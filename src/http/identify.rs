//! Who asks to read: the client's address, its session, and what its token allows. Whether it comes in is decided in the
//! node.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::State as Shared;
use super::credentials::Credentials;
use super::error::ApiError;
use super::query;
use crate::node::Client;
use crate::protocol::channel::ChannelPattern;
use crate::protocol::session::SessionToken;

const SESSION_TOKEN: &str = "x-session-token";
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Puts the [`Client`] that reads into the request's extensions, or refuses.
pub(super) async fn identify(
    State(state): State<Arc<Shared>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    let client = admitted(&state, peer, &request, client);
    go_on(client, request, next).await
}

/// Like [`identify`] for a stream of an administrator, who reads every channel: whoever may publish on it and close its
/// streams is not kept out by not hearing it.
pub(super) async fn identify_operator(
    State(state): State<Arc<Shared>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    let client = admitted(&state, peer, &request, operator);
    go_on(client, request, next).await
}

/// Who asks, in the words of `who`, unless this address asks too often.
fn admitted(
    state: &Shared,
    peer: SocketAddr,
    request: &Request,
    who: fn(&Shared, IpAddr, &HeaderMap, &Uri) -> Result<Client, ApiError>,
) -> Result<Client, ApiError> {
    let ip = address(state, peer, request.headers());
    // Before the token is looked at: checking a signature is work, and so is everything after it.
    state.node.check_rate(ip)?;
    who(state, ip, request.headers(), request.uri())
}

async fn go_on(client: Result<Client, ApiError>, mut request: Request, next: Next) -> Response {
    match client {
        Ok(client) => {
            request.extensions_mut().insert(client);
            next.run(request).await
        }
        Err(refusal) => refusal.into_response(),
    }
}

fn operator(state: &Shared, ip: IpAddr, headers: &HeaderMap, uri: &Uri) -> Result<Client, ApiError> {
    let given = Credentials::of(headers, uri, &state.allowed_origins)?;
    let expires_at = state.recognition.holder(&given)?.may_administer()?;
    let reads = vec![ChannelPattern::Family("".into())];
    Ok(Client { ip, session: session(headers, uri)?, user_agent: agent(headers), reads, expires_at })
}

fn client(state: &Shared, ip: IpAddr, headers: &HeaderMap, uri: &Uri) -> Result<Client, ApiError> {
    let given = Credentials::of(headers, uri, &state.allowed_origins)?;
    let grants = state.recognition.reader(&given)?;
    let expires_at = grants.as_ref().map(|grants| grants.expires_at);
    Ok(Client {
        ip,
        session: session(headers, uri)?,
        user_agent: agent(headers),
        reads: grants.map(|grants| grants.read).unwrap_or_default(),
        expires_at,
    })
}

fn agent(headers: &HeaderMap) -> Option<String> {
    let agent = headers.get(header::USER_AGENT);
    agent.map(|agent| String::from_utf8_lossy(agent.as_bytes()).into_owned())
}

/// The address behind the trusted proxies, as far as these are to be believed.
fn address(state: &Shared, peer: SocketAddr, headers: &HeaderMap) -> IpAddr {
    let lines = |name: HeaderName| headers.get_all(name).into_iter().map(HeaderValue::as_bytes);
    state.trusted_proxies.client(peer.ip(), lines(header::FORWARDED), lines(X_FORWARDED_FOR))
}

/// The session of the header, which wins, or of the query.
fn session(headers: &HeaderMap, uri: &Uri) -> Result<Option<SessionToken>, ApiError> {
    let header =
        headers.get(SESSION_TOKEN).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let given = header.map_or_else(|| query::member(uri, "session"), |header| Ok(Some(header)))?;
    let parse = |text: String| SessionToken::parse(&text);
    given.map(parse).transpose().map_err(|error| ApiError::bad_request(format!("The session: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session_of(header: Option<&'static str>, uri: &'static str) -> Result<Option<String>, ApiError> {
        let mut headers = HeaderMap::new();
        header.map(|value| headers.insert(SESSION_TOKEN, value.parse().unwrap()));
        session(&headers, &Uri::from_static(uri)).map(|token| token.map(|token| token.to_string()))
    }

    #[test]
    fn the_header_wins_over_the_query() {
        assert_eq!(session_of(None, "/stream"), Ok(None));
        assert_eq!(session_of(None, "/stream?session=a"), Ok(Some("a".to_owned())));
        assert_eq!(session_of(Some("b"), "/stream?session=a"), Ok(Some("b".to_owned())));
    }

    #[test]
    fn what_is_no_session_token_is_refused_and_not_ignored() {
        for (header, uri) in [
            (None, "/?session="),
            (None, "/?session=a%0Ab"),
            (None, "/?session=a&session=b"),
            (Some(""), "/"),
            (Some("é"), "/"),
            (Some("a b"), "/?session=a"),
        ] {
            assert!(session_of(header, uri).is_err(), "{header:?} {uri}");
        }
    }
}
